"""Odd-one-out accuracy: does the model leave out the item that people left out? In all, by concept and by category."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ldm_kit.datasets.triplets import Triplets, checked_indices
from ldm_kit.errors import MismatchError, one_of
from ldm_kit.measures.ceiling import ceiling_columns
from ldm_kit.measures.cells import (
    Cell,
    Groups,
    Membership,
    each_cell,
    groups_of,
    membership,
    rows_by_name,
    rows_named,
)
from ldm_kit.measures.grouped import Grouped
from ldm_kit.measures.metrics import Tolerance, similarity_and_tolerance
from ldm_kit.measures.statistics import Interval, checked_estimand, interval, interval_of_codes, proportion
from ldm_kit.tables import tidy

CHANCE = 1 / 3

# Indexed by the code of a triplet: the sum of 1, 2 and 4 where leaving out item 0, 1 or 2 leaves a
# most similar pair. The human's odd one is item 2, so codes with the 4 hold the human pair.
CHOICE = np.array([-1, 0, 1, -1, 2, -1, -1, -1], np.int8)
TIED = np.array([0, 0, 0, 1, 0, 1, 1, 1], bool)
SCORE = {
    "chance": np.array([0, 0, 0, 0, 1, 1 / 2, 1 / 2, 1 / 3]),
    "linhardt2024": np.array([0, 0, 0, 0, 1, 1, 1, 0.0]),
}


def odd_one_out(
    features: Any,
    triplets: Triplets | npt.ArrayLike,
    metric: str | Sequence[str] = "cosine",
    ties: str = "chance",
    ci: bool | str = True,
    *,
    groups: Groups | None = None,
    centre_on: Sequence[str] | npt.ArrayLike | None = None,
    ceiling: Any = None,
) -> pd.DataFrame:
    """Odd-one-out accuracy of every cell, zero-shot.

    The draws of noise of one cell (`extract` with ``draws="apart"``) are one row: each triplet's score is its mean over
    them. An image's noise is drawn for it alone, so that an interval over new objects is one over new noise, too.

    Parameters
    ----------
    features : store, mapping of str to ndarray (n, d), or ndarray (n, d)
        A store is matched to the triplets by name, plain arrays by row.
    triplets : Triplets or array-like of int, shape (t, 3)
        Column 2 is the human's odd one.
    metric : str or sequence of str
        One or more of `METRICS`: "cosine", "centred cosine", "dot", "euclidean", "correlation".
    ties : {"chance", "linhardt2024"}
        ``"chance"``: a triplet whose most similar pairs tie scores the mean of guessing among them,
        1/2 or 1/3 (0 if the human pair is not among them). ``"linhardt2024"``: right if the human pair is at
        least as similar as both others, wrong if all three tie (Linhardt et al. 2024). Similarities
        within 8 epsilons of the float type, times a scale, tie: 1 for cosines and correlations; for "dot"
        the product of the triplet's two greatest norms; for "euclidean" the greatest squared distance of
        the three from the mean of all.
    ci : bool or {"new objects and people", "new objects", "these objects"}
        Which 95 % interval: `True` means ``"new objects and people"`` where the triplets say who judged (`subjects`), else
        ``"new objects"``, robust to triplets sharing objects; ``"these objects"`` is the binomial one. See
        `ldm_kit.measures.statistics`.
    groups : mapping of stimulus name to group, or one group for each row, optional
        Which stimuli are one object for the interval; by default those of one concept.
    centre_on : sequence of stimulus names, or of rows, optional
        Whose mean ``"centred cosine"`` subtracts; by default that of all stimuli in `features`.
    ceiling : table of `noise_ceiling`, or (low, high, source), optional
        Fills the columns `ceiling_low`, `ceiling_high` and `ceiling_source`.

    Returns
    -------
    pandas.DataFrame
        The tidy table, one row per cell (and metric), and the columns `estimand`, `freedom` (degrees of freedom of `se`),
        `n_objects`, `n_people` where people are known, and `n_draws` where draws of noise were kept apart.

    Raises
    ------
    BadInputError, NonFiniteError
        For triplets or features that cannot be used (which rows).
    MismatchError
        If a judged stimulus has no features, or a plain array another number of rows.
    UnknownNameError
        For an unknown metric, tie rule or estimand.

    Examples
    --------
    >>> X = np.array([[1.0, 0.1], [1.0, 0.0], [0.0, 1.0]])
    >>> odd_one_out({"toy": X}, [[0, 1, 2], [0, 2, 1]])[["block", "accuracy", "n_triplets"]]
      block  accuracy  n_triplets
    0   toy       0.5           2
    """
    estimand, score = checked_estimand(ci), score_of_code(ties)
    more = ceiling_columns(ceiling)
    rows = []
    for drawn in cells_by_draw(features, triplets, "odd one out", groups):
        for name in [metric] if isinstance(metric, str) else metric:
            found, counts = _of_draws(drawn, name, centre_on, score, estimand)
            n_ties = int(counts[TIED].sum())
            rows.append(drawn[0].row(name, found, n_triplets=len(drawn[0].groups), n_ties=n_ties, **more))
    return tidy(rows)


def _of_draws(
    drawn: list[Matched], metric: str, centre_on: Any, score: npt.NDArray[np.float64], estimand: str | None
) -> tuple[Interval, npt.NDArray[np.int64]]:
    """Interval over a cell's draws of noise, and how many triplets bear each code in all of them."""
    groups = drawn[0].groups
    codes = [matched.codes(metric, centre_on) for matched in drawn]
    if len(codes) == 1:
        return interval_of_codes(codes[0], score, groups, estimand)
    counts = np.bincount(np.concatenate(codes), minlength=8).astype(np.int64)
    means = [float(score[one].mean()) for one in codes]
    # New noise comes with new objects; the same objects judged again would be seen in other noise.
    between = float(np.var(means, ddof=1)) / len(codes) if estimand == "these objects" else 0.0
    return interval(mean_score(codes, score), groups, estimand, more=between), counts


