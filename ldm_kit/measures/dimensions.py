"""Which human dimensions can be read from the features? Cross-validated ridge regression, one per dimension."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ldm_kit.datasets.triplets import Triplets
from ldm_kit.errors import BadInputError, MismatchError, NonFiniteError, real_number
from ldm_kit.measures.ceiling import ceiling_columns
from ldm_kit.measures.cells import Cell, cells_of, rows_for, table_labels
from ldm_kit.measures.fitting import Preparation
from ldm_kit.measures.folds import object_folds, wholly_in
from ldm_kit.measures.grouped import Grouped
from ldm_kit.measures.intervals import interval, quantile
from ldm_kit.measures.metrics import similarity_and_tolerance
from ldm_kit.measures.progress import progress
from ldm_kit.measures.zero_shot import CHANCE, SCORE, TIED
from ldm_kit.tables import tidy

Matrix = npt.NDArray[np.floating]

# Times the mean squared singular value of the training features.
ALPHAS = tuple(float(10.0**power) for power in range(-4, 5))


def dimension_regression(
    features: Any,
    embedding: pd.DataFrame | npt.ArrayLike,
    n_folds: int = 3,
    seed: int = 0,
    *,
    triplets: Triplets | npt.ArrayLike | None = None,
    alphas: tuple[float, ...] = ALPHAS,
    ceiling: Any = None,
) -> pd.DataFrame:
    """Predict each dimension of a human embedding from the features, on held-out objects.

    For each fold over objects, ridge regression is fitted on the others; its penalty is chosen for each
    dimension by leave-one-out among the training objects.

    Parameters
    ----------
    features : store, mapping of str to ndarray (n, d), or ndarray (n, d)
    embedding : DataFrame (stimuli × dimensions) or array (n, k)
        SPoSE, VICE or the like. A DataFrame's index names the stimuli (matched to a store by name); its
        columns name the dimensions.
    n_folds, seed : int
        Folds over objects.
    triplets : Triplets or array-like of int, shape (t, 3), optional
        Adds a row per cell: the odd-one-out accuracy of the *predicted* dimensions (dot product) on the
        triplets wholly among a fold's held-out objects, and that of the embedding itself on the same ones.
    alphas : tuple of float
        Penalties to choose from, above 0, in units of the mean squared singular value.
    ceiling : optional
        As for `odd_one_out`.

    Returns
    -------
    pandas.DataFrame
        The tidy table, a row per cell and dimension: `dimension`, `r2` (1 - squared error over squared
        deviation from the training mean, on held-out objects), `r2_se`, `r2_low`, `r2_high` (over objects),
        `n_objects`. With triplets also a row with `dimension` empty: `accuracy` with its interval, and
        `embedding_accuracy`.

    Raises
    ------
    MismatchError
        If the embedding is not of the features' stimuli.

    References
    ----------
    Linhardt et al. 2024, arXiv:2403.08469 (regression from features to VICE dimensions).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(60, 4))
    >>> table = dimension_regression(X, pd.DataFrame({"first": X[:, 0], "noise": rng.normal(size=60)}))
    >>> table["dimension"].tolist(), (table["r2"] > 0.5).tolist()
    (['first', 'noise'], [True, False])
    """
    if not len(alphas):
        raise BadInputError("`alphas` is empty. Give at least one penalty, or leave it out.")
    for alpha in alphas:
        real_number("each of alphas", alpha, positive=True)
    rows: list[dict[str, Any]] = []
    for cell in progress(cells_of(features), "dimensions", features):
        X = cell.matrix()
        Y, dimensions = _matched(embedding, cell, len(X))
        fold = object_folds(len(X), n_folds, seed)
        predicted, baseline = np.empty_like(Y), np.empty_like(Y)
        for number in range(n_folds):
            train, test = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
            predicted[test] = ridge(X[train], Y[train], X[test], alphas)
            baseline[test] = Y[train].mean(axis=0)
        labels = table_labels(cell, triplets)
        about = {"metric": "dot", "probe": "ridge", "seed": seed, "n_objects": len(X)}
        for k, dimension in enumerate(dimensions):
            r2 = _r2((Y[:, k] - predicted[:, k]) ** 2, (Y[:, k] - baseline[:, k]) ** 2)
            rows.append({**labels, **about, **r2, "dimension": dimension})
        if triplets is not None:
            found = _odd_one_out(predicted, Y, fold, rows_for(cell, triplets, len(X)))
            rows.append({**labels, **about, **found, **ceiling_columns(ceiling), "dimension": ""})
    return tidy(rows)


def ridge(X: Matrix, Y: Matrix, new: Matrix, alphas: tuple[float, ...] = ALPHAS) -> Matrix:
    """Fit ridge regressions, the penalty of each chosen by leave-one-out, and predict new rows.

    Parameters
    ----------
    X : ndarray, shape (n, d)
    Y : ndarray, shape (n, k)
    new : ndarray, shape (m, d)
    alphas : tuple of float

    Returns
    -------
    ndarray, shape (m, k)

    Notes
    -----
    With the intercept counted, the leave-one-out residual is (y - ŷ) / (1 - 1/n - h), h the leverage.

    Examples
    --------
    >>> x = np.arange(6.0)[:, None]
    >>> ridge(x, 2 * x, np.array([[10.0]])).round(2).tolist()
    [[20.0]]
    """
    prepare = Preparation.fit(X.astype(np.float64))
    U, s, Vt = np.linalg.svd(prepare(X), full_matrices=False)
    mean = Y.mean(axis=0)
    projected = U.T @ (Y - mean)
    scale = float(np.mean(s**2))
    best_error = np.full(Y.shape[1], np.inf)
    coefficients = np.zeros((len(s), Y.shape[1]))
    for alpha in alphas:
        shrink = s**2 / (s**2 + alpha * scale)
        leverage = 1 / len(X) + (U**2) @ shrink
        residual = (Y - mean - U @ (shrink[:, None] * projected)) / np.maximum(1 - leverage, 1e-9)[:, None]
        error = np.mean(residual**2, axis=0)
        better = error < best_error
        best_error[better] = error[better]
        coefficients[:, better] = ((s / (s**2 + alpha * scale))[:, None] * projected)[:, better]
    predicted: Matrix = prepare(new) @ (Vt.T @ coefficients) + mean
    return predicted


def _r2(error: Matrix, deviation: Matrix) -> dict[str, float]:
    """R² and its interval, as a ratio of means over objects (delta method)."""
    if not deviation.sum() > 0:
        return {"r2": float("nan")}
    r2 = 1 - float(error.sum() / deviation.sum())
    influence = (error - (1 - r2) * deviation) / deviation.mean()
    se = float(np.std(influence, ddof=1) / np.sqrt(len(error)))
    reach = quantile(len(error) - 1) * se
    return {"r2": r2, "r2_se": se, "r2_low": r2 - reach, "r2_high": min(r2 + reach, 1.0)}


def _odd_one_out(
    predicted: Matrix, Y: Matrix, fold: npt.NDArray[np.int64], indices: npt.NDArray[np.int64]
) -> dict[str, Any]:
    """Accuracy of predicted dimensions on triplets wholly among one fold's objects."""
    held = indices[wholly_in(indices, fold) >= 0]
    if not len(held):
        raise BadInputError(
            f"None of {len(indices)} triplets lies wholly among one fold's objects. Use fewer folds, or more triplets."
        )
    groups = Grouped(held, len(Y))
    codes = [groups.choose(*similarity_and_tolerance(Z, "dot")) for Z in (predicted, Y)]
    return {
        **interval(SCORE["chance"][codes[0]], groups).columns,
        "n_triplets": len(held),
        "n_ties": int(TIED[codes[0]].sum()),
        "chance": CHANCE,
        "embedding_accuracy": float(SCORE["chance"][codes[1]].mean()),
    }


