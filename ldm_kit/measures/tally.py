"""Tallies: what a cell's choices add up to for every object and pair, in whole numbers.

A zero-shot score is 0, 1/3, 1/2 or 1, a number of sixths. Adding whole numbers of two bytes takes a third of the
time that adding floats takes, rounds nothing, and needs no mean beforehand: so the analytic interval costs about as much
as the choices themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ldm_kit.measures import kernels
from ldm_kit.measures.grouped import Grouped
from ldm_kit.measures.intervals import Interval, finished
from ldm_kit.measures.kernels import in_threads

# Scores are tallied in these.
SIXTHS = 6


@dataclass(frozen=True, eq=False)
class Tally:
    """Sums of whole-numbered values over triplets.

    Parameters
    ----------
    counts : ndarray of int64, shape (8,)
        How many triplets bear each code.
    pairs : ndarray of int16 or int32, shape (n, n)
        Sum of the values of the triplets that hold the pair; its two halves add up. A triplet holds two pairs
        with each of its objects, so the sums over objects follow.
    """

    counts: npt.NDArray[np.int64]
    pairs: npt.NDArray[np.signedinteger]


def tally(
    codes: npt.NDArray[np.uint8], value: npt.ArrayLike, groups: Grouped, dtype: Any = np.int32
) -> Tally:
    """Add the value of each triplet's code to its pairs.

    Parameters
    ----------
    codes : ndarray of uint8, shape (t,)
        Grouped.
    value : array-like of int, shape (8,)
        Of each code.
    groups : Grouped
    dtype : type
        Of the sums over pairs; must hold the largest.

    Examples
    --------
    >>> found = tally(np.array([4], np.uint8), [1] * 8, Grouped(np.array([[0, 1, 2]]), 3))
    >>> found.counts.tolist(), int(found.pairs.sum())
    ([0, 0, 0, 0, 1, 0, 0, 0], 3)
    """
    values = np.asarray(value, dtype=dtype)

    def work(part: tuple[int, int]) -> Tally:
        found = Tally(np.zeros(8, np.int64), np.zeros((groups.n, groups.n), dtype))
        kernels.tally(codes, values, *groups.loops, *part, found.counts, found.pairs)
        return found

    first, *others = in_threads(work, groups.parts)
    for other in others:
        np.add(first.counts, other.counts, out=first.counts)
        np.add(first.pairs, other.pairs, out=first.pairs)
    return first


def tally_of_all(groups: Grouped) -> Tally:
    """How many triplets hold each pair; counted once for all cells.

    Examples
    --------
    >>> int(tally_of_all(Grouped(np.array([[0, 1, 2], [3, 1, 2]]), 4)).pairs[2, 1])
    2
    """
    if groups.tallied is None:
        found = tally(np.zeros(len(groups), np.uint8), np.ones(8, np.int64), groups)
        small = np.int16 if found.pairs.max(initial=0) <= np.iinfo(np.int16).max else np.int32
        object.__setattr__(groups, "tallied", Tally(found.counts, found.pairs.astype(small, copy=False)))
    of_all: Tally = groups.tallied
    return of_all


def interval_of_codes(
    codes: npt.NDArray[np.uint8], score: npt.NDArray[np.float64], groups: Grouped, estimand: str | None
) -> tuple[Interval, npt.NDArray[np.int64]]:
    """Mean score and its interval: what `intervals.interval` gives for ``score[codes]``, several times faster.

    Parameters
    ----------
    codes : ndarray of uint8, shape (t,)
        Grouped.
    score : ndarray of float, shape (8,)
        Of each code; numbers of sixths.
    groups : Grouped
    estimand : {"new objects", "these objects"} or None

    Returns
    -------
    Interval
    counts : ndarray of int64, shape (8,)
        How many triplets bear each code.

    Examples
    --------
    >>> groups = Grouped(np.array([[0, 1, 2], [3, 4, 5]]), 6)
    >>> interval_of_codes(np.array([4, 1], np.uint8), np.eye(8)[4], groups, None)[0].mean
    0.5
    """
    sixths = np.rint(score * SIXTHS).astype(np.int64)
    clustered = float("nan")
    if estimand == "new objects":
        found = tally(codes, sixths, groups, _smallest_type(groups))
        counts = found.counts
        clustered = _clustered_variance(codes, sixths, found, groups)
    else:
        counts = np.zeros(8, np.int64)
        kernels.count_codes(codes, counts)
    mean = float(counts @ sixths) / len(codes) if len(codes) else float("nan")
    squares = float(counts @ (sixths - mean) ** 2)
    whole = SIXTHS**2
    return finished(mean / SIXTHS, squares / whole, clustered / whole, groups, estimand), counts


def _smallest_type(groups: Grouped) -> Any:
    """The smallest type that holds any sum of sixths over a pair."""
    pairs = tally_of_all(groups).pairs
    return np.int16 if 2 * SIXTHS * int(pairs.max(initial=0)) <= np.iinfo(np.int16).max else np.int32


def _clustered_variance(
    codes: npt.NDArray[np.uint8], sixths: npt.NDArray[np.int64], found: Tally, groups: Grouped
) -> float:
    """The formula of `intervals.clustered_variance`, each sum of deviations being sum - mean * count."""
    if not len(codes):
        return float("nan")
    mean = float(found.counts @ sixths) / len(codes)
    objects, pairs = _squared_sums(found, mean, groups)
    sets = float(found.counts @ (sixths - mean) ** 2)
    position, number = groups.repeats
    if position.size:
        repeated = sixths[codes[position]] - mean
        sets += float(np.sum(np.bincount(number, weights=repeated) ** 2) - repeated @ repeated)
    apart = 1 - _sharing(groups)
    return max((objects - pairs + sets) / apart, sets) / len(codes) ** 2 if apart > 1e-9 else float("nan")


def _squared_sums(found: Tally, mean: float, groups: Grouped) -> tuple[float, float]:
    """Sums of (sum - mean * count) squared over objects, and over pairs."""
    counts = tally_of_all(groups).pairs
    bands = len(groups.parts)

    def work(band: int) -> tuple[float, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        sums, times = np.zeros(groups.n, np.int64), np.zeros(groups.n, np.int64)
        return kernels.sums_over_pairs(found.pairs, counts, mean, band, bands, sums, times), sums, times

    done = in_threads(work, range(bands))
    objects: npt.NDArray[np.float64] = np.sum([sums - mean * times for _, sums, times in done], axis=0) / 2
    return float(objects @ objects), float(sum(pairs for pairs, _, _ in done))


def _sharing(groups: Grouped) -> float:
    """What `intervals.sharing` gives, from the tally of all triplets."""
    if groups.sharing is None:
        objects, pairs = _squared_sums(tally_of_all(groups), 0.0, groups)
        position, number = groups.repeats
        sets = len(groups) - len(position) + float(np.sum(np.bincount(number) ** 2))
        object.__setattr__(groups, "sharing", (objects - pairs + sets) / len(groups) ** 2)
    return float(groups.sharing or 0.0)
