"""Cells beside each other: differences on the same triplets, the best cell without peeking, several models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ldm_kit.datasets.triplets import Triplets, checked_indices
from ldm_kit.errors import BadInputError, MismatchError, one_of, unknown_name
from ldm_kit.measures.cells import Groups, Rows, cells_of, groups_of
from ldm_kit.measures.folds import object_folds, wholly_in
from ldm_kit.measures.grouped import Grouped
from ldm_kit.measures.metrics import METRICS
from ldm_kit.measures.statistics import CORRECTIONS, NEW, checked_estimand, corrected, interval, settled
from ldm_kit.measures.zero_shot import matched_cells, mean_score, odd_one_out, score_of_code
from ldm_kit.tables import COLUMNS, tidy

# Labels that another one determines: they follow it.
FOLLOWS = {
    "depth": "block",
    "timestep": "noise_level",
    "sigma": "noise_level",
    "signal_share": "noise_level",
}
Codes = npt.NDArray[np.uint8]
Cells = dict[tuple[Any, ...], Codes]  # by the values of the labels that are averaged over
FEW_OBJECTS = 50  # below, a family-wise error of 5 % came out at 8 % (tests/benchmarks/README.md)


def compare(
    features: Any,
    triplets: Triplets | npt.ArrayLike,
    by: str = "block",
    *,
    metric: str = "cosine",
    ties: str = "chance",
    reference: Any = None,
    average: Sequence[str] = (),
    correction: str = "holm",
    ci: bool | str = True,
    groups: Groups | None = None,
    centre_on: Sequence[str] | npt.ArrayLike | None = None,
) -> pd.DataFrame:
    """Compare the accuracy of cells that differ in one label, on the same triplets.

    Cells are compared within each combination of their other labels: with ``by="block"``, the blocks at one
    noise level and under one conditioning; with ``by="conditioning"``, the conditionings in one block at one
    noise level. A label in `average` is averaged over instead, triplet by triplet.

    Parameters
    ----------
    features, triplets, metric, ties, groups, centre_on
        As for `odd_one_out`. Draws of noise that were kept apart are averaged over, as if named in `average`.
    by : str
        The label that the compared cells differ in: "block", "noise_level", "conditioning", "model", …
    reference : optional
        A value of `by`: every other value is compared with it alone. By default every two are compared.
    average : sequence of str
        Labels to average over; every value of `by` must have the same of them.
    correction : {"holm", "bh", "none"}
        For the number of differences in the table: Holm's (family-wise error), Benjamini and Hochberg's
        (false discovery rate), or none.
    ci : bool or {"new objects and people", "new objects", "these objects"}
        The estimand of the interval and of p; True is the first where people are known, else the second. See
        `ldm_kit.measures.statistics`.

    Returns
    -------
    pandas.DataFrame
        The tidy table, a row per difference: the labels that the two share, `a` and `b` (values of `by`),
        `accuracy_a`, `accuracy_b`, `difference` (a minus b); `se`, `ci_low` and `ci_high` are those of the
        difference, uncorrected; `p` (two-sided, Student's t); what `corrected` returns; `by`; `freedom`, `n_objects`, and
        where they apply `n_people`, `n_draws`. `accuracy` is empty. `caution` where there are too few objects for p.

    Raises
    ------
    UnknownNameError
        For a label, a value or a correction that does not exist.
    BadInputError
        If there is nothing to compare.
    MismatchError
        If values of `by` are averaged over different cells.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> t = np.array([rng.permutation(12)[:3] for _ in range(300)])
    >>> cells = {name: rng.normal(size=(12, 3)) for name in "abc"}
    >>> compare(cells, t)[["a", "b"]].values.tolist()
    [['a', 'b'], ['a', 'c'], ['b', 'c']]
    """
    one_of("correction", correction, CORRECTIONS)
    estimand, score = checked_estimand(ci) or "", score_of_code(ties)
    measured: list[tuple[dict[str, Any], Codes]] = []
    grouped: Grouped | None = None
    for matched in matched_cells(features, triplets, "comparing", groups):
        if grouped is None:
            grouped = matched.groups
        codes = matched.codes(metric, centre_on)
        if matched.groups is not grouped:  # an array of another number of rows is grouped in other bands
            codes = matched.groups.ungrouped(codes)[grouped.order]
        measured.append((matched.labels, codes))
    if grouped is None:
        raise BadInputError("There are no cells to compare. Give a store or a mapping with at least two.")
    estimand = settled(estimand, grouped) or ""
    drawn = by != "draw" and any(labels.get("draw") is not None for labels, _ in measured)
    if drawn:
        average = (*(name for name in average if name != "draw"), "draw")
    again = drawn and estimand == "these objects"  # in other noise; new objects bring new noise with them
    about = {"n_triplets": len(grouped), "n_objects": grouped.n_clusters, "by": by, "metric": metric}
    if estimand in NEW and grouped.n_clusters < FEW_OBJECTS:
        about["caution"] = f"{grouped.n_clusters} objects: corrected p values may be too small"
    rows: list[dict[str, Any]] = []
    for shared, members in _families(measured, by, average):
        if reference is not None and reference not in members:
            raise unknown_name(f"reference {by}", reference, members, "Name one of the values compared.")
        others = [(value, reference) for value in members if value != reference]
        for a, b in combinations(members, 2) if reference is None else others:
            scores = [mean_score([*members[name].values()], score) for name in (a, b)]
            found = interval(
                scores[0] - scores[1],
                grouped,
                estimand,
                bounds=(-1.0, 1.0),
                more=_between_draws(members[a], members[b], score) if again else 0.0,
            )
            rows.append(
                {
                    **shared,
                    **about,
                    **({"n_draws": len({place[-1] for place in members[a]})} if drawn else {}),
                    **found.columns,
                    "accuracy": float("nan"),
                    "a": a,
                    "b": b,
                    "accuracy_a": float(scores[0].mean()),
                    "accuracy_b": float(scores[1].mean()),
                    "difference": found.mean,
                }
            )
    if not rows:
        raise BadInputError(
            f"No two cells differ in {by!r} alone, so there is nothing to compare. Choose another `by`, or name "
            "the labels that differ along with it in `average`."
        )
    differences = [(row["difference"], row["se"], row["freedom"]) for row in rows]
    return tidy(row | columns for row, columns in zip(rows, corrected(differences, correction), strict=True))


def _between_draws(a: Cells, b: Cells, score: npt.NDArray[np.float64]) -> float:
    """Variance of a mean difference from draw to draw of noise; the draw is the last thing that cells are averaged over."""
    by_draw: dict[Any, list[float]] = {}
    for place in a:
        by_draw.setdefault(place[-1], []).append(float((score[a[place]] - score[b[place]]).mean()))
    means = [float(np.mean(each)) for each in by_draw.values()]
    return float(np.var(means, ddof=1)) / len(means) if len(means) > 1 else 0.0


def _families(
    measured: list[tuple[dict[str, Any], Codes]], by: str, average: Sequence[str]
) -> list[tuple[dict[str, Any], dict[Any, Cells]]]:
    """Cells that share all labels but `by` and those averaged over, by their value of `by`, then by what is averaged."""
    known = {name for labels, _ in measured for name in labels}
    for name in (by, *average):
        one_of("label", name, known & {*COLUMNS, "draw"} or known, "Cells have these labels.")
    apart = {by, *average}
    apart |= {follower for follower, leader in FOLLOWS.items() if leader in apart}
    families: dict[str, tuple[dict[str, Any], dict[Any, Cells]]] = {}
    for labels, codes in measured:
        shared = {name: value for name, value in labels.items() if name not in apart}
        key = str(sorted((name, str(value)) for name, value in shared.items()))
        cells = families.setdefault(key, (shared, {}))[1].setdefault(labels[by], {})
        place = tuple(labels.get(name) for name in average)
        if place in cells:
            raise MismatchError(
                f"Two cells share all labels with {by} {labels[by]!r}. Give them different labels."
            )
        cells[place] = codes
    for _, members in families.values():
        for one, other in pairwise(members):
            if set(members[one]) != set(members[other]):
                raise MismatchError(
                    f"{by} {one!r} and {other!r} would be averaged over different cells: {sorted(map(str, members[one]))} and "
                    f"{sorted(map(str, members[other]))}. Measure both for the same {', '.join(average)}."
                )
    return list(families.values())


def best_cell(
    features: Any,
    triplets: Triplets | npt.ArrayLike,
    metric: str = "cosine",
    random_state: int = 0,
    *,
    ties: str = "chance",
    ci: bool | str = True,
    centre_on: Sequence[str] | npt.ArrayLike | None = None,
    ceiling: Any = None,
    groups: Groups | None = None,
) -> pd.DataFrame:
    """Which cell is the most human, and how human is it? Chosen on some objects, reported on others.

    The judged objects are halved by `split_objects`. The cell that is most accurate on the triplets wholly among one
    half is reported on the triplets wholly among the other: its accuracy there does not depend on its having
    been chosen. With few objects the two halves may choose different cells; then report both.

    Parameters
    ----------
    features, triplets, metric, ties, ci, centre_on, ceiling
        As for `odd_one_out`.
    random_state : int
        Seed of the halves.
    groups : mapping or Series of stimulus name to group, or sequence of one label a row; optional
        The halves divide no group. By default stimuli of one concept are a group; rows of a plain array are their own.

    Returns
    -------
    pandas.DataFrame
        The tidy table, a row for either half (`fold` 0 and 1) that chooses: the chosen cell's labels, its accuracy and
        interval where it is reported, and the columns `chosen_on`, `reported_on` ("half 0", "half 1"),
        `accuracy_where_chosen`, `runner_up` (the second best block where chosen), `n_cells`, `n_objects` (of the
        reporting half).

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
    one_of("metric", metric, METRICS)
    source: Any = triplets
    named = isinstance(source, Triplets)
    indices = source.indices if named else checked_indices(source, None)
    objects = np.flatnonzero(np.bincount(indices.ravel()))
    if named:  # in the order of names, like `split_objects`
        objects = objects[np.argsort([source.names[i] for i in objects], kind="stable")]
    half = np.zeros(int(indices.max(initial=0)) + 1, np.int64)
    half[objects] = object_folds(
        len(objects), 2, random_state, _groups_of_judged(groups, features, source, objects)
    )
    whole, tables = wholly_in(indices, half), []
    for number in range(2):
        rows = np.flatnonzero(whole == number)
        if not rows.size:
            raise BadInputError(
                f"Half {number} of the {len(objects)} judged objects has no triplets of its own (of {len(indices)}). "
                "Use another `random_state`, or more triplets."
            )
        part = source.take(rows) if named else indices[rows]
        tables.append(
            odd_one_out(features, part, metric, ties, ci, groups=groups, centre_on=centre_on, ceiling=ceiling)
        )
    if tables[0].empty:
        raise BadInputError("There are no cells to choose from. Give a store or a mapping with at least one.")
    found = []
    for fold, (chosen, reported) in enumerate([tables, tables[::-1]]):
        ranking = np.argsort(-chosen["accuracy"].to_numpy(), kind="stable")
        found.append(
            {
                **reported.iloc[ranking[0]],
                "fold": fold,
                "seed": random_state,
                "chosen_on": f"half {fold}",
                "reported_on": f"half {1 - fold}",
                "accuracy_where_chosen": chosen["accuracy"].iloc[ranking[0]],
                "runner_up": chosen["block"].iloc[ranking[1]] if len(ranking) > 1 else "",
                "n_cells": len(ranking),
                "n_objects": int((half[objects] == 1 - fold).sum()),
            }
        )
    return tidy(found)


def _groups_of_judged(groups: Groups | None, features: Any, triplets: Any, objects: Rows) -> Rows | None:
    """The group of each judged object, in the order of `objects`; None where each is its own."""
    if groups is None and all(cell.groups is None for cell in cells_of(features)):
        return None
    for matched in matched_cells(features, triplets, "groups"):
        group = groups_of(groups, matched.cell, len(matched.X), matched.names)
        return group[matched.rows[objects]]
    return None


def alignment_of_models(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Put the tables of several models under each other, with each block's relative depth.

    Parameters
    ----------
    tables : mapping of str to DataFrame
        The tidy table of each model.

    Returns
    -------
    pandas.DataFrame
        With `model` as named, and the column `relative_depth`: 0 for a model's first block, 1 for its
        last, evenly spaced between; 1 where there is only one.

    Examples
    --------
    >>> table = pd.DataFrame({"model": "m", "block": ["a", "b"], "depth": [3, 9]})
    >>> alignment_of_models({"mine": table})[["model", "relative_depth"]].values.tolist()
    [['mine', 0.0], ['mine', 1.0]]
    """
    parts = []
    for name, table in tables.items():
        order = {depth: rank for rank, depth in enumerate(sorted(table["depth"].unique()))}
        depth = table["depth"].map(order) / (len(order) - 1) if len(order) > 1 else 1.0
        parts.append(table.assign(model=name, relative_depth=depth))
    return pd.concat(parts, ignore_index=True)
