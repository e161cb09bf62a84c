"""Geometries of representations: dissimilarities compared with people's (RSA), and cells with each other (CKA)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ldm_kit.errors import BadInputError, MismatchError, nearest_first, one_of
from ldm_kit.measures.cells import (
    Cell,
    Groups,
    Matrix,
    Rows,
    cells_of,
    each_cell,
    groups_of,
    rows_by_name,
    rows_named,
)
from ldm_kit.measures.metrics import METRICS, TIE_EPSILONS, similarity_and_tolerance
from ldm_kit.measures.statistics import quantile
from ldm_kit.tables import tidy

METHODS = ("spearman", "pearson", "kendall", "cosine", "rho-a")
TOOLBOX = {"pearson": "corr", "kendall": "tau-a"}  # their names in rsatoolbox
CHOICE = "choice probability"
# Dissimilarities whose range is below this share of the greatest are all the same. Features are float32 as a rule, and matrices
# are saved in six or seven digits: what differs by less than 1e-6 may differ by rounding alone.
FLAT = 1e-6
LEAST = 4  # objects of which a geometry can be compared


def rsa(
    features: Any,
    human_rdm: pd.DataFrame | npt.ArrayLike,
    names: Sequence[str] | npt.ArrayLike | None = None,
    *,
    metric: str = "cosine",
    method: str = "spearman",
    groups: Groups | None = None,
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
        matrix of 48 objects was measured; meant for SPoSE-like embeddings and probes). The dissimilarity is
        the squared distance for "euclidean", minus the dot product for "dot", and else 1 - similarity.
    method : {"spearman", "pearson", "kendall", "cosine", "rho-a"}
        How the two upper triangles are compared; "kendall" is tau-a. "cosine" takes 0 for what it is, so it needs
        dissimilarities that are 0 for a stimulus and itself, as those of "dot" are not.
    groups : mapping or Series (stimulus name → group), or sequence of m labels; optional
        The interval leaves out one group of stimuli at a time. By default one concept of the store; each stimulus is
        its own group in plain arrays.
    judgements, dataset : str
        For the table.

    Returns
    -------
    pandas.DataFrame
        The tidy table, a row per cell: `correlation`, `method`, `n_objects`; `se`, `ci_low` and `ci_high`
        are the correlation's (estimand: new objects), by the jackknife over groups with Student's t. NaN where, without
        one of the groups, the dissimilarities no longer vary.

    Raises
    ------
    UnknownNameError
        For a metric or method that does not exist.
    BadInputError, MismatchError
        For a matrix that is no dissimilarity matrix, or names or groups that do not match; for dissimilarities, of
        people or of a cell, that are all the same; for metric "dot" with method "cosine".

    Notes
    -----
    In simulations of 12, 24 and 48 objects with correlations from 0.2 to 0.65, the interval held the correlation over all
    objects in 92 to 98 % of cases, by Spearman's and, for normal features, by Pearson's. By Pearson's with skewed features
    it held it in 84 to 90 % only, and a bootstrap over objects did no better: a few great distances decide, and small
    samples seldom have them. Prefer a rank correlation there. Stimuli of one group are compared with each other, too, which
    raises the correlation where groups are few (4 images each of 12 concepts: 90 %; of 24: 94 %).

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
    if method == "cosine" and metric == "dot":
        usable = nearest_first(metric, [name for name in (*METRICS, CHOICE) if name != "dot"])
        raise BadInputError(
            "metric='dot' cannot be compared by method='cosine': a dot product has no dissimilarity that is 0 for a "
            "stimulus and itself, so the result would depend on the scale of the features. Metrics that can: "
            f"{', '.join(usable)}. Or choose method='pearson', which needs no zero."
        )
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
        model, rounding = _dissimilarities(X, chosen, cell, metric)
        if _flat(model, rounding):
            raise BadInputError(
                f"All stimuli are equally dissimilar in {_described(cell)} by metric {metric!r}, up to rounding, so nothing "
                "can correlate with it. Leave the cell out, extract it again, or choose another metric."
            )
        value = _compared(model, human, method)
        group = groups_of(groups, _of_rows(cell, chosen), m)
        without = np.full(group.max() + 1, np.nan)
        for g in range(len(without)):
            left = np.ix_(group != g, group != g)
            if not _flat(model[left], rounding) and not _flat(human[left]):
                without[g] = _compared(model[left], human[left], method)
        se = float(_jackknife(without))
        reach = quantile(len(without) - 1) * se
        rows.append(
            {
                "judgements": judgements,
                "dataset": dataset,
                **cell.labels,
                "metric": metric,
                "se": se,
                "ci_low": float(np.maximum(value - reach, -1.0)),
                "ci_high": float(np.minimum(value + reach, 1.0)),
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
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or len(matrix) < LEAST:
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
    if _flat(matrix):
        raise BadInputError(
            f"The dissimilarities of the human matrix are all the same ({matrix[0, 1]:.4g}, up to rounding), so nothing can "
            "correlate with them. Give a matrix of which some stimuli are more alike than others."
        )
    return matrix


def _dissimilarities(X: Matrix, rows: Rows, cell: Cell, metric: str) -> tuple[Matrix, float]:
    """Dissimilarity of every two of the rows, and the range that rounding alone may give them."""
    shown = "dot" if metric == CHOICE else metric
    S, ties = similarity_and_tolerance(X, shown, rows=rows, what=cell.block, names=cell.names)
    if metric == CHOICE:
        return 1 - choice_probability(S), 0.0
    S = S.astype(np.float64)
    if metric == "dot":
        return -S, ties.greatest
    if metric == "euclidean":
        # a row's own rounding moves its squared distance from another by twice the distance times the rounding
        norm = np.linalg.norm(X[rows].astype(np.float64), axis=1).max()
        moved = 2 * np.sqrt(np.abs(S).max()) * TIE_EPSILONS * np.finfo(X.dtype).eps * norm
        return -S, max(ties.greatest, float(moved))
    return 1 - S, ties.greatest


def _flat(matrix: Matrix, rounding: float = 0.0) -> bool:
    """Whether the upper triangle holds one value only, up to rounding (or none)."""
    upper = matrix[np.triu_indices(len(matrix), 1)]
    return not upper.size or bool(np.ptp(upper) <= max(FLAT * np.abs(upper).max(), rounding))


def _described(cell: Cell) -> str:
    """The cell's block, with its noise level and conditioning where it has them."""
    more = [f"{name} {cell.labels[name]}" for name in ("noise_level", "conditioning") if name in cell.labels]
    return repr(cell.block) + (f" ({', '.join(more)})" if more else "")


