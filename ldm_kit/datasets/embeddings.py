"""The THINGS concepts in their canonical order, and embeddings of them (SPoSE, VICE, any vectors), rows named."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from ldm_kit.datasets.stimuli import label_of
from ldm_kit.datasets.text_tables import layout_of, read_array, read_lines, read_table, reading
from ldm_kit.errors import BadInputError, MismatchError, NonFiniteError, one_of

# The file names under which THINGS and THINGS-data release the list, the richest first.
TABLES = (
    "things_concepts.tsv",
    "concepts-metadata_things.tsv",
    "_concepts-metadata_things.tsv",
    "items1854names.tsv",  # of 2020, whose columns have other names: the sixth is the unique one
)
PLAIN = "unique_id.txt"
# SHA-256 of the 1,854 names in canonical order, separated by line ends, and of the table of 2020, as it was released.
_CANONICAL = "ac73a006f56abcd43e0f6e1ec2432e681d1125417c27d67904df1613eee9be42"
_OF_2020 = "03dbe77972f9466ff8baa0da604d9f5104f677bf77cc602faebfa03a290fb51c"
_VECTORS = "An embedding is a text file without a header or a plain .npy: numbers, a concept a row."


def read_embedding(path: str | os.PathLike[str], concepts: Sequence[str] | None = None) -> pd.DataFrame:
    """Read vectors of concepts from a text file or a ``.npy``, and name their rows.

    Parameters
    ----------
    path : path-like
        Text (a concept a line, numbers separated by spaces, tabs or commas) or ``.npy``, shape (n, d).
    concepts : sequence of str, optional
        What the rows stand for. By default read from the file's folder, see `embeddings.read_concepts`.

    Returns
    -------
    pandas.DataFrame, shape (n, d), float64
        Indexed by concept. Columns are named by ``labels_D.txt`` beside a file of SPoSE where that has D labels
        (D = number of columns), else ``"1"`` to ``"D"``.

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
    >>> np.save("vectors.npy", np.eye(2))
    >>> read_embedding("vectors.npy", ["apple", "bat1"]).loc["bat1"].tolist()
    [0.0, 1.0]
    """
    path = Path(path)
    values = _numbers(path)
    names = list(read_concepts(path.parent).index if concepts is None else concepts)
    if len(values) != len(names):
        turned = " It looks transposed." if values.shape[1] == len(names) else ""
        counts = f"{len(values)} rows, but there are {len(names)} concepts"
        raise MismatchError(f"{str(path)!r} has {counts}. Rows are concepts in canonical order.{turned}")
    if not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0]
        place = f"row {row} ({names[row]}), column {column}. Fetch or write it again"
        raise NonFiniteError(f"{str(path)!r} holds {values[row, column]} in {place}.")
    return pd.DataFrame(values, index=names, columns=_dimension_names(path, values.shape[1]))


def _numbers(path: Path) -> npt.NDArray[np.float64]:
    """The matrix of a text file or a ``.npy``."""
    with reading(path, _VECTORS):
        if path.suffix == ".npy":
            return read_array(path, _VECTORS).astype(np.float64)
        separator = "," if layout_of(path, _VECTORS).separator == "," else r"\s+"
        return read_table(path, _VECTORS, sep=separator, header=None).to_numpy(dtype=np.float64)


def _dimension_names(path: Path, n: int) -> list[str]:
    """Labels of SPoSE's dimensions, where they are n different ones; numbers from 1 of others."""
    labels = path.with_name(f"labels_{n}.txt")
    if "spose" in path.name.lower() and labels.is_file():
        names = read_lines(labels, "It holds the label of a dimension a line.")
        if len(names) == n == len(set(names)):
            return names
    return [str(column + 1) for column in range(n)]


