"""Folds over objects: training triplets lie wholly among training objects, held-out ones among the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from ldm_kit.errors import BadInputError, number_of_folds
from ldm_kit.measures import kernels
from ldm_kit.measures.cells import Cell, Groups, groups_of
from ldm_kit.measures.kernels import WORTH_THREADS, in_threads, n_threads

Indices = npt.NDArray[np.int64]

MOST_BITS = 64  # folds whose bits fit in one whole number; more of them are split one by one


def object_folds(
    n: int, cv: int = 3, random_state: int = 0, groups: Sequence[Any] | npt.NDArray[Any] | None = None
) -> Indices:
    """Assign `n` objects to folds at random, whole groups of them together, as many groups to each fold as can be.

    Parameters
    ----------
    n : int
    cv : int
        Number of folds: at least 2, and at most a third of `n`, since a fold without three objects has no triplet.
    random_state : int
        Seed of the assignment.
    groups : sequence of n labels, optional
        Objects of one label, such as images of one concept, are in the same fold; by default each is its own group.
        Where each label occurs once, the folds are those without `groups`.

    Returns
    -------
    ndarray of int64, shape (n,)
        The fold of each object, 0 to ``cv - 1``.

    Raises
    ------
    BadInputError
        For fewer than two folds, fewer groups than folds, or fewer than three objects in a fold.
    MismatchError
        If there is not one label an object.

    Examples
    --------
    >>> np.bincount(object_folds(10, 3)).tolist()
    [4, 3, 3]
    >>> object_folds(6, 2, groups=["cat", "cat", "cat", "dog", "dog", "dog"]).tolist()
    [0, 0, 0, 1, 1, 1]
    """
    cv = number_of_folds(cv)
    if n < 3 * cv:
        raise BadInputError(
            f"{n} objects cannot make {cv} folds: a fold needs at least 3 objects to hold a triplet. "
            f"Use {'at most ' + str(n // 3) + ' folds' if n >= 6 else 'at least 6 objects'}."
        )
    group = groups_of(groups, Cell({"block": "objects"}, lambda: None), n)
    n_groups = int(group.max()) + 1
    if n_groups < cv:
        raise BadInputError(
            f"{n} objects in {n_groups} groups cannot make {cv} folds: a group, such as the images of one concept, is never "
            f"divided. Use {f'at most {n_groups} folds' if n_groups > 1 else 'more groups'}, or other `groups`."
        )
    fold: Indices = np.random.default_rng(random_state).permutation(np.arange(n_groups) % cv)[group]
    sizes = np.bincount(fold, minlength=cv)
    if sizes.min() < 3:
        raise BadInputError(
            f"Fold {sizes.argmin()} has {sizes.min()} of {n} objects in {n_groups} groups: a fold needs at least 3 objects to "
            "hold a triplet. Use fewer folds, another seed, or other `groups`."
        )
    return fold


def split_objects(
    names: Sequence[str], random_state: int = 0, parts: int = 2, *, groups: Groups | None = None
) -> tuple[tuple[str, ...], ...]:
    """Split stimulus names at random into disjoint parts, e.g. one to choose on and one to report on.

    Parameters
    ----------
    names : sequence of str
    random_state : int
        The split depends on it and on the set of names, not on their order.
    parts : int
        How many; at least 2, at most a third of the names.
    groups : mapping or Series of name to group, or sequence of one label a name; optional
        Names of one group, such as the images of one concept (`dict(zip(store.names, store.concepts))`), are in one part.
        By default each name is its own group.

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
    group = groups_of(groups, Cell({"block": "names"}, lambda: None, tuple(names)), len(names))
    ordered = sorted(range(len(names)), key=names.__getitem__)
    assigned = object_folds(len(names), parts, random_state, group[ordered])
    fold = dict(zip([names[i] for i in ordered], assigned.tolist(), strict=True))
    return tuple(tuple(name for name in names if fold[name] == part) for part in range(parts))


def wholly_in(indices: Indices, fold: npt.NDArray[Any]) -> npt.NDArray[np.int16]:
    """The fold that holds all three objects of a triplet, or -1 where they lie in different folds.

    Examples
    --------
    >>> wholly_in(np.array([[0, 1, 2], [0, 1, 3]]), np.array([0, 0, 0, 1])).tolist()
    [0, -1]
    """
    of = fold.astype(np.int16)
    first = of[indices[:, 0]]
    same = (first == of[indices[:, 1]]) & (first == of[indices[:, 2]])
    return np.where(same, first, np.int16(-1))


def each_fold(indices: Indices, fold: Indices) -> Iterator[tuple[Indices, Indices]]:
    """Rows of the triplets to train on (wholly among the other folds' objects) and to test on, one fold after the other.

    Triplets that mix training and held-out objects are in neither; if either is empty, that is an error.

    Examples
    --------
    >>> fold = np.array([0, 0, 0, 1, 1, 1])
    >>> [test.tolist() for _, test in each_fold(np.array([[0, 1, 2], [0, 1, 3], [5, 4, 3]]), fold)]
    [[0], [2]]
    """
    n_folds = int(fold.max()) + 1
    shared = _masks(indices, fold) if n_folds <= MOST_BITS else None
    for number in range(n_folds):
        masks = _masks(indices, fold != number) if shared is None else shared
        bit = masks.dtype.type(1 if shared is None else 1 << number)
        n_train, n_test = np.count_nonzero((masks & bit) == 0), np.count_nonzero(masks == bit)
        if not n_train or not n_test:
            part, objects = ("held-out", fold == number) if n_train else ("training", fold != number)
            raise BadInputError(
                f"Fold {number} has no {part} triplets: of {len(masks)} triplets, none lies wholly among its "
                f"{objects.sum()} {part} objects. Use fewer folds, another seed, or more triplets."
            )
        train, test = np.empty(n_train + 1, np.int64), np.empty(n_test + 1, np.int64)
        kernels.rows_of_fold(masks, bit, train, test)
        yield train[:-1], test[:-1]


def _masks(indices: Indices, fold: npt.NDArray[Any]) -> npt.NDArray[np.unsignedinteger]:
    """The folds that each triplet's objects lie in, as bits of a whole number."""
    dtype = np.uint8 if fold.max() < 8 else np.uint64
    bit = np.left_shift(dtype(1), fold.astype(dtype))
    masks: npt.NDArray[np.unsignedinteger] = np.empty(len(indices), dtype)
    edges = np.linspace(0, len(indices), n_threads() + 1 if len(indices) >= WORTH_THREADS else 2, dtype=int)
    in_threads(lambda part: kernels.mark_folds(indices, bit, *part, masks), list(pairwise(edges.tolist())))
    return masks


def within(indices: Indices, members: Indices) -> Indices:
    """Re-index triplets to positions in `members`, which hold all of their objects.

    Examples
    --------
    >>> within(np.array([[5, 3, 4]]), np.array([3, 4, 5])).tolist()
    [[2, 0, 1]]
    """
    position = np.zeros(members.max(initial=-1) + 1, np.int64)
    position[members] = np.arange(len(members))
    result: Indices = position[indices]
    return result