def _of_rows(cell: Cell, rows: Rows) -> Cell:
    """The cell, with the names and groups of some of its rows."""
    names, groups = (
        None if labels is None else tuple(labels[row] for row in rows) for labels in (cell.names, cell.groups)
    )
    return replace(cell, names=names, groups=groups)


def _jackknife(without: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Standard errors of estimates from what they are without each group (axis 0); NaN with one group."""
    if len(without) < 2:
        return np.full(without.shape[1:], np.nan)
    squares = np.sum((without - without.mean(axis=0)) ** 2, axis=0)
    return np.asarray(np.sqrt((len(without) - 1) / len(without) * squares))


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


def cka(
    a: Any, b: Any = None, *, debiased: bool = True, groups: Groups | None = None, ci: bool = True
) -> pd.DataFrame:
    """Linear CKA of every two cells of a store, or of every cell of one with every cell of another.

    Parameters
    ----------
    a : store, mapping of str to ndarray (n, d), or ndarray (n, d)
    b : the same, optional
        Compared with `a`; stores are matched by name, arrays by row. By default `a` with itself.
    debiased : bool
        Estimate without the bias that makes all geometries alike when dimensions outnumber stimuli
        (Song et al. 2012's HSIC); may then come out slightly below 0.
    groups : mapping or Series (stimulus name → group), or sequence of n labels; optional
        The interval leaves out one group of stimuli at a time. By default one concept of the store; each stimulus is
        its own group in plain arrays.
    ci : bool
        Give intervals. They take about as long as the values: less than a second in all for 45 cells of 335 stimuli, ten
        seconds or so for 45 of 1,854.

    Returns
    -------
    pandas.DataFrame
        The tidy table, one row per ordered pair: the labels of the cell of `a`, those of the cell of `b`
        with the suffix ``_b``, and `cka`. ``table.pivot(index="block", columns="block_b", values="cka")``
        is the matrix. `se`, `ci_low` and `ci_high` are for new objects, by the jackknife over groups with Student's t;
        NaN where fewer than four stimuli are left without one of the groups. A cell has 1 with itself, from 1 to 1.

    Raises
    ------
    MismatchError
        If the cells do not hold the same stimuli, or groups do not match them.
    BadInputError
        With fewer than four stimuli.

    Notes
    -----
    In simulations of 12 to 335 objects the interval held the debiased CKA of all objects in 91 to 99 % of cases, 96 % on
    average; a bootstrap over up to 48 objects did no better, and has no closed form. Stimuli of one group are compared with
    each other, too, which raises CKA where groups are few (4 images each of 12 concepts: 86 %; of 24: 96 %).

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
    first, names, n = _geometries(a, None, debiased)
    second, _, n_b = (first, names, n) if b is None else _geometries(b, names, debiased)
    if not first or not second:
        raise BadInputError("There are no cells to compare. Give a store or a mapping with at least one.")
    if n != n_b:
        raise MismatchError(
            "The two sets of features have different numbers of stimuli. Compare cells over the same ones."
        )
    units, units_b = (np.stack([unit for _, unit in found]) for found in (first, second))
    values = units @ units_b.T
    se, reach = np.full(values.shape, np.nan), 0.0
    if ci:
        cells = cells_of(a)[:1] + ([] if b is None else cells_of(b)[:1])
        named = next((cell for cell in cells if cell.names is not None), cells[0])
        group = groups_of(groups, named, n)
        se = _jackknife(_without_groups(units, units_b, values, group, debiased))
        reach = quantile(int(group.max()))
    if b is None:  # by definition; rounding may miss it
        same = np.flatnonzero(~np.isnan(np.diag(values)))
        values[same, same], se[same, same] = 1, 0 if ci else np.nan
    low = np.maximum(values - reach * se, -1.0 if debiased else 0.0)
    high = np.minimum(values + reach * se, 1.0)
    rows = []
    for i, (labels, _) in enumerate(first):
        for j, (labels_b, _) in enumerate(second):
            other = {f"{name}_b": value for name, value in labels_b.items()}
            numbers = {"cka": values, "se": se, "ci_low": low, "ci_high": high}
            rows.append({**labels, **other, **{name: float(of[i, j]) for name, of in numbers.items()}})
    return tidy({**row, "estimand": "new objects" if ci else ""} for row in rows)


def _without_groups(
    first: Matrix, second: Matrix, values: Matrix, group: Rows, debiased: bool
) -> npt.NDArray[np.float64]:
    """CKA (`values`) of the `first` geometries with the `second` without each group: (groups, first, second).

    In closed form, from the group's rows alone. All rows of a centred Gram matrix sum to 0, so what is left of a row sums
    to minus what was left out, and HSIC (Song et al. 2012, eq. 5; Gretton et al. 2005 if biased) centres the rest by these
    sums.
    """
    n = len(group)
    place = np.zeros((n, n), dtype=np.int64)  # where a geometry holds each entry
    upper = np.triu_indices(n, 1 if debiased else 0)
    place[upper] = place.T[upper] = np.arange(len(upper[0]))
    wholes = values.astype(np.float64), _own(first), _own(second)
    without = np.full((group.max() + 1, *values.shape), np.nan)
    for g in range(len(without)):
        out, left = np.flatnonzero(group == g), np.flatnonzero(group != g)
        k = len(left)
        if k < LEAST:
            continue
        parts = []
        for geometries in (first, second):
            entries = np.sqrt(0.5) * geometries[:, place[out]].astype(np.float64)
            entries[:, np.arange(len(out)), out] *= 0 if debiased else np.sqrt(2)
            within = entries[:, :, out]
            parts.append((entries, within, entries.sum(axis=1)[:, left], within.sum(axis=(1, 2))))
        of_rows, of_total = (2 / (k - 2), 1 / ((k - 1) * (k - 2))) if debiased else (2 / k, 1 / k**2)
        both, own, own_b = (value.copy() for value in wholes)
        for weight, x, y in zip((-2.0, 1.0, -of_rows, of_total), *parts, strict=True):
            x, y = x.reshape(len(x), -1), y.reshape(len(y), -1)
            both += weight * x @ y.T
            own += weight * _own(x)
            own_b += weight * _own(y)
        with np.errstate(divide="ignore", invalid="ignore"):
            without[g] = both / np.sqrt(np.outer(own, own_b))
    return without


def _own(rows: Matrix) -> npt.NDArray[np.float64]:
    """The squared length of each row."""
    return np.asarray(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))


def _geometries(
    features: Any, names: tuple[str, ...] | None, debiased: bool
) -> tuple[list[tuple[dict[str, Any], Matrix]], tuple[str, ...] | None, int]:
    """Labels and geometry of every cell, rows in the order of `names` where there are names; names and number of rows."""
    found: list[tuple[dict[str, Any], Matrix]] = []
    n = 0
    for cell in each_cell(features, "CKA"):
        X = cell.matrix()
        if cell.names is not None and names is not None:
            apart = "stimuli are in one store only", "Extract the same stimuli for both."
            rows_by_name(cell.names, names, *apart)
            X = X[rows_by_name(names, cell.names, *apart)]
        names = names or cell.names
        if found and len(X) != n:
            raise MismatchError(
                f"The features of {cell.block!r} have {len(X)} rows, those before {n}. "
                "Compare cells over the same stimuli."
            )
        n = len(X)
        if n < LEAST:
            raise BadInputError(f"CKA needs at least {LEAST} stimuli; there are {n}.")
        found.append((cell.labels, _geometry(X, debiased)))
    return found, names, n


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
