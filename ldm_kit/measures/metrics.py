"""Similarity between stimuli: one matrix a cell, whose largest entry in a triplet is the chosen pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ldm_kit.errors import BadInputError, one_of
from ldm_kit.measures.cells import Matrix, Rows, checked_matrix, listed

METRICS = ("cosine", "centred cosine", "dot", "euclidean", "correlation")

# Two similarities tie when they differ by no more than this many epsilons of the matrix's type, times the scale
# of what is compared (see `Tolerance`). Rounding moves a sum by less; float32: 9.5e-7.
TIE_EPSILONS = 8


@dataclass(frozen=True, eq=False)
class Tolerance:
    """The difference up to which two similarities among some rows tie: `unit` times a scale of those rows.

    The scale is of the three rows of a triplet alone, so that one long row elsewhere makes no ties. It is 1 for
    cosines and correlations (`norms` is None), the product of the two greatest norms for dot products, and for squared
    distances (`squared`) the greatest square of a row's distance from the mean.
    """

    unit: float
    norms: npt.NDArray[np.float64] | None = None
    squared: bool = False

    @property
    def greatest(self) -> float:
        """No triplet's tolerance is greater."""
        if self.norms is None:
            return self.unit
        second, most = np.sort(np.append(self.norms, [0.0, 0.0]))[-2:].tolist()
        return float(self.unit * most * (most if self.squared else second))

    def to_each(self, one: slice, other: slice) -> npt.NDArray[np.float64] | float:
        """For each of the rows `one`: up to where its similarities with the rows `other` tie.

        Examples
        --------
        >>> Tolerance(0.5, np.array([1.0, 2.0, 3.0])).to_each(slice(1), slice(1, 3)).tolist()
        [[1.5]]
        """
        if self.norms is None:
            return self.unit
        own, greatest = self.norms[one, None], self.norms[other].max(initial=0.0)
        scale = np.maximum(own, greatest) ** 2 if self.squared else own * greatest
        return np.asarray(self.unit * scale)