def read_concepts(folder: str | os.PathLike[str]) -> pd.DataFrame:
    r"""Read the canonical list of concepts from a folder.

    Parameters
    ----------
    folder : path-like
        Holds ``things_concepts.tsv`` (with a column ``uniqueID``, perhaps ``Word`` and one that begins
        ``Definition``), or ``unique_id.txt`` (one name a line), or both, which must then agree. A table alone must
        hold THINGS' own 1,854 concepts in their own order: only then is it certain what the rows of triplets and
        embeddings are.

    Returns
    -------
    pandas.DataFrame, shape (1854, 2) for THINGS
        Indexed by concept (``uniqueID``), in canonical order; columns ``label`` (text for prompts) and
        ``definition`` (str, or None where there is none).

    Raises
    ------
    BadInputError
        If no list is there, it is empty, it has no column ``uniqueID``, or a concept comes twice.
    MismatchError
        If the two lists disagree, or a table alone has another order, or other concepts.

    Examples
    --------
    >>> _ = Path("unique_id.txt").write_text("apple\nbat1\n")
    >>> read_concepts(".").loc["bat1", "label"]
    'bat'
    """
    folder = Path(folder)
    table = next((folder / name for name in TABLES if (folder / name).is_file()), None)
    plain = folder / PLAIN
    names = read_lines(plain, "It holds the name of a concept a line.") if plain.is_file() else None
    if table is not None:
        frame = _concept_table(table)
        if names is None:
            _check_order(list(frame.index), table)
        elif names != list(frame.index):
            row = next((r for r, (a, b) in enumerate(zip(names, frame.index, strict=False)) if a != b), -1)
            raise MismatchError(
                f"{PLAIN!r} ({len(names)} names) and {table.name!r} ({len(frame)}) in {str(folder)!r} "
                f"differ{f' in row {row}' if row >= 0 else ''}. Keep the one that your judgements refer to."
            )
    elif names is not None:
        frame = pd.DataFrame({"label": map(label_of, names), "definition": None}, index=names, dtype=object)
    else:
        raise BadInputError(
            f"{str(folder)!r} holds neither {TABLES[0]!r} nor {PLAIN!r}, so it is unknown which row is which concept. Copy "
            "one there from THINGS (https://osf.io/jum2f), or fetch it by `ldm_kit.fetch_things('concepts')`."
        )
    if not frame.index.is_unique:
        twice = frame.index[frame.index.duplicated()][0]
        raise BadInputError(f"The concept {twice!r} comes twice in the list in {str(folder)!r}. Remove one.")
    return frame


def named_rows(path: Path, expected: str) -> pd.DataFrame:
    """Read a table of THINGS, cells as text, its rows named by the column `uniqueID`."""
    table = read_table(path, expected, sep="\t", dtype=str, keep_default_na=False)
    if "uniqueID" not in table and path.name == "items1854names.tsv" and table.shape[1] > 5:
        table = table.rename(columns={table.columns[5]: "uniqueID"})
    one_of(f"column of {path.name}", "uniqueID", table.columns, expected)
    table["uniqueID"] = table["uniqueID"].str.strip()
    return table.set_index("uniqueID")


def _concept_table(path: Path) -> pd.DataFrame:
    """Labels and definitions by concept, from THINGS' own table."""
    table = named_rows(path, "It should be THINGS' own table of concepts, separated by tabs.")
    blank = pd.Series("", index=table.index)
    about = next((column for column in table if str(column).startswith("Definition")), None)
    texts, definitions = (table.get(column, blank).str.strip() for column in ("Word", about))
    labels = [text or label_of(str(concept)) for concept, text in texts.items()]
    columns = {"label": labels, "definition": [text or None for text in definitions]}
    return pd.DataFrame(columns, index=list(table.index), dtype=object)


def _check_order(names: list[str], path: Path) -> None:
    """Raise unless the order is THINGS' own: in another one, rows of triplets and embeddings mean other concepts."""
    if _digest(names) == _CANONICAL or hashlib.sha256(path.read_bytes()).hexdigest() == _OF_2020:
        return
    canonical = sorted(names, key=lambda name: name.replace("_", " "))
    if _digest(canonical) == _CANONICAL:
        row = next(row for row, (a, b) in enumerate(zip(names, canonical, strict=True)) if a != b)
        found = f"the concepts of THINGS in another order than THINGS' own: row {row} is {names[row]!r}, not {canonical[row]!r}"
    else:
        found = f"{len(names):,} concepts, which are not the 1,854 of THINGS"
    raise MismatchError(
        f"{str(path)!r} holds {found}, so it is unknown which concept a row of triplets or embeddings is. Put THINGS' own "
        f"table back, or put a file {PLAIN!r} beside it (one name a line) in the order of your files and of the table."
    )


def _digest(names: list[str]) -> str:
    return hashlib.sha256("\n".join(names).encode()).hexdigest()