def _matched(embedding: pd.DataFrame | npt.ArrayLike, cell: Cell, n: int) -> tuple[Matrix, list[str]]:
    """The embedding in the order of the cell's rows, and its dimensions' names."""
    if isinstance(embedding, pd.DataFrame):
        dimensions = [str(name) for name in embedding.columns]
        values = embedding.to_numpy(np.float64)
        if cell.names is not None:
            position = {str(name): row for row, name in enumerate(embedding.index)}
            missing = [name for name in cell.names if name not in position]
            if missing:
                raise MismatchError(
                    f"{len(missing)} stimuli are not in the embedding: {', '.join(missing[:5])}"
                    f"{', …' if len(missing) > 5 else ''}. Measure the stimuli that it covers."
                )
            values = values[[position[name] for name in cell.names]]
    else:
        values = np.asarray(embedding, dtype=np.float64)
        if values.ndim != 2:
            raise BadInputError(f"The embedding has shape {values.shape}; (stimuli, dimensions) is needed.")
        dimensions = [f"dimension {k}" for k in range(values.shape[1])]
    if len(values) != n:
        raise MismatchError(
            f"The embedding has {len(values)} rows, the features of {cell.labels.get('block')!r} {n}. Give one "
            "row a stimulus, in the order of the features, or a DataFrame and a store with names."
        )
    if not np.isfinite(values).all():
        raise NonFiniteError("The embedding holds NaN or infinity. Drop those stimuli from both.")
    return values, dimensions
