"""Read odd-one-out choices from the files that people keep them in."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ldm_kit.datasets.choice_files import holds_choices, read_choices
from ldm_kit.datasets.stimuli import Stimuli
from ldm_kit.datasets.text_tables import Layout, is_number, layout_of, read_frame, whole_numbers
from ldm_kit.datasets.triplets import Triplets, checked_indices
from ldm_kit.errors import BadInputError, MismatchError, nearest_first, unknown_name

if TYPE_CHECKING:
    import pandas as pd

IMAGES = ["image1", "image2", "image3"]
RELEASED = [*IMAGES, "choice"]  # the columns of THINGS-data's own file
ITEMS = ("names", "indices")
EXPECTED = (
    "A file of triplets has three columns, the odd one out last (0-based indices or names; text or .npy), or "
    "the columns image1, image2, image3 (1-based) and choice (1 to 3, the odd one) as THINGS-data has them."
)
log = logging.getLogger(__name__)


def read_triplets(
    path: str | os.PathLike[str],
    names: Sequence[str] | Stimuli,
    *,
    items: str | None = None,
    judgements: str = "human",
    dataset: str = "",
) -> Triplets:
    """Read triplets from a file.

    Parameters
    ----------
    path : path-like
        One of four formats, told apart by what is in the file:

        - text of three columns (spaces, tabs, commas or semicolons): 0-based indices, or names; the third is the
          odd one out. A first line ``name1,name2,name3`` or ``index1,index2,index3`` may say which;
        - ``.npy``, an integer array (t, 3), the same;
        - text with a header that has the columns ``image1``, ``image2``, ``image3`` (1-based), ``choice``
          (1 to 3: which of the three is the odd one) and perhaps ``subject_id``, as THINGS-data
          releases its 4.7 million choices;
        - a player's file of the odd-one-out game, or a folder of them, as `read_choices` reads it. It names
          the stimuli and says itself who chose.
    names : Stimuli, or sequence of str
        What the indices stand for, in order: the 1,854 concepts for THINGS. A file may name a stimulus by its name,
        or by a concept of which there is one image (of a plain sequence: by the name without its extension).
    items : {"names", "indices"}, optional
        What a file's numbers are, where stimuli have numbers for names (``1.png``) and the file does not say it
        itself. By default a file that could mean either is refused.
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
        If the file is missing or empty, has other columns, numbers that are not whole or could be names as well as
        indices, indices outside `names` (with a word on 1-based files), or an item twice in a row.
    UnknownNameError
        If the file holds names and one of them is not in `names`.

    Notes
    -----
    That a file of three columns counts from 1 is certain only if the last item of `names` was judged. Where the
    least index is 1, a warning is logged.

    Examples
    --------
    >>> read_triplets("human_triplets_50k.txt", concepts)  # doctest: +SKIP
    Triplets(50,000 human choices over 1,854 stimuli)
    """
    path = Path(path)
    stimuli = names if isinstance(names, Stimuli) else Stimuli(tuple(names))
    if items is not None and items not in ITEMS:
        raise unknown_name("kind of items", items, ITEMS, "Say what the numbers of the file are.")
    if holds_choices(path):
        return read_choices(path, stimuli.names, dataset=dataset or None)
    order, subjects, first = None, None, 0
    if path.suffix == ".npy":
        cells: npt.NDArray[Any] = _read_npy(path)
        text = items == "names" or (items is None and bool(_numbered(stimuli)))
    else:
        layout = layout_of(path, EXPECTED)
        said = _header(layout, stimuli)
        if said and items and said != items:
            raise MismatchError(
                f"The first line of {str(path)!r} says that it holds {said}, and items={items!r} was given. Leave "
                "`items` out, or correct the line."
            )
        items = said or items
        released = set(RELEASED) <= set(layout.cells)
        names_only = not (layout.numbers or released)
        text = items == "names" or (items is None and (names_only or bool(_numbered(stimuli))))
        if released:
            first = 1
            cells, order, subjects = _read_released(path, layout, text)
        elif len(layout.cells) == 3:
            columns = range(3) if text else ()
            cells = read_frame(path, layout, EXPECTED, header=bool(said), text=columns).to_numpy()
        else:
            raise _other_columns(path, layout)
    indices = _named_or_counted(cells, stimuli, items, first, path) if text else _counted(cells, first, path)
    indices = _in_range(indices, stimuli.names, path)
    if order is not None:
        indices = np.take_along_axis(indices, order, axis=1)
    return Triplets(indices, stimuli.names, judgements, dataset, subjects, source=path.name)


def _numbered(stimuli: Stimuli) -> dict[float, set[int]]:
    """Which stimuli a number could name: by name, or, of one alone, by concept or file name without its extension."""
    found: dict[float, set[int]] = {}
    stems = [PurePosixPath(name).stem for name in stimuli.names]
    alone = {stem for stem, n in Counter(stems).items() if n == 1}
    for row, (name, concept, stem) in enumerate(zip(stimuli.names, stimuli.concepts, stems, strict=True)):
        words = {name, *({stem} & alone), *([concept] if len(stimuli.by_concept[concept]) == 1 else [])}
        for word in words:
            if is_number(word) and float(word).is_integer():
                found.setdefault(float(word), set()).add(row)
    return found


def _header(layout: Layout, stimuli: Stimuli) -> str | None:
    """What a first line says the three columns hold, if it says so: "names" or "indices"."""
    if any(cell in stimuli.names or cell in stimuli.concepts for cell in layout.cells):
        return None
    words = {re.sub(r"\d?$", "", cell.lower()) for cell in layout.cells}
    return {"name": "names", "index": "indices"}.get(words.pop()) if len(words) == 1 else None


def _named_or_counted(
    cells: npt.NDArray[Any], stimuli: Stimuli, items: str | None, first: int, path: Path
) -> npt.NDArray[np.int64]:
    """Positions of stimuli from cells that name them, or count them from `first`; never a guess between the two."""
    import pandas as pd

    where, distinct = pd.factorize(cells.reshape(-1))
    words = [str(cell).strip() for cell in distinct]
    positions = {concept: rows[0] for concept, rows in stimuli.by_concept.items() if len(rows) == 1}
    positions |= {name: row for row, name in enumerate(stimuli.names)}
    unknown = next((word for word in words if word not in positions), None)
    if items is None and all(map(is_number, words)):
        numbered = _numbered(stimuli)
        values = np.array(list(map(float, words)))
        counted = whole_numbers(values[where].reshape(cells.shape), path, EXPECTED) - first
        double = [value for value in values if not numbered.get(value, set()) <= {int(value) - first}]
        if not double:
            return _counted(counted + first, first, path)
        if unknown is not None or (counted.min() >= 0 and counted.max() < len(stimuli)):
            raise _two_ways(double, numbered, stimuli, first, path)
    if unknown is not None:
        raise unknown_name(
            f"name in {path.name}",
            unknown,
            positions,
            "Use the names of stimuli, or concepts that have one image. A first line of three columns is "
            "`name1,name2,name3`, or none.",
        )
    named: npt.NDArray[np.int64] = np.array([positions[word] for word in words], dtype=np.int64)
    return named[where].reshape(cells.shape)


def _counted(cells: npt.NDArray[Any], first: int, path: Path) -> npt.NDArray[np.int64]:
    """Positions from numbers that count from `first`."""
    indices = whole_numbers(cells, path, EXPECTED) - first
    if first == 0 and indices.min() == 1:
        log.warning(
            "%s: the least index is 1. Indices count from 0: if these count from 1, subtract 1 from all of them.",
            path.name,
        )
    return indices


def _two_ways(
    double: list[float], numbered: dict[float, set[int]], stimuli: Stimuli, first: int, path: Path
) -> BadInputError:
    """The error for numbers that could be names and could be indices."""
    inside = [value for value in double if 0 <= value - first < len(stimuli)]
    number = int((inside or double)[0])
    name = stimuli.names[min(numbered[number])]
    at = f" ({stimuli.names[number - first]!r})" if inside else ""
    full = "" if is_number(name) else f"Write names in full ({name}), or say"
    return BadInputError(
        f"{str(path)!r} can be read in two ways: its {number} may be the stimulus {name!r} or number {number} in the "
        f"list of stimuli, counted from {first}{at}. {full or 'Say'} what the numbers are: by a first line "
        "`name1,name2,name3` or `index1,index2,index3` where the file has three columns, or by items='names' or "
        "items='indices' (of `read_triplets` and of load_dataset('folder', …))."
    )


def _read_npy(path: Path) -> npt.NDArray[np.int64]:
    if not path.is_file():
        raise BadInputError(f"There is no file at {str(path)!r}. {EXPECTED}")
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise BadInputError(f"{str(path)!r} is no plain NumPy array ({error}). {EXPECTED}") from error
    if not isinstance(array, np.ndarray):
        raise BadInputError(f"{str(path)!r} is an archive of several arrays. {EXPECTED}")
    if array.ndim != 2 or array.shape[1] != 3 or not len(array):
        raise BadInputError(f"{str(path)!r} has shape {array.shape}, not (triplets, 3). {EXPECTED}")
    return whole_numbers(array, path, EXPECTED)


def _read_released(
    path: Path, layout: Layout, text: bool
) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64], npt.NDArray[np.int64] | None]:
    """THINGS-data's own file: three 1-based images, the order that puts the odd one last, and who chose."""
    who = ["subject_id"] if "subject_id" in layout.cells else []
    frame = read_frame(
        path, layout, EXPECTED, header=True, columns=[*RELEASED, *who], text=IMAGES if text else ()
    )
    images = frame[IMAGES].to_numpy()
    choice = whole_numbers(frame["choice"].to_numpy(), path, EXPECTED)
    wrong = np.flatnonzero((choice < 1) | (choice > 3))
    if wrong.size:
        raise BadInputError(
            f"{str(path)!r}: {wrong.size} values of 'choice' are outside 1 to 3, the first is "
            f"{choice[wrong[0]]} in row {wrong[0]}. The column says which of the three images is the odd one."
        )
    if not text:
        images = whole_numbers(images, path, EXPECTED)
        if images.min() < 1:
            raise BadInputError(
                f"{str(path)!r}: image1, image2 and image3 count from 1, but there is a {images.min()}. "
                "For 0-based indices give three columns without a header, the odd one last."
            )
    # The pair that stays together comes first, the odd one last.
    order = np.array([[1, 2, 0], [0, 2, 1], [0, 1, 2]])[choice - 1]
    return images, order, _subjects(frame["subject_id"]) if who else None


