"""Representational similarity analysis: does the model's matrix of dissimilarities look like people's?"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ldm_kit.errors import BadInputError, MismatchError, unknown_name
from ldm_kit.measures.cells import Cell, cells_of, rows_named
from ldm_kit.measures.intervals import quantile
from ldm_kit.measures.metrics import METRICS, similarity_and_tolerance
from ldm_kit.measures.progress import progress
from ldm_kit.tables import tidy

Matrix = npt.NDArray[np.floating]

METHODS = {
    "spearman": "spearman",
    "pearson": "corr",
    "kendall": "tau-a",
    "cosine": "cosine",
    "rho-a": "rho-a",
}
CHOICE = "choice probability"


def rsa(
    features: Any,
    human_rdm: pd.DataFrame | npt.ArrayLike,
    names: Sequence[str] | npt.ArrayLike | None = None,
    *,
    metric: str = "cosine",
    method: str = "spearman",
    judgements: str = "human",
    dataset: str = "",
) -> pd.DataFrame:
    """Correlate each cell's dissimilarities with people's (compared by rsatoolbox).

    Parameters
    ----------
    features : store, mapping of str to ndarray (n, d), or ndarray (n, d)
    human_rdm : DataFrame (m, m) or array (m, m)
        Symmetric dissimilarities, 0 on the diagonal; a DataFrame's index names the stimuli (pandas' own numbers
        name none where the features have no names either).
    names : sequence of stimulus names, or of rows, length m
        Which stimuli (rows, for plain arrays) the matrix is about; by default the DataFrame's index, or all.
    metric : str
        One of `METRICS`, or "choice probability": the probability that the pair is kept together, by the
        softmax over dot products, averaged over all the other m - 2 stimuli as the third (how the human
        matrix of 48 objects was measured; meant for SPoSE-like embeddings and probes).
    method : {"spearman", "pearson", "kendall", "cosine", "rho-a"}
        How the two upper triangles are compared; "kendall" is tau-a.
    judgements, dataset : str
        For the table.

    Returns
    -------
    pandas.DataFrame
        The tidy table, a row per cell: `correlation`, `method`, `n_objects`; `se`, `ci_low` and `ci_high`
        are the correlation's, by the jackknife over objects (estimand: new objects).

    Raises
    ------
    UnknownNameError
        For a metric or method that does not exist.
    BadInputError, MismatchError
        For a matrix that is no dissimilarity matrix, or names that do not match.

    References
    ----------
    Kriegeskorte, Mur & Bandettini 2008, doi:10.3389/neuro.06.004.2008; Schütt et al. 2023,
    doi:10.7554/eLife.82566 (rsatoolbox).

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(8, 3))
    >>> human = np.linalg.norm(X[:, None] - X, axis=2)
    >>> rsa(X, human, metric="euclidean")["correlation"].round(6).tolist()
    [1.0]
    """
    if method not in METHODS:
        raise unknown_name("method", method, METHODS, "Pick one of these.")
    if metric not in (*METRICS, CHOICE):
        raise unknown_name("metric", metric, (*METRICS, CHOICE), "Pick one of these.")
    human = _checked_rdm(human_rdm)
    rows = []
    for cell in progress(cells_of(features), "RSA", features):
        X = cell.matrix()
        listed = _listed(human_rdm, cell) if names is None else names
        chosen = rows_named(np.arange(len(X)) if listed is None else listed, cell)
        assert chosen is not None
        if len(chosen) != len(human):
            raise MismatchError(
                f"The human matrix is over {len(human)} stimuli, {len(chosen)} were named for "
                f"{cell.labels.get('block')!r}. Give `names`: one a row of the matrix, in its order."
            )
        if chosen.size and (chosen.min() < 0 or chosen.max() >= len(X)):
            raise BadInputError(f"`names` holds rows outside 0 to {len(X) - 1}. Give rows of the features.")
        model = 1 - similarity_of(X, metric, chosen, cell)
        value, se = _jackknifed(model, human, METHODS[method])
        reach = quantile(len(human) - 1) * se
        rows.append(
            {
                "judgements": judgements,
                "dataset": dataset,
                **cell.labels,
                "metric": metric,
                "se": se,
                "ci_low": max(value - reach, -1.0),
                "ci_high": min(value + reach, 1.0),
                "estimand": "new objects",
                "method": method,
                "correlation": value,
                "n_objects": len(human),
            }
        )
    return tidy(rows)


def similarity_of(X: Matrix, metric: str, rows: npt.NDArray[np.int64], cell: Any) -> Matrix:
    """Similarities among `rows`, by one of `METRICS` or by choice probability."""
    what = str(cell.labels.get("block", "features"))
    if metric != CHOICE:
        return similarity_and_tolerance(X, metric, rows=rows, what=what, names=cell.names)[0]
    return choice_probability(similarity_and_tolerance(X, "dot", rows=rows)[0])


def choice_probability(S: Matrix) -> Matrix:
    """Probability that a pair is kept together, averaged over all others as the third item.

    Parameters
    ----------
    S : ndarray, shape (m, m)
        Dot products; m at least 3.

    Returns
    -------
    ndarray, shape (m, m)
        1 on the diagonal.

    Examples
    --------
    >>> choice_probability(np.zeros((4, 4))).round(3)[0].tolist()
    [1.0, 0.333, 0.333, 0.333]
    """
    m = len(S)
    P = np.eye(m)
    for i in range(m):
        for j in range(i + 1, m):
            others = np.delete(np.arange(m), [i, j])
            ratio = np.exp(S[i, others] - S[i, j]) + np.exp(S[j, others] - S[i, j])
            P[i, j] = P[j, i] = np.mean(1 / (1 + ratio))
    return P


def _checked_rdm(rdm: pd.DataFrame | npt.ArrayLike) -> Matrix:
    """A square, symmetric, finite matrix."""
    matrix = np.asarray(rdm, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or len(matrix) < 4:
        raise BadInputError(
            f"The human matrix has shape {matrix.shape}; a square matrix of 4 stimuli or more is needed."
        )
    if not np.isfinite(matrix).all() or not np.allclose(matrix, matrix.T, atol=1e-6):
        raise BadInputError(
            "The human matrix is not symmetric, or not finite. Give dissimilarities of every two stimuli."
        )
    diagonal = np.abs(np.diag(matrix)).max()
    if diagonal > 1e-5 * np.abs(matrix).max():
        raise BadInputError(
            f"The human matrix has up to {diagonal:.3g} on its diagonal; a stimulus differs from itself by 0. If it "
            "holds similarities, give 1 - similarity."
        )
    return matrix


def _listed(rdm: pd.DataFrame | npt.ArrayLike, cell: Cell) -> list[str] | None:
    """The stimuli that a DataFrame names; None if it names none."""
    if not isinstance(rdm, pd.DataFrame) or (cell.names is None and isinstance(rdm.index, pd.RangeIndex)):
        return None
    return [str(name) for name in rdm.index]


def _jackknifed(model: Matrix, human: Matrix, method: str) -> tuple[float, float]:
    """The comparison of two matrices, and its standard error by leaving out one object at a time."""
    m = len(human)
    everyone = np.arange(m)
    without = np.array(
        [
            _compared(model[np.ix_(kept, kept)], human[np.ix_(kept, kept)], method)
            for kept in (np.delete(everyone, i) for i in range(m))
        ]
    )
    se = float(np.sqrt((m - 1) / m * np.sum((without - without.mean()) ** 2)))
    return _compared(model, human, method), se


def _compared(model: Matrix, human: Matrix, method: str) -> float:
    toolbox: Any = import_module("rsatoolbox.rdm")
    upper = np.triu_indices(len(human), 1)
    pair = [toolbox.RDMs(matrix[upper][None]) for matrix in (model, human)]
    return float(toolbox.compare(*pair, method=method)[0, 0])
