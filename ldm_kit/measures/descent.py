"""How a probe is fitted: its objective, the gradient, and L-BFGS from a multiple of the identity.

Muttenthaler et al. 2023 (*Human alignment of neural network representations*, eq. 2 and 3) minimise, over triplets
with the pair (a, b), the odd one c and with Z = XW + b,

    mean of -log( exp(z_a·z_b) / (exp(z_a·z_b) + exp(z_a·z_c) + exp(z_b·z_c)) )  +  α ‖W‖_F.

All dot products are entries of S = ZZᵀ, so the loss and G = ∂L/∂S take one pass of gathers and scatters over the
triplets, and ∂L/∂Z = (G + Gᵀ)Z, ∂L/∂W = Xᵀ ∂L/∂Z: matrix products whose cost does not depend on them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ldm_kit.measures import kernels
from ldm_kit.measures.cells import Matrix
from ldm_kit.measures.folds import Indices
from ldm_kit.measures.grouped import Grouped
from ldm_kit.measures.kernels import in_threads

PENALTIES = ("frobenius", "squared", "identity")
LEAST_TEMPERATURE = 0.05  # a start of zero would be a saddle point: the gradient is a multiple of W
HIDDEN_START = 0.01  # spread of the second layer's weights at the start: almost 0
MEMORY = 8  # pairs of steps and changes of the gradient that L-BFGS remembers
SUFFICIENT = 1e-4  # Armijo: the share of the predicted decrease that a step must achieve
CURVED = 1e-10  # pairs with less curvature, relative to their lengths, are not remembered
HALVINGS = 20


# Ours stays while no library does better at THINGS' size (1.5 million parameters, 1.4 million training triplets, float32,
# one core, to the same value): 4.5 s; scipy's L-BFGS-B, which knows float64 alone, 6.2 s; torch's 4.4 to 5.1 s, but it
# shows no iterate within a call, and would bring torch into every measure.
class Minimum(NamedTuple):
    """Where `minimise` ended."""

    x: Matrix
    value: float
    iterations: int


def minimise(
    function: Callable[[Matrix], tuple[float, Matrix]],
    x: Matrix,
    *,
    max_iter: int,
    tolerance: float = 1e-6,
    seen: Callable[[int, Matrix], bool] = lambda iteration, x: False,
) -> Minimum:
    """Minimise a smooth function by L-BFGS with backtracking (Nocedal & Wright 2006, algorithm 7.4).

    Work is done in the type of `x`. `seen` is called with the number and the place of every iterate, the start
    included; true stops. It has converged once an iteration decreases the value by less than `tolerance`, relatively.
    """
    value, gradient = function(x)
    history: deque[tuple[Matrix, Matrix, float]] = deque(maxlen=MEMORY)
    if seen(0, x):
        return Minimum(x, value, 0)
    for iteration in range(1, max_iter + 1):
        direction = _direction(gradient, history)
        slope = float(np.dot(direction, gradient))
        if slope >= 0:  # rounding has spoilt the estimated curvature: discard it
            history.clear()
            direction = -gradient
            slope = float(np.dot(direction, gradient))
        step = 1.0
        if not history:  # a first step that changes x by a tenth of its length
            step = 0.1 * (float(np.linalg.norm(x)) or 1.0) / max(float(np.linalg.norm(gradient)), 1e-30)
        for _ in range(HALVINGS if slope else 0):
            new_x = x + x.dtype.type(step) * direction
            new_value, new_gradient = function(new_x)
            if new_value <= value + SUFFICIENT * step * slope:
                break
            # The minimum of the parabola through what is known, limited to between a tenth and a half.
            rise = 2 * (new_value - value - step * slope)
            best = -slope * step / rise if np.isfinite(rise) and rise > 0 else 0.5
            step *= min(max(best, 0.1), 0.5)
        else:
            return Minimum(x, value, iteration - 1)
        moved, turned, decrease = new_x - x, new_gradient - gradient, value - new_value
        curvature = float(np.dot(moved, turned))
        if curvature > CURVED * float(np.linalg.norm(moved)) * float(np.linalg.norm(turned)):
            history.append((moved, turned, curvature))
        x, value, gradient = new_x, new_value, new_gradient
        if seen(iteration, x) or decrease <= tolerance * max(abs(value), 1e-12):
            return Minimum(x, value, iteration)
    return Minimum(x, value, max_iter)


def _direction(gradient: Matrix, history: deque[tuple[Matrix, Matrix, float]]) -> Matrix:
    """Minus the approximate inverse Hessian times the gradient (two-loop recursion)."""
    q = -gradient
    weights = []
    for moved, turned, curvature in reversed(history):
        weight = float(np.dot(moved, q)) / curvature
        weights.append(weight)
        q -= q.dtype.type(weight) * turned
    if history:
        _, turned, curvature = history[-1]
        q *= q.dtype.type(curvature / float(np.dot(turned, turned)))
    for (moved, turned, curvature), weight in zip(history, reversed(weights), strict=True):
        q += q.dtype.type(weight - float(np.dot(turned, q)) / curvature) * moved
    return q


def cross_entropy(S: Matrix, groups: Grouped) -> float:
    """Mean cross-entropy of the pairs that stay together under the softmax over the three similarities.

    Examples
    --------
    >>> round(cross_entropy(np.zeros((3, 3)), Grouped(np.array([[0, 1, 2]]), 3)), 6)  # log 3
    1.098612
    """
    S = np.ascontiguousarray(S)
    losses = in_threads(lambda part: kernels.softmax_loss(S, *groups.loops, *part, None), groups.parts)
    return float(sum(losses)) / max(len(groups), 1)


def _cross_entropy_slope(Z: Matrix, groups: Grouped) -> tuple[float, Matrix]:
    """Mean cross-entropy under the similarities ZZᵀ, and its derivative by Z."""
    S = Z @ Z.T

    def work(part: tuple[int, int]) -> tuple[float, Matrix]:
        G = np.zeros_like(S)
        return kernels.softmax_loss(S, *groups.loops, *part, G), G

    losses, slopes = zip(*in_threads(work, groups.parts), strict=True)
    G = sum(slopes[1:], slopes[0])
    t = max(len(groups), 1)
    slope: Matrix = (G + G.T) @ Z
    slope /= S.dtype.type(t)
    return float(sum(losses)) / t, slope


class Descent:
    """The objective over one set of training objects: prepared features, and triplets of their rows.

    A subclass defines the parameters: `start`, `value_and_slope`, `similarity`.
    """

    start: Matrix

    def __init__(self, X: Matrix, indices: Indices) -> None:
        self.X, self.groups = np.ascontiguousarray(X), Grouped(indices, len(X))

    def value_and_slope(self, x: Matrix, alpha: float) -> tuple[float, Matrix]:
        """The objective at parameters `x`, and its gradient."""
        raise NotImplementedError

    def similarity(self, X: Matrix) -> Callable[[Matrix], Matrix]:
        """From parameters to the dot products of any prepared objects, once transformed."""
        raise NotImplementedError

    def run(
        self, alpha: float, max_iter: int, seen: Callable[[int, Matrix], bool] = lambda iteration, x: False
    ) -> Minimum:
        """Minimise cross-entropy + `alpha` × penalty from `start`."""
        return minimise(lambda x: self.value_and_slope(x, alpha), self.start, max_iter=max_iter, seen=seen)

    def validation_loss(self, X: Matrix, indices: Indices) -> Callable[[Matrix], float]:
        """From parameters to the mean cross-entropy on other prepared objects and their triplets."""
        similarity, groups = self.similarity(X), Grouped(indices, len(X))
        return lambda x: cross_entropy(similarity(x), groups)


class LinearDescent(Descent):
    """Z = XW + b, where there are more dimensions than objects in a rotated space.

    With Q an orthonormal basis of a space that holds all training rows, every iterate has the form
    W = Q W' Qᵀ + β (I - QQᵀ): the start does, and the gradient of the loss is Xᵀ(…)XW. So W' and β are all that needs to
    be stored; norms, inner products (β counted once for each of the `extra` dimensions outside) and predictions are
    unchanged.

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(6, 9))
    >>> descent = LinearDescent(X, np.array([[0, 1, 2], [3, 4, 5]]))
    >>> descent.X.shape, descent.extra
    ((6, 6), 3)
    """

    def __init__(
        self,
        X: Matrix,
        indices: Indices,
        *,
        penalty: str = "frobenius",
        bias: bool = True,
        rotate: bool = True,
    ) -> None:
        n, d = X.shape
        self.penalty, self.bias = penalty, bias
        self.Q: Matrix | None = None
        if rotate and d > n:
            self.Q = np.linalg.qr(X.T.astype(np.float64))[0].astype(X.dtype)
        super().__init__(X if self.Q is None else X @ self.Q, indices)
        self.rank = self.X.shape[1]
        self.extra = d - self.rank
        root = np.sqrt(_best_temperature(self.X @ self.X.T, self.groups))
        self.start = self._pack(root * np.eye(self.rank), np.zeros(self.rank), root * np.sqrt(self.extra))

    def value_and_slope(self, x: Matrix, alpha: float) -> tuple[float, Matrix]:
        """The objective at parameters `x`, and its gradient."""
        W, b, beta = self.parts(x)
        loss, slope = _cross_entropy_slope(self.X @ W + b, self.groups)
        size, by_W, by_beta = self._size(W, beta)
        gradient = self.X.T @ slope
        if alpha:
            gradient += gradient.dtype.type(alpha) * by_W
        outside = alpha * by_beta / np.sqrt(self.extra) if self.extra else 0.0
        return loss + alpha * size, self._pack(gradient, slope.sum(axis=0), outside)

    def similarity(self, X: Matrix) -> Callable[[Matrix], Matrix]:
        """From parameters to the dot products of any prepared objects, once transformed."""
        R = X if self.Q is None else X @ self.Q
        outside = X @ X.T - R @ R.T if self.extra else None

        def products(x: Matrix) -> Matrix:
            W, b, beta = self.parts(x)
            Z = R @ W + b
            S: Matrix = Z @ Z.T
            if outside is not None:
                S += S.dtype.type(beta**2) * outside
            return S

        return products

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
        whole[np.diag_indices_from(whole)] += W.dtype.type(beta)
        return whole, self.Q @ b

    def _pack(self, W: Matrix, b: Matrix, outside: float) -> Matrix:
        """One vector of all parameters, the last √extra × β, so that norms are those of the full W."""
        parts = [W.ravel(), b if self.bias else b[:0], np.full(min(self.extra, 1), outside)]
        return np.concatenate([part.astype(self.X.dtype, copy=False) for part in parts])

    def _size(self, W: Matrix, beta: float) -> tuple[float, Matrix, float]:
        """The penalty, and its derivatives by W and β (see `LinearProbe`)."""
        if self.penalty == "identity":
            m = (float(np.trace(W)) + beta * self.extra) / (self.rank + self.extra)
            W = W.copy()
            W[np.diag_indices_from(W)] -= W.dtype.type(m)
            beta -= m
        square = float(np.vdot(W, W)) + beta**2 * self.extra
        if self.penalty == "frobenius":
            norm = max(float(np.sqrt(square)), 1e-30)
            return norm, W / W.dtype.type(norm), beta * self.extra / norm
        return square, 2 * W, 2 * beta * self.extra


class MLPDescent(Descent):
    """Z = XW + tanh(XU + c)V + b, the penalty being the squared norm of all parameters.

    Examples
    --------
    >>> descent = MLPDescent(np.eye(4), np.array([[0, 1, 2]]), hidden=2, random_state=0)
    >>> [part.shape for part in descent.parts(descent.start)]
    [(4, 4), (4, 2), (2,), (2, 4), (4,)]
    """

    def __init__(self, X: Matrix, indices: Indices, *, hidden: int, random_state: int) -> None:
        super().__init__(X, indices)
        k = X.shape[1]
        self.shapes = [(k, k), (k, hidden), (hidden,), (hidden, k), (k,)]
        rng = np.random.default_rng(random_state)
        root = np.sqrt(_best_temperature(X @ X.T, self.groups))
        U, V = rng.normal(size=(k, hidden)), HIDDEN_START * rng.normal(size=(hidden, k))
        start = [root * np.eye(k), U, np.zeros(hidden), V, np.zeros(k)]
        self.start = np.concatenate([part.ravel() for part in start]).astype(X.dtype)

    def value_and_slope(self, x: Matrix, alpha: float) -> tuple[float, Matrix]:
        """The objective at parameters `x`, and its gradient."""
        W, U, c, V, b = self.parts(x)
        active = np.tanh(self.X @ U + c)
        loss, slope = _cross_entropy_slope(self.X @ W + active @ V + b, self.groups)
        back = (slope @ V.T) * (1 - active**2)
        by_part = [self.X.T @ slope, self.X.T @ back, back.sum(axis=0), active.T @ slope, slope.sum(axis=0)]
        gradient = np.concatenate([part.ravel() for part in by_part])
        return loss + alpha * float(np.dot(x, x)), gradient + x.dtype.type(2 * alpha) * x

    def similarity(self, X: Matrix) -> Callable[[Matrix], Matrix]:
        """From parameters to the dot products of any prepared objects, once transformed."""

        def products(x: Matrix) -> Matrix:
            W, U, c, V, b = self.parts(x)
            Z = X @ W + np.tanh(X @ U + c) @ V + b
            return np.asarray(Z @ Z.T)

        return products

    def parts(self, x: Matrix) -> list[Matrix]:
        """Unpack the parameters: W, U, c, V, b."""
        ends = np.cumsum([int(np.prod(shape)) for shape in self.shapes])
        return [part.reshape(shape) for part, shape in zip(np.split(x, ends[:-1]), self.shapes, strict=True)]


def _best_temperature(S: Matrix, groups: Grouped) -> float:
    """The factor of `S` with the least cross-entropy, by golden section on its logarithm.

    Not scipy's: its `minimize_scalar` ends up to 1 % elsewhere, and every probe's accuracy then moves, by up to 0.001.
    """

    def loss(log: float) -> float:
        return cross_entropy(S.dtype.type(np.exp(log)) * S, groups)

    shrink = (np.sqrt(5) - 1) / 2
    ends = [np.log(LEAST_TEMPERATURE), np.log(100.0)]
    points = [ends[1] + shrink * (ends[0] - ends[1]), ends[0] + shrink * (ends[1] - ends[0])]
    losses = [loss(point) for point in points]
    for _ in range(12):
        better, worse = (0, 1) if losses[0] <= losses[1] else (1, 0)
        ends[worse] = points[worse]
        points[worse], losses[worse] = points[better], losses[better]
        points[better] = ends[worse] + shrink * (ends[better] - ends[worse])
        losses[better] = loss(points[better])
    best = float(np.exp((ends[0] + ends[1]) / 2))
    return best if min(losses) < loss(np.log(LEAST_TEMPERATURE)) else LEAST_TEMPERATURE
