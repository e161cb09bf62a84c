"""Many cells at once: is any above chance, or above a reference, and which? The max-T test and simultaneous intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ldm_kit.datasets.triplets import Triplets
from ldm_kit.errors import BadInputError, MismatchError, one_of, whole_number
from ldm_kit.measures import kernels
from ldm_kit.measures.ceiling import ceiling_columns
from ldm_kit.measures.cells import Groups
from ldm_kit.measures.grouped import Grouped
from ldm_kit.measures.kernels import in_threads, n_threads
from ldm_kit.measures.metrics import METRICS
from ldm_kit.measures.statistics import (
    LEVEL,
    SIXTHS,
    Interval,
    checked_estimand,
    interval,
    interval_of_codes,
    settled,
)
from ldm_kit.measures.zero_shot import CHANCE, Matched, cells_by_draw, mean_score, score_of_code
from ldm_kit.tables import tidy

Values = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]
MOST_TRIPLETS = 50_000
TOGETHER = 16  # similarities of as many cells beside each other fill a cache line
SURE = 300  # degrees of freedom from which a standard error is as good as known
DRAWS = 20_000  # from the joint distribution of all cells


def max_t_test(
    features: Any,
    triplets: Triplets | npt.ArrayLike,
    metric: str = "cosine",
    *,
    reference: Mapping[str, Any] | None = None,
    n_permutations: int = 1000,
    max_triplets: int = MOST_TRIPLETS,
    ci: bool | str = True,
    groups: Groups | None = None,
    centre_on: Sequence[str] | npt.ArrayLike | None = None,
    random_state: int = 0,
    ceiling: Any = None,
) -> pd.DataFrame:
    """Is any cell above chance, or above a reference, and which? All cells at once, corrected for their number.

    Where `best_cell` halves the objects to choose and to report, this uses all of them, and pays for the choice with wider intervals:
    as far as cells agree, less wide than without knowing how they do.

    Parameters
    ----------
    features, triplets, metric, groups, centre_on, ceiling
        As for `odd_one_out`; ties score the mean of guessing.
    reference : mapping of label to value, optional
        Names one cell, e.g. ``{"block": "mid_block", "noise_level": 0.5}``: all others are compared with it. By default cells
        are compared with chance.
    n_permutations : int
        How often objects are permuted, for p above chance: features of one object stand for another's, in all cells alike.
        Pictures of one group go together.
    max_triplets : int
        p rests on so many triplets, drawn at random, if there are more. Accuracies and intervals rest on all.
    ci : bool or {"new objects and people", "new objects", "these objects"}
        As for `odd_one_out`; False leaves intervals out.
    random_state : int
        Seed of the permutations, the triplets drawn, and the critical value.

    Returns
    -------
    pandas.DataFrame
        The tidy table, a row per cell (but the reference), with the columns `p_max_t`, `low_simultaneous`, `high_simultaneous`,
        `n_cells`. Against chance, `p_max_t` is one-sided: how often, under permutation, the highest of all cells stood out as
        far as this one. The 95 % simultaneous intervals hold all true accuracies at once; they use the cells' correlations over
        objects (and people) and Student's t. Against a reference: `difference`, `accuracy_reference`, intervals of the difference, and
        `p_max_t` two-sided, from the same joint distribution.

    Raises
    ------
    MismatchError
        If plain arrays have different numbers of rows.
    BadInputError
        If no cell is the reference, or several are; or there is none to compare.

    References
    ----------
    Westfall & Young 1993, *Resampling-based multiple testing* (max-T); Hothorn, Bretz & Westfall 2008,
    doi:10.1002/bimj.200810425 (simultaneous intervals).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X, t = rng.normal(size=(24, 3)), np.array([rng.permutation(24)[:3] for _ in range(600)])
    >>> near = X + 0.1 * rng.normal(size=X.shape)
    >>> S = X @ X.T  # choices follow X
    >>> odd = np.stack([S[t[:, 1], t[:, 2]], S[t[:, 0], t[:, 2]], S[t[:, 0], t[:, 1]]], axis=1).argmax(axis=1)
    >>> t = np.stack([t[np.arange(600), (odd + i) % 3] for i in (1, 2, 0)], axis=1)
    >>> table = max_t_test({"near": near, "noise": rng.normal(size=X.shape)}, t, "dot", n_permutations=99)
    >>> table["p_max_t"].round(2).tolist()[0], bool(table["low_simultaneous"][0] > 1 / 3)
    (0.01, True)
    """
    one_of("metric", metric, METRICS)
    whole_number("n_permutations", n_permutations, 1)
    whole_number("max_triplets", max_triplets, 1)
    estimand, score = checked_estimand(ci), score_of_code("chance")
    cells = [
        _Measured.of(drawn, metric, centre_on, score, estimand, max_triplets, random_state)
        for drawn in cells_by_draw(features, triplets, "max-T", groups)
    ]
    if not cells:
        raise BadInputError("There are no cells to test. Give a store or a mapping with at least one.")
    sizes = {cell.matched.groups.n for cell in cells}
    if len(sizes) > 1:
        raise MismatchError(
            f"The cells have {' and '.join(map(str, sorted(sizes)))} rows; they are permuted together. Give the same stimuli, in the "
            "same order, for each."
        )
    if reference is not None:
        at = _named(reference, cells)
        return _against(cells, at, estimand, random_state, metric)
    p = _permuted(cells, n_permutations, random_state)
    critical = _critical([cell.sums for cell in cells], [cell.found.freedom for cell in cells], random_state)
    rows = []
    for cell, chance in zip(cells, p, strict=True):
        found = cell.found
        reach = critical * found.se
        rows.append(
            cell.matched.row(
                metric,
                found,
                n_triplets=len(cell.matched.groups),
                p_max_t=chance,
                low_simultaneous=max(found.mean - reach, 0.0),
                high_simultaneous=min(found.mean + reach, 1.0),
                n_cells=len(cells),
                **ceiling_columns(ceiling),
            )
        )
    return tidy(rows)


@dataclass(frozen=True, eq=False)
class _Measured:
    """A cell's interval, each triplet's score, its sums over objects and people; and what permutations need of it."""

    matched: Matched
    found: Interval
    scores: Values
    sums: Values
    similarities: list[npt.NDArray[np.float32]]
    triplets: Rows

    @classmethod
    def of(
        cls,
        drawn: list[Matched],
        metric: str,
        centre_on: Any,
        score: Values,
        estimand: str | None,
        most: int,
        seed: int,
    ) -> _Measured:
        groups = drawn[0].groups
        codes = [one.codes(metric, centre_on) for one in drawn]
        scores = mean_score(codes, score)
        if len(codes) == 1:
            found = interval_of_codes(codes[0], score, groups, estimand)[0]
        else:
            found = interval(scores, groups, estimand)
        items = groups.indices
        if len(items) > most:
            items = items[np.sort(np.random.default_rng(seed).choice(len(items), most, replace=False))]
        similarities = [one.similarities(metric, centre_on) for one in drawn]
        return cls(drawn[0], found, scores, sums_over(scores, groups, estimand), similarities, items)


def sums_over(scores: Values, groups: Grouped, estimand: str | None) -> Values:
    """Sums of grouped triplets' deviations from their mean over each object (or its group), and each person if new ones are meant.

    Examples
    --------
    >>> sums_over(np.array([1.0, 0.0]), Grouped(np.array([[0, 1, 2], [0, 3, 4]]), 5), "").tolist()
    [0.0, 0.5, 0.5, -0.5, -0.5]
    """
    estimand = settled(estimand, groups)
    off: Values = scores - scores.mean()
    if estimand == "these objects":
        return off
    number = np.arange(groups.n) if groups.clusters is None else groups.clusters
    items = number[groups.indices[groups.order]]
    n = int(number.max(initial=0)) + 1
    sums: Values = np.bincount(items.T.ravel(), weights=np.tile(off, 3), minlength=n).astype(np.float64)
    if estimand == "new objects and people" and groups.people is not None:
        return np.concatenate([sums, np.bincount(groups.people.number, weights=off)])
    return sums


def _critical(sums: Sequence[Values], freedom: Sequence[float], seed: int) -> float:
    """Quantile of the greatest |t| of all cells."""
    return float(np.quantile(_greatest(sums, freedom, seed), LEVEL))


def _greatest(sums: Sequence[Values], freedom: Sequence[float], seed: int) -> Values:
    """Draws of the greatest |t| of cells whose sums, and so whose standard errors, correlate so.

    A standard error stands on as many draws as the cell with the fewest degrees of freedom has of them.
    """
    E = np.stack(sums)
    length = np.linalg.norm(E, axis=1, keepdims=True)
    E = E / np.where(length > 0, length, 1)
    values, vectors = np.linalg.eigh(E @ E.T)
    root = (vectors * np.sqrt(np.maximum(values, 0))).T
    rng = np.random.default_rng(seed)
    few = max(round(float(np.nanmin(freedom))), 1) if np.isfinite(freedom).any() else 1
    squares = np.zeros((DRAWS, len(E)))
    for _ in range(few if few <= SURE else 0):
        squares += (rng.normal(size=squares.shape) @ root) ** 2
    error = np.sqrt(squares / few) if few <= SURE else 1.0
    greatest: Values = np.abs(rng.normal(size=squares.shape) @ root / error).max(axis=1)
    return greatest


def _permuted(cells: list[_Measured], n_permutations: int, seed: int) -> Values:
    """P of each cell: how often the highest of all stood out as far, with objects permuted."""
    groups, triplets = cells[0].matched.groups, cells[0].triplets
    order = _orders(groups, n_permutations, seed)  # the first as it was
    every = [S for cell in cells for S in cell.similarities]
    sums = np.empty((len(order), len(every)))
    for first in range(0, len(every), TOGETHER):
        part = every[first : first + TOGETHER]
        room = np.zeros((groups.n, groups.n, TOGETHER), np.float32)
        for place, S in enumerate(part):
            room[..., place] = S
        found = np.zeros((len(order), TOGETHER), np.int64)
        bounds = np.linspace(0, len(order), n_threads() + 1).astype(int).tolist()
        halves = [(low, high) for low, high in pairwise(bounds) if low < high]
        in_threads(partial(_half, room, triplets, order, found), halves)
        sums[:, first : first + len(part)] = found[:, : len(part)]
    edges = np.cumsum([0, *(len(cell.similarities) for cell in cells)])
    accuracy = np.stack([sums[:, low:high].mean(axis=1) for low, high in pairwise(edges)], axis=1) / (
        SIXTHS * len(triplets)
    )
    spread = accuracy[1:].std(axis=0, ddof=1) if n_permutations > 1 else np.zeros(len(cells))
    t = (accuracy - CHANCE) / np.where(spread > 0, spread, np.inf)
    highest = t[1:].max(axis=1)
    p: Values = (1 + (highest[:, None] >= t[0]).sum(axis=0)) / (1 + n_permutations)
    return p


def _half(room: Any, triplets: Rows, order: Rows, found: Rows, half: tuple[int, int]) -> None:
    kernels.scores_permuted(room, triplets, order, *half, found)


def _orders(groups: Grouped, n_permutations: int, seed: int) -> Rows:
    """Which object stands for which: first themselves, then at random, pictures of one group together."""
    rng = np.random.default_rng([seed, 1])
    orders = np.tile(np.arange(groups.n), (n_permutations + 1, 1))
    used = np.flatnonzero(groups.used)
    if groups.clusters is None:
        for order in orders[1:]:
            order[used] = rng.permutation(used)
        return orders
    members = [used[groups.clusters[used] == one] for one in np.unique(groups.clusters[used])]
    for order in orders[1:]:
        for own, other in zip(members, rng.permutation(len(members)), strict=True):
            order[own] = np.resize(rng.permutation(members[other]), len(own))
    return orders


def _named(reference: Mapping[str, Any], cells: list[_Measured]) -> int:
    """The place of the one cell with these labels."""
    known = {name for cell in cells for name in cell.matched.labels}
    for name in reference:
        one_of("label", name, known, "Cells have these labels.")
    fits = [
        place
        for place, cell in enumerate(cells)
        if all(cell.matched.labels.get(name) == value for name, value in reference.items())
    ]
    if len(fits) != 1:
        some = {name: sorted({str(cell.matched.labels.get(name)) for cell in cells}) for name in reference}
        raise BadInputError(
            f"reference={dict(reference)} names {len(fits)} cells of {len(cells)}; one is needed. Add labels, or choose "
            f"other values, of these: {some}."
        )
    return fits[0]


def _against(cells: list[_Measured], at: int, estimand: str | None, seed: int, metric: str) -> pd.DataFrame:
    """All cells minus one of them."""
    base = cells[at]
    others = [cell for place, cell in enumerate(cells) if place != at]
    if not others:
        raise BadInputError("There is one cell alone, the reference. Give others to compare with it.")
    groups = base.matched.groups
    gaps = [cell.scores - base.scores for cell in others]
    found = [interval(gap, groups, estimand, bounds=(-1.0, 1.0)) for gap in gaps]
    sums = [sums_over(gap, groups, estimand) for gap in gaps]
    greatest = _greatest(sums, [one.freedom for one in found], seed)
    critical = float(np.quantile(greatest, LEVEL))
    rows = []
    for cell, one in zip(others, found, strict=True):
        t = abs(one.mean) / one.se if one.se > 0 else (np.inf if one.mean else 0.0)
        rows.append(
            cell.matched.row(metric, one)
            | {
                "accuracy": cell.found.mean,
                "accuracy_reference": base.found.mean,
                "difference": one.mean,
                "n_triplets": len(groups),
                "p_max_t": (1 + int((greatest >= t).sum())) / (1 + len(greatest)),
                "low_simultaneous": max(one.mean - critical * one.se, -1.0),
                "high_simultaneous": min(one.mean + critical * one.se, 1.0),
                "n_cells": len(others),
            }
        )
    return tidy(rows)