def similarity(X: npt.ArrayLike, metric: str = "cosine", *, centre_on: npt.ArrayLike | None = None) -> Matrix:
    """Compute the similarity of every two rows; larger is more alike.

    Parameters
    ----------
    X : array-like, shape (n, d)
        One row a stimulus. float32 stays float32.
    metric : {"cosine", "centred cosine", "dot", "euclidean", "correlation"}
        ``"centred cosine"`` subtracts the mean row first. ``"euclidean"`` gives minus the squared
        distance. ``"correlation"`` is Pearson's, across dimensions.
    centre_on : array of int or bool, optional
        Rows whose mean ``"centred cosine"`` subtracts; all rows by default.

    Returns
    -------
    ndarray, shape (n, n)

    Raises
    ------
    UnknownNameError
        For a metric that does not exist.
    BadInputError
        If a row has no direction (zero norm) and the metric needs one; the message names the rows.

    Examples
    --------
    >>> similarity([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]]).tolist()
    [[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    return similarity_and_tolerance(checked_matrix(X, "features"), metric, centre_on=centre_on)[0]


def similarity_and_tolerance(
    X: Matrix,
    metric: str = "cosine",
    *,
    rows: Rows | None = None,
    centre_on: npt.ArrayLike | None = None,
    what: str = "features",
    names: Sequence[str] | None = None,
) -> tuple[Matrix, Tolerance]:
    """Compute the similarity among `rows` of `X` (m of them, all by default), and up to where two of them tie.

    The mean that ``"centred cosine"`` subtracts is taken over all of `X`, or over `centre_on`. `what` and `names` are
    those of the cell and of the rows of `X`, for error messages.

    Examples
    --------
    >>> S, tolerance = similarity_and_tolerance(np.eye(3, dtype=np.float32))
    >>> S.dtype.name, round(tolerance.greatest * 1e7, 1)
    ('float32', 9.5)
    """
    one_of("metric", metric, METRICS)
    subtracted: Any = 0.0  # the norm of what is subtracted from each row
    if metric in ("centred cosine", "euclidean"):
        mean = row_mean(X, centre_on if metric == "centred cosine" else rows)
        subtracted = float(np.linalg.norm(mean.astype(np.float64)))
        X = X - mean
    elif metric == "correlation":
        means = X.mean(axis=1, dtype=np.float64)
        subtracted = np.abs(means if rows is None else means[rows]) * np.sqrt(X.shape[1])
        X = X - means.astype(X.dtype)[:, None]
    chosen = X if rows is None else X[rows]
    # In float64: the squares of float32 numbers overflow beyond 1e19, and vanish below 1e-23.
    squares = np.einsum("ij,ij->i", chosen, chosen, dtype=np.float64)
    if metric in ("dot", "euclidean") and not _fits(squares, chosen.dtype):
        chosen = chosen.astype(np.float64)
    unit = TIE_EPSILONS * float(np.finfo(chosen.dtype).eps)
    if metric == "dot":
        return chosen @ chosen.T, Tolerance(unit, np.sqrt(squares))
    if metric == "euclidean":
        S = chosen @ chosen.T
        S *= 2
        S -= squares.astype(S.dtype)[:, None]
        S -= squares.astype(S.dtype)[None, :]
        np.fill_diagonal(S, 0)
        return S, Tolerance(unit, np.sqrt(squares), squared=True)
    norms = np.sqrt(squares)
    flat = _without_direction(norms, subtracted, chosen.dtype, metric)
    if flat.size:
        reason = {
            "cosine": "are all zeros",
            "centred cosine": "equal the mean that is subtracted",
            "correlation": "are constant across dimensions",
        }[metric]
        raise BadInputError(
            f"{flat.size} rows of the features of {what!r} {reason}, so they have no {metric}: rows "
            f"{listed(flat if rows is None else rows[flat], names)}. Drop those stimuli, extract them again, or use "
            "metric='euclidean'."
        )
    chosen = chosen / norms.astype(chosen.dtype)[:, None]
    return chosen @ chosen.T, Tolerance(unit)


def row_mean(X: Matrix, rows: npt.ArrayLike | None = None) -> Matrix:
    """Mean of `rows` of `X` (all by default), summed in float64, in the type of `X`.

    Examples
    --------
    >>> row_mean(np.array([[1.0, 2.0], [3.0, 4.0]]), [0]).tolist()
    [1.0, 2.0]
    """
    chosen = X if rows is None else X[np.asarray(rows)]
    if not len(chosen):
        raise BadInputError(
            "There are no stimuli to take the mean of. Name at least one in `centre_on`, "
            "or leave it out to take the mean of all."
        )
    mean: Matrix = chosen.mean(axis=0, dtype=np.float64).astype(X.dtype)
    return mean


def _fits(squares: npt.NDArray[np.float64], dtype: Any) -> bool:
    """Whether products of such rows neither overflow in `dtype` nor lose all their digits."""
    info, most = np.finfo(dtype), float(squares.max(initial=0.0))
    return most == 0 or float(info.tiny / info.eps) < most < float(info.max / 8)


def _without_direction(norms: npt.NDArray[np.float64], subtracted: Any, dtype: Any, metric: str) -> Rows:
    """Rows that have no direction: they are zero, or what was subtracted left nothing of them but rounding.

    A row of length |m| minus m is off by no more than an epsilon of |m|, and m itself, summed in float64, by some
    epsilons of the longest row. Where nothing was subtracted, any row but zero has a direction.
    """
    rounding = np.finfo(dtype).eps * subtracted
    if metric != "cosine":
        rounding = rounding + 4 * np.finfo(np.float64).eps * (norms.max(initial=0.0) + subtracted)
    return np.flatnonzero(norms <= rounding)
