"""Probes: transforms learnt from people's choices, so that dot products predict them."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.decomposition import KernelPCA
from sklearn.exceptions import NotFittedError
from sklearn.metrics.pairwise import euclidean_distances

from ldm_kit.atomic import with_ending, written_aside
from ldm_kit.datasets.triplets import Triplets, checked_indices
from ldm_kit.errors import BadInputError, MismatchError, one_of, real_number, whole_number
from ldm_kit.measures.cells import checked_matrix
from ldm_kit.measures.descent import PENALTIES, Descent, LinearDescent, MLPDescent
from ldm_kit.measures.fitting import Preparation, choose_alpha
from ldm_kit.measures.grouped import Grouped
from ldm_kit.measures.metrics import similarity_and_tolerance
from ldm_kit.measures.zero_shot import SCORE

Matrix = npt.NDArray[np.floating]
Indices = npt.NDArray[np.int64]

FORMAT = "ldm_kit.probe/2"
ENDING = ".safetensors"
ALPHAS = (0.0, 0.003, 0.01, 0.03)
KERNELS = ("rbf", "laplacian", "polynomial")
# Parameters that are whole numbers, and the least of each.
LEAST = {"n_components": 1, "hidden": 1, "max_iter": 0, "patience": 1, "cv": 0, "random_state": 0}


# The fields of the dataclasses are scikit-learn's parameters; what is fitted ends in an underscore.
@dataclass(kw_only=True, eq=False, repr=False)
class Probe(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Base of the probes; a subclass says what is descended (`_descent`), and what is kept of it (`_keep`)."""

    n_components: int | None = None
    max_iter: int = 60
    patience: int = 6
    cv: int = 3
    standardise: bool = False
    random_state: int = 0

    # Whether more components than there are mean all of them, instead of an error.
    _capped: ClassVar[bool] = False

    def fit(self, X: npt.ArrayLike, triplets: Triplets | npt.ArrayLike) -> Self:
        """Learn the transform; α and the number of iterations are chosen within the training objects.

        Parameters
        ----------
        X : array-like, shape (n, d)
            The training objects and no others: the mean and the principal components are theirs.
        triplets : Triplets or array-like of int, shape (t, 3)
            Choices among rows of `X`, the odd one last.

        Returns
        -------
        Probe
            Itself.

        Raises
        ------
        BadInputError
            For a parameter that is out of range, without triplets, with equal rows, or with too few objects for the
            validation folds.
        MismatchError
            If `X` has not one row a stimulus of the triplets.
        """
        matrix, indices = self._training(X, triplets)
        alphas = self._alphas()
        self.alpha_, iterations = float(alphas[0]), self.max_iter
        if self.cv:
            self.alpha_, iterations = choose_alpha(
                matrix,
                indices,
                self._make,
                alphas,
                max_iter=self.max_iter,
                patience=self.patience,
                cv=self.cv,
                random_state=self.random_state,
            )
        preparation, descent = self._make(matrix, indices)
        found = descent.run(self.alpha_, iterations)
        self.n_iter_ = found.iterations
        self.mean_, self.scale_, self.components_ = preparation
        self._keep(descent, found.x)
        return self

    def transform(self, X: npt.ArrayLike) -> Matrix:
        """Map features to the space where dot products predict choices.

        Parameters
        ----------
        X : array-like, shape (n, d)
            Any objects' features, seen in training or not.

        Returns
        -------
        ndarray, shape (n, k)
        """
        raise NotImplementedError

    def score(self, X: npt.ArrayLike, triplets: Triplets | npt.ArrayLike) -> float:
        """Odd-one-out accuracy on triplets of rows of `X`; ties score what guessing would earn.

        Parameters
        ----------
        X : array-like, shape (n, d)
        triplets : Triplets or array-like of int, shape (t, 3)

        Returns
        -------
        float
        """
        Z = self.transform(X)
        codes = Grouped(_rows_of(Z, triplets), len(Z)).choose(*similarity_and_tolerance(Z, "dot"))
        return float(SCORE["chance"][codes].mean())

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the fitted probe to one safetensors file, atomically.

        Parameters
        ----------
        path : path-like
            Gets the ending ``.safetensors`` if it has none, as in `load`.

        Returns
        -------
        pathlib.Path
        """
        from safetensors.numpy import save_file

        self._check_fitted()
        fitted = {name: value for name, value in vars(self).items() if name.endswith("_")}
        arrays = {name: value for name, value in fitted.items() if isinstance(value, np.ndarray)}
        about = {
            "format": FORMAT,
            "probe": type(self).__name__,
            "parameters": self.get_params(),
            "numbers": {name: value for name, value in fitted.items() if name not in arrays},
        }
        path = with_ending(path, ENDING)
        with written_aside(path) as aside:
            save_file(
                {name: np.ascontiguousarray(array) for name, array in arrays.items()},
                aside,
                metadata={"ldm_kit": json.dumps(about, default=lambda value: value.tolist())},
            )
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a probe that `save` wrote.

        Parameters
        ----------
        path : path-like
            As passed to `save`, or as it returned it.

        Raises
        ------
        BadInputError
            If the file is not a probe of this class.
        """
        from safetensors import SafetensorError, safe_open

        path = with_ending(path, ENDING)
        try:
            with safe_open(path, framework="numpy") as file:
                about = json.loads((file.metadata() or {}).get("ldm_kit", "{}"))
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError, ValueError) as error:
            raise BadInputError(
                f"{str(path)!r} cannot be read as a probe: {error}. Choose a file that `save` wrote."
            ) from error
        if (about.get("format"), about.get("probe")) != (FORMAT, cls.__name__):
            raise BadInputError(
                f"{str(path)!r} holds {about.get('probe', 'no probe')!r} in format {about.get('format')!r}, not "
                f"a {cls.__name__} in format {FORMAT!r}. Load it with the class that saved it."
            )
        listed = about["parameters"].items()
        probe: Self = cls().set_params(
            **{name: tuple(value) if isinstance(value, list) else value for name, value in listed}
        )
        for name, value in {**about["numbers"], **arrays}.items():
            setattr(probe, name, value)
        return probe

    def _descent(self, X: Matrix, indices: Indices) -> Descent:
        """The objective over prepared features."""
        raise NotImplementedError

    def _keep(self, descent: Any, x: Matrix) -> None:
        """Set the fitted arrays from the parameters that the descent ended with."""
        raise NotImplementedError

    def _alphas(self) -> Sequence[float]:
        """What α is chosen from, checked like all other parameters."""
        given = self.get_params()
        for name in LEAST.keys() & given.keys():
            if name != "n_components" or given[name] is not None:
                whole_number(name, given[name], LEAST[name])
        if given["alpha"] is not None or "alphas" not in given:
            return [real_number("alpha", given["alpha"])]
        if not len(given["alphas"]):
            raise BadInputError("`alphas` is empty. Give at least one α, or set `alpha`.")
        if self.cv == 0:
            raise BadInputError("cv=0 leaves α unchosen. Set `alpha`, or let cv be 2 or more.")
        return [real_number("each of alphas", alpha) for alpha in given["alphas"]]

    def _training(self, X: npt.ArrayLike, triplets: Triplets | npt.ArrayLike) -> tuple[Matrix, Indices]:
        """The training objects and the triplets among them, checked; their shape is remembered."""
        self._alphas()
        matrix = checked_matrix(X, "X")
        indices = _rows_of(matrix, triplets)
        self.n_objects_, self.n_features_in_ = matrix.shape
        return matrix, indices

    def _make(self, X: Matrix, indices: Indices) -> tuple[Preparation, Descent]:
        """The preparation and the descent for some training objects.

        A validation fold may have too few objects for all components: it has as many as it can.
        """
        most = self.n_components
        if most is not None and (self._capped or len(X) < self.n_objects_):
            most = min(most, *X.shape)
        preparation = Preparation.fit(X, standardise=self.standardise, n_components=most)
        return preparation, self._descent(preparation(X), indices)

    def _prepared(self, X: npt.ArrayLike) -> Matrix:
        """`X` as prepared features, checked to have as many columns as were fitted."""
        self._check_fitted()
        matrix = checked_matrix(X, "X")
        if matrix.shape[1] != self.n_features_in_:
            raise MismatchError(
                f"X has {matrix.shape[1]} columns, the {type(self).__name__} was fitted on {self.n_features_in_}. "
                "Use features of the same block and pooling."
            )
        return Preparation(self.mean_, self.scale_, self.components_)(matrix)

    def _check_fitted(self) -> None:
        if not hasattr(self, "n_features_in_"):
            raise NotFittedError(
                f"This {type(self).__name__} has not been fitted. Call `fit(X, triplets)` first."
            )