def _subjects(column: pd.Series) -> npt.NDArray[np.int64]:
    """Subjects as whole numbers: their own if they are such, else numbered as they appear; -1 is unknown."""
    values = column.to_numpy()
    if np.issubdtype(values.dtype, np.integer):
        return np.asarray(values, dtype=np.int64)
    import pandas as pd

    return np.asarray(pd.factorize(column)[0], dtype=np.int64)


def _other_columns(path: Path, layout: Layout) -> BadInputError:
    absent = [want for want in RELEASED if want not in layout.cells]
    nearest = ", ".join(
        f"{want!r} (nearest: {nearest_first(want, layout.cells[:100])[0]!r})" for want in absent
    )
    return BadInputError(
        f"{str(path)!r} has {len(layout.cells)} columns: {', '.join(layout.cells[:8])}. "
        + ("" if layout.numbers else f"Not among them: {nearest}. ")
        + EXPECTED
    )


def _in_range(indices: npt.NDArray[np.int64], names: tuple[str, ...], path: Path) -> npt.NDArray[np.int64]:
    least, most = indices.min(initial=len(names)), indices.max(initial=0)
    if least >= 1 and most == len(names):
        raise BadInputError(
            f"{str(path)!r} runs from {least} to {most} and there are {len(names)} stimuli, "
            f"0 to {len(names) - 1}: it seems to count from 1. Subtract 1 from all three columns."
        )
    try:
        return checked_indices(indices, len(names))
    except BadInputError as error:
        raise BadInputError(f"{str(path)!r}: {error}") from error
