"""λ and the stopping point, chosen by cross-validation *within* the training objects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ldm_kit.errors import BadInputError
from ldm_kit.measures.descent import Descent, Held
from ldm_kit.measures.folds import object_folds, wholly_in, within

Matrix = npt.NDArray[np.floating]

# Fewer validation triplets than this say little; then those with two held-out objects count too.
ENOUGH = 300


@dataclass(frozen=True)
class Choice:
    """The λ and the number of iterations with the least validation cross-entropy."""

    lam: float
    iterations: int
    cross_entropy: float


def choose(
    X: Matrix,
    indices: npt.NDArray[np.int64],
    prepare: Callable[[Matrix], Callable[[Matrix], Matrix]],
    lambdas: Sequence[float],
    *,
    penalty: str,
    bias: bool,
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
    prepare : callable
        Fits a preparation on its argument and returns it.
    lambdas : sequence of float
    penalty, bias
        As for `Descent`.
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
        problem = _fold(X, indices, fold, number, prepare, penalty, bias)
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
    prepare: Callable[[Matrix], Callable[[Matrix], Matrix]],
    penalty: str,
    bias: bool,
) -> tuple[Descent, Held] | None:
    """The descent over all folds but one, and the held-out objects; None without triplets for both."""
    out = fold == number
    inside = np.flatnonzero(~out)
    train = np.flatnonzero(wholly_in(indices, out.astype(np.int64)) == 0)
    n_out = out[indices].sum(axis=1) if len(indices) < 1_000_000 else None
    validate = np.flatnonzero(wholly_in(indices, out.astype(np.int64)) == 1)
    if len(validate) < ENOUGH and n_out is not None:
        validate = np.flatnonzero(n_out >= 2)
    if not len(train) or not len(validate):
        return None
    prepared = prepare(X[inside])
    descent = Descent(prepared(X[inside]), within(indices, train, inside, len(X)), penalty=penalty, bias=bias)
    used = np.unique(indices[validate])
    return descent, Held(descent, prepared(X[used]), within(indices, validate, used, len(X)))


def _curve(
    descent: Descent, held: Held, lam: float, max_iterations: int, patience: int
) -> npt.NDArray[np.float64]:
    """Validation cross-entropy after each iteration; its last value where the descent had stopped."""
    losses: list[float] = []

    def seen(_: int, x: Matrix) -> bool:
        losses.append(held.cross_entropy(x))
        return len(losses) - 1 - int(np.argmin(losses)) >= patience

    descent.run(lam, max_iterations=max_iterations, seen=seen)
    return np.array(losses + [losses[-1]] * (max_iterations + 1 - len(losses)))
