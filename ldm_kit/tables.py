"""The one tidy table: every measure returns it, every figure is drawn from it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from ldm_kit.atomic import with_ending, written_aside

# name -> dtype; the order is the order of the columns. Strings are empty, numbers NaN, counts <NA>
# where a column does not apply.
COLUMNS: dict[str, Any] = {
    "model": "str",
    "dataset": "str",
    "judgements": "str",
    "block": "str",
    "depth": "Int64",
    "noise_level": "float64",
    "timestep": "float64",
    "sigma": "float64",
    "conditioning": "str",
    "pooling": "str",
    "metric": "str",
    "probe": "str",
    "fold": "Int64",
    "seed": "Int64",
    "accuracy": "float64",
    "se": "float64",
    "ci_low": "float64",
    "ci_high": "float64",
    "n_triplets": "Int64",
    "n_ties": "Int64",
    "chance": "float64",
    "ceiling_low": "float64",
    "ceiling_high": "float64",
    "ceiling_source": "str",
}

# What a spreadsheet takes for the beginning of a formula (OWASP's list of CSV injection).
FORMULA = tuple("=+-@\t\r\n＝＋－＠")
JUDGEMENTS = ("human", "human model", "simulated")


def tidy(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Make the tidy table from rows that name only what applies to them.

    Parameters
    ----------
    rows : iterable of mapping
        One mapping a row. Keys outside `COLUMNS` are kept as further columns, at the right.

    Returns
    -------
    pandas.DataFrame
        The columns of `COLUMNS` in their order and types, then any further ones.

    Examples
    --------
    >>> tidy([{"block": "mid_block", "accuracy": 0.4}])[["block", "accuracy", "n_ties"]]
           block  accuracy  n_ties
    0  mid_block       0.4    <NA>
    """
    frame = pd.DataFrame([dict(row) for row in rows])
    for name, dtype in COLUMNS.items():
        if name not in frame:
            frame[name] = "" if dtype == "str" else pd.NA if dtype == "Int64" else float("nan")
        if dtype == "str":
            frame[name] = frame[name].fillna("").astype(str)
        else:
            frame[name] = frame[name].astype(dtype)
    further = [name for name in frame.columns if name not in COLUMNS]
    return frame[[*COLUMNS, *further]]


def as_text(cell: Any) -> Any:
    """Keep a spreadsheet from running a text cell of a CSV: what begins like a formula gets an apostrophe before it.

    Text that is a number stays as it is, and so do cells that are no text. `from_text` takes the apostrophe away.

    Examples
    --------
    >>> as_text("=cmd|' /C calc'!A0"), as_text("-0.5"), as_text("apple.jpg"), as_text("'=x")
    ("'=cmd|' /C calc'!A0", '-0.5', 'apple.jpg', "''=x")
    """
    return f"'{cell}" if isinstance(cell, str) and _runs(cell) else cell


def from_text(cell: str) -> str:
    """Give the text that `as_text` was given.

    Examples
    --------
    >>> from_text("'=cmd"), from_text("''=x"), from_text("'quoted'"), from_text("=cmd")
    ('=cmd', "'=x", "'quoted'", '=cmd')
    """
    return cell[1:] if cell.startswith("'") and _runs(cell) else cell


def _runs(cell: str) -> bool:
    """Whether a spreadsheet may run a cell, once apostrophes before it are taken away."""
    bare = cell.lstrip("'")
    if not bare.startswith(FORMULA):
        return False
    try:
        float(bare)
    except ValueError:
        return True
    return bare[0] in "\t\r\n"


def write_table(table: pd.DataFrame, path: str | os.PathLike[str]) -> Path:
    """Write a table as parquet and, beside it, as CSV, each atomically.

    Parameters
    ----------
    table : pandas.DataFrame
    path : path-like
        Where the parquet file goes; gets that ending if it has not. The CSV has ``.csv`` instead. It is for reading and
        for spreadsheets: text that one would run as a formula has an apostrophe before it there, see `as_text`.

    Returns
    -------
    pathlib.Path
        The parquet file.

    Examples
    --------
    >>> write_table(table, "outputs/run/tables/alignment.parquet")  # doctest: +SKIP
    """
    path = with_ending(path, ".parquet")
    with written_aside(path) as aside:
        table.to_parquet(aside, index=False)
    with written_aside(path.with_suffix(".csv")) as aside:
        safe, end = table.rename(columns=as_text), "\n"
        for place, dtype in enumerate(table.dtypes):
            if dtype.kind == "O":  # text, categories of text, or mixed
                cells = [as_text(cell) for cell in table.iloc[:, place]]
                safe.isetitem(place, cells)
                if any(isinstance(cell, str) and "\r" in cell for cell in cells):
                    end = "\r\n"  # with which a carriage return is quoted
        safe.to_csv(aside, index=False, lineterminator=end)
    return path
