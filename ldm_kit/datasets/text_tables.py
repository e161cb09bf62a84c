"""Small tables in text files: what parts the columns, is there a header, are these numbers?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ldm_kit.errors import BadInputError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Layout:
    r"""What the first line of a text table tells.

    Parameters
    ----------
    separator : str
        As pandas takes it: a tab, comma or semicolon, or ``r"\\s+"`` for white space.
    cells : tuple of str
        The first line's cells.
    numbers : bool
        Whether all of them are numbers.
    """

    separator: str
    cells: tuple[str, ...]
    numbers: bool


def layout_of(path: Path, expected: str) -> Layout:
    """Look at the first line that is not blank.

    Parameters
    ----------
    path : pathlib.Path
    expected : str
        What the file should hold, for the error: "A file of triplets has …".

    Raises
    ------
    BadInputError
        If there is no such file, or no such line.

    Examples
    --------
    >>> layout_of(Path("human_triplets_50k.txt"), "…").cells  # doctest: +SKIP
    ('470', '1710', '1685')
    """
    if not path.is_file():
        raise BadInputError(f"There is no file at {str(path)!r}. {expected}")
    try:
        with path.open(encoding="utf-8-sig") as file:
            line = next((line.strip("\r\n") for line in file if line.strip()), "")
    except UnicodeDecodeError as error:
        raise not_utf8(path, error) from error
    if not line:
        raise BadInputError(f"{str(path)!r} is empty. {expected}")
    mark = next((mark for mark in "\t,;" if mark in line), None)
    cells = tuple(cell.strip().strip('"') for cell in line.split(mark))
    return Layout(mark or r"\s+", cells, all(map(is_number, cells)))


def is_number(cell: str) -> bool:
    """Tell whether a cell reads as a number.

    Examples
    --------
    >>> is_number("1e3"), is_number("apple")
    (True, False)
    """
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell  # which Python reads as a number, and nobody writes


def read_frame(
    path: Path,
    layout: Layout,
    expected: str,
    *,
    header: bool,
    columns: list[str] | None = None,
    text: Iterable[str | int] = (),
) -> pd.DataFrame:
    """Read a text table that `layout_of` has looked at.

    Parameters
    ----------
    path : pathlib.Path
    layout : Layout
    expected : str
        What the file should hold, for the error.
    header : bool
        Whether the first line names the columns.
    columns : list of str, optional
        Which of them to return; all by default.
    text : iterable of str or int
        Columns whose cells are left as they are written: "01" is not 1, and "NA" is not missing.

    Raises
    ------
    BadInputError
        If the lines do not make a table, or there is none below the header.

    Examples
    --------
    >>> read_frame(path, layout_of(path, "…"), "…", header=False).shape  # doctest: +SKIP
    (50000, 3)
    """
    text = list(text)
    # All columns are read: of a row with too many cells pandas would drop the last, though another is the odd one.
    frame = read_table(
        path,
        expected,
        sep=layout.separator,
        header=0 if header else None,
        dtype=dict.fromkeys(text, str),
        keep_default_na=not text,
        na_values={column: [""] for column in columns or () if text and column not in text},
        skipinitialspace=True,
        low_memory=False,
    )
    return frame if columns is None else frame[columns]


def read_table(path: Path, expected: str, **options: Any) -> pd.DataFrame:
    """Read a table with pandas, or say what is wrong with the file.

    Parameters
    ----------
    path : pathlib.Path
    expected : str
        What the file should hold, for the error.
    **options
        What `pandas.read_csv` takes.

    Raises
    ------
    BadInputError
        If the file is missing, no UTF-8 or no table, or has no row.

    Examples
    --------
    >>> read_table(Path("absent.csv"), "…")
    Traceback (most recent call last):
        ...
    ldm_kit.errors.BadInputError: There is no file at 'absent.csv'. …
    """
    import pandas as pd

    if not path.is_file():
        raise BadInputError(f"There is no file at {str(path)!r}. {expected}")
    try:
        frame: pd.DataFrame = pd.read_csv(path, encoding="utf-8-sig", **options)
    except UnicodeDecodeError as error:
        raise not_utf8(path, error) from error
    except pd.errors.EmptyDataError as error:
        raise BadInputError(f"{str(path)!r} is empty. {expected}") from error
    except (ValueError, OSError) as error:  # pandas' own ParserError is a ValueError
        reason = str(error).strip().removeprefix("Error tokenizing data. C error: ")
        raise BadInputError(f"{str(path)!r} cannot be read as a table ({reason}). {expected}") from error
    if not len(frame):
        raise BadInputError(f"{str(path)!r} has a header and no row below it. {expected}")
    return frame


def not_utf8(path: Path, error: UnicodeDecodeError) -> BadInputError:
    r"""Build the error for a text file in another encoding.

    Examples
    --------
    >>> print(not_utf8(Path("a.csv"), UnicodeDecodeError("utf-8", b"a\xff", 1, 2, "invalid start byte")))
    'a.csv' is not UTF-8 text (byte 1: invalid start byte). Save it as UTF-8; spreadsheets call it "CSV UTF-8".
    """
    return BadInputError(
        f"{str(path)!r} is not UTF-8 text (byte {error.start}: {error.reason}). Save it as UTF-8; spreadsheets call "
        'it "CSV UTF-8".'
    )


def whole_numbers(array: npt.NDArray[Any], path: Path, expected: str) -> npt.NDArray[np.int64]:
    """Return whole numbers as int64, also those stored as floats; anything else is an error.

    Parameters
    ----------
    array : ndarray of any shape, its first axis the rows
    path : pathlib.Path
        Where they are from, for the error.
    expected : str
        What the file should hold, for the error.

    Raises
    ------
    BadInputError
        If a value is not a whole number; the message gives the first such row.

    Examples
    --------
    >>> whole_numbers(np.array([[0.0, 2.0]]), Path("a.npy"), "…")
    array([[0, 2]])
    """
    if np.issubdtype(array.dtype, np.integer):
        return array.astype(np.int64, copy=False)
    if not np.issubdtype(array.dtype, np.floating):
        rows = array.reshape(len(array), -1).tolist()
        bad = next((i for i, row in enumerate(rows) if not all(is_number(str(cell)) for cell in row)), None)
        if bad is not None or array.dtype.kind == "c":
            raise BadInputError(
                f"{str(path)!r}: row {bad or 0} is not made of numbers: {rows[bad or 0]}. {expected}"
            )
    array = array.astype(np.float64)
    fine = (np.abs(array) < 2**53) & (array == np.round(array))
    wrong = np.flatnonzero(~fine.reshape(len(array), -1).all(axis=1))
    if wrong.size:
        raise BadInputError(
            f"{str(path)!r}: {wrong.size} rows hold something other than whole numbers, the first is row "
            f"{wrong[0]}: {array[wrong[0]].tolist()}. Is a line cut short? {expected}"
        )
    return array.astype(np.int64)
