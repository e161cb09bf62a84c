"""L-BFGS for float32: scipy's stops after one iteration where function values carry float32 noise."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.floating]

SUFFICIENT = 1e-4  # Armijo: the share of the promised decrease that a step must bring
CURVED = 1e-10  # pairs with less curvature, relative to their lengths, are not remembered
HALVINGS = 20


class Minimum(NamedTuple):
    """Where `minimise` ended."""

    x: Vector
    value: float
    iterations: int
    converged: bool


def minimise(
    function: Callable[[Vector], tuple[float, Vector]],
    x: Vector,
    *,
    max_iterations: int = 200,
    memory: int = 8,
    tolerance: float = 1e-6,
    seen: Callable[[int, Vector], bool] | None = None,
) -> Minimum:
    """Minimise a smooth function by L-BFGS with backtracking.

    Parameters
    ----------
    function : callable
        x → (value, gradient); the gradient has the type of `x` and is not written to afterwards.
    x : ndarray of float32 or float64, shape (p,)
        Start. Work is done in its type, inner products of scalars in float64.
    max_iterations, memory : int
    tolerance : float
        Converged once the relative decrease of the value over an iteration is below this.
    seen : callable, optional
        Called as ``seen(iteration, x)`` with the start (0) and every iterate; true stops.

    Returns
    -------
    Minimum

    References
    ----------
    Nocedal & Wright 2006, *Numerical Optimization*, algorithm 7.4.

    Examples
    --------
    >>> minimise(lambda x: (float(x @ x), 2 * x), np.array([3.0, 4.0])).x.round(6).tolist()
    [0.0, 0.0]
    """
    value, gradient = function(x)
    history: deque[tuple[Vector, Vector, float]] = deque(maxlen=memory)
    if seen is not None and seen(0, x):
        return Minimum(x, value, 0, False)
    for iteration in range(1, max_iterations + 1):
        direction = _direction(gradient, history)
        slope = float(np.dot(direction, gradient))
        if slope >= 0:  # rounding spoilt the model of the curvature: forget it
            history.clear()
            direction = -gradient
            slope = float(np.dot(direction, gradient))
        if slope == 0:
            return Minimum(x, value, iteration - 1, True)
        step = 1.0 if history else _first_step(x, gradient)
        for _ in range(HALVINGS):
            new_x = x + x.dtype.type(step) * direction
            new_value, new_gradient = function(new_x)
            if new_value <= value + SUFFICIENT * step * slope:
                break
            # The minimum of the parabola through what is known, kept within a tenth and a half.
            rise = 2 * (new_value - value - step * slope)
            best = -slope * step / rise if np.isfinite(rise) and rise > 0 else 0.5
            step *= min(max(best, 0.1), 0.5)
        else:
            return Minimum(x, value, iteration - 1, True)
        moved, turned = new_x - x, new_gradient - gradient
        curvature = float(np.dot(moved, turned))
        if curvature > CURVED * float(np.linalg.norm(moved)) * float(np.linalg.norm(turned)):
            history.append((moved, turned, curvature))
        decrease = value - new_value
        x, value, gradient = new_x, new_value, new_gradient
        if seen is not None and seen(iteration, x):
            return Minimum(x, value, iteration, False)
        if decrease <= tolerance * max(abs(value), 1e-12):
            return Minimum(x, value, iteration, True)
    return Minimum(x, value, max_iterations, False)


def _first_step(x: Vector, gradient: Vector) -> float:
    """A step that changes `x` by a tenth of its length (or by a tenth, from zero)."""
    length = float(np.linalg.norm(x)) or 1.0
    return 0.1 * length / max(float(np.linalg.norm(gradient)), 1e-30)


def _direction(gradient: Vector, history: deque[tuple[Vector, Vector, float]]) -> Vector:
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
