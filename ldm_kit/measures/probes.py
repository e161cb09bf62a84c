"""Probes: transforms learnt from people's choices, so that dot products predict them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
from sklearn.decomposition import KernelPCA
from sklearn.metrics.pairwise import euclidean_distances

from ldm_kit.errors import BadInputError, one_of, real_number
from ldm_kit.measures.cells import Matrix, Rows
from ldm_kit.measures.descent import PENALTIES, Descent, LinearDescent, MLPDescent
from ldm_kit.measures.fitting import Preparation, Probe
from ldm_kit.measures.folds import Indices

ALPHAS = (0.0, 0.003, 0.01, 0.03)
KERNELS = ("rbf", "laplacian", "polynomial")


@dataclass(kw_only=True, eq=False, repr=False)
class LinearProbe(Probe):
    """A linear transform Z = XW + b under which people's odd-one-out choices are most likely.

    Minimises the mean softmax cross-entropy of the pairs that stay together plus ``alpha`` times a penalty on W, from the
    multiple of the identity that predicts the training choices best, by L-BFGS, for few iterations: the
    minimum is not the best probe. α and the number of iterations are chosen by cross-validation within the
    training objects; then all of them are used.

    Parameters
    ----------
    bias : bool
        Whether to fit b.
    penalty : {"identity", "frobenius", "squared"}
        ‖W - mI‖²_F, m the mean of the diagonal (gLocal, Muttenthaler et al. 2023, *Improving neural network representations
        using human similarity judgments*, eq. 4); ‖W‖_F; or its square. Of few choices the first learns more: on
        CLIP and 50,000 human ones 0.543 are right, of the second 0.534.
    alpha : float, optional
        Weight of the penalty; chosen from `alphas` by default.
    alphas : sequence of float
        What α is chosen from.
    n_components : int, optional
        Principal components (of the training objects) to keep first; all dimensions by default.
    max_iter : int
        At most this many iterations; the number is chosen up to it, unless `cv` is 0.
    patience : int
        Iterations without better validation cross-entropy after which a descent stops; at least 1.
    cv : int
        Validation folds among the training objects. 0: no validation, `alpha` and `max_iter` hold.
    standardise : bool
        Give each dimension unit variance first (over the training objects).
    random_state : int
        Seed of the validation folds.

    Attributes
    ----------
    W_ : ndarray, shape (k, k)
        The transform of the prepared features; k is d, or `n_components`.
    b_ : ndarray, shape (k,)
    alpha_ : float
        α used.
    n_iter_ : int
        Iterations used.
    mean_, scale_, components_ : ndarray of shapes (d,), (d,), (d, k); or None for the components
        Of the training objects: features are prepared as ``(X - mean_) / scale_ @ components_``.

    References
    ----------
    Muttenthaler, Dippel, Linhardt, Vandermeulen & Kornblith 2023, *Human alignment of neural network
    representations*, ICLR, arXiv:2211.01201, eq. 2 and 3.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(30, 5))
    >>> t = np.array([rng.permutation(30)[:3] for _ in range(3000)])
    >>> S = X[:, :1] @ X[:, :1].T  # choices follow the first dimension alone
    >>> pair = np.stack([S[t[:, 1], t[:, 2]], S[t[:, 0], t[:, 2]], S[t[:, 0], t[:, 1]]], axis=1)
    >>> odd = pair.argmax(axis=1)
    >>> t[np.arange(3000), odd], t[:, 2] = t[:, 2], t[np.arange(3000), odd].copy()
    >>> probe = LinearProbe().fit(X, t)
    >>> probe.transform(X).shape, probe.score(X, t) > 0.9
    ((30, 5), True)
    """

    bias: bool = True
    penalty: str = "identity"
    alpha: float | None = None
    alphas: Sequence[float] = ALPHAS

    def _map(self, prepared: Matrix) -> Matrix:
        Z: Matrix = prepared @ self.W_ + self.b_
        return Z

    def _alphas(self) -> Sequence[float]:
        one_of("penalty", self.penalty, PENALTIES)
        return super()._alphas()

    def _descent(self, X: Matrix, indices: Indices) -> Descent:
        return LinearDescent(X, indices, penalty=self.penalty, bias=self.bias)

    def _keep(self, descent: Any, x: Matrix) -> None:
        self.W_, self.b_ = descent.full(x)


@dataclass(kw_only=True, eq=False, repr=False)
class KernelProbe(LinearProbe):
    """A transform that is linear in the space of a kernel: scikit-learn's kernel PCA, then a `LinearProbe`.

    All components with variance are used, at most one for each training object, so that kernel values stay the same.

    Parameters
    ----------
    kernel : {"rbf", "laplacian", "polynomial"}
        exp(-γ‖x - y‖²); exp(-√γ‖x - y‖); (1 + x·y)^3 with features of mean squared norm 1.
    gamma : float, optional
        γ; by default one over the median squared distance between training objects.
    n_components : int, optional
        Principal components (in the kernel's space) to keep, of those with variance; all by default.
    bias, penalty, alpha, alphas, max_iter, patience, cv, standardise, random_state
        As for `LinearProbe`.

    Attributes
    ----------
    objects_ : ndarray, shape (n, d)
        Prepared features of the training objects.
    A_ : ndarray, shape (n, k)
        Z = (kernel values with the training objects) A + b.
    b_ : ndarray, shape (k,)
    alpha_, n_iter_, gamma_ : float, int, float

    References
    ----------
    Schölkopf, Smola & Müller 1998, doi:10.1162/089976698300017467 (kernel PCA).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X, t = rng.normal(size=(30, 5)), np.array([rng.permutation(30)[:3] for _ in range(900)])
    >>> KernelProbe(alpha=0.0).fit(X, t).transform(X).shape
    (30, 29)
    """

    kernel: str = "rbf"
    gamma: float | None = None

    def _fit(self, X: Matrix, indices: Indices, alphas: Sequence[float], groups: Rows) -> None:
        preparation = Preparation.fit(X, standardise=self.standardise)
        self.mean_, self.scale_, self.components_ = preparation
        self.objects_ = preparation(X)
        squared = euclidean_distances(self.objects_, squared=True)[np.triu_indices(len(X), 1)]
        self.gamma_ = float(self.gamma or 1 / max(np.median(squared), 1e-12))
        K = self._kernel(self.objects_)
        pca = KernelPCA(kernel="precomputed", eigen_solver="dense", remove_zero_eig=True).fit(K)
        roots = np.sqrt(pca.eigenvalues_[: self.n_components])
        if not roots.size or len(roots) < (self.n_components or 0):
            raise BadInputError(
                f"n_components={self.n_components}, but the {len(X)} training objects have {roots.size} components "
                f"with variance in the kernel's space. Use 1 to {roots.size}, or None for all; or another `gamma`."
            )
        vectors = pca.eigenvectors_[:, : len(roots)]
        linear = LinearProbe(**{field.name: getattr(self, field.name) for field in fields(LinearProbe)})
        linear.set_params(n_components=None, standardise=False)
        linear.fit((vectors * roots).astype(X.dtype), indices, groups)
        self.alpha_, self.n_iter_ = linear.alpha_, linear.n_iter_
        # Each component's weights add up to 0, so that A takes kernel values as they are, and b their centring.
        self.A_ = (vectors / roots) @ (linear.W_ / linear.scale_[:, None])
        self.b_ = linear.b_ - linear.mean_ @ (linear.W_ / linear.scale_[:, None]) - K.mean(axis=0) @ self.A_

    def _map(self, prepared: Matrix) -> Matrix:
        Z: Matrix = self._kernel(prepared) @ self.A_ + self.b_
        return Z.astype(prepared.dtype)

    def _alphas(self) -> Sequence[float]:
        one_of("kernel", self.kernel, KERNELS)
        if self.gamma is not None:
            real_number("gamma", self.gamma, positive=True)
        return super()._alphas()

    def _kernel(self, prepared: Matrix) -> Matrix:
        """Kernel values (float64) of some objects with the training objects."""
        A, B = prepared.astype(np.float64), self.objects_.astype(np.float64)
        if self.kernel == "polynomial":
            return np.asarray((1 + A @ B.T) ** 3)
        square = self.gamma_ * euclidean_distances(A, B, squared=True)
        return np.asarray(np.exp(-(square if self.kernel == "rbf" else np.sqrt(square))))


@dataclass(kw_only=True, eq=False, repr=False)
class MLPProbe(Probe):
    """Z = XW + tanh(XU + c)V + b, by the linear probe's objective and solver, stopped early.

    Parameters
    ----------
    hidden : int
        Units of the hidden layer.
    n_components : int, optional
        Principal components (of the training objects) to keep first; at most as many as there are.
    alpha : float
        Weight of the squared norm of all parameters.
    max_iter, patience, cv, standardise, random_state
        As for `LinearProbe`; U is drawn by `random_state`, too.

    Attributes
    ----------
    W_, U_, c_, V_, b_ : ndarray of shapes (k, k), (k, hidden), (hidden,), (hidden, k), (k,)
    n_iter_ : int

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X, t = rng.normal(size=(30, 5)), np.array([rng.permutation(30)[:3] for _ in range(900)])
    >>> MLPProbe(hidden=4).fit(X, t).transform(X).shape
    (30, 5)
    """

    hidden: int = 64
    n_components: int | None = 128
    alpha: float = 1e-4

    _capped: ClassVar[bool] = True

    def _map(self, prepared: Matrix) -> Matrix:
        Z: Matrix = prepared @ self.W_ + np.tanh(prepared @ self.U_ + self.c_) @ self.V_ + self.b_
        return Z

    def _descent(self, X: Matrix, indices: Indices) -> Descent:
        return MLPDescent(X, indices, hidden=self.hidden, random_state=self.random_state)

    def _keep(self, descent: Any, x: Matrix) -> None:
        self.W_, self.U_, self.c_, self.V_, self.b_ = (part.copy() for part in descent.parts(x))
