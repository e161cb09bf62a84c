"""What a game proves: agreement with exact intervals, the player's own consistency, and how little that is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ldm_kit.tables import tidy

CHANCE = 1 / 3
CLOSE = 0.05  # the half width of an interval that would prove something


def exact_interval(agreed: int, n: int) -> tuple[float, float]:
    """The exact (Clopper-Pearson) 95 % interval of a share; 0 to 1 for no trial.

    Examples
    --------
    >>> [round(bound, 3) for bound in exact_interval(7, 10)]
    [0.348, 0.933]
    """
    from scipy.stats import binomtest

    if n == 0:
        return 0.0, 1.0
    found = binomtest(agreed, n).proportion_ci(0.95, method="exact")
    return float(found.low), float(found.high)


def agreement_table(
    player: Iterable[int], others: Mapping[str, Iterable[int]], labels: Mapping[str, Mapping[str, Any]]
) -> pd.DataFrame:
    """How often a player's answers agree with those of others.

    Parameters
    ----------
    player : iterable of int
        The picture named the odd one in each trial, 0 to 2.
    others : mapping of str to iterable of int
        The same by each of the others; -1 where one has no answer. Such trials do not count for it.
    labels : mapping of str to mapping
        Further columns of each of the others.

    Returns
    -------
    pandas.DataFrame
        The tidy table, one row for each of the others, with the columns ``other`` and ``agreed``; `ci_low`
        and `ci_high` are the exact binomial 95 % interval, for these objects.

    Examples
    --------
    >>> table = agreement_table([0, 1, 2], {"people": [0, 1, -1]}, {})
    >>> table[["other", "agreed", "n_triplets", "accuracy"]].values.tolist()
    [['people', 2, 2, 1.0]]
    """
    mine, rows = list(player), []
    for other, theirs in others.items():
        pairs = [(a, b) for a, b in zip(mine, theirs, strict=True) if b >= 0]
        agreed = sum(a == b for a, b in pairs)
        low, high = exact_interval(agreed, len(pairs))
        rows.append(
            {
                **labels.get(other, {}),
                "accuracy": agreed / len(pairs) if pairs else math.nan,
                "ci_low": low,
                "ci_high": high,
                "n_triplets": len(pairs),
                "chance": CHANCE,
                "other": other,
                "agreed": agreed,
                "estimand": "these objects",
            }
        )
    return tidy(rows)


@dataclass(frozen=True)
class Consistency:
    """How often a player gives the same answer to a repeat, and what ceiling follows.

    Parameters
    ----------
    same, n : int
        Repeats answered alike, and all repeats.

    Notes
    -----
    If a player names the three items with chances p, the share of repeats answered alike is c = Σ p², and
    nobody can predict the player more often than max p. Since Σ p² ≤ max p ≤ √(Σ p²) for one triplet, and
    the root is concave, the mean over triplets lies between c and √c as well.

    Examples
    --------
    >>> found = Consistency(3, 4)
    >>> found.c, round(found.ceiling[1], 3)
    (0.75, 0.866)
    """

    same: int
    n: int

    @property
    def c(self) -> float:
        """The share answered alike; NaN without repeats."""
        return self.same / self.n if self.n else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """The exact 95 % interval of `c`."""
        return exact_interval(self.same, self.n)

    @property
    def ceiling(self) -> tuple[float, float]:
        """The personal ceiling lies between these: c and √c."""
        return self.c, math.sqrt(self.c) if self.n else math.nan

    @property
    def said(self) -> str:
        """The consistency and the ceiling in two sentences."""
        if not self.n:
            return "No trial was repeated yet, so nothing is known of your own consistency."
        (low, high), (c, root) = self.interval, self.ceiling
        return (
            f"Shown the same three again, you answered alike {self.same} of {self.n} times: c = {c:.2f} "
            f"[{low:.2f}, {high:.2f}]. Your personal ceiling, the most that anybody or any model could agree with "
            f"you, lies between c = {c:.2f} and √c = {root:.2f}; with the interval of c, between {low:.2f} and "
            f"{math.sqrt(high):.2f}."
        )


def consistency(pairs: Iterable[tuple[int, int]]) -> Consistency:
    """Count the repeats answered alike.

    Parameters
    ----------
    pairs : iterable of (int, int)
        The picture named the odd one at first and again, by its place in the set, not by its side.

    Examples
    --------
    >>> consistency([(0, 0), (1, 2)]).c
    0.5
    """
    both = list(pairs)
    return Consistency(sum(a == b for a, b in both), len(both))


def trials_said(table: pd.DataFrame) -> str:
    """Say how little so many trials prove.

    Parameters
    ----------
    table : pandas.DataFrame
        From `agreement_table`.

    Examples
    --------
    >>> print(trials_said(agreement_table([0] * 10, {"people": [0] * 7 + [1] * 3}, {})))
    10 trials prove little: 7 of 10 in common with people fit any true agreement from 0.35 to 0.93. To know it \
to within ±0.05 takes about 323 trials. 0 of 1 intervals cover chance (0.33), as a guesser's would.
    """
    compared = table[table["n_triplets"] > 0]
    if compared.empty:
        return "No trial was played yet."
    row = compared.iloc[0]
    n, p = int(row["n_triplets"]), float(row["accuracy"])
    # Near 0 or 1 a share of few trials is no guide to its own spread: stay between 1/6 and 5/6.
    spread = min(max(p, 1 / 6), 5 / 6)
    needed = math.ceil(spread * (1 - spread) * (1.96 / CLOSE) ** 2)
    told = (
        f"{n} trial{'s' * (n > 1)} prove{'s' * (n == 1)} little: {int(row['agreed'])} of {n} in common with "
        f"{row['other']} fit any true agreement from {row['ci_low']:.2f} to {row['ci_high']:.2f}. "
        f"To know it to within ±{CLOSE} takes about {needed} trials."
    )
    covers = (compared["ci_low"] <= CHANCE) & (compared["ci_high"] >= CHANCE)
    told += f" {int(covers.sum())} of {len(compared)} intervals cover chance ({CHANCE:.2f}), as a guesser's would."
    blocks = compared[compared["block"] != ""]
    if len(blocks) > 1 and blocks["ci_low"].max() <= blocks["ci_high"].min():
        told += " The intervals of all blocks overlap: none is shown to be more like you than another."
    return told
