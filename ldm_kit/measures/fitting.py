"""What is fitted on training objects besides the transform: how features are prepared, and α and when to stop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ldm_kit.errors import BadInputError
from ldm_kit.measures.descent import Descent
from ldm_kit.measures.folds import object_folds, wholly_in, within

Matrix = npt.NDArray[np.floating]
Indices = npt.NDArray[np.int64]

# Fewer validation triplets than this say little; then those with two held-out objects count too.
ENOUGH = 300


class Preparation(NamedTuple):
    """Subtract a mean, divide by a scale, and (with PCA) keep the leading components.

    Examples
    --------
    >>> X = np.array([[0.0, 0.0], [2.0, 0.0]])
    >>> Preparation.fit(X)(X).tolist()
    [[-1.0, 0.0], [1.0, 0.0]]
    """

    mean: Matrix
    scale: Matrix
    components: Matrix | None = None

    @classmethod
    def fit(cls, X: Matrix, *, standardise: bool = False, n_components: int | None = None) -> Preparation:
        """Fit on the training objects `X` (n, d), so that their mean squared norm becomes 1.

        With `standardise`, each dimension that varies gets unit variance first.
        """
        mean = X.mean(axis=0, dtype=np.float64)
        centred = X - mean
        scale = np.ones(X.shape[1])
        if standardise:
            deviation = centred.std(axis=0)
            varies = deviation > 1e-6 * deviation.max(initial=0)
            scale[varies] = deviation[varies]
            centred = centred / scale
        norm = np.sqrt(np.mean(np.sum(centred**2, axis=1))) if len(X) else 0.0
        if not norm > 1e-7 * np.sqrt(np.mean(np.sum((X / scale).astype(np.float64) ** 2, axis=1))):
            raise BadInputError(
                f"The features of the {len(X)} training objects are all the same, so there is nothing to learn. "
                "Check the extraction, or choose another cell."
            )
        components = None
        if n_components is not None:
            if not 1 <= n_components <= min(X.shape):
                raise BadInputError(
                    f"n_components={n_components}, but the training features are {X.shape[0]} objects × "
                    f"{X.shape[1]} dimensions. Use 1 to {min(X.shape)}, or None for all."
                )
            components = principal_axes(centred / norm, n_components).astype(X.dtype)
        return cls(mean.astype(X.dtype), (scale * norm).astype(X.dtype), components)

    def __call__(self, X: Matrix) -> Matrix:
        """Prepare the rows of `X`, fitted on or not."""
        out = (X - self.mean) / self.scale
        return out if self.components is None else out @ self.components


def principal_axes(centred: Matrix, k: int) -> Matrix:
    """The leading `k` principal axes of centred rows, from the smaller of the two Gram matrices."""
    n, d = centred.shape
    if d <= n:
        axes: Matrix = np.linalg.eigh(centred.T @ centred)[1][:, ::-1][:, :k]
        return axes
    values, vectors = np.linalg.eigh(centred @ centred.T)
    leading = np.argsort(values)[::-1][:k]
    # through QR, so that axes without variance come out orthonormal as well
    basis, triangle = np.linalg.qr(centred.T @ vectors[:, leading])
    signs = np.where(np.diag(triangle) < 0, -1.0, 1.0)
    return basis * signs


# Features and triplets of some training objects -> how to prepare features, and the descent over them.
Make = Callable[[Matrix, Indices], tuple[Preparation, Descent]]


def choose_alpha(
    X: Matrix,
    indices: Indices,
    make: Make,
    alphas: Sequence[float],
    *,
    max_iter: int,
    patience: int,
    cv: int,
    random_state: int,
) -> tuple[float, int]:
    """The α and the number of iterations with the least cross-entropy on held-out training objects.

    The training objects are dealt to `cv` folds. For each, and each α, a descent runs over the other folds' objects, and
    each iterate is judged on triplets of the held-out ones, until `patience` iterations have brought nothing. Curves are
    averaged over folds; a descent that stopped keeps its last value.
    """
    curves = np.zeros((len(alphas), max_iter + 1))
    fold, judged = object_folds(len(X), cv, random_state), 0
    for number in range(cv):
        out = fold == number
        whole = wholly_in(indices, out)
        train, validate = np.flatnonzero(whole == 0), np.flatnonzero(whole == 1)
        if len(validate) < ENOUGH:
            validate = np.flatnonzero(out[indices].sum(axis=1) >= 2)
        if not len(train) or not len(validate):
            continue
        inside, used = np.flatnonzero(~out), np.unique(indices[validate])
        prepare, descent = make(X[inside], within(indices[train], inside))
        judge = descent.judge(prepare(X[used]), within(indices[validate], used))
        judged += len(validate)
        for row, alpha in enumerate(alphas):
            curves[row] += len(validate) * _curve(descent, judge, alpha, max_iter, patience)
    if not judged:
        raise BadInputError(
            f"None of the {cv} validation folds within the {len(X)} training objects has triplets to train "
            f"and to validate on ({len(indices)} triplets in all). Give more triplets, or set `alpha` and `max_iter` "
            "yourself (cv=0, alpha=0.01, max_iter=5)."
        )
    best, iterations = np.unravel_index(int(np.argmin(curves / judged)), curves.shape)
    return float(alphas[int(best)]), int(iterations)


def _curve(
    descent: Descent, judge: Callable[[Matrix], float], alpha: float, max_iter: int, patience: int
) -> npt.NDArray[np.float64]:
    """Validation cross-entropy after each iteration; its last value where the descent had stopped."""
    losses: list[float] = []

    def seen(_: int, x: Matrix) -> bool:
        losses.append(judge(x))
        return len(losses) - 1 - int(np.argmin(losses)) >= patience

    descent.run(alpha, max_iter, seen)
    return np.array(losses + [losses[-1]] * (max_iter + 1 - len(losses)))
