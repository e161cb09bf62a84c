"""λ and the stopping point, chosen by cross-validation *within* the training objects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ldm_kit.errors import BadInputError
from ldm_kit.measures.folds import object_folds, wholly_in, within
from ldm_kit.measures.grouped import Grouped
from ldm_kit.measures.lbfgs import Minimum

Matrix = npt.NDArray[np.floating]

# Fewer validation triplets than this say little; then those with two held-out objects count too.
ENOUGH = 300


class Judge(Protocol):
    """Other objects, on which iterates are judged."""

    groups: Grouped

    def cross_entropy(self, x: Matrix) -> float:
        """Mean cross-entropy at parameters `x`."""


class Trainable(Protocol):
    """A descent over some training objects; `Descent` is one."""

    def run(
        self, lam: float, *, max_iterations: int, seen: Callable[[int, Matrix], bool] | None = None
    ) -> Minimum:
        """Minimise from the start."""

    def held(self, X: Matrix, indices: npt.NDArray[np.int64]) -> Judge:
        """Other objects, prepared, to judge iterates on."""


# Features and triplets of some training objects -> how to prepare features, and the descent over them.
Make = Callable[[Matrix, npt.NDArray[np.int64]], tuple[Callable[[Matrix], Matrix], Trainable]]


@dataclass(frozen=True)
class Choice:
    """The λ and the number of iterations with the least validation cross-entropy."""

    lam: float
    iterations: int
    cross_entropy: float


def choose(
    X: Matrix,
    indices: npt.NDArray[np.int64],
    make: Make,
    lambdas: Sequence[float],
    *,
    max_iterations: int,
    patience: int,
    n_folds: int = 3,
    seed: int = 0,
) -> Choice:
    """Choose λ and when to stop, from held-out training objects.

    The training objects are dealt to `n_folds` folds. For each, and each λ, a descent runs over the other
    folds' objects, and each iterate is judged on triplets of the held-out ones, until `patience` iterations
    have brought nothing. Curves are averaged over folds; a descent that stopped keeps its last value.

    Parameters
    ----------
    X : ndarray, shape (n, d)
        Raw features of the training objects.
    indices : ndarray of int64, shape (t, 3)
    make : callable
        (features, triplets) of some objects → a preparation fitted on them, and a descent over them.
    lambdas : sequence of float
    max_iterations, patience, n_folds, seed : int

    Returns
    -------
    Choice

    Raises
    ------
    BadInputError
        If a fold has no triplets to train or to validate on.
    """
    curves = np.zeros((len(lambdas), max_iterations + 1))
    fold = object_folds(len(X), n_folds, seed)
    weights = 0
    for number in range(n_folds):
        problem = _fold(X, indices, fold, number, make)
        if problem is None:
            continue
        descent, held = problem
        weight = len(held.groups)
        weights += weight
        for row, lam in enumerate(lambdas):
            curves[row] += weight * _curve(descent, held, lam, max_iterations, patience)
    if not weights:
        raise BadInputError(
            f"None of the {n_folds} validation folds within the {len(X)} training objects has triplets to train "
            f"and to validate on ({len(indices)} triplets in all). Give more triplets, or set `lam` and "
            "`max_iterations` yourself (lam=0.01, max_iterations=5)."
        )
    curves /= weights
    best, iterations = np.unravel_index(int(np.argmin(curves)), curves.shape)
    return Choice(float(lambdas[int(best)]), int(iterations), float(curves.min()))


def _fold(
    X: Matrix,
    indices: npt.NDArray[np.int64],
    fold: npt.NDArray[np.int64],
    number: int,
    make: Make,
) -> tuple[Trainable, Judge] | None:
    """The descent over all folds but one, and the held-out objects; None without triplets for both."""
    out = fold == number
    inside = np.flatnonzero(~out)
    whole = wholly_in(indices, out.astype(np.int64))
    train, validate = np.flatnonzero(whole == 0), np.flatnonzero(whole == 1)
    if len(validate) < ENOUGH:
        validate = np.flatnonzero(out[indices].sum(axis=1) >= 2)
    if not len(train) or not len(validate):
        return None
    prepare, descent = make(X[inside], within(indices, train, inside, len(X)))
    used = np.unique(indices[validate])
    return descent, descent.held(prepare(X[used]), within(indices, validate, used, len(X)))


def _curve(
    descent: Trainable, held: Judge, lam: float, max_iterations: int, patience: int
) -> npt.NDArray[np.float64]:
    """Validation cross-entropy after each iteration; its last value where the descent had stopped."""
    losses: list[float] = []

    def seen(_: int, x: Matrix) -> bool:
        losses.append(held.cross_entropy(x))
        return len(losses) - 1 - int(np.argmin(losses)) >= patience

    descent.run(lam, max_iterations=max_iterations, seen=seen)
    return np.array(losses + [losses[-1]] * (max_iterations + 1 - len(losses)))
