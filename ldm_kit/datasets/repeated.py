"""Triplets that were judged repeatedly: how many times, and how much people agree."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ldm_kit.datasets.text_tables import read_table, whole_numbers
from ldm_kit.datasets.triplets import Triplets
from ldm_kit.errors import BadInputError

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ["i", "j", "k", "n", "share"]


def aggregate_repeated(triplets: Triplets, at_least: int = 10) -> pd.DataFrame:
    """Count judgements of the same three stimuli, whatever their order.

    Parameters
    ----------
    triplets : Triplets
    at_least : int
        Keep triplets judged so many times; small numbers bias the majority's share upward.

    Returns
    -------
    pandas.DataFrame
        Columns ``i``, ``j``, ``k`` (stimulus names, in the order of `triplets.names`), ``n`` (judgements),
        ``share`` (share of the majority's answer, 1/3 to 1). Empty if none was judged so often.

    Examples
    --------
    >>> t = Triplets(np.array([[0, 1, 2], [1, 0, 2], [2, 1, 0]]), names=("a", "b", "c"))
    >>> aggregate_repeated(t, at_least=3).round(2).values.tolist()
    [['a', 'b', 'c', 3, 0.67]]
    """
    import pandas as pd

    names = np.array(triplets.names, dtype=object)
    size = len(names)
    ordered = np.sort(triplets.indices, axis=1)
    key = (ordered[:, 0] * size + ordered[:, 1]) * size + ordered[:, 2]
    _, first, which, n = np.unique(key, return_index=True, return_inverse=True, return_counts=True)
    odd = (ordered == triplets.indices[:, 2:]).argmax(axis=1)
    votes = np.bincount(which * 3 + odd, minlength=3 * len(first)).reshape(-1, 3)
    often = n >= at_least
    three = names[ordered[first[often]]].reshape(-1, 3)
    return pd.DataFrame(
        {
            "i": three[:, 0],
            "j": three[:, 1],
            "k": three[:, 2],
            "n": n[often],
            "share": votes[often].max(axis=1, initial=0) / n[often],
        },
        columns=COLUMNS,
    )


def read_repeated(
    path: str | os.PathLike[str], concepts: list[str], names: Mapping[str, str]
) -> pd.DataFrame:
    """Read triplets judged repeatedly from a table that was aggregated before.

    Parameters
    ----------
    path : path-like
        CSV with the columns ``id_lo``, ``id_mid``, ``id_hi`` (0-based rows of `concepts`),
        ``n_per_triplet`` and ``prop_max``.
    concepts : list of str
        In canonical order.
    names : mapping of str to str
        Concept to stimulus name; triplets with a concept that is not in it are dropped.

    Returns
    -------
    pandas.DataFrame
        As `aggregate_repeated` gives it.

    Raises
    ------
    BadInputError
        If columns are missing or an index is out of range.

    Examples
    --------
    >>> read_repeated("noise_ceiling_triplets.csv", concepts, {c: c for c in concepts})  # doctest: +SKIP
    """
    import pandas as pd

    wanted = ["id_lo", "id_mid", "id_hi", "n_per_triplet", "prop_max"]
    path = Path(path)
    expected = f"Triplets judged repeatedly have {', '.join(wanted)}."
    table = read_table(path, expected)
    if not set(wanted) <= set(table.columns):
        raise BadInputError(f"{str(path)!r} has the columns {', '.join(map(str, table.columns))}. {expected}")
    ids = whole_numbers(table[wanted[:3]].to_numpy(), path, expected)
    if ids.min() < 0 or ids.max() >= len(concepts):
        raise BadInputError(
            f"{str(path)!r} points outside the {len(concepts)} concepts: {ids.min()} to {ids.max()}. "
            "Its ids are 0-based rows of the list of concepts."
        )
    stimuli = np.array([names.get(concept) for concept in concepts], dtype=object)[ids]
    frame = pd.DataFrame(stimuli, columns=COLUMNS[:3]).assign(n=table[wanted[3]], share=table[wanted[4]])
    return frame.dropna().reset_index(drop=True)
