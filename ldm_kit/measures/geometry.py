"""Geometries of representations: dissimilarities compared with people's (RSA), and cells with each other (CKA)."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ldm_kit.errors import BadInputError, MismatchError, one_of
from ldm_kit.measures.cells import Cell, Matrix, each_cell, rows_by_name, rows_named
from ldm_kit.measures.metrics import METRICS, similarity_and_tolerance
from ldm_kit.measures.statistics import quantile
from ldm_kit.tables import tidy

METHODS = ("spearman", "pearson", "kendall", "cosine", "rho-a")
TOOLBOX = {"pearson": "corr", "kendall": "tau-a"}  # their names in rsatoolbox
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
    one_of("method", method, METHODS)
    one_of("metric", metric, (*METRICS, CHOICE))
    human = _checked_rdm(human_rdm)
    m = len(human)
    rows = []
    for cell in each_cell(features, "RSA"):
        X = cell.matrix()
        chosen = rows_named(_stimuli(human_rdm, cell) if names is None else names, cell, len(X))
        if chosen is None:
            chosen = np.arange(len(X))
        if len(chosen) != m:
            raise MismatchError(
                f"The human matrix is over {m} stimuli, {len(chosen)} were named for {cell.block!r}. Give `names`: one "
                "a row of the matrix, in its order."
            )
        shown = "dot" if metric == CHOICE else metric
        S, _ = similarity_and_tolerance(X, shown, rows=chosen, what=cell.block, names=cell.names)
        model = 1 - (choice_probability(S) if metric == CHOICE else S)
        value = _compared(model, human, method)
        without = np.empty(m)  # one object each time: the jackknife
        for i in range(m):
            others = np.ix_(np.delete(np.arange(m), i), np.delete(np.arange(m), i))
            without[i] = _compared(model[others], human[others], method)
        se = float(np.sqrt((m - 1) / m * np.sum((without - without.mean()) ** 2)))
        reach = quantile(m - 1) * se
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
                "n_objects": m,
            }
        )
    return tidy(rows)


def choice_probability(S: Matrix) -> Matrix:
    """Probability that a pair is kept together, averaged over all others as the third item, from dot products.

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


def _stimuli(rdm: pd.DataFrame | npt.ArrayLike, cell: Cell) -> list[str] | None:
    """The stimuli that a DataFrame names; None if it names none."""
    if not isinstance(rdm, pd.DataFrame) or (cell.names is None and isinstance(rdm.index, pd.RangeIndex)):
        return None
    return [str(name) for name in rdm.index]


def _compared(model: Matrix, human: Matrix, method: str) -> float:
    """Compare the upper triangles of two matrices."""
    toolbox: Any = import_module("rsatoolbox.rdm")  # here, as it takes more than a second
    upper = np.triu_indices(len(human), 1)
    pair = [toolbox.RDMs(matrix[upper][None]) for matrix in (model, human)]
    return float(toolbox.compare(*pair, method=TOOLBOX.get(method, method))[0, 0])


def cka(a: Any, b: Any = None, *, debiased: bool = True) -> pd.DataFrame:
    """Linear CKA of every two cells of a store, or of every cell of one with every cell of another.

    Parameters
    ----------
    a : store, mapping of str to ndarray (n, d), or ndarray (n, d)
    b : the same, optional
        Compared with `a`; stores are matched by name, arrays by row. By default `a` with itself.
    debiased : bool
        Estimate without the bias that makes all geometries alike when dimensions outnumber stimuli
        (Song et al. 2012's HSIC); may then come out slightly below 0.

    Returns
    -------
    pandas.DataFrame
        The tidy table, one row per ordered pair: the labels of the cell of `a`, those of the cell of `b`
        with the suffix ``_b``, and `cka`. ``table.pivot(index="block", columns="block_b", values="cka")``
        is the matrix.

    Raises
    ------
    MismatchError
        If the cells do not hold the same stimuli.
    BadInputError
        With fewer than four stimuli.

    References
    ----------
    Kornblith, Norouzi, Lee & Hinton 2019, arXiv:1905.00414; Song et al. 2012, JMLR 13, eq. 5;
    Nguyen, Raghu & Kornblith 2021, arXiv:2010.15327 (debiased CKA).

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(9, 4))
    >>> cka({"a": X, "b": 2 * X[:, ::-1]})["cka"].round(6).tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    first, names = _geometries(a, None, debiased)
    second = first if b is None else _geometries(b, names, debiased)[0]
    if not first or not second:
        raise BadInputError("There are no cells to compare. Give a store or a mapping with at least one.")
    if len(first[0][1]) != len(second[0][1]):
        raise MismatchError(
            "The two sets of features have different numbers of stimuli. Compare cells over the same ones."
        )
    values = np.stack([g for _, g in first]) @ np.stack([g for _, g in second]).T
    rows = []
    for i, (labels, _) in enumerate(first):
        for j, (labels_b, _) in enumerate(second):
            other = {f"{name}_b": value for name, value in labels_b.items()}
            rows.append({**labels, **other, "cka": float(values[i, j])})
    return tidy(rows)


def _geometries(
    features: Any, names: tuple[str, ...] | None, debiased: bool
) -> tuple[list[tuple[dict[str, Any], Matrix]], tuple[str, ...] | None]:
    """Labels and geometry of every cell, rows in the order of `names` where there are names."""
    found, n = [], None
    for cell in each_cell(features, "CKA"):
        X = cell.matrix()
        if cell.names is not None and names is not None:
            apart = "stimuli are in one store only", "Extract the same stimuli for both."
            rows_by_name(cell.names, names, *apart)
            X = X[rows_by_name(names, cell.names, *apart)]
        names = names or cell.names
        if n is not None and len(X) != n:
            raise MismatchError(
                f"The features of {cell.block!r} have {len(X)} rows, those before {n}. "
                "Compare cells over the same stimuli."
            )
        n = len(X)
        if n < 4:
            raise BadInputError(f"CKA needs at least 4 stimuli; there are {n}.")
        found.append((cell.labels, _geometry(X, debiased)))
    return found, names


def _geometry(X: Matrix, debiased: bool) -> Matrix:
    """The centred Gram matrix of a cell, as a vector of length 1: CKA is the dot product of two.

    U-centred if debiased (then the diagonal does not count), else double-centred; NaN if all rows are alike.
    """
    n = len(X)
    centred = X - X.mean(axis=0, dtype=np.float64).astype(X.dtype)
    K = centred @ centred.T
    if debiased:
        np.fill_diagonal(K, 0)
        sums = K.sum(axis=1, dtype=np.float64)
        K = K - (sums[:, None] + sums[None, :]) / (n - 2) + sums.sum() / ((n - 1) * (n - 2))
    upper = K[np.triu_indices(n, 1 if debiased else 0)].astype(X.dtype)
    if not debiased:
        # an entry off the diagonal stands for two
        counts = np.where(np.equal(*np.triu_indices(n)), 1.0, np.sqrt(2.0))
        upper = upper * counts.astype(X.dtype)
    norm = float(np.linalg.norm(upper))
    scale = float(np.sum(centred.astype(np.float64) ** 2))
    unit: Matrix = upper / X.dtype.type(norm if norm > 1e-12 * max(scale, 1e-300) else np.nan)
    return unit
