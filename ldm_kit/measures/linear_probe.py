"""The linear probe: Z = XW + b, learnt so that dot products predict people's choices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
import numpy.typing as npt

from ldm_kit.datasets.triplets import Triplets
from ldm_kit.errors import BadInputError
from ldm_kit.measures.descent import Descent
from ldm_kit.measures.preparation import Preparation
from ldm_kit.measures.probe import Matrix, Probe
from ldm_kit.measures.selection import choose

LAMBDAS = (0.0, 0.003, 0.01, 0.03)


class LinearProbe(Probe):
    """A linear transform of the features under which people's odd-one-out choices are most likely.

    Minimises the mean softmax cross-entropy of the kept pairs plus ``lam`` times a penalty on W, from the
    multiple of the identity that predicts the training choices best, by L-BFGS, for few iterations: the
    minimum is not the best probe. λ and the number of iterations are chosen by cross-validation within the
    training objects; then all of them are used.

    Parameters
    ----------
    n_components : int, optional
        Principal components (of the training objects) to keep first; all dimensions by default.
    bias : bool
        Whether there is a b.
    penalty : {"frobenius", "squared", "identity"}
        ‖W‖_F; its square; or the squared distance of W from the nearest multiple of the identity (gLocal).
    lam : float, optional
        λ; chosen from `lambdas` by default.
    lambdas : sequence of float
        What λ is chosen from.
    max_iterations : int
        At most this many; the number is chosen up to it, unless `lam` is given and `n_folds` is 0.
    patience : int
        Iterations without better validation cross-entropy after which a descent is given up; at least 1.
    n_folds : int
        Validation folds among the training objects. 0: no validation, `lam` and `max_iterations` hold.
    standardise : bool
        Give each dimension unit variance first (over the training objects).
    seed : int
        Of the validation folds.

    Attributes
    ----------
    W_ : ndarray, shape (k, k)
        The transform of the prepared features; k is d, or `n_components`.
    b_ : ndarray, shape (k,)
    lam_ : float
        λ used.
    n_iter_ : int
        Iterations used.
    preparation_ : Preparation
        Mean, scale and principal components of the training objects.

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

    _arrays = ("W_", "b_", "mean_", "scale_", "components_")

    def __init__(
        self,
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
        """Learn W and b.

        Parameters
        ----------
        X : array-like, shape (n, d)
            The training objects and no others: the mean and the principal components are theirs.
        triplets : Triplets or array-like of int, shape (t, 3)
            Choices among rows of `X`, the odd one last.

        Returns
        -------
        LinearProbe
            Itself.

        Raises
        ------
        BadInputError
            Without triplets, with equal rows, or with too few objects for the validation folds.
        """
        matrix, indices = self._training(X, triplets)
        self.lam_, iterations = self._chosen(matrix, indices)
        preparation, descent = self._make(matrix, indices)
        found = descent.run(self.lam_, max_iterations=iterations)
        self.n_iter_ = found.iterations
        self.W_, self.b_ = descent.full(found.x)
        self.mean_, self.scale_, self.components_ = (
            preparation.mean,
            preparation.scale,
            preparation.components,
        )
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
        matrix = self._checked(X)
        Z: Matrix = self.preparation_(matrix) @ self.W_ + self.b_
        return Z

    @property
    def preparation_(self) -> Preparation:
        """What is done to features before W."""
        self._check_fitted()
        return Preparation(self.mean_, self.scale_, self.components_)

    def _make(self, X: Matrix, indices: npt.NDArray[np.int64]) -> tuple[Preparation, Descent]:
        """The preparation and the descent for some training objects.

        A validation fold may have too few objects for all components: it has as many as it can.
        """
        most = self.n_components
        if most is not None and len(X) < self.n_objects_:
            most = min(most, *X.shape)
        preparation = Preparation.fit(X, standardise=self.standardise, n_components=most)
        return preparation, Descent(preparation(X), indices, penalty=self.penalty, bias=self.bias)

    def _chosen(self, X: Matrix, indices: npt.NDArray[np.int64]) -> tuple[float, int]:
        """λ and the number of iterations."""
        if self.n_folds == 0:
            if self.lam is None:
                raise BadInputError("n_folds=0 leaves λ unchosen. Set `lam`, or let n_folds be 2 or more.")
            return float(self.lam), self.max_iterations
        choice = choose(
            X,
            indices,
            self._make,
            list(self.lambdas) if self.lam is None else [self.lam],
            max_iterations=self.max_iterations,
            patience=self.patience,
            n_folds=self.n_folds,
            seed=self.seed,
        )
        return choice.lam, choice.iterations
