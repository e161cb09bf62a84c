"""The kernel probe: a linear probe in the space of a kernel, exact on its training objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
import numpy.typing as npt

from ldm_kit.datasets.triplets import Triplets
from ldm_kit.errors import BadInputError, unknown_name
from ldm_kit.measures.linear_probe import LAMBDAS, LinearProbe
from ldm_kit.measures.preparation import Preparation
from ldm_kit.measures.probe import Matrix, Probe

# What is handed on to the linear probe; the mean, the scale and the components are the kernel probe's business.
LINEAR = ("bias", "penalty", "lam", "lambdas", "max_iterations", "patience", "n_folds", "seed")
KERNELS = ("rbf", "laplacian", "polynomial")


class KernelProbe(Probe):
    """A transform that is linear in the space of a kernel, found like `LinearProbe`'s.

    The training objects are mapped by exact kernel PCA (all components with variance, at most one an
    object), which changes none of their kernel values; a `LinearProbe` is fitted there.

    Parameters
    ----------
    kernel : {"rbf", "laplacian", "polynomial"}
        exp(-γ‖x - y‖²); exp(-√γ‖x - y‖); (1 + x·y)^3 with features of mean squared norm 1.
    gamma : float, optional
        γ; by default one over the median squared distance between training objects.
    n_components : int, optional
        Principal components (in the kernel's space) to keep, of those with variance; all by default.
    bias, penalty, lam, lambdas, max_iterations, patience, n_folds, standardise, seed
        As for `LinearProbe`.

    Attributes
    ----------
    objects_ : ndarray, shape (n, d)
        Prepared features of the training objects.
    A_ : ndarray, shape (n, k)
        Z = (centred kernel values with the training objects) A + b.
    b_ : ndarray, shape (k,)
    lam_, n_iter_, gamma_ : float, int, float

    References
    ----------
    Schölkopf, Smola & Müller 1998, doi:10.1162/089976698300017467 (kernel PCA).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X, t = rng.normal(size=(30, 5)), np.array([rng.permutation(30)[:3] for _ in range(900)])
    >>> KernelProbe(lam=0.0).fit(X, t).transform(X).shape[0]
    30
    """

    _arrays = ("objects_", "A_", "b_", "kernel_means_", "mean_", "scale_")
    _numbers = (*Probe._numbers, "gamma_")

    def __init__(
        self,
        kernel: str = "rbf",
        gamma: float | None = None,
        n_components: int | None = None,
        bias: bool = True,
        penalty: str = "frobenius",
        lam: float | None = None,
        lambdas: Sequence[float] = LAMBDAS,
        max_iterations: int = 60,
        patience: int = 6,
        n_folds: int = 3,
        standardise: bool = False,
        seed: int = 0,
    ) -> None:
        self.kernel = kernel
        self.gamma = gamma
        self.n_components = n_components
        self.bias = bias
        self.penalty = penalty
        self.lam = lam
        self.lambdas = lambdas
        self.max_iterations = max_iterations
        self.patience = patience
        self.n_folds = n_folds
        self.standardise = standardise
        self.seed = seed

    def fit(self, X: npt.ArrayLike, triplets: Triplets | npt.ArrayLike) -> Self:
        """Learn the transform.

        Parameters
        ----------
        X : array-like, shape (n, d)
            The training objects and no others.
        triplets : Triplets or array-like of int, shape (t, 3)
            Choices among rows of `X`.

        Returns
        -------
        KernelProbe
            Itself.
        """
        if self.kernel not in KERNELS:
            raise unknown_name("kernel", self.kernel, KERNELS, "Pick one of these.")
        matrix, indices = self._training(X, triplets)
        preparation = Preparation.fit(matrix, standardise=self.standardise)
        self.mean_, self.scale_ = preparation.mean, preparation.scale
        self.objects_ = preparation(matrix)
        self.gamma_ = self._gamma()
        K = self._kernel(self.objects_)
        self.kernel_means_ = K.mean(axis=0)
        values, vectors = np.linalg.eigh(self._centred(K).astype(np.float64))
        kept = np.flatnonzero(values > 1e-6 * values.max())[::-1]
        if not kept.size:
            raise BadInputError(
                "The kernel does not tell the training objects apart. Choose another `gamma`."
            )
        if self.n_components is not None and self.n_components > kept.size:
            raise BadInputError(
                f"n_components={self.n_components}, but the {len(matrix)} training objects have {kept.size} components "
                f"with variance in the kernel's space. Use 1 to {kept.size}, or None for all."
            )
        kept = kept[: self.n_components]
        roots = np.sqrt(values[kept])
        linear = LinearProbe(**{name: getattr(self, name) for name in LINEAR}).fit(
            (vectors[:, kept] * roots).astype(matrix.dtype), indices
        )
        self.lam_, self.n_iter_ = linear.lam_, linear.n_iter_
        # The linear probe's own mean is zero (kernel PCA is centred) and its scale one number.
        scaled = linear.W_ / linear.scale_[:, None]
        self.A_ = ((vectors[:, kept] / roots) @ scaled).astype(matrix.dtype)
        self.b_ = (linear.b_ - linear.mean_ @ scaled).astype(matrix.dtype)
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
        prepared = Preparation(self.mean_, self.scale_)(matrix)
        Z: Matrix = self._centred(self._kernel(prepared)) @ self.A_ + self.b_
        return Z

    def _gamma(self) -> float:
        """γ as given, or one over the median squared distance."""
        if self.gamma is not None:
            return float(self.gamma)
        square = _squared_distances(self.objects_, self.objects_)
        return 1.0 / max(float(np.median(square[np.triu_indices(len(square), 1)])), 1e-12)

    def _kernel(self, prepared: Matrix) -> Matrix:
        """Kernel values of some objects with the training objects."""
        if self.kernel == "polynomial":
            return np.asarray((1 + prepared @ self.objects_.T) ** 3)
        square = prepared.dtype.type(self.gamma_) * _squared_distances(prepared, self.objects_)
        K: Matrix = np.exp(-(square if self.kernel == "rbf" else np.sqrt(square)))
        return K

    def _centred(self, K: Matrix) -> Matrix:
        """Kernel values after the training objects' mean in the kernel's space was subtracted."""
        centred: Matrix = K - K.mean(axis=1, keepdims=True) - self.kernel_means_ + self.kernel_means_.mean()
        return centred


def _squared_distances(A: Matrix, B: Matrix) -> Matrix:
    """Squared Euclidean distances between the rows of two matrices, at least 0."""
    square: Matrix = (A**2).sum(axis=1)[:, None] + (B**2).sum(axis=1)[None, :] - 2 * (A @ B.T)
    return np.maximum(square, 0, out=square)
