"""The tables of several models, side by side."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd


def alignment_of_models(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Put the tables of several models under each other, with each block's relative depth.

    Parameters
    ----------
    tables : mapping of str to DataFrame
        The tidy table of each model.

    Returns
    -------
    pandas.DataFrame
        With `model` as asked for, and the column `relative_depth`: 0 for a model's first block, 1 for its
        last, evenly spaced between; 1 where there is but one.

    Examples
    --------
    >>> table = pd.DataFrame({"model": "m", "block": ["a", "b"], "depth": [3, 9]})
    >>> alignment_of_models({"mine": table})[["model", "relative_depth"]].values.tolist()
    [['mine', 0.0], ['mine', 1.0]]
    """
    parts = []
    for name, table in tables.items():
        order = {depth: rank for rank, depth in enumerate(sorted(table["depth"].unique()))}
        rank = table["depth"].map(order)
        parts.append(
            table.assign(model=name, relative_depth=rank / (len(order) - 1) if len(order) > 1 else 1.0)
        )
    return pd.concat(parts, ignore_index=True)
