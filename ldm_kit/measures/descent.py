"""One descent: a square transform of prepared features, from a multiple of the identity, by L-BFGS.

Where there are more dimensions than objects, everything happens in a rotated space. With Q an orthonormal
basis of a space that holds all training rows, every iterate has the form W = Q W' Qᵀ + β (I - QQᵀ): the
start does, and the gradient of the loss is Xᵀ(…)XW. So W' and β are all that needs to be stored; norms,
inner products (β counted once for each of the dimensions outside) and predictions are unchanged.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ldm_kit.measures import objective
from ldm_kit.measures.grouped import Grouped
from ldm_kit.measures.lbfgs import Minimum, minimise

Matrix = npt.NDArray[np.floating]

LEAST_TEMPERATURE = 0.05  # a start of zero would be a saddle point: the gradient is a multiple of W


class Descent:
    """The objective over one set of training objects, in rotated coordinates.

    Parameters
    ----------
    X : ndarray, shape (n, d)
        Prepared features (centred, scaled) of the training objects.
    indices : ndarray of int64, shape (t, 3)
        Triplets of rows of `X`.
    penalty : {"frobenius", "squared", "identity"}
    bias : bool
        Whether Z = XW + b, or XW.
    rotate : bool
        False keeps all `d` dimensions (to check that rotating changes nothing).

    Attributes
    ----------
    start : ndarray, shape (p,)
        The start: the multiple of the identity whose similarities predict the triplets best, no bias.

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(6, 9))
    >>> descent = Descent(X, np.array([[0, 1, 2], [3, 4, 5]]))
    >>> descent.R.shape, descent.extra
    ((6, 6), 3)
    """

    def __init__(
        self,
        X: Matrix,
        indices: npt.NDArray[np.int64],
        *,
        penalty: str = "frobenius",
        bias: bool = True,
        rotate: bool = True,
    ) -> None:
        n, d = X.shape
        self.penalty, self.bias, self.groups = penalty, bias, Grouped(indices, n)
        self.Q: Matrix | None = None
        self.R = np.ascontiguousarray(X)
        if rotate and d > n:
            self.Q = np.linalg.qr(X.T.astype(np.float64))[0].astype(X.dtype)
            self.R = X @ self.Q
        self.rank = self.R.shape[1]
        self.extra = d - self.rank
        root = np.sqrt(best_temperature(self.R @ self.R.T, self.groups))
        self.start = self._pack(root * np.eye(self.rank), np.zeros(self.rank), root)

    def run(
        self, lam: float, *, max_iterations: int, seen: Callable[[int, Matrix], bool] | None = None
    ) -> Minimum:
        """Minimise cross-entropy + `lam` × penalty from `start`."""
        return minimise(
            lambda x: self.value_and_slope(x, lam), self.start, max_iterations=max_iterations, seen=seen
        )

    def held(self, X: Matrix, indices: npt.NDArray[np.int64]) -> Held:
        """Other objects, and their triplets, to judge iterates on."""
        return Held(self, X, indices)

    def value_and_slope(self, x: Matrix, lam: float) -> tuple[float, Matrix]:
        """The objective at parameters `x`, and its gradient."""
        W, b, beta = self.parts(x)
        loss, slope = objective.cross_entropy_slope(self.R @ W + b, self.groups)
        size, by_W, by_beta = objective.penalty(W, beta, self.extra, self.penalty)
        gradient = self.R.T @ slope
        if lam:
            gradient += gradient.dtype.type(lam) * by_W
        return loss + lam * size, self._pack(gradient, slope.sum(axis=0), lam * by_beta, gradient=True)

    def parts(self, x: Matrix) -> tuple[Matrix, Matrix, float]:
        """Unpack the parameters: W' (r, r), b' (r,), β."""
        square = self.rank**2
        W = x[:square].reshape(self.rank, self.rank)
        b = x[square : square + self.rank] if self.bias else np.zeros(self.rank, x.dtype)
        return W, b, float(x[-1]) / np.sqrt(self.extra) if self.extra else 0.0

    def full(self, x: Matrix) -> tuple[Matrix, Matrix]:
        """The transform in the coordinates of the prepared features: W (d, d) and b (d,)."""
        W, b, beta = self.parts(x)
        if self.Q is None:
            return W.copy(), b.copy()
        inside = W - W.dtype.type(beta) * np.eye(self.rank, dtype=W.dtype)
        whole = self.Q @ inside @ self.Q.T
        whole[np.arange(len(whole)), np.arange(len(whole))] += W.dtype.type(beta)
        return whole, self.Q @ b

    def _pack(self, W: Matrix, b: Matrix, beta: float, *, gradient: bool = False) -> Matrix:
        """One vector of all parameters. β is kept times √extra, so that norms are those of the full W."""
        parts = [W.ravel()]
        if self.bias:
            parts.append(b)
        if self.extra:
            parts.append(np.array([beta / np.sqrt(self.extra) if gradient else beta * np.sqrt(self.extra)]))
        return np.concatenate([part.astype(self.R.dtype, copy=False) for part in parts])


class Held:
    """Prepared features of other objects, on which a descent's iterates are judged.

    Parameters
    ----------
    descent : Descent
    X : ndarray, shape (m, d)
    indices : ndarray of int64, shape (t, 3)
        Triplets of rows of `X`.

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(6, 9))
    >>> descent = Descent(X, np.array([[0, 1, 2], [3, 4, 5]]))
    >>> Held(descent, X, np.array([[0, 1, 2]])).cross_entropy(descent.start) < 1.2
    True
    """

    def __init__(self, descent: Descent, X: Matrix, indices: npt.NDArray[np.int64]) -> None:
        self.descent, self.groups = descent, Grouped(indices, len(X))
        self.R = X if descent.Q is None else X @ descent.Q
        self.outside = X @ X.T - self.R @ self.R.T if descent.extra else None

    def similarity(self, x: Matrix) -> Matrix:
        """Dot products of the transformed objects at parameters `x`."""
        W, b, beta = self.descent.parts(x)
        Z = self.R @ W + b
        S = Z @ Z.T
        if self.outside is not None:
            S += S.dtype.type(beta**2) * self.outside
        return S

    def cross_entropy(self, x: Matrix) -> float:
        """Mean cross-entropy on the held triplets at parameters `x`."""
        return objective.cross_entropy(self.similarity(x), self.groups)


def best_temperature(S: Matrix, groups: Grouped) -> float:
    """The factor of `S` with the least cross-entropy, by golden section on its logarithm.

    Examples
    --------
    >>> best_temperature(np.eye(3), Grouped(np.array([[0, 1, 2]]), 3))  # says nothing: stays small
    0.05
    """
    low, high = np.log(LEAST_TEMPERATURE), np.log(100.0)
    shrink = (np.sqrt(5) - 1) / 2
    dtype = S.dtype.type
    points = [high - shrink * (high - low), low + shrink * (high - low)]
    losses = [objective.cross_entropy(dtype(np.exp(point)) * S, groups) for point in points]
    for _ in range(12):
        if losses[0] <= losses[1]:
            high, points[1], losses[1] = points[1], points[0], losses[0]
            points[0] = high - shrink * (high - low)
            losses[0] = objective.cross_entropy(dtype(np.exp(points[0])) * S, groups)
        else:
            low, points[0], losses[0] = points[0], points[1], losses[1]
            points[1] = low + shrink * (high - low)
            losses[1] = objective.cross_entropy(dtype(np.exp(points[1])) * S, groups)
    best = float(np.exp((low + high) / 2))
    flat = objective.cross_entropy(dtype(LEAST_TEMPERATURE) * S, groups)
    return best if min(losses) < flat else LEAST_TEMPERATURE
