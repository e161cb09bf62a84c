"""Small text files: their separator, header and numbers; and captions by name."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from ldm_kit.datasets.stimuli import Stimuli
from ldm_kit.errors import BadInputError, LdmKitError, unknown_name

_CAPTIONS = (
    "Captions are a JSON object {name: caption}, or a CSV or TSV of two columns, name and caption, "
    "with or without a header of these; names are the stimuli's (or their concepts')."
)


class Layout(NamedTuple):
    """The separator (as pandas takes it), the cells of the first line, and whether all of them are numbers."""

    separator: str
    cells: tuple[str, ...]
    numbers: bool


@contextmanager
def reading(path: Path, expected: str) -> Iterator[None]:
    """Turn whatever goes wrong with a file into an error that names it; `expected` says what it should hold."""
    try:
        yield
    except LdmKitError as error:
        if repr(str(path)) in str(error):
            raise
        raise type(error)(f"{str(path)!r}: {error}") from error
    except FileNotFoundError as error:
        raise BadInputError(f"There is no file at {str(path)!r}. {expected}") from error
    except UnicodeDecodeError as error:
        reason = f"byte {error.start}: {error.reason}"
        advice = "Save it as UTF-8 (CSV UTF-8 in spreadsheets)."
        raise BadInputError(f"{str(path)!r} is not UTF-8 text ({reason}). {advice}") from error
    except pd.errors.EmptyDataError as error:
        raise BadInputError(f"{str(path)!r} is empty. {expected}") from error
    except (ValueError, TypeError, OSError, EOFError, csv.Error) as error:
        reason = str(error).strip().removeprefix("Error tokenizing data. C error: ")
        raise BadInputError(f"{str(path)!r} cannot be read as a table ({reason}). {expected}") from error


def layout_of(path: Path, expected: str) -> Layout:
    """Look at the first line that is not blank."""
    with reading(path, expected), path.open(encoding="utf-8-sig") as file:
        line = next((line.strip("\r\n") for line in file if line.strip()), "")
    if not line:
        raise BadInputError(f"{str(path)!r} is empty. {expected}")
    mark = next((mark for mark in "\t,;" if mark in line), None)
    cells = tuple(cell.strip().strip('"') for cell in line.split(mark))
    return Layout(mark or r"\s+", cells, all(map(is_number, cells)))


def read_lines(path: Path, expected: str) -> list[str]:
    """Read the lines of a text file that are not blank."""
    with reading(path, expected):
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    found = [line.strip() for line in lines if line.strip()]
    if not found:
        raise BadInputError(f"{str(path)!r} is empty. {expected}")
    return found


def read_table(path: Path, expected: str, **options: Any) -> pd.DataFrame:
    """Read a table with `pandas.read_csv`; one without a row is an error."""
    with reading(path, expected):
        frame: pd.DataFrame = pd.read_csv(path, encoding="utf-8-sig", **options)
    if frame.empty:
        raise BadInputError(f"{str(path)!r} has a header and no row below it. {expected}")
    return frame


def read_array(path: Path, expected: str) -> npt.NDArray[Any]:
    """Read a plain ``.npy`` of two axes; an empty one is an error."""
    with reading(path, expected):
        array = np.asarray(np.load(path, allow_pickle=False))
    if array.ndim != 2 or not len(array):
        raise BadInputError(f"{str(path)!r} has shape {array.shape}, not (rows, columns). {expected}")
    return array


def is_number(cell: str) -> bool:
    """Return whether a cell reads as a number."""
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell  # Python reads 1_000 as a number; in a file it is a name


def whole_numbers(array: npt.NDArray[Any], path: Path, expected: str) -> npt.NDArray[np.int64]:
    """Return whole numbers as int64, also those stored as floats; the first row of anything else is an error.

    Examples
    --------
    >>> whole_numbers(np.array([[0.0, 2.0]]), Path("a.npy"), "…")
    array([[0, 2]])
    """
    if np.issubdtype(array.dtype, np.integer):
        return array.astype(np.int64, copy=False)
    if array.dtype.kind not in "fOU":
        raise BadInputError(f"{str(path)!r} holds {array.dtype}, not numbers. {expected}")
    with reading(path, expected):
        array = np.asarray(pd.to_numeric(array.reshape(-1)), dtype=np.float64).reshape(array.shape)
    fine = (np.abs(array) < 2**53) & (array == np.round(array))
    wrong = np.flatnonzero(~fine.reshape(len(array), -1).all(axis=1))
    if wrong.size:
        first = f"the first is row {wrong[0]}: {array[wrong[0]].tolist()}. Is a line cut short?"
        raise BadInputError(f"{str(path)!r}: {wrong.size} rows are not whole numbers, {first} {expected}")
    return array.astype(np.int64)


def captioned(stimuli: Stimuli, path: str | os.PathLike[str]) -> tuple[str | None, ...]:
    """Read each stimulus's caption, by its name or else by its concept; None where the file has none.

    Parameters
    ----------
    stimuli : Stimuli
    path : path-like
        ``.json``: an object of strings. ``.csv`` or ``.tsv``: the columns ``name`` and ``caption``, or two
        columns without a header. UTF-8.

    Raises
    ------
    BadInputError
        If the file is missing, empty, not of these shapes, or names something twice.
    UnknownNameError
        If it names what is neither a stimulus nor a concept.

    Examples
    --------
    >>> _ = Path("captions.json").write_text('{"cat": "a cat, asleep"}')
    >>> captioned(Stimuli(("cat.png", "dog.png")), "captions.json")
    ('a cat, asleep', None)
    """
    path = Path(path)
    captions = _read_captions(path)
    known = dict.fromkeys([*stimuli.names, *stimuli.concepts])
    unknown = [name for name in captions if name not in known]
    if unknown:
        advice = "Correct the name, or remove the line."
        raise unknown_name(f"stimulus in {path.name}", unknown[0], known, advice)
    return tuple(
        captions.get(name, captions.get(concept))
        for name, concept in zip(stimuli.names, stimuli.concepts, strict=True)
    )


def _read_captions(path: Path) -> dict[str, str]:
    """Captions by name, in the file's order."""
    pairs: Any
    if path.suffix == ".json":
        with reading(path, _CAPTIONS):
            pairs = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=list)
    else:
        separator = "\t" if path.suffix == ".tsv" else ","
        text = {"header": None, "dtype": str, "keep_default_na": False, "skipinitialspace": True}
        table = read_table(path, _CAPTIONS, sep=separator, **text).apply(lambda column: column.str.strip())
        header = [str(cell).lower() for cell in table.iloc[0]]
        if "caption" in header and "name" in header:
            table = table.loc[1:, [header.index("name"), header.index("caption")]]
        elif len(header) != 2:
            raise BadInputError(f"{str(path)!r} has {len(header)} columns: {header[:6]}. {_CAPTIONS}")
        pairs = list(table.itertuples(index=False, name=None))
    if not isinstance(pairs, list) or not all(
        isinstance(pair, tuple) and all(isinstance(text, str) for text in pair) for pair in pairs
    ):
        raise BadInputError(f"{str(path)!r} is no mapping of names to captions. {_CAPTIONS}")
    if not pairs:
        raise BadInputError(f"{str(path)!r} holds no caption. {_CAPTIONS}")
    captions = dict(pairs)
    if twice := len(pairs) - len(captions):
        raise BadInputError(f"{str(path)!r} has {twice} names twice. Keep one caption each.")
    return captions
