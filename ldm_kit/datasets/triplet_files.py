"""Read odd-one-out choices from the files that people keep them in."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ldm_kit.datasets.choice_files import holds_choices, read_choices
from ldm_kit.datasets.text_tables import Layout, layout_of, read_frame, whole_numbers
from ldm_kit.datasets.triplets import Triplets, checked_indices
from ldm_kit.errors import BadInputError, nearest_first, unknown_name

if TYPE_CHECKING:
    import pandas as pd

IMAGES = ["image1", "image2", "image3"]
RELEASED = [*IMAGES, "choice"]  # the columns of THINGS-data's own file
EXPECTED = (
    "A file of triplets has three columns, the odd one out last (0-based indices or names; text or .npy), or "
    "the columns image1, image2, image3 (1-based) and choice (1 to 3, the odd one) as THINGS-data has them."
)


def read_triplets(
    path: str | os.PathLike[str],
    names: Sequence[str],
    *,
    judgements: str = "human",
    dataset: str = "",
) -> Triplets:
    """Read triplets from a file.

    Parameters
    ----------
    path : path-like
        One of four formats, told apart by what is in the file:

        - text of three columns (spaces, tabs, commas or semicolons) without a header: 0-based indices, or
          names; the third is the odd one out;
        - ``.npy``, an integer array (t, 3), the same;
        - text with a header that has the columns ``image1``, ``image2``, ``image3`` (1-based), ``choice``
          (1 to 3: which of the three is the odd one) and perhaps ``subject_id``, as THINGS-data
          releases its 4.7 million choices;
        - a player's file of the odd-one-out game, or a folder of them, as `read_choices` reads it. It names
          the stimuli and says itself who chose.
    names : sequence of str
        What the indices stand for, in order: the 1,854 concepts for THINGS.
    judgements : {"human", "human model", "simulated"}
        Who chose.
    dataset : str
        Where the stimuli come from, for the tables.

    Returns
    -------
    Triplets
        Indices into `names`, int64, shape (t, 3), column 2 the odd one out, rows in the file's order.

    Raises
    ------
    BadInputError
        If the file is missing or empty, has other columns, numbers that are not whole, indices outside
        `names` (with a word on 1-based files), or an item twice in a row.
    UnknownNameError
        If the file holds names and one of them is not in `names`.

    Notes
    -----
    That a file of three columns counts from 1 is noticed only if the last item of `names` was judged.

    Examples
    --------
    >>> read_triplets("human_triplets_50k.txt", concepts)  # doctest: +SKIP
    Triplets(50,000 human choices over 1,854 stimuli)
    """
    path, names = Path(path), tuple(names)
    if holds_choices(path):
        return read_choices(path, names, dataset=dataset or None)
    subjects: npt.NDArray[np.int64] | None = None
    if path.suffix == ".npy":
        indices = _read_npy(path)
    else:
        layout = layout_of(path, EXPECTED)
        if set(RELEASED) <= set(layout.cells):
            indices, subjects = _read_released(path, layout)
        elif len(layout.cells) == 3:
            indices = _read_three(path, layout, names)
        else:
            raise _other_columns(path, layout)
    return Triplets(_in_range(indices, names, path), names, judgements, dataset, subjects, source=path.name)


def _read_npy(path: Path) -> npt.NDArray[np.int64]:
    if not path.is_file():
        raise BadInputError(f"There is no file at {str(path)!r}. {EXPECTED}")
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise BadInputError(f"{str(path)!r} is no plain NumPy array ({error}). {EXPECTED}") from error
    if not isinstance(array, np.ndarray):
        raise BadInputError(f"{str(path)!r} is an archive of several arrays. {EXPECTED}")
    return whole_numbers(array, path, EXPECTED)


def _read_three(path: Path, layout: Layout, names: tuple[str, ...]) -> npt.NDArray[np.int64]:
    """Three columns without a header: indices, or names."""
    frame = read_frame(path, layout, EXPECTED, header=False)
    if layout.numbers:
        return whole_numbers(frame.to_numpy(), path, EXPECTED)
    position = {name: row for row, name in enumerate(names)}
    cells = [str(cell).strip() for cell in frame.to_numpy().reshape(-1)]
    unknown = next((cell for cell in cells if cell not in position), None)
    if unknown is not None:
        raise unknown_name(
            f"name in {path.name}", unknown, names, "Use the names of stimuli or concepts, without a header."
        )
    return np.array([position[cell] for cell in cells], dtype=np.int64).reshape(-1, 3)


def _read_released(path: Path, layout: Layout) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64] | None]:
    """THINGS-data's own file: three 1-based images and which of them was the odd one."""
    who = ["subject_id"] if "subject_id" in layout.cells else []
    frame = read_frame(path, layout, EXPECTED, header=True, columns=[*RELEASED, *who])
    images = whole_numbers(frame[IMAGES].to_numpy(), path, EXPECTED) - 1
    choice = whole_numbers(frame["choice"].to_numpy(), path, EXPECTED)
    wrong = np.flatnonzero((choice < 1) | (choice > 3))
    if wrong.size:
        raise BadInputError(
            f"{str(path)!r}: {wrong.size} values of 'choice' are outside 1 to 3, the first is "
            f"{choice[wrong[0]]} in row {wrong[0]}. The column says which of the three images is the odd one."
        )
    if images.size and images.min() < 0:
        raise BadInputError(
            f"{str(path)!r}: image1, image2 and image3 count from 1, but there is a {images.min() + 1}. "
            "For 0-based indices give three columns without a header, the odd one last."
        )
    # The pair that stays together comes first, the odd one last.
    order = np.array([[1, 2, 0], [0, 2, 1], [0, 1, 2]])[choice - 1]
    return np.take_along_axis(images, order, axis=1), _subjects(frame["subject_id"]) if who else None


def _subjects(column: pd.Series) -> npt.NDArray[np.int64]:
    """Subjects as whole numbers: their own if they are such, else numbered as they appear; -1 is unknown."""
    values = column.to_numpy()
    if np.issubdtype(values.dtype, np.integer):
        return np.asarray(values, dtype=np.int64)
    import pandas as pd

    return np.asarray(pd.factorize(column)[0], dtype=np.int64)


def _other_columns(path: Path, layout: Layout) -> BadInputError:
    absent = [want for want in RELEASED if want not in layout.cells]
    nearest = ", ".join(f"{want!r} (nearest: {nearest_first(want, layout.cells)[0]!r})" for want in absent)
    return BadInputError(
        f"{str(path)!r} has {len(layout.cells)} columns: {', '.join(layout.cells[:8])}. "
        + ("" if layout.numbers else f"Not among them: {nearest}. ")
        + EXPECTED
    )


def _in_range(indices: npt.NDArray[np.int64], names: tuple[str, ...], path: Path) -> npt.NDArray[np.int64]:
    if indices.size and indices.min() >= 1 and indices.max() == len(names):
        raise BadInputError(
            f"{str(path)!r} runs from {indices.min()} to {indices.max()} and there are {len(names)} stimuli, "
            f"0 to {len(names) - 1}: it seems to count from 1. Subtract 1 from all three columns."
        )
    try:
        return checked_indices(indices, len(names))
    except BadInputError as error:
        raise BadInputError(f"{str(path)!r}: {error}") from error