def predicted_odd(
    features: Any,
    triplets: Triplets | npt.ArrayLike,
    metric: str = "cosine",
    *,
    centre_on: Sequence[str] | npt.ArrayLike | None = None,
) -> Any:
    """The odd one that the model predicts in each triplet.

    Parameters
    ----------
    features, triplets, metric, centre_on
        As for `odd_one_out`.

    Returns
    -------
    ndarray of int8, shape (t,)
        0, 1 or 2: the column of the item outside the most similar pair; -1 where the top is tied.
        For a store or a mapping, a dict with one such array a cell.

    Examples
    --------
    >>> predicted_odd(np.array([[1.0, 0.1], [1.0, 0.0], [0.0, 1.0]]), [[0, 1, 2], [2, 0, 1]]).tolist()
    [2, 0]
    """
    return _per_cell(features, triplets, CHOICE, metric, centre_on)


def triplet_scores(
    features: Any,
    triplets: Triplets | npt.ArrayLike,
    metric: str = "cosine",
    ties: str = "chance",
    *,
    centre_on: Sequence[str] | npt.ArrayLike | None = None,
) -> Any:
    """The score of each triplet, 0 to 1, in the order of `triplets`; the mean is the accuracy.

    Parameters
    ----------
    features, triplets, metric, ties, centre_on
        As for `odd_one_out`.

    Returns
    -------
    ndarray of float, shape (t,)
        For a store or a mapping, a dict with one such array a cell.

    Examples
    --------
    >>> triplet_scores(np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]), [[0, 1, 2]]).round(3).tolist()
    [0.333]
    """
    return _per_cell(features, triplets, score_of_code(ties), metric, centre_on)


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
        Whether to add the interval; it is the binomial one (had these triplets been judged again).

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
    score, estimand = score_of_code(ties), "these objects" if ci else None
    rows = []
    for matched, *others in cells_by_draw(features, triplets, "by concept"):
        groups = matched.groups
        codes = [one.codes(metric, centre_on) for one in (matched, *others)]
        values = groups.ungrouped(mean_score(codes, score))
        flat, weights = groups.indices.T.ravel(), np.tile(values, 3)
        count = np.bincount(flat, minlength=groups.n)
        total = np.bincount(flat, weights=weights, minlength=groups.n)
        squares = np.bincount(flat, weights=weights**2, minlength=groups.n)
        for i in np.flatnonzero(count):
            found = proportion(count[i], total[i], squares[i], estimand)
            concept = str(i if matched.names is None else matched.names[i])
            rows.append(matched.row(metric, found, n_triplets=int(count[i]), concept=concept))
    return tidy(rows)


