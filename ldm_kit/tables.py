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


def write_table(table: pd.DataFrame, path: str | os.PathLike[str]) -> Path:
    """Write a table as parquet and, beside it, as CSV, each atomically.

    Parameters
    ----------
    table : pandas.DataFrame
    path : path-like
        Where the parquet file goes; gets that ending if it has not. The CSV has ``.csv`` instead.

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
        table.to_csv(aside, index=False)
    return path
