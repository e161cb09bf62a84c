"""What every probe shares: a transform learnt from choices, scored by the dot products of what it gives."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.exceptions import NotFittedError

from ldm_kit.datasets.triplets import Triplets, checked_indices
from ldm_kit.errors import BadInputError, MismatchError, real_number, whole_number
from ldm_kit.files import with_ending, written_aside
from ldm_kit.measures import objective
from ldm_kit.measures.cells import checked_matrix
from ldm_kit.measures.grouped import Grouped
from ldm_kit.measures.metrics import similarity_and_tolerance
from ldm_kit.measures.zero_shot import SCORE

Matrix = npt.NDArray[np.floating]
FORMAT = "ldm_kit.probe/1"
ENDING = ".safetensors"
# Parameters that are whole numbers, and the least of each.
LEAST = {"n_components": 1, "hidden": 1, "max_iterations": 0, "patience": 1, "n_folds": 0}


class Probe(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Base of the probes: `fit`, `transform`, `score`, `save`, `load`.

    A subclass defines `fit` and `transform`, and names its fitted arrays (`_arrays`) and numbers (`_numbers`).
    """

    _arrays: tuple[str, ...] = ()
    _numbers: tuple[str, ...] = ("lam_", "n_iter_", "n_features_in_", "n_objects_")

    def fit(self, X: npt.ArrayLike, triplets: Triplets | npt.ArrayLike) -> Self:
        """Learn from the choices; see the subclass."""
        raise NotImplementedError

    def transform(self, X: npt.ArrayLike) -> Matrix:
        """Map features to the space where dot products predict choices; see the subclass."""
        raise NotImplementedError

    def check_parameters(self) -> None:
        """Raise for a parameter that is out of range; done before any fit.

        Raises
        ------
        BadInputError
        """
        given = self.get_params()
        for name, least in LEAST.items():
            if name in given and not (given[name] is None and name == "n_components"):
                whole_number(name, given[name], least)
        if given.get("gamma") is not None:
            real_number("gamma", given["gamma"], positive=True)
        if given["lam"] is not None or "lambdas" not in given:
            real_number("lam", given["lam"])
            return
        if not len(given["lambdas"]):
            raise BadInputError("`lambdas` is empty. Give at least one λ, or set `lam`.")
        for lam in given["lambdas"]:
            real_number("each of lambdas", lam)

    def codes(self, X: npt.ArrayLike, groups: Grouped) -> npt.NDArray[np.uint8]:
        """Which pairs the probe finds most similar in each grouped triplet (see `zero_shot.CHOICE`)."""
        S, tolerance = similarity_and_tolerance(self.transform(X), "dot")
        return groups.choose(S, tolerance)

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
        groups = grouped_rows(X, triplets)
        return float(SCORE["chance"][self.codes(X, groups)].mean())

    def cross_entropy(self, X: npt.ArrayLike, triplets: Triplets | npt.ArrayLike) -> float:
        """Mean cross-entropy of the kept pairs on triplets of rows of `X`; log 3 = 1.0986 is chance."""
        Z = self.transform(X)
        return objective.cross_entropy(Z @ Z.T, grouped_rows(X, triplets))

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
        path = with_ending(path, ENDING)
        about = {
            "format": FORMAT,
            "probe": type(self).__name__,
            "parameters": self.get_params(),
            "numbers": {name: getattr(self, name) for name in self._numbers},
        }
        arrays = {name: getattr(self, name) for name in self._arrays}
        with written_aside(path) as aside:
            save_file(
                {name: np.ascontiguousarray(array) for name, array in arrays.items() if array is not None},
                aside,
                metadata={"ldm_kit": json.dumps(about, default=_plain)},
            )
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a probe that `save` wrote.

        Parameters
        ----------
        path : path-like
            As given to `save`, or as it returned it.

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
                f"{str(path)!r} cannot be read as a probe: {error}. Give a file that `save` wrote."
            ) from error
        if about.get("format") != FORMAT or about.get("probe") != cls.__name__:
            raise BadInputError(
                f"{str(path)!r} holds {about.get('probe', 'no probe')!r} in format {about.get('format')!r}, not "
                f"a {cls.__name__} in format {FORMAT!r}. Load it with the class that saved it."
            )
        parameters = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in about["parameters"].items()
        }
        probe = cls(**parameters)
        for name, value in about["numbers"].items():
            setattr(probe, name, value)
        for name in cls._arrays:
            setattr(probe, name, arrays.get(name))
        return probe

    def _training(
        self, X: npt.ArrayLike, triplets: Triplets | npt.ArrayLike
    ) -> tuple[Matrix, npt.NDArray[np.int64]]:
        """The training objects and the triplets among them, checked; their shape is remembered."""
        self.check_parameters()
        matrix = checked_matrix(X, "X")
        indices = rows_of(matrix, triplets)
        if not len(indices):
            raise BadInputError("There are no triplets to learn from. Give at least one.")
        self.n_objects_, self.n_features_in_ = matrix.shape
        return matrix, indices

    def _check_fitted(self) -> None:
        if not hasattr(self, "n_features_in_"):
            raise NotFittedError(
                f"This {type(self).__name__} has not been fitted. Call `fit(X, triplets)` first."
            )

    def _checked(self, X: npt.ArrayLike) -> Matrix:
        """`X` as a matrix of as many columns as were fitted."""
        self._check_fitted()
        matrix = checked_matrix(X, "X")
        if matrix.shape[1] != self.n_features_in_:
            raise MismatchError(
                f"X has {matrix.shape[1]} columns, the {type(self).__name__} was fitted on {self.n_features_in_}. "
                "Give features of the same block and pooling."
            )
        return matrix


def _plain(value: Any) -> Any:
    """A number or an array of numpy's as JSON knows it."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    raise BadInputError(f"A probe's parameter {value!r} cannot be saved. Give numbers, text or None.")


def rows_of(X: npt.ArrayLike, triplets: Triplets | npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Triplets as rows of the plain array `X`, checked.

    Examples
    --------
    >>> rows_of(np.ones((3, 2)), [[0, 1, 2]]).tolist()
    [[0, 1, 2]]
    """
    n = len(np.asarray(X))
    if isinstance(triplets, Triplets):
        if n != len(triplets.names):
            raise MismatchError(
                f"X has {n} rows, the triplets are over {len(triplets.names)} stimuli. Give one row a stimulus, "
                "or re-index with `triplets.among(names_of_the_rows)`."
            )
        return triplets.indices
    return checked_indices(triplets, n)


def grouped_rows(X: npt.ArrayLike, triplets: Triplets | npt.ArrayLike) -> Grouped:
    """Triplets of rows of `X`, grouped; none is an error.

    Examples
    --------
    >>> len(grouped_rows(np.ones((3, 2)), [[0, 1, 2]]))
    1
    """
    indices = rows_of(X, triplets)
    if not len(indices):
        raise BadInputError("There are no triplets. Give at least one.")
    return Grouped(indices, len(np.asarray(X)))
