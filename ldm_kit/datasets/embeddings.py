"""Read embeddings of the THINGS concepts (SPoSE, VICE, any vectors in canonical order), rows named."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ldm_kit.datasets.concepts import read_concepts
from ldm_kit.datasets.text_tables import not_utf8
from ldm_kit.errors import BadInputError, MismatchError, NonFiniteError

if TYPE_CHECKING:
    import pandas as pd


def read_embedding(
    path: str | os.PathLike[str],
    concepts: Sequence[str] | None = None,
    *,
    dimensions: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Read vectors of concepts from a text file or a ``.npy``, and name their rows.

    Parameters
    ----------
    path : path-like
        Text (a concept a line, numbers parted by spaces, tabs or commas) or ``.npy``, shape (n, d).
    concepts : sequence of str, optional
        What the rows stand for. By default read from the file's folder, see `concepts.read_concepts`.
    dimensions : sequence of str, optional
        Names of the columns. By default from ``labels_D.txt`` beside the file where that has D lines
        (D = number of columns), else ``"1"`` to ``"D"``.

    Returns
    -------
    pandas.DataFrame, shape (n, d), float64
        Indexed by concept.

    Raises
    ------
    BadInputError
        If the file is missing or no table of numbers.
    MismatchError
        If it has another number of rows than there are concepts.
    NonFiniteError
        If it holds NaN or infinity.

    Examples
    --------
    >>> read_embedding("../shared/things/vice_embedding_42d.npy").shape  # doctest: +SKIP
    (1854, 42)
    """
    import pandas as pd

    path = Path(path)
    values = _numbers(path)
    names = list(read_concepts(path.parent).index if concepts is None else concepts)
    if len(values) != len(names):
        raise MismatchError(
            f"{str(path)!r} has {len(values)} rows, but there are {len(names)} concepts. "
            + ("It looks transposed. " if values.shape[1] == len(names) else "")
            + "Rows must be the concepts in their canonical order."
        )
    if not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0]
        raise NonFiniteError(
            f"{str(path)!r} holds {values[row, column]} in row {row} ({names[row]}), column {column}. "
            "Is the file complete? Fetch or write it again."
        )
    return pd.DataFrame(values, index=names, columns=_dimension_names(path, values.shape[1], dimensions))


def _numbers(path: Path) -> npt.NDArray[np.float64]:
    import pandas as pd

    if not path.is_file():
        raise BadInputError(
            f"There is no embedding at {str(path)!r}. Give a text file or a .npy of numbers, a concept a row."
        )
    try:
        if path.suffix == ".npy":
            values = np.asarray(np.load(path, allow_pickle=False), dtype=np.float64)
        else:
            with path.open(encoding="utf-8-sig") as file:
                separator = "," if "," in file.readline() else r"\s+"
            values = pd.read_csv(path, sep=separator, header=None).to_numpy(dtype=np.float64)
    except (ValueError, OSError, EOFError) as error:
        raise BadInputError(
            f"{str(path)!r} is no table of numbers ({error}). Give text without a header, or a plain .npy."
        ) from error
    if values.ndim != 2:
        raise BadInputError(
            f"{str(path)!r} has shape {values.shape}; an embedding has shape (concepts, dimensions)."
        )
    return values


def _dimension_names(path: Path, n: int, given: Sequence[str] | None) -> list[str]:
    if given is None:
        labels = path.with_name(f"labels_{n}.txt")
        # Labels belong to SPoSE's dimensions; other embeddings of as many columns keep their numbers.
        if "spose" in path.name.lower() and labels.is_file():
            try:
                lines = labels.read_text(encoding="utf-8-sig").splitlines()
            except UnicodeDecodeError as error:
                raise not_utf8(labels, error) from error
            given = [line.strip() for line in lines if line.strip()]
        if given is None or len(given) != n:
            given = [str(column + 1) for column in range(n)]
    if len(given) != n:
        raise MismatchError(f"{len(given)} names were given for the {n} dimensions of {str(path)!r}.")
    seen: dict[str, int] = {}
    unique = []
    for name in given:
        seen[name] = seen.get(name, 0) + 1
        unique.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return unique