@dataclass(kw_only=True, eq=False, repr=False)
class LinearProbe(Probe):
    """A linear transform Z = XW + b under which people's odd-one-out choices are most likely.

    Minimises the mean softmax cross-entropy of the kept pairs plus ``alpha`` times a penalty on W, from the
    multiple of the identity that predicts the training choices best, by L-BFGS, for few iterations: the
    minimum is not the best probe. α and the number of iterations are chosen by cross-validation within the
    training objects; then all of them are used.

    Parameters
    ----------
    bias : bool
        Whether there is a b.
    penalty : {"frobenius", "squared", "identity"}
        ‖W‖_F; its square; or ‖W - mI‖²_F, m the mean of the diagonal (gLocal, Muttenthaler et al. 2023, *Improving
        neural network representations using human similarity judgments*, eq. 4).
    alpha : float, optional
        Weight of the penalty; chosen from `alphas` by default.
    alphas : sequence of float
        What α is chosen from.
    n_components : int, optional
        Principal components (of the training objects) to keep first; all dimensions by default.
    max_iter : int
        At most this many iterations; the number is chosen up to it, unless `cv` is 0.
    patience : int
        Iterations without better validation cross-entropy after which a descent is ended; at least 1.
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
    >>> S = X[:, :1] @ X[:, :1].T  # people heed the first dimension alone
    >>> pair = np.stack([S[t[:, 1], t[:, 2]], S[t[:, 0], t[:, 2]], S[t[:, 0], t[:, 1]]], axis=1)
    >>> odd = pair.argmax(axis=1)
    >>> t[np.arange(3000), odd], t[:, 2] = t[:, 2], t[np.arange(3000), odd].copy()
    >>> probe = LinearProbe().fit(X, t)
    >>> probe.transform(X).shape, probe.score(X, t) > 0.9
    ((30, 5), True)
    """

    bias: bool = True
    penalty: str = "frobenius"
    alpha: float | None = None
    alphas: Sequence[float] = ALPHAS

    def transform(self, X: npt.ArrayLike) -> Matrix:
        """Map features to the space where dot products predict choices.

        Parameters
        ----------
        X : array-like, shape (n, d)
            Any objects' features, seen in training or not.

        Returns
        -------
        ndarray, shape (n, k)
        """
        Z: Matrix = self._prepared(X) @ self.W_ + self.b_
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

    All components with variance are kept, at most one a training object, which changes none of their kernel values.

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

    def fit(self, X: npt.ArrayLike, triplets: Triplets | npt.ArrayLike) -> Self:
        """Learn the transform.

        Parameters
        ----------
        X : array-like, shape (n, d)
            The training objects and no others.
        triplets : Triplets or array-like of int, shape (t, 3)
            Choices among rows of `X`, the odd one last.

        Returns
        -------
        KernelProbe
            Itself.

        Raises
        ------
        BadInputError, MismatchError
            As for `LinearProbe`, and if the kernel cannot tell the training objects apart.
        """
        matrix, indices = self._training(X, triplets)
        preparation = Preparation.fit(matrix, standardise=self.standardise)
        self.mean_, self.scale_, self.components_ = preparation
        self.objects_ = preparation(matrix)
        squared = euclidean_distances(self.objects_, squared=True)[np.triu_indices(len(matrix), 1)]
        self.gamma_ = float(self.gamma or 1 / max(np.median(squared), 1e-12))
        K = self._kernel(self.objects_)
        pca = KernelPCA(kernel="precomputed", eigen_solver="dense", remove_zero_eig=True).fit(K)
        roots = np.sqrt(pca.eigenvalues_[: self.n_components])
        if not roots.size or len(roots) < (self.n_components or 0):
            raise BadInputError(
                f"n_components={self.n_components}, but the {len(matrix)} training objects have {roots.size} components "
                f"with variance in the kernel's space. Use 1 to {roots.size}, or None for all; or another `gamma`."
            )
        vectors = pca.eigenvectors_[:, : len(roots)]
        linear = LinearProbe(**{field.name: getattr(self, field.name) for field in fields(LinearProbe)})
        linear.set_params(n_components=None, standardise=False)
        linear.fit((vectors * roots).astype(matrix.dtype), indices)
        self.alpha_, self.n_iter_ = linear.alpha_, linear.n_iter_
        # Each component's weights add up to 0, so that A takes kernel values as they are, and b their centring.
        self.A_ = (vectors / roots) @ (linear.W_ / linear.scale_[:, None])
        self.b_ = linear.b_ - linear.mean_ @ (linear.W_ / linear.scale_[:, None]) - K.mean(axis=0) @ self.A_
        return self

    def transform(self, X: npt.ArrayLike) -> Matrix:
        """Map features to the space where dot products predict choices.

        Parameters
        ----------
        X : array-like, shape (n, d)
            Any objects' features, seen in training or not.

        Returns
        -------
        ndarray, shape (n, k)
        """
        prepared = self._prepared(X)
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

    def transform(self, X: npt.ArrayLike) -> Matrix:
        """Map features to the space where dot products predict choices.

        Parameters
        ----------
        X : array-like, shape (n, d)
            Any objects' features, seen in training or not.

        Returns
        -------
        ndarray, shape (n, k)
        """
        prepared = self._prepared(X)
        Z: Matrix = prepared @ self.W_ + np.tanh(prepared @ self.U_ + self.c_) @ self.V_ + self.b_
        return Z

    def _descent(self, X: Matrix, indices: Indices) -> Descent:
        return MLPDescent(X, indices, hidden=self.hidden, random_state=self.random_state)

    def _keep(self, descent: Any, x: Matrix) -> None:
        self.W_, self.U_, self.c_, self.V_, self.b_ = (part.copy() for part in descent.parts(x))


def _rows_of(X: Matrix, triplets: Triplets | npt.ArrayLike) -> Indices:
    """Triplets as rows of `X`, checked; none is an error."""
    if isinstance(triplets, Triplets) and len(X) != len(triplets.names):
        raise MismatchError(
            f"X has {len(X)} rows, the triplets are over {len(triplets.names)} stimuli. Give one row a stimulus, "
            "or re-index with `triplets.among(names_of_the_rows)`."
        )
    indices = triplets.indices if isinstance(triplets, Triplets) else checked_indices(triplets, len(X))
    if not len(indices):
        raise BadInputError("There are no triplets to learn from or to score. Give at least one.")
    return indices
