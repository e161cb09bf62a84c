"""Centred kernel alignment: how alike are two cells' geometries, whatever their axes?"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ldm_kit.errors import BadInputError, MismatchError
from ldm_kit.measures.cells import Cell, cells_of
from ldm_kit.measures.progress import progress
from ldm_kit.tables import tidy

Matrix = npt.NDArray[np.floating]


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
    if first and second and len(first[0][1]) != len(second[0][1]):
        raise MismatchError(
            "The two sets of features have different numbers of stimuli. Compare cells over the same ones."
        )
    if not first or not second:
        raise BadInputError("There are no cells to compare. Give a store or a mapping with at least one.")
    values = np.stack([g for _, g in first]) @ np.stack([g for _, g in second]).T
    rows = [
        {
            **labels,
            **{f"{name}_b": value for name, value in labels_b.items()},
            "cka": float(values[i, j]),
        }
        for i, (labels, _) in enumerate(first)
        for j, (labels_b, _) in enumerate(second)
    ]
    return tidy(rows)


def geometry(X: Matrix, *, debiased: bool = True) -> Matrix:
    """The centred Gram matrix of a cell, as a vector of length 1: CKA is the dot product of two.

    Parameters
    ----------
    X : ndarray, shape (n, d)
    debiased : bool
        U-centre (then the diagonal does not count), or double-centre.

    Returns
    -------
    ndarray, shape (n (n - 1) / 2,) if debiased, else (n (n + 1) / 2,)
        NaN if there is no geometry (all rows alike).

    Examples
    --------
    >>> len(geometry(np.eye(5)))
    10
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


def _geometries(
    features: Any, names: tuple[str, ...] | None, debiased: bool
) -> tuple[list[tuple[dict[str, Any], Matrix]], tuple[str, ...] | None]:
    """Labels and geometry of every cell, rows in the order of `names` where there are names."""
    found, n = [], None
    for cell in progress(cells_of(features), "CKA", features):
        X = cell.matrix()
        if cell.names is not None and names is not None:
            X = X[_order(cell, names)]
        names = names or cell.names
        if n is not None and len(X) != n:
            raise MismatchError(
                f"The features of {cell.labels.get('block')!r} have {len(X)} rows, those before {n}. "
                "Compare cells over the same stimuli."
            )
        n = len(X)
        if n < 4:
            raise BadInputError(f"CKA needs at least 4 stimuli; there are {n}.")
        found.append((dict(cell.labels), geometry(X, debiased=debiased)))
    return found, names


def _order(cell: Cell, names: tuple[str, ...]) -> npt.NDArray[np.int64]:
    """Rows of the cell in the order of `names`; other stimuli are an error."""
    own = cell.names or ()
    if set(own) != set(names):
        missing = sorted(set(names) ^ set(own))
        raise MismatchError(
            f"{len(missing)} stimuli are in one store only: {', '.join(missing[:5])}"
            f"{', …' if len(missing) > 5 else ''}. Extract the same stimuli for both."
        )
    position = {name: row for row, name in enumerate(own)}
    return np.array([position[name] for name in names], dtype=np.int64)
