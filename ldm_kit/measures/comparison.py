"""Differences between cells, paired triplet by triplet and corrected for how many there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ldm_kit.datasets.triplets import Triplets
from ldm_kit.errors import BadInputError, MismatchError, unknown_name
from ldm_kit.measures.cells import cells_of, table_labels
from ldm_kit.measures.grouped import Grouped
from ldm_kit.measures.intervals import LEVEL, checked_estimand, interval
from ldm_kit.measures.progress import progress
from ldm_kit.measures.zero_shot import Matched, once, score_of_code
from ldm_kit.tables import COLUMNS, tidy

CORRECTIONS = ("holm", "bh", "none")
# Labels that say the same thing as another one: they follow it.
FOLLOWS = {
    "depth": "block",
    "timestep": "noise_level",
    "sigma": "noise_level",
    "signal_share": "noise_level",
}


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
    centre_on: Sequence[str] | npt.ArrayLike | None = None,
) -> pd.DataFrame:
    """Compare the accuracy of cells that differ in one label, on the same triplets.

    Cells are compared within each combination of their other labels: with ``by="block"``, the blocks at one
    noise level and under one conditioning; with ``by="conditioning"``, with and without words in one block
    at one noise level. A label in `average` is averaged over instead, triplet by triplet.

    Parameters
    ----------
    features, triplets, metric, ties, centre_on
        As for `odd_one_out`.
    by : str
        The label that the compared cells differ in: "block", "noise_level", "conditioning", "model", …
    reference : optional
        A value of `by`: every other value is compared with it alone. By default every two are compared.
    average : sequence of str
        Labels to average over; every value of `by` must have the same of them.
    correction : {"holm", "bh", "none"}
        For the number of differences in the table: Holm's (family-wise error), Benjamini and Hochberg's
        (false discovery rate), or none.
    ci : bool or {"new objects", "these objects"}
        The estimand of the interval and of p; True is the first. See `ldm_kit.measures.intervals`.

    Returns
    -------
    pandas.DataFrame
        The tidy table, a row per difference: the labels that the two share, `a` and `b` (values of `by`),
        `accuracy_a`, `accuracy_b`, `difference` (a minus b); `se`, `ci_low` and `ci_high` are those of the
        difference, uncorrected; `p` (two-sided, Student's t); what `corrected` gives; `by`. `accuracy` is empty.

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
    if correction not in CORRECTIONS:
        raise unknown_name("correction", correction, CORRECTIONS, "Pick one of these.")
    estimand = checked_estimand(ci) or "new objects"
    measured, groups = _measure(features, triplets, metric, centre_on)
    families = _families(measured, by, average)
    lut = score_of_code(ties)
    rows: list[dict[str, Any]] = []
    for shared, members in families:
        if reference is not None and reference not in members:
            raise unknown_name(f"reference {by}", reference, members, "Name one of the values compared.")
        for a, b in _pairs(list(members), reference):
            score_a, score_b = (_mean_score(members[name], lut) for name in (a, b))
            found = interval(score_a - score_b, groups, estimand, bounds=(-1.0, 1.0))
            rows.append(
                {
                    **{name: value for name, value in shared.items() if name != "accuracy"},
                    "metric": metric,
                    **{name: value for name, value in found.columns.items() if name != "accuracy"},
                    "n_triplets": len(groups),
                    "by": by,
                    "a": a,
                    "b": b,
                    "accuracy_a": float(score_a.mean()),
                    "accuracy_b": float(score_b.mean()),
                    "difference": found.mean,
                }
            )
    if not rows:
        raise BadInputError(
            f"No two cells differ in {by!r} alone, so there is nothing to compare. Choose another `by`, or name "
            "the labels that differ along with it in `average`."
        )
    freedom = (len(groups) if estimand == "these objects" else groups.n_used) - 1
    found_all = [(row["difference"], row["se"], freedom) for row in rows]
    for row, columns in zip(rows, corrected(found_all, correction), strict=True):
        row.update(columns)
    return tidy(rows)


def corrected(found: Sequence[tuple[float, float, int]], correction: str = "holm") -> list[dict[str, float]]:
    """Correct differences for how many of them there are: their p, and the intervals that agree with it.

    Parameters
    ----------
    found : sequence of (difference, standard error, degrees of freedom)
    correction : {"holm", "bh", "none"}

    Returns
    -------
    list of dict
        For each, `p` (two-sided, Student's t), `p_corrected`, `n_compared` (1 without a correction), and
        `low_corrected` and `high_corrected`: the interval of the level at which the correction tested this
        difference, so that it excludes zero exactly where `p_corrected` is below 0.05 (Ludbrook 2000).

    Examples
    --------
    >>> first, second = corrected([(0.04, 0.015, 60), (0.04, 0.019, 60)])
    >>> round(first["p_corrected"], 3), first["low_corrected"] > 0
    (0.02, True)
    """
    from scipy.special import stdtrit

    p = [_p_value(*one) for one in found]
    raised, rows = _raised(p, correction), []
    for (mean, se, freedom), raw, new in zip(found, p, raised, strict=True):
        level = (1 - LEVEL) * (raw / new if new > 0 else 1 / len(p))
        reach = se * float(stdtrit(max(freedom, 1), 1 - level / 2))
        rows.append(
            {
                "p": raw,
                "p_corrected": min(new, 1.0),
                "low_corrected": max(mean - reach, -1.0),
                "high_corrected": min(mean + reach, 1.0),
                "n_compared": 1 if correction == "none" else len(p),
            }
        )
    return rows


def corrected_p(p: Sequence[float], correction: str) -> list[float]:
    """Correct p values for their number.

    Parameters
    ----------
    p : sequence of float
    correction : {"holm", "bh", "none"}

    Returns
    -------
    list of float
        In the same order, at most 1.

    Examples
    --------
    >>> [round(value, 6) for value in corrected_p([0.01, 0.04, 0.03], "holm")]
    [0.03, 0.06, 0.06]
    >>> [round(value, 6) for value in corrected_p([0.01, 0.04, 0.03], "bh")]
    [0.03, 0.04, 0.04]
    """
    return [min(value, 1.0) for value in _raised(p, correction)]


def _raised(p: Sequence[float], correction: str) -> list[float]:
    """Corrected p values before they are cut at 1."""
    values = np.asarray(p, dtype=np.float64)
    m = len(values)
    order = np.argsort(values, kind="stable")
    out = np.empty(m)
    if correction == "holm":
        out[order] = np.maximum.accumulate((m - np.arange(m)) * values[order])
    elif correction == "bh":
        scaled = values[order] * m / (np.arange(m) + 1)
        out[order] = np.minimum.accumulate(scaled[::-1])[::-1]
    else:
        out = values
    return [float(value) for value in out]


@dataclass(frozen=True, eq=False)
class _Measured:
    labels: dict[str, Any]
    codes: npt.NDArray[np.uint8]


def _measure(
    features: Any, triplets: Triplets | npt.ArrayLike, metric: str, centre_on: Any
) -> tuple[list[_Measured], Grouped]:
    """The codes of every cell's triplets, one byte each, in the grouped order of the first cell."""
    triplets = once(triplets)
    measured: list[_Measured] = []
    groups: Grouped | None = None
    for cell in progress(cells_of(features), "comparing", features):
        matched = Matched.of(cell, triplets)
        if groups is None:
            groups = matched.groups
        codes = matched.codes(metric, centre_on)
        if matched.groups is not groups:  # an array of another number of rows is grouped in other bands
            codes = matched.groups.ungrouped(codes)[groups.order]
        measured.append(_Measured(table_labels(cell, triplets), codes))
    if groups is None:
        raise BadInputError("There are no cells to compare. Give a store or a mapping with at least two.")
    return measured, groups


def _families(
    measured: list[_Measured], by: str, average: Sequence[str]
) -> list[tuple[dict[str, Any], dict[Any, list[_Measured]]]]:
    """Cells that share all labels but `by` and those averaged over, keyed by their value of `by`."""
    known = {name for cell in measured for name in cell.labels}
    for name in (by, *average):
        if name not in known:
            raise unknown_name("label", name, known & {*COLUMNS} or known, "Cells have these labels.")
    apart = {by, *average}
    apart |= {follower for follower, leader in FOLLOWS.items() if leader in apart}
    families: dict[tuple[Any, ...], tuple[dict[str, Any], dict[Any, list[_Measured]]]] = {}
    for cell in measured:
        shared = {name: value for name, value in cell.labels.items() if name not in apart}
        key = tuple(sorted((name, str(value)) for name, value in shared.items()))
        families.setdefault(key, (shared, {}))[1].setdefault(cell.labels[by], []).append(cell)
    for _, members in families.values():
        grids = {
            value: sorted(str([cell.labels[name] for name in average]) for cell in cells)
            for value, cells in members.items()
        }
        first = next(iter(grids))
        for value, grid in grids.items():
            if grid != grids[first]:
                raise MismatchError(
                    f"{by} {first!r} and {value!r} would be averaged over different cells: {grids[first]} and "
                    f"{grid}. Measure both for the same {', '.join(average) or 'cells'}."
                )
            if not average and len(grid) > 1:
                raise MismatchError(
                    f"{len(grid)} cells share all labels with {by} {value!r}. Label them apart."
                )
    return list(families.values())


def _pairs(values: list[Any], reference: Any) -> list[tuple[Any, Any]]:
    """The differences to take."""
    if reference is None:
        return list(combinations(values, 2))
    return [(value, reference) for value in values if value != reference]


def _mean_score(cells: list[_Measured], lut: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Each triplet's score, averaged over cells."""
    total = lut[cells[0].codes]
    for cell in cells[1:]:
        total += lut[cell.codes]
    total /= len(cells)
    return total


def _p_value(difference: float, se: float, freedom: int) -> float:
    """Two-sided p of Student's t; 1 for no difference at all."""
    from scipy.special import stdtr

    if difference == 0:
        return 1.0
    if se == 0:
        return 0.0
    return float(2 * stdtr(max(freedom, 1), -abs(difference) / se))