def accuracy_by_category(
    features: Any,
    triplets: Triplets | npt.ArrayLike,
    categories: Membership,
    metric: str = "cosine",
    ties: str = "chance",
    ci: bool | str = True,
    *,
    groups: Groups | None = None,
    centre_on: Sequence[str] | npt.ArrayLike | None = None,
    ceiling: Any = None,
) -> pd.DataFrame:
    """Odd-one-out accuracy over the triplets that hold a member of each category.

    Parameters
    ----------
    features, triplets, metric, ties, ci, groups, centre_on, ceiling
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
    rows = []
    for matched, *others in cells_by_draw(features, triplets, "by category", groups):
        every = matched.groups
        table = membership(categories, matched.names, every.n)
        codes = [one.codes(metric, centre_on) for one in (matched, *others)]
        values = every.ungrouped(mean_score(codes, score))
        for column in table:
            member = table[column].to_numpy(bool)
            held = np.flatnonzero(member[every.indices].any(axis=1))
            if not held.size:
                continue
            part = every.part(held)
            found = interval(values[held][part.order], part, estimand)
            about = {"category": str(column), "n_objects": int((member & every.used).sum())}
            rows.append(matched.row(metric, found, n_triplets=len(held), **about, **more))
    return tidy(rows)


def score_of_code(ties: str) -> npt.NDArray[np.float64]:
    """The table from a triplet's code to its score under a tie rule.

    Examples
    --------
    >>> score_of_code("chance").round(2).tolist()
    [0.0, 0.0, 0.0, 0.0, 1.0, 0.5, 0.5, 0.33]
    """
    return SCORE[one_of("tie rule", ties, SCORE)]


def mean_score(
    codes: Sequence[npt.NDArray[np.uint8]], score: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Each triplet's score, averaged over cells or draws.

    Examples
    --------
    >>> mean_score([np.array([4, 1], np.uint8), np.array([4, 4], np.uint8)], SCORE["chance"]).tolist()
    [1.0, 0.5]
    """
    total = score[codes[0]]
    for more in codes[1:]:
        total += score[more]
    return total / len(codes)


def _per_cell(
    features: Any,
    triplets: Triplets | npt.ArrayLike,
    value_of_code: npt.NDArray[Any],
    metric: str,
    centre_on: Any,
) -> Any:
    """The value of each triplet's code, in the order of `triplets`: of each cell, or of a bare array."""
    results: dict[Any, npt.NDArray[Any]] = {}
    for matched in matched_cells(features, triplets, "choices"):
        codes = matched.codes(metric, centre_on)
        results[matched.cell.key] = matched.groups.ungrouped(value_of_code[codes])
    return results.get(None, results)


@dataclass(frozen=True, eq=False)
class Matched:
    """A cell's array `X`, the grouped triplets, and the row of `X` that each of the triplets' objects has."""

    cell: Cell
    X: npt.NDArray[np.floating]
    groups: Grouped
    rows: npt.NDArray[np.int64]

    @property
    def names(self) -> tuple[str, ...] | None:
        """The names of the triplets' objects, where they have any."""
        return self.cell.names if self.groups.names is None else self.groups.names

    @property
    def labels(self) -> dict[str, Any]:
        """Columns that describe a row of the table: the cell's labels, and who judged."""
        labels = self.groups.labels | self.cell.labels
        return labels | {"dataset": labels.get("dataset") or self.groups.labels.get("dataset", "")}

    def row(self, metric: str, found: Interval, **further: Any) -> dict[str, Any]:
        """A row of the tidy table."""
        about = {"n_objects": self.groups.n_clusters, "chance": CHANCE}
        return {**self.labels, "metric": metric, **found.columns, **about, **further}

    def codes(self, metric: str, centre_on: Any = None) -> npt.NDArray[np.uint8]:
        """The code of each grouped triplet; see `CHOICE` and `SCORE`."""
        return self.groups.choose(*self._similarity(metric, centre_on))

    def similarities(self, metric: str, centre_on: Any = None) -> npt.NDArray[np.float32]:
        """Similarity of every two of the triplets' objects, (n, n)."""
        return self._similarity(metric, centre_on)[0].astype(np.float32)

    def _similarity(self, metric: str, centre_on: Any) -> tuple[npt.NDArray[np.floating], Tolerance]:
        in_order = np.array_equal(self.rows, np.arange(len(self.X)))
        return similarity_and_tolerance(
            self.X,
            metric,
            rows=None if in_order else self.rows,
            centre_on=rows_named(centre_on, self.cell, len(self.X)),
            what=self.cell.block,
            names=self.cell.names,
        )


