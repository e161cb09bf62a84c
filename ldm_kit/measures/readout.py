"""What can be read from features about objects that were held out: the dimensions of an embedding, and categories."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ldm_kit.datasets.triplets import Triplets
from ldm_kit.errors import BadInputError, real_number, whole_number
from ldm_kit.measures.ceiling import ceiling_columns
from ldm_kit.measures.cells import (
    Cell,
    Groups,
    Matrix,
    Membership,
    Rows,
    aligned,
    checked_matrix,
    each_cell,
    groups_of,
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
    groups: Groups | None = None,
) -> pd.DataFrame:
    """Predict each dimension of a human embedding from the features, on held-out objects.

    For each fold over objects, ridge regression is fitted on the others; its penalty is chosen for each
    dimension by leaving out one of the training objects (or groups) after the other.

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
    groups : mapping or Series of stimulus name to group, or sequence of one label a row; optional
        Folds divide no group. By default stimuli of one concept are a group; rows of a plain array are their own.

    Returns
    -------
    pandas.DataFrame
        The tidy table, a row per cell and dimension: `dimension`, `r2` (1 - squared error over squared
        deviation from the training mean, on held-out objects), `r2_se`, `r2_low`, `r2_high` (over groups),
        `n_objects`. With triplets also a row with `dimension` empty: `accuracy` with its interval, and
        `embedding_accuracy`.

    Raises
    ------
    MismatchError
        If the embedding, or `groups`, is not of the features' stimuli.

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
        group = groups_of(groups, matched.cell, len(X), matched.groups.names)
        fold = object_folds(len(X), cv, random_state, group)
        predicted, baseline = np.empty_like(Y), np.empty_like(Y)
        for number in range(cv):
            train, test = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
            predicted[test] = _ridge(X[train], Y[train], X[test], alphas, group[train])
            baseline[test] = Y[train].mean(axis=0)
        about = {
            **matched.labels,
            "metric": "dot",
            "probe": "ridge",
            "seed": random_state,
            "n_objects": len(X),
        }
        for k, dimension in enumerate(dimensions):
            r2 = _r2((Y[:, k] - predicted[:, k]) ** 2, (Y[:, k] - baseline[:, k]) ** 2, group)
            rows.append({**about, **r2, "dimension": dimension})
        if triplets is not None:
            indices, people = matched.rows[matched.groups.indices], matched.groups.subjects
            found = _odd_one_out(predicted, Y, fold, indices, group, people)
            rows.append({**about, **found, **ceiling_columns(ceiling), "dimension": ""})
    return tidy(rows)


def _ridge(X: Matrix, Y: Matrix, new: Matrix, alphas: Sequence[float], group: Rows) -> Matrix:
    """Fit ridge regressions, the penalty of each column of `Y` chosen by leaving groups out, and predict new rows."""
    from sklearn.linear_model import Ridge, RidgeCV

    mean = X.mean(axis=0, dtype=np.float64)
    centred = X - mean
    squares = float(np.sum(centred**2))
    if not squares > 1e-14 * float(np.sum(X.astype(np.float64) ** 2)):
        raise BadInputError(
            f"The features of the {len(X)} training objects are all the same, so there is nothing to learn. "
            "Check the extraction, or choose another cell."
        )
    penalties = np.array(alphas) * squares / min(X.shape)  # times the mean squared singular value
    if len(np.unique(group)) == len(X):
        model = RidgeCV(penalties, alpha_per_target=True)
    else:  # RidgeCV takes no penalty per target where it leaves out more than one row
        errors = left_out_errors(centred, Y, penalties, group)
        model = Ridge(penalties[errors.argmin(axis=0)])
    predicted: Matrix = model.fit(centred, Y).predict(new - mean)
    return predicted.reshape(len(new), -1)  # of one column sklearn makes a vector


def left_out_errors(X: Matrix, Y: Matrix, penalties: npt.NDArray[np.float64], group: Rows) -> Matrix:
    """Squared error of ridge regression, (penalties, columns of Y), on one group after the other left out of centred `X`.

    With H the matrix that turns Y into its fit, and r the residuals, those of a group that was left out are
    (I - H_gg)⁻¹ r_g (block form of the leave-one-out identity; exact, with the intercept).

    Examples
    --------
    >>> X = np.array([[-1.0], [0.0], [1.0]])
    >>> left_out_errors(X, 2 * X, np.array([1e-9]), np.array([0, 1, 2])).round(6).tolist()
    [[0.0]]
    """
    U, s, _ = np.linalg.svd(X, full_matrices=False)
    # A constant column takes the place of the intercept, which is not penalised.
    U = np.column_stack([np.full(len(X), len(X) ** -0.5), U])
    members = [np.flatnonzero(group == one) for one in np.unique(group)]
    errors = np.zeros((len(penalties), Y.shape[1]))
    for row, penalty in enumerate(penalties):
        shrunk = U * np.concatenate([[1.0], s**2 / (s**2 + penalty)])
        residual = Y - shrunk @ (U.T @ Y)
        for out in members:
            left = np.linalg.solve(np.eye(len(out)) - shrunk[out] @ U[out].T, residual[out])
            errors[row] += np.sum(left**2, axis=0)
    return errors


