"""Odd-one-out accuracy: does the model leave out the item that people left out?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ldm_kit.datasets.triplets import Triplets, checked_indices
from ldm_kit.errors import unknown_name
from ldm_kit.measures.ceiling import ceiling_columns
from ldm_kit.measures.cells import Cell, cells_of, rows_for, rows_named, table_labels
from ldm_kit.measures.grouped import Grouped, grouped
from ldm_kit.measures.intervals import checked_estimand
from ldm_kit.measures.metrics import similarity_and_tolerance
from ldm_kit.measures.progress import progress
from ldm_kit.measures.tally import interval_of_codes
from ldm_kit.tables import tidy

CHANCE = 1 / 3

# Indexed by the code of a triplet: the sum of 1, 2 and 4 where leaving out item 0, 1 or 2 leaves a
# most similar pair. The human's odd one is item 2, so codes with the 4 hold the human pair.
CHOICE = np.array([-1, 0, 1, -1, 2, -1, -1, -1], np.int8)
TIED = np.array([0, 0, 0, 1, 0, 1, 1, 1], bool)
SCORE = {
    "chance": np.array([0, 0, 0, 0, 1, 1 / 2, 1 / 2, 1 / 3]),
    "linhardt2024": np.array([0, 0, 0, 0, 1, 1, 1, 0.0]),
    "wrong": np.array([0, 0, 0, 0, 1, 0, 0, 0.0]),
}
TIES = ("chance", "linhardt2024")


def odd_one_out(
    features: Any,
    triplets: Triplets | npt.ArrayLike,
    metric: str | Sequence[str] = "cosine",
    ties: str = "chance",
    ci: bool | str = True,
    *,
    centre_on: Sequence[str] | npt.ArrayLike | None = None,
    ceiling: Any = None,
) -> pd.DataFrame:
    """Odd-one-out accuracy of every cell, zero-shot.

    Parameters
    ----------
    features : store, mapping of str to ndarray (n, d), or ndarray (n, d)
        A store is matched to the triplets by name, plain arrays by row.
    triplets : Triplets or array-like of int, shape (t, 3)
        Column 2 is the human's odd one.
    metric : str or sequence of str
        One or more of `METRICS`: "cosine", "centred cosine", "dot", "euclidean", "correlation".
    ties : {"chance", "linhardt2024"}
        ``"chance"``: a triplet whose most similar pairs tie scores what guessing among them would earn,
        1/2 or 1/3 (0 if the human pair is not among them). ``"linhardt2024"``: right if the human pair is at
        least as similar as both others, wrong if all three tie (Linhardt et al. 2024). Similarities
        within 8 epsilons of the float type, times a scale, tie: 1 for cosines and correlations; for "dot"
        the product of the triplet's two greatest norms; for "euclidean" the greatest squared distance of
        the three from the mean of all.
    ci : bool or {"new objects", "these objects"}
        Which 95 % interval: `True` means ``"new objects"``, robust to triplets sharing objects;
        ``"these objects"`` is the binomial one. See `ldm_kit.measures.intervals`.
    centre_on : sequence of stimulus names, or of rows, optional
        Whose mean ``"centred cosine"`` subtracts; by default that of all stimuli in `features`.
    ceiling : table of `noise_ceiling`, or (low, high, source), optional
        Fills the columns `ceiling_low`, `ceiling_high` and `ceiling_source`.

    Returns
    -------
    pandas.DataFrame
        The tidy table, one row per cell (and metric), and the column `estimand`.

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
    estimand = checked_estimand(ci)
    score = score_of_code(ties)
    metrics = [metric] if isinstance(metric, str) else list(metric)
    more = ceiling_columns(ceiling)
    triplets, rows = once(triplets), []
    for cell in progress(cells_of(features), "odd one out", features):
        matched = Matched.of(cell, triplets)
        for name in metrics:
            codes = matched.codes(name, centre_on)
            found, counts = interval_of_codes(codes, score, matched.groups, estimand)
            rows.append(
                {
                    **table_labels(cell, triplets),
                    "metric": name,
                    **found.columns,
                    "n_triplets": len(codes),
                    "n_ties": int(counts[TIED].sum()),
                    "chance": CHANCE,
                    **more,
                }
            )
    return tidy(rows)


