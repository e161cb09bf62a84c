"""Similarity between stimuli: one matrix a cell, whose largest entry in a triplet is the chosen pair."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ldm_kit.errors import BadInputError, unknown_name
from ldm_kit.measures.cells import checked_matrix

METRICS = ("cosine", "centred cosine", "dot", "euclidean", "correlation")

# Two similarities tie when they differ by no more than this many epsilons of the matrix's type, times
# the metric's scale: 1 for cosines and correlations, the mean squared norm for dot products, the mean
# squared distance from the mean for distances. Rounding moves a sum by less; float32: 9.5e-7.
TIE_EPSILONS = 8


def similarity(
    X: npt.ArrayLike, metric: str = "cosine", *, centre_on: npt.ArrayLike | None = None
) -> npt.NDArray[np.floating]:
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
    X: npt.NDArray[np.floating],
    metric: str = "cosine",
    *,
    rows: npt.NDArray[np.int64] | None = None,
    centre_on: npt.ArrayLike | None = None,
    what: str = "features",
    names: Sequence[str] | None = None,
) -> tuple[npt.NDArray[np.floating], float]:
    """Compute the similarity among `rows` of `X`, and the difference up to which two of them tie.

    Parameters
    ----------
    X : ndarray, shape (n, d)
        Finite. The mean that ``"centred cosine"`` subtracts is taken over all of it (or `centre_on`).
    rows : ndarray of int, shape (m,), optional
        The rows to compare, in this order; all by default.
    what, names
        The cell and the names of its rows, for error messages.

    Returns
    -------
    (ndarray (m, m), float)

    Examples
    --------
    >>> S, tolerance = similarity_and_tolerance(np.eye(3, dtype=np.float32))
    >>> S.dtype.name, round(tolerance * 1e7, 1)
    ('float32', 9.5)
    """
    if metric not in METRICS:
        raise unknown_name("metric", metric, METRICS, "Pick one of these.")
    if metric == "centred cosine":
        X = X - row_mean(X, centre_on)
    elif metric == "euclidean":
        X = X - row_mean(X, rows)
    elif metric == "correlation":
        X = X - X.mean(axis=1, dtype=np.float64).astype(X.dtype)[:, None]
    chosen = X if rows is None else X[rows]
    squares = np.einsum("ij,ij->i", chosen, chosen)
    epsilon = float(np.finfo(chosen.dtype).eps)
    if metric in ("dot", "euclidean"):
        S = chosen @ chosen.T
        if metric == "euclidean":
            S *= 2
            S -= squares[:, None]
            S -= squares[None, :]
            np.fill_diagonal(S, 0)
        return S, TIE_EPSILONS * epsilon * float(squares.mean(dtype=np.float64) if len(squares) else 1.0)
    norms = np.sqrt(squares)
    _check_directions(norms, metric, rows, what, names)
    chosen = chosen / norms[:, None]
    return chosen @ chosen.T, TIE_EPSILONS * epsilon


def row_mean(X: npt.NDArray[np.floating], rows: npt.ArrayLike | None = None) -> npt.NDArray[np.floating]:
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
    mean: npt.NDArray[np.floating] = chosen.mean(axis=0, dtype=np.float64).astype(X.dtype)
    return mean


def _check_directions(
    norms: npt.NDArray[np.floating],
    metric: str,
    rows: npt.NDArray[np.int64] | None,
    what: str,
    names: Sequence[str] | None,
) -> None:
    """Raise if a row has no direction: it is zero but for rounding."""
    least = np.finfo(norms.dtype).eps * (norms.max() if len(norms) else 0)
    flat = np.flatnonzero(norms <= least)
    if flat.size:
        if rows is not None:
            flat = rows[flat]
        shown = ", ".join(str(names[i]) if names is not None else str(i) for i in flat[:5])
        reason = {
            "cosine": "are all zeros",
            "centred cosine": "equal the mean that is subtracted",
            "correlation": "are constant across dimensions",
        }[metric]
        raise BadInputError(
            f"{flat.size} rows of the features of {what!r} {reason}, so they have no {metric}: rows "
            f"{shown}{', …' if flat.size > 5 else ''}. Drop those stimuli, extract them again, "
            "or use metric='euclidean'."
        )
