"""What can be read from features about objects that were held out: the dimensions of an embedding, and categories."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ldm_kit.datasets.triplets import Triplets
from ldm_kit.errors import BadInputError, real_number, whole_number
from ldm_kit.measures.ceiling import ceiling_columns
from ldm_kit.measures.cells import (
    Cell,
    Matrix,
    Membership,
    Rows,
    aligned,
    checked_matrix,
    each_cell,
    membership,
)
from ldm_kit.measures.folds import object_folds, wholly_in
from ldm_kit.measures.grouped import Grouped
from ldm_kit.measures.metrics import row_mean, similarity_and_tolerance
from ldm_kit.measures.statistics import interval, proportion, quantile
from ldm_kit.measures.zero_shot import CHANCE, SCORE, TIED, matched_cells
from ldm_kit.tables import tidy

# Times the mean squared singular value of the training features.
ALPHAS = tuple(float(10.0**power) for power in range(-4, 5))


def dimension_regression(
    features: Any,
    embedding: pd.DataFrame | npt.ArrayLike,
    cv: int = 3,
    random_state: int = 0,
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
    cv : int
        Number of folds over objects.
    random_state : int
        Seed of the folds.
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
    cv = whole_number("cv", cv, 2)
    if not len(alphas):
        raise BadInputError("`alphas` is empty. Give at least one penalty, or leave it out.")
    for alpha in alphas:
        real_number("each of alphas", alpha, positive=True)
    rows: list[dict[str, Any]] = []
    none = np.empty((0, 3), np.int64)
    for matched in matched_cells(features, none if triplets is None else triplets, "dimensions"):
        X = matched.X
        Y, dimensions = _targets(embedding, matched.cell, len(X))
        fold = object_folds(len(X), cv, random_state)
        predicted, baseline = np.empty_like(Y), np.empty_like(Y)
        for number in range(cv):
            train, test = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
            predicted[test] = _ridge(X[train], Y[train], X[test], alphas)
            baseline[test] = Y[train].mean(axis=0)
        about = {
            **matched.labels,
            "metric": "dot",
            "probe": "ridge",
            "seed": random_state,
            "n_objects": len(X),
        }
        for k, dimension in enumerate(dimensions):
            r2 = _r2((Y[:, k] - predicted[:, k]) ** 2, (Y[:, k] - baseline[:, k]) ** 2)
            rows.append({**about, **r2, "dimension": dimension})
        if triplets is not None:
            found = _odd_one_out(predicted, Y, fold, matched.rows[matched.groups.indices])
            rows.append({**about, **found, **ceiling_columns(ceiling), "dimension": ""})
    return tidy(rows)


def _ridge(X: Matrix, Y: Matrix, new: Matrix, alphas: tuple[float, ...]) -> Matrix:
    """Fit ridge regressions, the penalty of each column of `Y` chosen by leave-one-out, and predict new rows."""
    from sklearn.linear_model import RidgeCV

    mean = X.mean(axis=0, dtype=np.float64)
    centred = X - mean
    squares = float(np.sum(centred**2))
    if not squares > 1e-14 * float(np.sum(X.astype(np.float64) ** 2)):
        raise BadInputError(
            f"The features of the {len(X)} training objects are all the same, so there is nothing to learn. "
            "Check the extraction, or choose another cell."
        )
    # squares / min(n, d): the mean squared singular value
    model = RidgeCV(np.array(alphas) * squares / min(X.shape), alpha_per_target=True)
    predicted: Matrix = model.fit(centred, Y).predict(new - mean)
    return predicted.reshape(len(new), -1)  # of one column sklearn makes a vector


def _r2(error: Matrix, deviation: Matrix) -> dict[str, float]:
    """R² and its interval, as a ratio of means over objects (delta method)."""
    if not deviation.sum() > 0:
        return {"r2": float("nan")}
    r2 = 1 - float(error.sum() / deviation.sum())
    influence = (error - (1 - r2) * deviation) / deviation.mean()
    se = float(np.std(influence, ddof=1) / np.sqrt(len(error)))
    reach = quantile(len(error) - 1) * se
    return {"r2": r2, "r2_se": se, "r2_low": r2 - reach, "r2_high": min(r2 + reach, 1.0)}


def _odd_one_out(predicted: Matrix, Y: Matrix, fold: Rows, indices: Rows) -> dict[str, Any]:
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


def _targets(embedding: pd.DataFrame | npt.ArrayLike, cell: Cell, n: int) -> tuple[Matrix, list[str]]:
    """The embedding in the order of the cell's rows, and its dimensions' names."""
    if isinstance(embedding, pd.DataFrame):
        table, names = embedding, cell.names
    else:
        values = checked_matrix(embedding, "embedding")
        table, names = pd.DataFrame(values).rename(columns="dimension {}".format), None
    values = checked_matrix(aligned(table, names, n, "embedding"), "embedding", cell.names)
    return values.astype(np.float64), [str(name) for name in table.columns]


def categorise(
    features: Any,
    categories: Membership,
    cv: int = 3,
    random_state: int = 0,
    *,
    metric: str = "cosine",
    ci: bool = True,
) -> pd.DataFrame:
    """Categorisation of held-out objects by the nearest category centroid.

    Objects of exactly one category take part. Those of each category are divided among the folds; a held-out object
    is assigned to the category whose training members' mean is most similar to it (a tie scores its share).

    Parameters
    ----------
    features : store, mapping of str to ndarray (n, d), or ndarray (n, d)
    categories : DataFrame of 0/1 (stimuli × categories), Series or mapping name → category
        THINGS: the 27 classic categories.
    cv : int
        Number of folds over objects.
    random_state : int
        Seed of the folds.
    metric : str
        One of `METRICS`; ``"centred cosine"`` subtracts the training objects' mean.
    ci : bool
        Whether to add the interval (over objects, which are independent: Wilson's).

    Returns
    -------
    pandas.DataFrame
        The tidy table: for each cell, one row over all objects (`category` is empty) and one per category
        (the share of its members that are assigned to it). `chance` is 1 over the number of categories;
        `n_objects`, `n_categories`.

    Raises
    ------
    BadInputError
        With fewer than two categories of at least two members.

    Examples
    --------
    >>> X = np.array([[1.0, 0], [1, 0.1], [1, 0.2], [0, 1], [0.1, 1], [0.2, 1]])
    >>> table = categorise(X, pd.Series(["a", "a", "a", "b", "b", "b"]))
    >>> table[["category", "accuracy"]].values.tolist()
    [['', 1.0], ['a', 1.0], ['b', 1.0]]
    """
    cv = whole_number("cv", cv, 2)
    estimand = "new objects" if ci else None
    rows: list[dict[str, Any]] = []
    for cell in each_cell(features, "categories"):
        X = cell.matrix()
        objects, label, names = _members(membership(categories, cell.names, len(X)), cell)
        right = _assigned(X[objects], label, cv, random_state, metric)
        for category, chosen in [("", right), *((name, right[label == k]) for k, name in enumerate(names))]:
            rows.append(
                {
                    **cell.labels,
                    "metric": metric,
                    "seed": random_state,
                    **proportion(len(chosen), chosen.sum(), np.dot(chosen, chosen), estimand).columns,
                    "chance": 1 / len(names),
                    "category": category,
                    "n_objects": len(chosen),
                    "n_categories": len(names),
                }
            )
    return tidy(rows)


def _members(table: pd.DataFrame, cell: Cell) -> tuple[Rows, Rows, list[str]]:
    """Objects of exactly one category of two or more such objects, their category, and its name."""
    matrix = table.to_numpy(bool)
    matrix = matrix & (matrix.sum(axis=1) == 1)[:, None]
    columns = np.flatnonzero(matrix.sum(axis=0) >= 2)
    if len(columns) < 2:
        raise BadInputError(
            f"Only {len(columns)} categories have two or more members (that are in no other) among the stimuli of "
            f"{cell.block!r}; two are needed. Pass other categories, or more stimuli."
        )
    matrix = matrix[:, columns]
    objects = np.flatnonzero(matrix.any(axis=1))
    return objects, matrix[objects].argmax(axis=1), [str(table.columns[int(i)]) for i in columns]


def _assigned(X: Matrix, label: Rows, n_folds: int, seed: int, metric: str) -> Matrix:
    """1 for a held-out object whose own category's centroid is nearest, a share of 1 for a tie."""
    rng, n_categories = np.random.default_rng(seed), int(label.max()) + 1
    fold = np.empty(len(X), np.int64)
    for number in range(n_categories):
        members = rng.permutation(np.flatnonzero(label == number))
        fold[members] = (np.arange(len(members)) + rng.integers(n_folds)) % n_folds
    right = np.zeros(len(X))
    for number in range(n_folds):
        train, out = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        centroids = np.stack([row_mean(X, train[label[train] == k]) for k in range(n_categories)])
        both, name = np.concatenate([X[out], centroids]), metric
        if metric == "centred cosine":
            both, name = both - row_mean(X, train), "cosine"
        S, tolerance = similarity_and_tolerance(both, name, what="objects and centroids")
        objects, rest = slice(len(out)), slice(len(out), None)
        S = S[objects, rest]
        within = np.asarray(tolerance.to_each(objects, rest), S.dtype)
        nearest = S.max(axis=1, keepdims=True) - within <= S
        right[out] = nearest[np.arange(len(out)), label[out]] / nearest.sum(axis=1)
    return right
