"""The one tidy table: every measure returns it, every figure is drawn from it."""

from __future__ import annotations

import html
import os
import shutil
import textwrap
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from ldm_kit.errors import one_of, unknown_name
from ldm_kit.files import with_ending, written_aside

# name -> dtype. Strings are empty, numbers NaN, counts <NA> where a column does not apply.
COLUMNS: dict[str, Any] = {
    "block": "str",
    "noise_level": "float64",
    "conditioning": "str",
    "accuracy": "float64",
    "ci_low": "float64",
    "ci_high": "float64",
    "model": "str",
    "metric": "str",
    "probe": "str",
    "fold": "Int64",
    "se": "float64",
    "n_triplets": "Int64",
    "n_ties": "Int64",
    "depth": "Int64",
    "timestep": "float64",
    "sigma": "float64",
    "dataset": "str",
    "judgements": "str",
    "pooling": "str",
    "seed": "Int64",
    "chance": "float64",
    "ceiling_low": "float64",
    "ceiling_high": "float64",
    "ceiling_source": "str",
}
# Counts that only some tables have: they are added nowhere, and are <NA> in rows to which they do not apply. `draw` is the
# number of a noise sample, `n_draws` how many an estimate combines, `n_noise` how many the features are averaged over.
OPTIONAL = {"draw": "Int64", "n_draws": "Int64", "n_noise": "Int64"}
# What a row is about and what it says, in the order in which it is read: these columns stand at the left.
LABELS = (
    "block",
    "noise_level",
    "conditioning",
    "draw",
    "block_b",
    "a",
    "b",
    "category",
    "concept",
    "dimension",
    "other",
)
VALUES = (
    "difference",
    "correlation",
    "cka",
    "r2",
    "r2_low",
    "r2_high",
    "agreed",
    "accuracy",
    "ci_low",
    "ci_high",
)
CORRECTED = ("p_corrected", "low_corrected", "high_corrected")
GAIN = ("gain", "gain_low", "gain_high", *(f"gain_{name}" for name in CORRECTED))
FIRST = (*LABELS, *VALUES, *CORRECTED, "model", "metric", "probe", "fold", *GAIN)

# What a spreadsheet takes for the beginning of a formula (OWASP's list of CSV injection).
FORMULA = tuple("=+-@\t\r\n＝＋－＠")
JUDGEMENTS = ("human", "human model", "simulated")


class Table(pd.DataFrame):
    """The tidy table: a DataFrame whose display hides no interval.

    Displayed whole, it says in one line what is the same in every row, leaves out what is empty, and shows all other
    columns, block and value at the left. In all else it is pandas' own; what lacks one of `COLUMNS` is a plain DataFrame.

    Examples
    --------
    >>> tidy({"model": "m", "block": b, "accuracy": 0.4, "ci_low": 0.3, "ci_high": h} for b, h in ("a5", "b6"))
    In every row: accuracy 0.4 · ci_low 0.3 · model m
      block  ci_high
    0     a      5.0
    1     b      6.0
    """

    @property
    def _constructor(self) -> Callable[..., pd.DataFrame]:
        def made(*data: Any, **more: Any) -> pd.DataFrame:
            frame = pd.DataFrame(*data, **more)
            return Table(frame) if set(COLUMNS) <= set(frame.columns) else frame

        return made

    def __repr__(self) -> str:
        width = shutil.get_terminal_size().columns
        return self._displayed("__repr__", width, "{} {}", "{}\n{}") or ""

    def _repr_html_(self) -> str | None:
        return self._displayed("_repr_html_", 0, "{} <b>{}</b>", "<p>{}</p>\n{}", html.escape)

    def _displayed(
        self, how: str, width: int, pair: str, both: str, escape: Callable[[str], str] = str
    ) -> str | None:
        """Let pandas display the columns that vary, below a line of those that do not."""
        frame = pd.DataFrame(self)
        varying, constant = frame, dict[str, str]()
        if len(frame) and frame.columns.is_unique:
            varying, constant = split_columns(frame)
        if varying.empty:  # all rows say the same
            varying, constant = frame, {}
        with pd.option_context(
            "display.precision", 4, "display.max_columns", None, "display.width", width or None
        ):
            shown = getattr(varying, how)()
        if shown is None:  # the user has switched tables of HTML off
            return None
        constants = " · ".join(pair.format(escape(name), escape(value)) for name, value in constant.items())
        line = f"In every row: {constants}"
        return both.format(textwrap.fill(line, width) if width else line, shown) if constants else shown


def split_columns(frame: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, str]]:
    """Split a table into the columns that vary and those that are the same in each row, without empty ones.

    Parameters
    ----------
    frame : pandas.DataFrame

    Returns
    -------
    varying : pandas.DataFrame
        Of a single row, what is no column of `COLUMNS`, or a label or a value.
    constant : dict of str to str
        Column name to its one value.

    Examples
    --------
    >>> frame = pd.DataFrame({"model": "tiny-ldm", "accuracy": [0.4, 0.5], "probe": ""})
    >>> varying, constant = split_columns(frame)
    >>> list(varying), constant
    (['accuracy'], {'model': 'tiny-ldm'})
    """
    constant: dict[str, str] = {}
    varying = []
    for name in frame.columns:
        texts = frame[name].astype("object").where(frame[name].notna(), "").map(str).unique()
        leads = len(frame) == 1 and (name not in COLUMNS or name in LABELS or name in VALUES)
        if len(texts) > 1 or (leads and texts[0]):
            varying.append(name)
        elif len(texts) == 1 and texts[0]:
            constant[str(name)] = short(frame[name].iloc[0])
    return frame[varying], constant


def short(value: object) -> str:
    """Write a number in four digits, anything else as it is.

    Examples
    --------
    >>> short(1 / 3), short(3)
    ('0.3333', '3')
    """
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def tidy(rows: Iterable[Mapping[str, Any]]) -> Table:
    """Make the tidy table from rows that name only what applies to them.

    Parameters
    ----------
    rows : iterable of mapping
        One mapping a row. Keys outside `COLUMNS` become further columns.

    Returns
    -------
    Table
        A pandas.DataFrame: the columns of `FIRST` that there are, further ones, then what is left of `COLUMNS`.

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
    frame = frame.astype({name: dtype for name, dtype in OPTIONAL.items() if name in frame})
    first = [name for name in FIRST if name in frame]
    further = [name for name in frame.columns if name not in COLUMNS and name not in FIRST]
    return Table(frame[[*first, *further, *(name for name in COLUMNS if name not in FIRST)]])


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
    """Undo `as_text`.

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
    >>> write_table(table, "alignment.parquet").name
    'alignment.parquet'
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


def in_network_order(table: pd.DataFrame) -> list[str]:
    """List a table's blocks from input to output.

    Examples
    --------
    >>> in_network_order(pd.DataFrame({"block": ["up", "down"], "depth": [2, 0]}))
    ['down', 'up']
    """
    return list(table.drop_duplicates("block").sort_values("depth", kind="stable")["block"])


def only(table: pd.DataFrame, **values: object) -> pd.DataFrame:
    """Select the rows with these values; an error if there are none.

    Examples
    --------
    >>> len(only(pd.DataFrame({"conditioning": ["none", "label"]}), conditioning="none"))
    1
    """
    for column, value in values.items():
        one_of("column", column, table.columns, "See ldm_kit.tables.COLUMNS.")
        kept = table[table[column] == value]
        if kept.empty:
            there = table[column].unique()
            raise unknown_name(column.replace("_", " "), value, there, "The table holds no other.")
        table = kept
    return table
