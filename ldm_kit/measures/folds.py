"""Folds over objects: training triplets lie wholly among training objects, held-out ones among the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from ldm_kit.errors import BadInputError, number_of_folds
from ldm_kit.measures import kernels
from ldm_kit.measures.threads import WORTH_THREADS, in_threads, n_threads

MOST_BITS = 64  # folds whose bits fit in one whole number; more of them are split one by one


def object_folds(n: int, n_folds: int = 3, seed: int = 0) -> npt.NDArray[np.int64]:
    """Deal `n` objects to folds at random, as evenly as can be.

    Parameters
    ----------
    n : int
    n_folds : int
        At least 2, and at most a third of `n`: a fold without three objects has no triplet.
    seed : int

    Returns
    -------
    ndarray of int64, shape (n,)
        The fold of each object.

    Raises
    ------
    BadInputError
        For fewer than two folds, or fewer than three objects a fold.

    Examples
    --------
    >>> np.bincount(object_folds(10, 3)).tolist()
    [4, 3, 3]
    """
    n_folds = number_of_folds(n_folds)
    if n < 3 * n_folds:
        raise BadInputError(
            f"{n} objects cannot make {n_folds} folds: a fold needs at least 3 objects to hold a triplet. "
            f"Use {'at most ' + str(n // 3) + ' folds' if n >= 6 else 'at least 6 objects'}."
        )
    return np.random.default_rng(seed).permutation(np.arange(n) % n_folds)


def split_objects(names: Sequence[str], seed: int = 0, parts: int = 2) -> tuple[tuple[str, ...], ...]:
    """Split stimulus names at random into disjoint parts, e.g. one to choose on and one to report on.

    Parameters
    ----------
    names : sequence of str
    seed : int
        The split depends on the seed and the set of names, not on their order.
    parts : int

    Returns
    -------
    tuple of tuple of str
        In the order of `names` within each part.

    Examples
    --------
    >>> a, b = split_objects(["cat", "dog", "car", "bus", "pear", "plum"])
    >>> len(a), len(b), sorted(a + b) == ["bus", "car", "cat", "dog", "pear", "plum"]
    (3, 3, True)
    """
    fold = dict(zip(sorted(names), object_folds(len(names), parts, seed), strict=True))
    return tuple(tuple(name for name in names if fold[name] == part) for part in range(parts))


def wholly_in(indices: npt.NDArray[np.int64], fold: npt.NDArray[np.int64]) -> npt.NDArray[np.int16]:
    """The fold that holds all three objects of a triplet, or -1 where they lie in different folds.

    Parameters
    ----------
    indices : ndarray of int64, shape (t, 3)
    fold : ndarray of int, shape (n,)
        The fold of each object.

    Examples
    --------
    >>> wholly_in(np.array([[0, 1, 2], [0, 1, 3]]), np.array([0, 0, 0, 1])).tolist()
    [0, -1]
    """
    out = np.empty(len(indices), np.int16)
    kernels.split(np.asarray(indices), fold.astype(np.int16), out)
    return out


def train_and_test(
    indices: npt.NDArray[np.int64], fold: npt.NDArray[np.int64], held_out: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows of the triplets wholly among the other folds' objects, and of those wholly among this one's.

    Parameters
    ----------
    indices : ndarray of int64, shape (t, 3)
    fold : ndarray of int, shape (n,)
    held_out : int
        The fold that is tested on.

    Returns
    -------
    (ndarray of int64, ndarray of int64)
        Triplets that mix training and held-out objects are in neither.

    Raises
    ------
    BadInputError
        If either is empty.

    Examples
    --------
    >>> fold = np.array([0, 0, 0, 1, 1, 1])
    >>> train, test = train_and_test(np.array([[0, 1, 2], [0, 1, 3], [5, 4, 3]]), fold, 1)
    >>> train.tolist(), test.tolist()
    ([0], [2])
    """
    masks = _masks(indices, (fold == held_out).astype(np.int64))
    return _rows(masks, 1, fold, held_out)


def each_fold(
    indices: npt.NDArray[np.int64], fold: npt.NDArray[np.int64]
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Give what `train_and_test` gives for one held-out fold after the other, reading the triplets once.

    Examples
    --------
    >>> fold = np.array([0, 0, 0, 1, 1, 1])
    >>> [test.tolist() for _, test in each_fold(np.array([[0, 1, 2], [5, 4, 3]]), fold)]
    [[0], [1]]
    """
    n_folds = int(fold.max()) + 1
    masks = _masks(indices, fold) if n_folds <= MOST_BITS else None
    for number in range(n_folds):
        yield train_and_test(indices, fold, number) if masks is None else _rows(masks, number, fold, number)


def _masks(indices: npt.NDArray[np.int64], fold: npt.NDArray[np.int64]) -> npt.NDArray[np.unsignedinteger]:
    """The folds that each triplet's items lie in, as bits of a whole number."""
    n_folds = int(fold.max(initial=0)) + 1
    dtype = next(
        t for t in (np.uint8, np.uint16, np.uint32, np.uint64) if n_folds <= 8 * np.dtype(t).itemsize
    )
    bit = np.left_shift(dtype(1), fold.astype(dtype))
    masks: npt.NDArray[np.unsignedinteger] = np.empty(len(indices), dtype)
    k = n_threads() if len(indices) >= WORTH_THREADS else 1
    edges = np.linspace(0, len(indices), k + 1).astype(np.int64).tolist()
    in_threads(lambda part: kernels.mark_folds(np.asarray(indices), bit, *part, masks), list(pairwise(edges)))
    return masks


def _rows(
    masks: npt.NDArray[np.unsignedinteger], number: int, fold: npt.NDArray[np.int64], called: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows of the triplets that stay clear of a fold, and of those wholly in it; neither may be empty."""
    bit = masks.dtype.type(1 << number)
    sizes = np.count_nonzero((masks & bit) == 0), np.count_nonzero(masks == bit)
    for size, part in zip(sizes, ("training", "held-out"), strict=True):
        if not size:
            objects = int((fold != called).sum() if part == "training" else (fold == called).sum())
            raise BadInputError(
                f"Fold {called} has no {part} triplets: of {len(masks)} triplets, none lies wholly among its "
                f"{objects} {part} objects. Use fewer folds, another seed, or more triplets."
            )
    train, test = (np.empty(size + 1, np.int64) for size in sizes)
    kernels.rows_of_fold(masks, bit, train, test)
    return train[:-1], test[:-1]


def within(
    indices: npt.NDArray[np.int64], rows: npt.NDArray[np.int64], members: npt.NDArray[np.int64], n: int
) -> npt.NDArray[np.int64]:
    """Re-index the triplets in `rows` to positions in `members` (rows of the `n` objects).

    Examples
    --------
    >>> within(np.array([[5, 3, 4]]), np.array([0]), np.array([3, 4, 5]), 6).tolist()
    [[2, 0, 1]]
    """
    new = np.full(n, -1, np.int64)
    new[members] = np.arange(len(members))
    result: npt.NDArray[np.int64] = new[indices[rows]]
    return result