def predicted_odd(
    features: Any,
    triplets: Triplets | npt.ArrayLike,
    metric: str = "cosine",
    *,
    centre_on: Sequence[str] | npt.ArrayLike | None = None,
) -> Any:
    """The odd one that the model picks in each triplet.

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
    """What each triplet scores, 0 to 1, in the order given; the mean is the accuracy.

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


def score_of_code(ties: str) -> npt.NDArray[np.float64]:
    """The table from a triplet's code to its score under a tie rule.

    Examples
    --------
    >>> score_of_code("chance").round(2).tolist()
    [0.0, 0.0, 0.0, 0.0, 1.0, 0.5, 0.5, 0.33]
    """
    if ties not in TIES:
        raise unknown_name("tie rule", ties, TIES, "Pick one of these.")
    return SCORE[ties]


def _per_cell(
    features: Any,
    triplets: Triplets | npt.ArrayLike,
    value_of_code: npt.NDArray[Any],
    metric: str,
    centre_on: Any,
) -> Any:
    results: dict[Any, npt.NDArray[Any]] = {}
    triplets = once(triplets)
    for cell in progress(cells_of(features), "choices", features):
        matched = Matched.of(cell, triplets)
        results[cell.key] = matched.groups.ungrouped(value_of_code[matched.codes(metric, centre_on)])
    return results.get(None, results)


class Rows:
    """A plain array of triplets, checked and grouped once for all cells of a call."""

    def __init__(self, triplets: npt.ArrayLike) -> None:
        self.triplets = triplets
        self.made: dict[int, Grouped] = {}

    def grouped(self, n: int) -> Grouped:
        """Group them as rows of `n` objects."""
        if n not in self.made:
            self.made[n] = Grouped(checked_indices(self.triplets, n), n)
        return self.made[n]


def once(triplets: Any) -> Any:
    """Make plain triplets `Rows`; `Triplets` are grouped once as they are.

    Examples
    --------
    >>> type(once([[0, 1, 2]])).__name__
    'Rows'
    """
    return triplets if isinstance(triplets, (Triplets, Rows)) else Rows(triplets)


@dataclass(frozen=True, eq=False)
class Matched:
    """A cell's array, and the triplets with the rows of the array that their objects are."""

    cell: Cell
    X: npt.NDArray[np.floating]
    groups: Grouped
    rows: npt.NDArray[np.int64] | None

    @classmethod
    def of(cls, cell: Cell, triplets: Any) -> Matched:
        """Read the cell and match it to the triplets.

        Raises
        ------
        MismatchError
            If a judged stimulus has no row, or the number of rows is not the number of names.
        """
        X = cell.matrix()
        if isinstance(triplets, Rows):
            return cls(cell, X, triplets.grouped(len(X)), None)
        if not isinstance(triplets, Triplets):
            return cls(cell, X, Grouped(checked_indices(triplets, len(X)), len(X)), None)
        if cell.names is None:
            rows_for(cell, triplets, len(X))
            return cls(cell, X, grouped(triplets), None)
        if tuple(cell.names) == triplets.names:
            return cls(cell, X, grouped(triplets), None)
        position = {name: row for row, name in enumerate(cell.names)}
        rows = np.array([position.get(name, -1) for name in triplets.names], dtype=np.int64)
        groups = grouped(triplets)
        if (groups.used & (rows < 0)).any():
            triplets.on(cell.names)  # raises, naming the absentees
        # A stimulus that nobody judged borrows the row of one that was: it is never compared.
        judged = rows[groups.used]
        return cls(cell, X, groups, np.where(groups.used, rows, judged[0] if judged.size else 0))

    def codes(self, metric: str, centre_on: Any = None) -> npt.NDArray[np.uint8]:
        """The code of each grouped triplet; see `CHOICE` and `SCORE`."""
        rows = self.rows
        if rows is None and not self.groups.used.all():
            used = np.flatnonzero(self.groups.used)
            rows = np.arange(len(self.X))
            if used.size:
                rows[~self.groups.used] = used[0]
        S, tolerance = similarity_and_tolerance(
            self.X,
            metric,
            rows=rows,
            centre_on=rows_named(centre_on, self.cell, len(self.X)),
            what=str(self.cell.labels.get("block", "features")),
            names=self.cell.names,
        )
        return self.groups.choose(S, tolerance)
