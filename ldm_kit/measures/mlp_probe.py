"""The MLP probe: a linear transform plus one small hidden layer, stopped early on training objects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import numpy as np
import numpy.typing as npt

from ldm_kit.datasets.triplets import Triplets
from ldm_kit.measures import objective
from ldm_kit.measures.descent import best_temperature
from ldm_kit.measures.grouped import Grouped
from ldm_kit.measures.lbfgs import Minimum, minimise
from ldm_kit.measures.preparation import Preparation
from ldm_kit.measures.probe import Matrix, Probe
from ldm_kit.measures.selection import choose

HIDDEN_START = 0.01  # spread of the second layer's weights at the start: next to none


class MLPProbe(Probe):
    """Z = XW + tanh(XU + c)V + b, by the linear probe's objective and solver.

    Parameters
    ----------
    hidden : int
        Units of the hidden layer.
    n_components : int, optional
        Principal components (of the training objects) to keep first; at most as many as there are.
    lam : float
        λ of the squared norm of all weights.
    max_iterations, patience, n_folds, standardise, seed
        As for `LinearProbe`; the seed also draws U.

    Attributes
    ----------
    W_, U_, c_, V_, b_ : ndarray
    n_iter_ : int

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X, t = rng.normal(size=(30, 5)), np.array([rng.permutation(30)[:3] for _ in range(900)])
    >>> MLPProbe(hidden=4).fit(X, t).transform(X).shape
    (30, 5)
    """

    _arrays = ("W_", "U_", "c_", "V_", "b_", "mean_", "scale_", "components_")

    def __init__(
        self,
        hidden: int = 64,
        n_components: int | None = 128,
        lam: float = 1e-4,
        max_iterations: int = 60,
        patience: int = 6,
        n_folds: int = 3,
        standardise: bool = False,
        seed: int = 0,
    ) -> None:
        self.hidden = hidden
        self.n_components = n_components
        self.lam = lam
        self.max_iterations = max_iterations
        self.patience = patience
        self.n_folds = n_folds
        self.standardise = standardise
        self.seed = seed

    def fit(self, X: npt.ArrayLike, triplets: Triplets | npt.ArrayLike) -> Self:
        """Learn the weights; the number of iterations is chosen within the training objects.

        Parameters
        ----------
        X : array-like, shape (n, d)
            The training objects and no others.
        triplets : Triplets or array-like of int, shape (t, 3)
            Choices among rows of `X`.

        Returns
        -------
        MLPProbe
            Itself.
        """
        matrix, indices = self._training(X, triplets)
        self.lam_, iterations = float(self.lam), self.max_iterations
        if self.n_folds:
            iterations = choose(
                matrix,
                indices,
                self._make,
                [self.lam],
                max_iterations=self.max_iterations,
                patience=self.patience,
                n_folds=self.n_folds,
                seed=self.seed,
            ).iterations
        preparation, descent = self._make(matrix, indices)
        found = descent.run(self.lam_, max_iterations=iterations)
        self.n_iter_ = found.iterations
        self.W_, self.U_, self.c_, self.V_, self.b_ = (part.copy() for part in descent.parts(found.x))
        self.mean_, self.scale_ = preparation.mean, preparation.scale
        self.components_ = preparation.components
        return self

    def transform(self, X: npt.ArrayLike) -> Matrix:
        """Map features to the space where dot products predict choices.

        Parameters
        ----------
        X : array-like, shape (n, d)

        Returns
        -------
        ndarray, shape (n, k)
        """
        matrix = self._checked(X)
        prepared = Preparation(self.mean_, self.scale_, self.components_)(matrix)
        Z: Matrix = prepared @ self.W_ + np.tanh(prepared @ self.U_ + self.c_) @ self.V_ + self.b_
        return Z

    def _make(self, X: Matrix, indices: npt.NDArray[np.int64]) -> tuple[Preparation, MLPDescent]:
        most = None if self.n_components is None else min(self.n_components, *X.shape)
        preparation = Preparation.fit(X, standardise=self.standardise, n_components=most)
        return preparation, MLPDescent(preparation(X), indices, self.hidden, self.seed)


class MLPDescent:
    """The objective of the MLP probe over one set of training objects.

    Parameters
    ----------
    X : ndarray, shape (n, k)
        Prepared features.
    indices : ndarray of int64, shape (t, 3)
    hidden, seed : int

    Examples
    --------
    >>> descent = MLPDescent(np.eye(4), np.array([[0, 1, 2]]), hidden=2, seed=0)
    >>> [part.shape for part in descent.parts(descent.start)]
    [(4, 4), (4, 2), (2,), (2, 4), (4,)]
    """

    def __init__(self, X: Matrix, indices: npt.NDArray[np.int64], hidden: int, seed: int) -> None:
        self.X, self.groups = X, Grouped(indices, len(X))
        k = X.shape[1]
        self.shapes = [(k, k), (k, hidden), (hidden,), (hidden, k), (k,)]
        rng = np.random.default_rng(seed)
        root = np.sqrt(best_temperature(X @ X.T, self.groups))
        start = [
            root * np.eye(k),
            rng.normal(size=(k, hidden)),
            np.zeros(hidden),
            HIDDEN_START * rng.normal(size=(hidden, k)),
            np.zeros(k),
        ]
        self.start = np.concatenate([part.ravel() for part in start]).astype(X.dtype)

    def parts(self, x: Matrix) -> list[Matrix]:
        """Unpack the parameters: W, U, c, V, b."""
        ends = np.cumsum([int(np.prod(shape)) for shape in self.shapes])
        return [part.reshape(shape) for part, shape in zip(np.split(x, ends[:-1]), self.shapes, strict=True)]

    def run(
        self, lam: float, *, max_iterations: int, seen: Callable[[int, Matrix], bool] | None = None
    ) -> Minimum:
        """Minimise cross-entropy + `lam` × squared norm from the start."""
        return minimise(
            lambda x: self.value_and_slope(x, lam), self.start, max_iterations=max_iterations, seen=seen
        )

    def value_and_slope(self, x: Matrix, lam: float) -> tuple[float, Matrix]:
        """The objective at parameters `x`, and its gradient."""
        W, U, c, V, b = self.parts(x)
        active = np.tanh(self.X @ U + c)
        loss, slope = objective.cross_entropy_slope(self.X @ W + active @ V + b, self.groups)
        back = (slope @ V.T) * (1 - active**2)
        gradient = np.concatenate(
            [
                (self.X.T @ slope).ravel(),
                (self.X.T @ back).ravel(),
                back.sum(axis=0),
                (active.T @ slope).ravel(),
                slope.sum(axis=0),
            ]
        )
        return loss + lam * float(np.dot(x, x)), gradient + x.dtype.type(2 * lam) * x

    def held(self, X: Matrix, indices: npt.NDArray[np.int64]) -> MLPHeld:
        """Other objects, and their triplets, to judge iterates on."""
        return MLPHeld(self, X, indices)


class MLPHeld:
    """Prepared features of other objects, on which a descent's iterates are judged.

    Examples
    --------
    >>> descent = MLPDescent(np.eye(4), np.array([[0, 1, 2]]), hidden=2, seed=0)
    >>> round(descent.held(np.eye(4), np.array([[0, 1, 2]])).cross_entropy(descent.start), 1)
    1.1
    """

    def __init__(self, descent: MLPDescent, X: Matrix, indices: npt.NDArray[np.int64]) -> None:
        self.descent, self.X, self.groups = descent, X, Grouped(indices, len(X))

    def cross_entropy(self, x: Matrix) -> float:
        """Mean cross-entropy on the held triplets at parameters `x`."""
        W, U, c, V, b = self.descent.parts(x)
        Z = self.X @ W + np.tanh(self.X @ U + c) @ V + b
        return objective.cross_entropy(Z @ Z.T, self.groups)