def _r2(error: Matrix, deviation: Matrix, group: Rows) -> dict[str, float]:
    """R² and its interval, as a ratio of means over objects (delta method), robust to likeness within groups."""
    if not deviation.sum() > 0:
        return {"r2": float("nan")}
    r2 = 1 - float(error.sum() / deviation.sum())
    influence = (error - (1 - r2) * deviation) / deviation.mean()
    # Its mean is 0; where each object is a group, this is the standard error of a mean.
    sums = np.bincount(group, weights=influence)
    se = float(np.std(sums, ddof=1) / np.sqrt(len(sums)) * (len(sums) / len(error)))
    reach = quantile(len(sums) - 1) * se
    return {"r2": r2, "r2_se": se, "r2_low": r2 - reach, "r2_high": min(r2 + reach, 1.0)}


def _odd_one_out(
    predicted: Matrix, Y: Matrix, fold: Rows, indices: Rows, group: Rows, people: Rows | None
) -> dict[str, Any]:
    """Accuracy of predicted dimensions on triplets wholly among one fold's objects."""
    rows = np.flatnonzero(wholly_in(indices, fold) >= 0)
    held = indices[rows]
    if not len(held):
        raise BadInputError(
            f"None of {len(indices)} triplets lies wholly among one fold's objects. Use fewer folds, or more triplets."
        )
    groups = Grouped(held, len(Y), subjects=None if people is None else people[rows]).clustered(group)
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
    groups: Groups | None = None,
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
        Whether to add the interval: Wilson's, of as many objects as there are, or fewer where those of one group are alike.
    groups : mapping or Series of stimulus name to group, or sequence of one label a row; optional
        Folds divide no group. By default stimuli of one concept are a group; rows of a plain array are their own.

    Returns
    -------
    pandas.DataFrame
        The tidy table: for each cell, one row over all objects (`category` is empty) and one per category
        (the share of its members that are assigned to it). `chance` is 1 over the number of categories;
        `n_objects`, `n_categories`.

    Raises
    ------
    BadInputError
        With fewer than two categories of at least two groups of members, or if all of a category's lie in one fold.

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
        group = groups_of(groups, cell, len(X))
        objects, label, names = _members(membership(categories, cell.names, len(X)), cell, group)
        group = group[objects]
        right = _assigned(X[objects], label, group, cv, random_state, metric)
        parts = [
            ("", np.arange(len(right))),
            *((name, np.flatnonzero(label == k)) for k, name in enumerate(names)),
        ]
        for category, part in parts:
            chosen, n = right[part], _independent(right[part], group[part])
            share = n / len(part)
            rows.append(
                {
                    **cell.labels,
                    "metric": metric,
                    "seed": random_state,
                    **proportion(n, share * chosen.sum(), share * np.dot(chosen, chosen), estimand).columns,
                    "chance": 1 / len(names),
                    "category": category,
                    "n_objects": len(chosen),
                    "n_categories": len(names),
                }
            )
    return tidy(rows)


def _members(table: pd.DataFrame, cell: Cell, group: Rows) -> tuple[Rows, Rows, list[str]]:
    """Objects of exactly one category of two or more groups of such objects, their category, and its name."""
    matrix = table.to_numpy(bool)
    matrix = matrix & (matrix.sum(axis=1) == 1)[:, None]
    columns = np.flatnonzero([len(np.unique(group[column])) >= 2 for column in matrix.T])
    if len(columns) < 2:
        raise BadInputError(
            f"Only {len(columns)} categories have two or more members (of different groups, and in no other category) among "
            f"the stimuli of {cell.block!r}; two are needed. Pass other categories, or more stimuli."
        )
    matrix = matrix[:, columns]
    objects = np.flatnonzero(matrix.any(axis=1))
    return objects, matrix[objects].argmax(axis=1), [str(table.columns[int(i)]) for i in columns]


def _independent(right: Matrix, group: Rows) -> int:
    """As how many independent objects these count: the number that gives the variance that is robust to groups."""
    n, n_groups = len(right), len(np.unique(group))
    deviation = right - right.mean()
    binomial, clustered = (
        float(deviation @ deviation),
        float(np.sum(np.bincount(group, weights=deviation) ** 2)),
    )
    if n_groups == n or not binomial:
        return n_groups
    clustered *= n_groups / max(n_groups - 1, 1)
    return max(n_groups, min(n, round(n * binomial / clustered)) if clustered else n)


def _assigned(X: Matrix, label: Rows, group: Rows, n_folds: int, seed: int, metric: str) -> Matrix:
    """1 for a held-out object whose own category's centroid is nearest, a share of 1 for a tie."""
    rng, n_categories = np.random.default_rng(seed), int(label.max()) + 1
    # A group is dealt out with its first object, and its others, even of other categories, follow.
    _, first, of = np.unique(group, return_index=True, return_inverse=True)
    fold = np.empty(len(X), np.int64)
    for number in range(n_categories):
        members = rng.permutation(np.sort(first[label[first] == number]))
        fold[members] = (np.arange(len(members)) + rng.integers(n_folds)) % n_folds
    fold = fold[first][of]
    if any(len(np.unique(fold[label == number])) < 2 for number in range(n_categories)):
        raise BadInputError(
            "All objects of one category lie in one fold, as their groups have objects of other categories, too. Use another "
            "seed, or other `groups`."
        )
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
