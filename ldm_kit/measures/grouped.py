"""Triplets grouped by their odd object for the compiled loops, and what they all add up to for every object and pair."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from ldm_kit.datasets.triplets import Triplets
from ldm_kit.measures import kernels
from ldm_kit.measures.kernels import WORTH_THREADS, in_threads, n_threads
from ldm_kit.measures.metrics import Tolerance

# Bands of 2 ** 6 objects; with so few objects that their whole matrix fits the cache there is one band.
BAND, FEW = 6, 512

Scalar = TypeVar("Scalar", bound=np.generic)


class Tally(NamedTuple):
    """Sums of whole numbers, one of each code, over triplets.

    `counts`, (8,), holds how many triplets have each code; `pairs`, (n, n), is the sum over the triplets that hold the
    pair, and its two halves add up. A triplet holds two pairs with each of its objects, so the sums over objects follow.
    """

    counts: npt.NDArray[np.int64]
    pairs: npt.NDArray[np.signedinteger]


@dataclass(eq=False)
class Grouped:
    """Triplets over `n` objects, in runs that share the odd one and a band of first items.

    A loop over a run then stays within one row of a similarity matrix and one band of rows, which fit a core's own
    cache; in their own order, almost every look-up would miss it. A measure groups its triplets once for all cells;
    it takes `Grouped.of(triplets)` in place of `Triplets`, too, so that several calls can share one grouping.

    Parameters
    ----------
    indices : ndarray of int64, shape (t, 3)
        Checked; column 2 is the odd one.
    n : int
        Number of objects.
    names : tuple of str, optional
        Of the objects; features are then matched to them by name.
    labels : dict
        Columns of the tidy table: who judged what.
    subjects : ndarray of int64, shape (t,), optional
        Who judged each row of `indices`, where people are known.
    clusters : ndarray of int64, shape (n,), optional
        The group of each object, such as the concept that pictures show; by default each is its own.

    Attributes
    ----------
    start : ndarray of int64, shape (bands * n + 1,)
        The triplets of run `r`, whose odd one is ``r % n``, lie at ``start[r]:start[r + 1]`` of the other three.
    first, second : ndarray of uint16 or uint32, shape (t,)
        Columns 0 and 1, grouped.
    order : ndarray of uint32, shape (t,)
        The row of `indices` that each grouped triplet came from.

    Examples
    --------
    >>> g = Grouped(np.array([[0, 1, 2], [2, 1, 0]]), 3)
    >>> g.start.tolist(), g.order.tolist()
    ([0, 1, 1, 2], [1, 0])
    """

    indices: npt.NDArray[np.int64]
    n: int
    names: tuple[str, ...] | None = None
    labels: dict[str, Any] = field(default_factory=dict)
    subjects: npt.NDArray[np.int64] | None = None
    clusters: npt.NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        small = np.uint16 if self.n <= 2**16 else np.uint32
        t = len(self.indices)
        shift = BAND if self.n > FEW else 63
        bands = (max(self.n - 1, 0) >> shift) + 1
        self.start = np.zeros(bands * self.n + 1, np.int64)
        self.first, self.second = np.empty(t, small), np.empty(t, small)
        self.order = np.empty(t, np.uint32)
        kernels.group_by_odd(self.indices, self.n, shift, self.start, self.first, self.second, self.order)

    @classmethod
    def of(cls, triplets: Triplets) -> Grouped:
        """Group named triplets, by which features are then matched."""
        about = {"judgements": triplets.judgements, "dataset": triplets.dataset}
        return cls(triplets.indices, len(triplets.names), triplets.names, about, triplets.subjects)

    def part(self, rows: npt.NDArray[np.integer]) -> Grouped:
        """Group some rows of `indices` alone."""
        subjects = None if self.subjects is None else self.subjects[rows]
        return Grouped(self.indices[rows], self.n, self.names, self.labels, subjects, self.clusters)

    def clustered(self, clusters: npt.NDArray[np.int64]) -> Grouped:
        """The same triplets, in the same order, over objects in these groups."""
        alone = len(np.unique(clusters[self.used])) == self.n_used
        wanted = None if alone else clusters
        same = wanted is None and self.clusters is None
        if wanted is not None and self.clusters is not None:
            same = np.array_equal(wanted, self.clusters)
        if same:
            return self
        other = copy(self)
        for name in ("overlaps", "sharing", "sharing_of_people", "people", "n_clusters"):
            other.__dict__.pop(name, None)
        other.clusters = wanted
        return other

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def loops(self) -> Any:
        """`start`, `first`, `second`: what every compiled loop reads."""
        return self.start, self.first, self.second

    @cached_property
    def used(self) -> npt.NDArray[np.bool_]:
        """Which of the `n` objects occur in a triplet."""
        used = np.zeros(self.n, dtype=bool)
        used[np.flatnonzero(np.diff(self.start)) % max(self.n, 1)] = True
        used[self.first] = True
        used[self.second] = True
        return used

    @cached_property
    def n_used(self) -> int:
        """How many objects occur in a triplet."""
        return int(self.used.sum())

    @cached_property
    def parts(self) -> list[tuple[int, int]]:
        """Ranges of runs with about as many triplets each, one a thread."""
        k = n_threads() if len(self) >= WORTH_THREADS else 1
        bounds = np.searchsorted(self.start, np.linspace(0, len(self), k + 1)[1:-1])
        edges = [0, *bounds.tolist(), len(self.start) - 1]
        return [(low, high) for low, high in pairwise(edges) if low < high] or [(0, 0)]

    @cached_property
    def repeats(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Grouped positions of the triplets whose set was judged more than once, and their sets' numbers."""
        position = np.flatnonzero(kernels.mark_repeats(self.indices, self.n)[self.order])
        keys = set_keys(self.indices[self.order[position]], self.n)
        return position, np.unique(keys, return_inverse=True)[1]

    @cached_property
    def everything(self) -> Tally:
        """How many triplets hold each pair."""
        found = self.tally(np.zeros(len(self), np.uint8), np.ones(8, np.int64), np.int32)
        small = np.int16 if found.pairs.max(initial=0) <= np.iinfo(np.int16).max else np.int32
        return Tally(found.counts, found.pairs.astype(small, copy=False))

    @cached_property
    def sharing(self) -> float:
        """Share of the ordered pairs of triplets (with itself, too) that have an object, or its group, in common."""
        if self.overlaps is not None:
            return self.overlaps(np.ones(len(self)))[0] / len(self) ** 2
        objects, pairs = self.squared_sums(self.everything, 0.0)
        position, number = self.repeats
        sets = len(self) - len(position) + float(np.sum(np.bincount(number) ** 2))
        return (objects - pairs + sets) / len(self) ** 2

    @cached_property
    def sharing_of_people(self) -> float:
        """Share of the ordered pairs of triplets that have a person in common, but no object."""
        if self.people is None:
            return 0.0
        return self.people.apart(np.ones(len(self))) / len(self) ** 2

    @cached_property
    def n_clusters(self) -> int:
        """How many groups of objects occur in a triplet."""
        return self.n_used if self.clusters is None else len(np.unique(self.clusters[self.used]))

    @cached_property
    def overlaps(self) -> Overlaps | None:
        """Which triplets share a group of objects; None where each object is its own, and the loops are faster."""
        if self.clusters is None:
            return None
        return Overlaps.of(self.clusters[self.indices[self.order]])

    @cached_property
    def people(self) -> People | None:
        """Who judged which triplets; None where fewer than two people are known."""
        if self.subjects is None or not len(self):
            return None
        _, person = np.unique(self.subjects[self.order], return_inverse=True)
        return People(self, person) if person.max() else None

    def tally(self, codes: npt.NDArray[np.uint8], value: npt.NDArray[Any], dtype: Any) -> Tally:
        """Add the whole-numbered value of each grouped triplet's code to its pairs, in sums of type `dtype`."""
        values = np.asarray(value, dtype=dtype)

        def work(part: tuple[int, int]) -> Tally:
            found = Tally(np.zeros(8, np.int64), np.zeros((self.n, self.n), dtype))
            kernels.tally(codes, values, *self.loops, *part, found.counts, found.pairs)
            return found

        first, *others = in_threads(work, self.parts)
        for other in others:
            np.add(first.counts, other.counts, out=first.counts)
            np.add(first.pairs, other.pairs, out=first.pairs)
        return first

    def squared_sums(self, found: Tally, mean: float) -> tuple[float, float]:
        """Sums of (sum - mean * count) squared over objects, and over pairs."""
        counts = self.everything.pairs
        bands = len(self.parts)

        def work(band: int) -> tuple[float, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
            sums, times = np.zeros(self.n, np.int64), np.zeros(self.n, np.int64)
            return kernels.sums_over_pairs(found.pairs, counts, mean, band, bands, sums, times), sums, times

        done = in_threads(work, range(bands))
        objects: npt.NDArray[np.float64] = (
            np.sum([sums - mean * times for _, sums, times in done], axis=0) / 2
        )
        return float(objects @ objects), float(sum(pairs for pairs, _, _ in done))

    def choose(self, S: npt.NDArray[np.floating], tolerance: Tolerance) -> npt.NDArray[np.uint8]:
        """Which pairs are most similar in each grouped triplet, as the bits of `kernels.choose`."""
        codes = np.empty(len(self), np.uint8)
        S = np.ascontiguousarray(S)
        kernel: Any = kernels.choose
        limits: tuple[Any, ...] = (S.dtype.type(tolerance.unit),)
        if tolerance.norms is not None:
            kernel = kernels.choose_scaled
            norms = tolerance.norms.astype(S.dtype)
            limits = (*limits, norms, tolerance.squared, S.dtype.type(tolerance.greatest))
        in_threads(lambda part: kernel(S, *limits, *self.loops, part[0], part[1], codes), self.parts)
        return codes

    def ungrouped(self, values: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
        """Put grouped values into the order of `indices`."""
        out = np.empty_like(values)
        out[self.order] = values
        return out


def set_keys(indices: npt.NDArray[np.int64], n: int) -> npt.NDArray[np.int64]:
    """Number each triplet by its set of three, whichever is the odd one.

    Examples
    --------
    >>> keys = set_keys(np.array([[0, 1, 2], [2, 0, 1], [0, 1, 3]]), 4)
    >>> bool(keys[0] == keys[1]), bool(keys[0] == keys[2])
    (True, False)
    """
    low, high = indices.min(axis=1), indices.max(axis=1)
    middle = indices.sum(axis=1) - low - high
    keys: npt.NDArray[np.int64] = (low * n + middle) * n + high
    return keys


class Overlaps(NamedTuple):
    """Which triplets share one, two or three groups, where a triplet may hold a group twice.

    Each of the three holds, for triplets that have so many groups or more, their positions and the numbers of the
    groups, pairs or sets of three that they hold.
    """

    singles: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
    pairs: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
    sets: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]

    @classmethod
    def of(cls, groups: npt.NDArray[np.int64], within: npt.NDArray[np.int64] | None = None) -> Overlaps:
        """From the groups of each triplet's objects, (t, 3); `within` tells apart what is not to be shared.

        Examples
        --------
        >>> Overlaps.of(np.array([[0, 0, 1], [1, 2, 3]]))(np.ones(2))
        (4.0, 2.0)
        """
        t = len(groups)
        a, b, c = np.sort(groups, axis=1).T
        k = int(groups.max(initial=0)) + 1
        outer = np.zeros(t, np.int64) if within is None else within
        two, three, rows = a != b, b != c, np.arange(t)
        all_three = two & three
        singles = [(a, np.ones(t, bool)), (b, two), (c, three)]
        # With two groups, a pair is the least and the greatest; with three, all pairs.
        pairs = [(a * k + c, a != c), (a * k + b, all_three), (b * k + c, all_three)]

        def numbered(keys: Any, size: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
            position = np.concatenate([rows[there] for _, there in keys])
            key = np.concatenate([(outer * size + value)[there] for value, there in keys])
            return position, np.unique(key, return_inverse=True)[1]

        # Pairs come down to their numbers first: three groups and a person would not fit in 64 bits.
        pair = np.unique(a * k + b, return_inverse=True)[1].astype(np.int64)
        whole = [(pair * k + c, all_three)]
        return cls(numbered(singles, k), numbered(pairs, k * k), numbered(whole, t * k))

    def __call__(self, values: npt.NDArray[np.floating]) -> tuple[float, float]:
        """Sum of e_t e_u over ordered pairs of triplets that share a group, and over those that share their set.

        For triplets with fewer than three groups the set is the triplet itself.
        """
        objects, pairs, sets = (
            float(np.sum(np.bincount(number, weights=values[position]) ** 2)) if len(position) else 0.0
            for position, number in self
        )
        few = np.ones(len(values), bool)
        few[self.sets[0]] = False
        return objects - pairs + sets, sets + float(np.dot(values[few], values[few]))


class People:
    """The triplets of each person, one after the other.

    Parameters
    ----------
    groups : Grouped
    person : ndarray of int64, shape (t,)
        0, 1, …, in grouped order.
    """

    def __init__(self, groups: Grouped, person: npt.NDArray[np.int64]) -> None:
        self.number = person.astype(np.int64)
        self.counts = np.bincount(person)
        self.n = len(self.counts)
        # As many as would, judging equally often, weigh on the mean as much as these.
        self.freedom = len(person) ** 2 / float(np.dot(self.counts, self.counts)) - 1
        self.overlaps: Overlaps | None = None
        items = groups.indices[groups.order]
        if groups.clusters is not None:
            self.overlaps = Overlaps.of(groups.clusters[items], self.number)
            return
        self.order = np.argsort(person, kind="stable").astype(np.uint32)
        self.start = np.concatenate([[0], np.cumsum(self.counts)])
        self.items = items[self.order].astype(groups.first.dtype)
        self.parts = [
            (int(low), int(high))
            for low, high in pairwise(
                np.searchsorted(self.start, np.linspace(0, len(person), len(groups.parts) + 1)).tolist()
            )
            if low < high
        ]
        self.n_objects = groups.n
        a, b, c = (items[self.order, i] for i in range(3))
        low, high = np.minimum(np.minimum(a, b), c), np.maximum(np.maximum(a, b), c)
        middle, n = a + b + c - low - high, groups.n
        self._pairs = self._repeated(np.stack([low * n + middle, low * n + high, middle * n + high], axis=1))
        self._sets = self._repeated(((low * n + middle) * n + high)[:, None])

    def _repeated(self, keys: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Grouped positions of the keys (person by person) that occur more than once with a person, and their numbers."""
        marked = np.zeros(keys.shape, np.bool_)
        kernels.mark_repeats_within(keys, self.start, marked)
        row, column = np.nonzero(marked)
        position = self.order[row].astype(np.int64)
        both = np.stack([self.number[position], keys[row, column]], axis=1)
        return position, np.unique(both, axis=0, return_inverse=True)[1].ravel()

    def apart(self, values: npt.NDArray[Any], table: npt.NDArray[np.float64] | None = None) -> float:
        """Sum of e_t e_u over ordered pairs of triplets of one person that share no object (nor its group).

        The values are of the grouped triplets; with a `table`, they are rows of it.

        Examples
        --------
        >>> groups = Grouped(np.array([[0, 1, 2], [3, 4, 5], [0, 1, 3]]), 6, subjects=np.array([0, 0, 1]))
        >>> groups.people.apart(np.array([1.0, 2.0, 3.0])[groups.order])
        4.0
        """
        if self.overlaps is not None:
            floats = values if table is None else table[values]
            each = np.bincount(self.number, weights=floats)
            return float(np.dot(each, each)) - self.overlaps(floats)[0]
        sums = np.sum(
            in_threads(
                lambda part: kernels.sums_over_people(
                    values, table, self.order, self.start, self.items, *part, np.zeros(self.n_objects)
                ),
                self.parts,
            ),
            axis=0,
        )
        own, objects, squares = (float(one) for one in sums)
        more = [
            float(np.sum(np.bincount(number, weights=few) ** 2) - np.dot(few, few)) if len(position) else 0.0
            for position, number in (self._pairs, self._sets)
            for few in [values[position] if table is None else table[values[position]]]
        ]
        return float(own - (objects - (3 * squares + more[0]) + (squares + more[1])))
