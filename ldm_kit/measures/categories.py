"""Categories: are held-out objects nearest to their own category, and where do people and model agree?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ldm_kit.datasets.triplets import Triplets
from ldm_kit.errors import BadInputError, MismatchError, number_of_folds
from ldm_kit.measures.ceiling import ceiling_columns
from ldm_kit.measures.cells import Cell, cells_of, table_labels
from ldm_kit.measures.grouped import Grouped
from ldm_kit.measures.intervals import checked_estimand, interval, proportion
from ldm_kit.measures.metrics import row_mean, similarity_and_tolerance
from ldm_kit.measures.progress import progress
from ldm_kit.measures.zero_shot import CHANCE, Matched, once, score_of_code
from ldm_kit.tables import tidy

Membership = pd.DataFrame | pd.Series | Mapping[str, str | Sequence[str]]


def membership(categories: Membership, names: Sequence[str] | None, n: int) -> pd.DataFrame:
    """Which of `n` stimuli is in which category.

    Parameters
    ----------
    categories : DataFrame, Series or mapping
        0/1, a row a stimulus (named by the index) and a column a category; or name → category (or several).
        A missing value (NaN, None) is no category.
    names : sequence of str or None
        The stimuli; None for rows without names: then a DataFrame or Series has them in order.
    n : int

    Returns
    -------
    pandas.DataFrame of bool, shape (n, categories)

    Raises
    ------
    MismatchError
        If a stimulus is not mentioned.

    Examples
    --------
    >>> membership({"cat": "animal", "car": "vehicle"}, ["car", "cat"], 2)["animal"].tolist()
    [False, True]
    """
    if isinstance(categories, pd.DataFrame):
        table = categories.where(categories.notna(), 0).astype(bool)  # NaN would count as true
    else:
        pairs = {name: _kinds(value) for name, value in dict(categories).items()}
        columns = sorted({value for values in pairs.values() for value in values}, key=str)
        table = pd.DataFrame(
            [[column in values for column in columns] for values in pairs.values()],
            index=list(pairs),
            columns=columns,
            dtype=bool,
        )
    if names is None:
        if len(table) != n:
            raise MismatchError(
                f"The categories are of {len(table)} stimuli, the features have {n} rows. Plain arrays are "
                "matched by row: give one row a stimulus, in order."
            )
        return table
    missing = [name for name in names if name not in table.index]
    if missing:
        raise MismatchError(
            f"{len(missing)} stimuli have no row among the categories: {', '.join(missing[:5])}"
            f"{', …' if len(missing) > 5 else ''}. Add them (all 0 if they are in none)."
        )
    return table.loc[list(names)]


def _kinds(value: Any) -> list[Any]:
    """The categories of one stimulus, from one, several or none."""
    several = list(value) if pd.api.types.is_list_like(value) else [value]
    return [kind for kind in several if not pd.isna(kind)]


def categorise(
    features: Any,
    categories: Membership,
    n_folds: int = 3,
    seed: int = 0,
    *,
    metric: str = "centred cosine",
    ci: bool = True,
) -> pd.DataFrame:
    """Categorisation of held-out objects by the nearest category centroid.

    Objects of exactly one category take part. Those of each category are dealt to folds; a held-out object
    is assigned to the category whose training members' mean is most similar to it (a tie scores its share).

    Parameters
    ----------
    features : store, mapping of str to ndarray (n, d), or ndarray (n, d)
    categories : DataFrame of 0/1 (stimuli × categories), Series or mapping name → category
        THINGS: the 27 classic categories.
    n_folds, seed : int
    metric : str
        One of `METRICS`; ``"centred cosine"`` subtracts the training objects' mean.
    ci : bool
        Whether to give the interval (over objects, which are independent: Wilson's).

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
    n_folds = number_of_folds(n_folds)
    rows: list[dict[str, Any]] = []
    for cell in progress(cells_of(features), "categories", features):
        X = cell.matrix()
        table = membership(categories, cell.names, len(X))
        objects, label, names = _members(table, cell)
        right = _assigned(X[objects], label, len(names), n_folds, seed, metric)
        for number, name in [(-1, ""), *enumerate(names)]:
            chosen = right if number < 0 else right[label == number]
            rows.append(
                {
                    **cell.labels,
                    "metric": metric,
                    "seed": seed,
                    **proportion(chosen, "new objects" if ci else None).columns,
                    "chance": 1 / len(names),
                    "category": name,
                    "n_objects": len(chosen),
                    "n_categories": len(names),
                }
            )
    return tidy(rows)


def accuracy_by_concept(
    features: Any,
    triplets: Triplets | npt.ArrayLike,
    metric: str = "cosine",
    ties: str = "chance",
    *,
    ci: bool = True,
    centre_on: Sequence[str] | npt.ArrayLike | None = None,
) -> pd.DataFrame:
    """Odd-one-out accuracy over the triplets that hold each concept.

    Parameters
    ----------
    features, triplets, metric, ties, centre_on
        As for `odd_one_out`.
    ci : bool
        Whether to give the interval; it is the binomial one (had these triplets been judged again).

    Returns
    -------
    pandas.DataFrame
        The tidy table, a row per cell and judged concept: `concept` (the stimulus name, or the row of a plain
        array) and `n_triplets`.

    Examples
    --------
    >>> X = np.array([[1.0, 0.1], [1.0, 0.0], [0.0, 1.0], [0.1, 1.0]])
    >>> accuracy_by_concept(X, [[0, 1, 2], [2, 3, 0], [0, 2, 1]])["accuracy"].round(3).tolist()
    [0.667, 0.5, 0.667, 1.0]
    """
    score = score_of_code(ties)
    triplets = once(triplets)
    rows: list[dict[str, Any]] = []
    for cell in progress(cells_of(features), "by concept", features):
        matched = Matched.of(cell, triplets)
        groups = matched.groups
        values = groups.ungrouped(score[matched.codes(metric, centre_on)])
        flat, weights = groups.indices.T.ravel(), np.tile(values, 3)
        count = np.bincount(flat, minlength=groups.n)
        total = np.bincount(flat, weights=weights, minlength=groups.n)
        squares = np.bincount(flat, weights=weights**2, minlength=groups.n)
        names = triplets.names if isinstance(triplets, Triplets) else cell.names or range(groups.n)
        labels = table_labels(cell, triplets)
        for i in np.flatnonzero(count):
            found = proportion((count[i], total[i], squares[i]), "these objects" if ci else None)
            rows.append(
                {
                    **labels,
                    "metric": metric,
                    **found.columns,
                    "n_triplets": int(count[i]),
                    "chance": CHANCE,
                    "concept": str(names[i]),
                }
            )
    return tidy(rows)


def accuracy_by_category(
    features: Any,
    triplets: Triplets | npt.ArrayLike,
    categories: Membership,
    metric: str = "cosine",
    ties: str = "chance",
    ci: bool | str = True,
    *,
    centre_on: Sequence[str] | npt.ArrayLike | None = None,
    ceiling: Any = None,
) -> pd.DataFrame:
    """Odd-one-out accuracy over the triplets that hold a member of each category.

    Parameters
    ----------
    features, triplets, metric, ties, ci, centre_on, ceiling
        As for `odd_one_out`.
    categories : DataFrame of 0/1 (stimuli × categories), Series or mapping name → category

    Returns
    -------
    pandas.DataFrame
        The tidy table, a row per cell and category with triplets: `category`, `n_triplets`, and `n_objects`
        (its judged members). A triplet of several categories counts in each.

    Examples
    --------
    >>> X = np.array([[1.0, 0.1], [1.0, 0.0], [0.0, 1.0], [0.1, 1.0]])
    >>> kinds = pd.Series(["a", "a", "b", "b"])
    >>> accuracy_by_category(X, [[0, 1, 2], [2, 3, 0]], kinds)[["category", "accuracy"]].values.tolist()
    [['a', 1.0], ['b', 1.0]]
    """
    score, estimand = score_of_code(ties), checked_estimand(ci)
    more = ceiling_columns(ceiling)
    triplets = once(triplets)
    rows: list[dict[str, Any]] = []
    for cell in progress(cells_of(features), "by category", features):
        matched = Matched.of(cell, triplets)
        groups = matched.groups
        names = triplets.names if isinstance(triplets, Triplets) else cell.names
        table = membership(categories, names, groups.n)
        values = groups.ungrouped(score[matched.codes(metric, centre_on)])
        labels = table_labels(cell, triplets)
        for column in table.columns:
            member = table[column].to_numpy(bool)
            held = np.flatnonzero(member[groups.indices].any(axis=1))
            if not held.size:
                continue
            part = Grouped(groups.indices[held], groups.n)
            rows.append(
                {
                    **labels,
                    "metric": metric,
                    **interval(values[held][part.order], part, estimand).columns,
                    "n_triplets": len(held),
                    "chance": CHANCE,
                    **more,
                    "category": str(column),
                    "n_objects": int((member & groups.used).sum()),
                }
            )
    return tidy(rows)


def _members(
    table: pd.DataFrame, cell: Cell
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], list[str]]:
    """Objects of exactly one category of two or more such objects, their category, and its name."""
    matrix = table.to_numpy(bool)
    matrix = matrix & (matrix.sum(axis=1) == 1)[:, None]
    kept = np.flatnonzero(matrix.sum(axis=0) >= 2)
    if len(kept) < 2:
        raise BadInputError(
            f"Only {len(kept)} categories have two or more members (that are in no other) among the stimuli of "
            f"{cell.labels.get('block')!r}; two are needed. Give other categories, or more stimuli."
        )
    matrix = matrix[:, kept]
    objects = np.flatnonzero(matrix.any(axis=1))
    return objects, matrix[objects].argmax(axis=1), [str(table.columns[int(i)]) for i in kept]


