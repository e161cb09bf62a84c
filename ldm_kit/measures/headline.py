"""The headline cell, without peeking: chosen on half of the objects, reported on the other half."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ldm_kit.datasets.triplets import Triplets
from ldm_kit.errors import BadInputError
from ldm_kit.measures.ceiling import ceiling_columns
from ldm_kit.measures.cells import cells_of, table_labels
from ldm_kit.measures.folds import object_folds, wholly_in
from ldm_kit.measures.grouped import Grouped
from ldm_kit.measures.intervals import checked_estimand, interval
from ldm_kit.measures.progress import progress
from ldm_kit.measures.zero_shot import CHANCE, TIED, Matched, once, score_of_code
from ldm_kit.tables import tidy


def best_cell(
    features: Any,
    triplets: Triplets | npt.ArrayLike,
    metric: str = "cosine",
    seed: int = 0,
    *,
    swap: bool = True,
    ties: str = "chance",
    ci: bool | str = True,
    centre_on: Sequence[str] | npt.ArrayLike | None = None,
    ceiling: Any = None,
) -> pd.DataFrame:
    """Which cell is the most human, and how human is it? Chosen on some objects, reported on others.

    The judged objects are halved by `split_objects`. The cell that is most accurate on the triplets wholly among one
    half is reported on the triplets wholly among the other: its accuracy there owes nothing to having been
    picked. With few objects the two halves may well pick different cells; then say so.

    Parameters
    ----------
    features, triplets, metric, ties, ci, centre_on, ceiling
        As for `odd_one_out`.
    seed : int
        Of the halves.
    swap : bool
        Also choose on the second half and report on the first (a second row).

    Returns
    -------
    pandas.DataFrame
        The tidy table, `fold` 0 (and 1): the chosen cell's labels, its accuracy and interval where it is
        reported, and the columns `chosen_on`, `reported_on` ("half 0", "half 1"), `accuracy_where_chosen`,
        `runner_up` (the second best block where chosen), `n_cells`, `n_objects` (of the reporting half).

    Raises
    ------
    BadInputError
        If a half has no triplets.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(12, 3))
    >>> t = np.array([rng.permutation(12)[:3] for _ in range(300)])
    >>> best_cell({"a": X, "b": rng.normal(size=(12, 3))}, t)[["fold", "chosen_on", "reported_on"]]
       fold chosen_on reported_on
    0     0    half 0      half 1
    1     1    half 1      half 0
    """
    estimand, score = checked_estimand(ci), score_of_code(ties)
    triplets, found = once(triplets), []
    for cell in progress(cells_of(features), "best cell", features):
        matched = Matched.of(cell, triplets)
        codes = matched.groups.ungrouped(matched.codes(metric, centre_on))
        halves, objects = _halves(matched.groups, triplets, seed)
        means = [float(score[codes[halves == half]].mean()) for half in range(2)]
        found.append((table_labels(cell, triplets), codes, means, matched.groups, halves, objects))
    if not found:
        raise BadInputError("There are no cells to choose from. Give a store or a mapping with at least one.")
    rows = []
    for fold in range(2 if swap else 1):
        chosen_on, reported_on = fold, 1 - fold
        ranking = sorted(range(len(found)), key=lambda cell: -found[cell][2][chosen_on])
        labels, codes, means, groups, halves, objects = found[ranking[0]]
        there = np.flatnonzero(halves == reported_on)
        part = Grouped(groups.indices[there], groups.n)
        outcome = codes[there]
        rows.append(
            {
                **labels,
                "metric": metric,
                "fold": fold,
                "seed": seed,
                **interval(score[outcome][part.order], part, estimand).columns,
                "n_triplets": len(there),
                "n_ties": int(TIED[outcome].sum()),
                "chance": CHANCE,
                **ceiling_columns(ceiling),
                "chosen_on": f"half {chosen_on}",
                "reported_on": f"half {reported_on}",
                "accuracy_where_chosen": means[chosen_on],
                "runner_up": str(found[ranking[1]][0].get("block", "")) if len(found) > 1 else "",
                "n_cells": len(found),
                "n_objects": int(objects[reported_on]),
            }
        )
    return tidy(rows)


def _halves(groups: Grouped, triplets: Any, seed: int) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.int64]]:
    """The half (of `split_objects`) that each triplet lies in (-1: in both), and the number of objects of each half."""
    used = np.flatnonzero(groups.used)
    half = np.zeros(groups.n, np.int64)
    if isinstance(triplets, Triplets):  # by name, like `split_objects`
        used = used[np.argsort([triplets.names[i] for i in used], kind="stable")]
    half[used] = object_folds(len(used), 2, seed)
    whole = wholly_in(groups.indices, half)
    for number in range(2):
        if not (whole == number).any():
            raise BadInputError(
                f"Half {number} of the {len(used)} judged objects has no triplets of its own (of "
                f"{len(groups)}). Use another seed, or more triplets."
            )
    return whole, np.bincount(half[used], minlength=2)