def matched_cells(features: Any, triplets: Any, what: str, groups: Groups | None = None) -> Iterator[Matched]:
    """Read one cell after the other, and match it to the triplets (or `Grouped.of` them), grouped once for all cells.

    Examples
    --------
    >>> [matched.rows.tolist() for matched in matched_cells(np.eye(3), [[0, 1, 2]], "cells")]
    [[0, 1, 2]]
    """
    grouped = Grouped.of(triplets) if isinstance(triplets, Triplets) else triplets
    for cell in each_cell(features, what):
        X = cell.matrix()
        if not isinstance(grouped, Grouped) or (grouped.names is None and grouped.n != len(X)):
            grouped = Grouped(checked_indices(triplets, len(X)), len(X))
        rows = _rows(cell, grouped, len(X))
        # One grouping for all cells of these clusters: what is added up once is kept.
        grouped = grouped.clustered(groups_of(groups, cell, len(X), grouped.names)[rows])
        yield Matched(cell, X, grouped, rows)


def cells_by_draw(
    features: Any, triplets: Any, what: str, groups: Groups | None = None
) -> Iterator[list[Matched]]:
    """Like `matched_cells`, the draws of noise of a cell together; they are numbered in its label ``draw``.

    The first of a list stands for all: its labels have `n_draws` in place of `draw`.
    """
    together: list[Matched] = []
    for matched in matched_cells(features, triplets, what, groups):
        alone = matched.cell.labels.get("draw") is None
        if together and (alone or not _same_cell(matched.cell, together[0].cell)):
            yield _as_one(together)
            together = []
        together.append(matched)
    if together:
        yield _as_one(together)


def _without_draw(cell: Cell) -> dict[str, Any]:
    return {name: value for name, value in cell.labels.items() if name != "draw"}


def _same_cell(a: Cell, b: Cell) -> bool:
    """Whether two cells differ in the draw alone; as text, since a label may be NaN, which differs from itself."""
    return str(sorted(_without_draw(a).items())) == str(sorted(_without_draw(b).items()))


def _as_one(drawn: list[Matched]) -> list[Matched]:
    first = drawn[0]
    if first.cell.labels.get("draw") is None:
        return drawn
    cell = replace(first.cell, labels=_without_draw(first.cell) | {"n_draws": len(drawn)})
    return [replace(first, cell=cell), *drawn[1:]]


def _rows(cell: Cell, groups: Grouped, n: int) -> npt.NDArray[np.int64]:
    """The row of the cell's array, of `n` rows, that each object has: by name, or else by position."""
    used = groups.used
    if groups.names is not None and cell.names is not None:
        rows = np.zeros(groups.n, np.int64)
        rows[used] = rows_by_name(
            [groups.names[i] for i in np.flatnonzero(used)],
            cell.names,
            "judged stimuli have no features",
            "Extract them, or keep only the triplets that have all three with `triplets.among(names)`.",
        )
    elif groups.n != n:
        raise MismatchError(
            f"The features of {cell.block!r} have {n} rows, the triplets are over {groups.n} stimuli. A plain array "
            "must have one row a stimulus, in the order of `triplets.names`; or re-index with "
            "`triplets.among(names_of_the_rows)`."
        )
    else:
        rows = np.arange(n)
    # A stimulus without judgements takes the row of one that has some: it is never compared.
    rows[~used] = rows[used][0] if used.any() else rows[~used]
    return rows