def _assigned(
    X: npt.NDArray[np.floating],
    label: npt.NDArray[np.int64],
    n_categories: int,
    n_folds: int,
    seed: int,
    metric: str,
) -> npt.NDArray[np.float64]:
    """1 for a held-out object whose own category's centroid is nearest, a share of 1 for a tie."""
    rng = np.random.default_rng(seed)
    fold = np.empty(len(X), np.int64)
    for number in range(n_categories):
        members = rng.permutation(np.flatnonzero(label == number))
        fold[members] = (np.arange(len(members)) + rng.integers(n_folds)) % n_folds
    right = np.zeros(len(X))
    for number in range(n_folds):
        out = np.flatnonzero(fold == number)
        train = np.flatnonzero(fold != number)
        if not out.size:
            continue
        centroids = np.stack([row_mean(X, train[label[train] == k]) for k in range(n_categories)])
        both = np.concatenate([X[out], centroids])
        name = metric
        if metric == "centred cosine":
            both, name = both - row_mean(X, train), "cosine"
        S, tolerance = similarity_and_tolerance(both, name, what="objects and centroids")
        objects, rest = slice(len(out)), slice(len(out), None)
        S = S[objects, rest]
        within = np.asarray(tolerance.to_each(objects, rest), S.dtype)
        nearest = S.max(axis=1, keepdims=True) - within <= S
        right[out] = nearest[np.arange(len(out)), label[out]] / nearest.sum(axis=1)
    return right
