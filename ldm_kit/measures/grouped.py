"""Triplets grouped by their odd object, ready for the compiled loops, and made once for all cells."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ldm_kit.datasets.triplets import Triplets, checked_indices
from ldm_kit.measures import kernels
from ldm_kit.measures.kernels import WORTH_THREADS, in_threads, n_threads
from ldm_kit.measures.metrics import Tolerance

# Bands of 2 ** 6 objects; with so few objects that their whole matrix fits the cache there is one band.
BAND, FEW = 6, 512

Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(frozen=True, eq=False)
class Grouped:
    """Triplets over `n` objects, in runs that share the odd one and a band of first items.

    A loop over a run then stays within one row of a similarity matrix and one band of rows, which fit a core's own
    cache; in the order given, almost every look-up would miss it.

    Parameters
    ----------
    indices : ndarray of int64, shape (t, 3)
        As given; column 2 is the odd one.
    n : int
        Number of objects.

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
    start: npt.NDArray[np.int64] = field(init=False)
    first: npt.NDArray[np.unsignedinteger] = field(init=False)
    second: npt.NDArray[np.unsignedinteger] = field(init=False)
    order: npt.NDArray[np.uint32] = field(init=False)
    sharing: float | None = field(init=False, default=None)  # kept by `intervals.sharing`
    tallied: Any = field(init=False, default=None)  # kept by `tally.tally_of_all`

    def __post_init__(self) -> None:
        small = np.uint16 if self.n <= 2**16 else np.uint32
        t = len(self.indices)
        shift = BAND if self.n > FEW else 63
        bands = (max(self.n - 1, 0) >> shift) + 1
        arrays = {
            "start": np.zeros(bands * self.n + 1, np.int64),
            "first": np.empty(t, small),
            "second": np.empty(t, small),
            "order": np.empty(t, np.uint32),
        }
        kernels.group_by_odd(self.indices, self.n, shift, *arrays.values())
        for name, array in arrays.items():
            object.__setattr__(self, name, array)

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
        again = kernels.mark_repeats(self.indices, self.n)
        none = np.empty(0, np.int64)
        if not again.any():
            return none, none
        position = np.flatnonzero(again[self.order])
        keys = set_keys(self.indices[self.order[position]], self.n)
        return position, np.unique(keys, return_inverse=True)[1]

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
        """Put grouped values into the order in which the triplets were given."""
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


_made: weakref.WeakKeyDictionary[Triplets, Grouped] = weakref.WeakKeyDictionary()


def grouped(triplets: Triplets | npt.ArrayLike, n: int | None = None) -> Grouped:
    """Group triplets by their odd object; a `Triplets` is grouped once and remembered.

    Parameters
    ----------
    triplets : Triplets or array-like of int, shape (t, 3)
    n : int, optional
        Number of objects, needed for a plain array.

    Examples
    --------
    >>> len(grouped([[0, 1, 2]], 3))
    1
    """
    if isinstance(triplets, Triplets):
        if triplets not in _made:
            _made[triplets] = Grouped(triplets.indices, len(triplets.names))
        return _made[triplets]
    indices = checked_indices(triplets, n)
    return Grouped(indices, int(indices.max(initial=-1)) + 1 if n is None else n)
