"""What all probes share: features prepared, α and the stopping point chosen, a transform fitted, scored, saved."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from ldm_kit.datasets.triplets import Triplets, checked_indices
from ldm_kit.errors import BadInputError, MismatchError, real_number, whole_number
from ldm_kit.files import with_ending, written_aside
from ldm_kit.measures.cells import Cell, Groups, Matrix, Rows, checked_matrix, groups_of
from ldm_kit.measures.descent import Descent
from ldm_kit.measures.folds import Indices, object_folds, wholly_in, within
from ldm_kit.measures.grouped import Grouped
from ldm_kit.measures.metrics import similarity_and_tolerance
from ldm_kit.measures.zero_shot import SCORE

FORMAT = "ldm_kit.probe/2"
ENDING = ".safetensors"
# Fewer validation triplets than this are too noisy; then those with two held-out objects count too.
ENOUGH = 300
# Parameters that are whole numbers, and the least of each.
LEAST = {"n_components": 1, "hidden": 1, "max_iter": 0, "patience": 1, "cv": 0, "random_state": 0}


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
            components = _principal_axes(centred / norm, n_components).astype(X.dtype)
        return cls(mean.astype(X.dtype), (scale * norm).astype(X.dtype), components)

    def __call__(self, X: Matrix) -> Matrix:
        """Prepare the rows of `X`, of training objects or others."""
        out = (X - self.mean) / self.scale
        return out if self.components is None else out @ self.components


def _principal_axes(centred: Matrix, k: int) -> Matrix:
    """The leading `k` principal axes of centred rows, from the smaller of the two Gram matrices.

    scikit-learn's PCA takes as long where there are more rows than columns, and else 2 to 4.5 times as long: 283 ms
    against 116 ms for 824 rows and 1,280 columns.
    """
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


# The fields of the dataclasses are scikit-learn's parameters; what is fitted ends in an underscore.
@dataclass(kw_only=True, eq=False, repr=False)
class Probe(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Base of the probes; a subclass defines the objective, the fitted arrays, and the map."""

    n_components: int | None = None
    max_iter: int = 60
    patience: int = 6
    cv: int = 3
    standardise: bool = False
    random_state: int = 0

    # Whether more components than there are mean all of them, instead of an error.
    _capped: ClassVar[bool] = False

    def fit(self, X: npt.ArrayLike, triplets: Triplets | npt.ArrayLike, groups: Groups | None = None) -> Self:
        """Learn the transform; α and the number of iterations are chosen within the training objects.

        Parameters
        ----------
        X : array-like, shape (n, d)
            The training objects and no others: the mean and the principal components are theirs.
        triplets : Triplets or array-like of int, shape (t, 3)
            Choices among rows of `X`, the odd one last.
        groups : sequence of n labels, or mapping of name (of the triplets' stimuli) to group; optional
            Validation folds divide no group, such as the images of one concept. By default each row is its own.

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
            If `X`, or `groups`, has not one row a stimulus of the triplets.

        Examples
        --------
        >>> probe = lk.LinearProbe(alpha=0.01, cv=0, max_iter=3).fit(np.eye(4), [[0, 1, 2], [1, 2, 3]])
        >>> probe.W_.shape
        (4, 4)
        """
        alphas = self._alphas()
        matrix = checked_matrix(X, "X")
        indices = _rows_of(matrix, triplets)
        self.n_objects_, self.n_features_in_ = matrix.shape
        names = triplets.names if isinstance(triplets, Triplets) else None
        self._fit(
            matrix, indices, alphas, groups_of(groups, Cell({"block": "X"}, lambda: X, names), len(matrix))
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

        Examples
        --------
        >>> probe = lk.LinearProbe(alpha=0.01, cv=0, max_iter=3).fit(np.eye(4), [[0, 1, 2], [1, 2, 3]])
        >>> probe.transform(np.ones((5, 4))).shape
        (5, 4)
        """
        check_is_fitted(self, "n_iter_")
        matrix = checked_matrix(X, "X")
        if matrix.shape[1] != self.n_features_in_:
            raise MismatchError(
                f"X has {matrix.shape[1]} columns, the {type(self).__name__} was fitted on {self.n_features_in_}. "
                "Use features of the same block and pooling."
            )
        return self._map(Preparation(self.mean_, self.scale_, self.components_)(matrix))

    def score(self, X: npt.ArrayLike, triplets: Triplets | npt.ArrayLike) -> float:
        """Odd-one-out accuracy on triplets of rows of `X`; ties score the mean of guessing.

        Parameters
        ----------
        X : array-like, shape (n, d)
        triplets : Triplets or array-like of int, shape (t, 3)

        Returns
        -------
        float

        Examples
        --------
        >>> X = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
        >>> lk.LinearProbe(alpha=0.01, cv=0, max_iter=3).fit(X, [[0, 1, 2]]).score(X, [[0, 1, 2]])
        1.0
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

        Examples
        --------
        >>> probe = lk.LinearProbe(alpha=0.01, cv=0, max_iter=3).fit(np.eye(4), [[0, 1, 2], [1, 2, 3]])
        >>> probe.save("probe").name
        'probe.safetensors'
        """
        check_is_fitted(self, "n_iter_")
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

        Examples
        --------
        >>> probe = lk.LinearProbe(alpha=0.01, cv=0, max_iter=3).fit(np.eye(4), [[0, 1, 2], [1, 2, 3]])
        >>> lk.LinearProbe.load(probe.save("probe")).alpha_
        0.01
        """
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
            if name.endswith("_"):
                setattr(probe, name, value)
        return probe

    def _descent(self, X: Matrix, indices: Indices) -> Descent:
        """The objective over prepared features."""
        raise NotImplementedError

    def _keep(self, descent: Any, x: Matrix) -> None:
        """Set the fitted arrays from the parameters that the descent returned."""
        raise NotImplementedError

    def _map(self, prepared: Matrix) -> Matrix:
        """Transform prepared features."""
        raise NotImplementedError

    def _fit(self, X: Matrix, indices: Indices, alphas: Sequence[float], groups: Rows) -> None:
        """Choose α and the number of iterations, then fit on all training objects."""
        self.alpha_, max_iter = (
            self._chosen(X, indices, alphas, groups) if self.cv else (alphas[0], self.max_iter)
        )
        preparation, descent = self._make(X, indices)
        found = descent.run(self.alpha_, max_iter)
        self.n_iter_ = found.iterations
        self.mean_, self.scale_, self.components_ = preparation
        self._keep(descent, found.x)

    def _chosen(
        self, X: Matrix, indices: Indices, alphas: Sequence[float], groups: Rows
    ) -> tuple[float, int]:
        """The α and the number of iterations with the least cross-entropy on held-out training objects.

        For each fold of the training objects, and each α, a descent runs over the other folds' objects, and each iterate
        is scored on triplets of the held-out ones, until `patience` iterations have not improved it. Curves are averaged
        over folds.
        """
        curves, n_validated = np.zeros((len(alphas), self.max_iter + 1)), 0
        fold = object_folds(len(X), self.cv, self.random_state, groups)
        for number in range(self.cv):
            out = fold == number
            whole = wholly_in(indices, out)
            train, validate = np.flatnonzero(whole == 0), np.flatnonzero(whole == 1)
            if len(validate) < ENOUGH:
                validate = np.flatnonzero(out[indices].sum(axis=1) >= 2)
            if not len(train) or not len(validate):
                continue
            inside, used = np.flatnonzero(~out), np.unique(indices[validate])
            prepare, descent = self._make(X[inside], within(indices[train], inside))
            loss = descent.validation_loss(prepare(X[used]), within(indices[validate], used))
            n_validated += len(validate)
            for row, alpha in enumerate(alphas):
                curves[row] += len(validate) * self._curve(descent, loss, alpha)
        if not n_validated:
            raise BadInputError(
                f"None of the {self.cv} validation folds within the {len(X)} training objects has triplets to train "
                f"and to validate on ({len(indices)} triplets in all). Give more triplets, or set cv=0, `alpha` and "
                "`max_iter` (such as 0.01 and 5)."
            )
        best, iterations = np.unravel_index(int(np.argmin(curves / n_validated)), curves.shape)
        return alphas[int(best)], int(iterations)

    def _curve(
        self, descent: Descent, loss: Callable[[Matrix], float], alpha: float
    ) -> npt.NDArray[np.float64]:
        """Validation cross-entropy after each iteration; after the last one, its last value."""
        losses: list[float] = []

        def seen(_: int, x: Matrix) -> bool:
            losses.append(loss(x))
            return len(losses) - 1 - int(np.argmin(losses)) >= self.patience

        descent.run(alpha, self.max_iter, seen)
        return np.array(losses + [losses[-1]] * (self.max_iter + 1 - len(losses)))

    def _alphas(self) -> Sequence[float]:
        """The candidates for α; all parameters are checked."""
        parameters = self.get_params()
        for name in LEAST.keys() & parameters.keys():
            if name != "n_components" or parameters[name] is not None:
                whole_number(name, parameters[name], LEAST[name])
        if parameters["alpha"] is not None or "alphas" not in parameters:
            return [real_number("alpha", parameters["alpha"])]
        if not len(parameters["alphas"]):
            raise BadInputError("`alphas` is empty. Name at least one α, or set `alpha`.")
        if self.cv == 0:
            raise BadInputError("cv=0 leaves α unchosen. Set `alpha`, or let cv be 2 or more.")
        return [real_number("each of alphas", alpha) for alpha in parameters["alphas"]]

    def _make(self, X: Matrix, indices: Indices) -> tuple[Preparation, Descent]:
        """The preparation and the descent for some training objects.

        Where a validation fold has too few objects for all components, it has as many as it can.
        """
        most = self.n_components
        if most is not None and (self._capped or len(X) < self.n_objects_):
            most = min(most, *X.shape)
        preparation = Preparation.fit(X, standardise=self.standardise, n_components=most)
        return preparation, self._descent(preparation(X), indices)


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
