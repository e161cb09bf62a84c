"""Cross-validate a probe over objects: it is always scored on objects that it was not fitted on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import clone

from ldm_kit.datasets.triplets import Triplets
from ldm_kit.errors import number_of_folds, whole_number
from ldm_kit.measures.ceiling import ceiling_columns
from ldm_kit.measures.cells import Groups, Matrix, Rows, cells_of, groups_of, progress
from ldm_kit.measures.descent import cross_entropy
from ldm_kit.measures.fitting import Probe
from ldm_kit.measures.folds import Indices, each_fold, object_folds, within
from ldm_kit.measures.grouped import Grouped
from ldm_kit.measures.metrics import row_mean, similarity_and_tolerance
from ldm_kit.measures.probes import LinearProbe
from ldm_kit.measures.statistics import (
    NEW,
    UNVARIED,
    Interval,
    checked_estimand,
    corrected,
    interval,
    quantile,
)
from ldm_kit.measures.zero_shot import CHANCE, SCORE, TIED, matched_cells
from ldm_kit.tables import tidy


@dataclass(frozen=True, eq=False)
class ProbeResult:
    """The results of cross-validating a probe.

    Attributes
    ----------
    table : pandas.DataFrame
        The tidy table, one row per cell, repeat and fold.
    probes : tuple of Probe
        The fitted probe of each row of `table` whose `repeat` is 0; empty with ``keep_probes=False``.
    pooled : pandas.DataFrame
        The tidy table, one row per cell: all folds' held-out triplets together.
    folds : mapping of str (or int) to int
        The fold in which the first repeat held out each judged object, by its name, or by its row where objects have no
        names. Objects without judgements are not in it: no probe was fitted on them.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X, t = rng.normal(size=(30, 4)), np.array([rng.permutation(30)[:3] for _ in range(900)])
    >>> result = cross_validate_probe(X, t, LinearProbe(alpha=0.01, cv=0, max_iter=3))
    >>> len(result.table), len(result.probes), len(result.pooled)
    (3, 3, 1)
    """

    table: pd.DataFrame
    probes: tuple[Probe, ...]
    pooled: pd.DataFrame = field(repr=False)
    folds: Mapping[str | int, int] = field(repr=False)

    def summary(self) -> pd.DataFrame:
        """One row per cell, the held-out triplets of all folds together (`pooled`)."""
        return self.pooled


class _Outcome(NamedTuple):
    """What each of one fold's held-out triplets (rows of all objects, at `rows` of all triplets) scored.

    `group` is of all objects; `subjects` says who judged the triplets, where that is known.
    """

    group: Rows
    subjects: Rows | None
    rows: Indices
    indices: Indices
    score: npt.NDArray[np.float64]
    zero_shot: npt.NDArray[np.float64]
    tied: npt.NDArray[np.bool_]
    cross_entropy: float


def cross_validate_probe(
    features: Any,
    triplets: Triplets | npt.ArrayLike,
    probe: Probe | None = None,
    cv: int = 3,
    random_state: int = 0,
    *,
    zero_shot: str = "centred cosine",
    ci: bool | str = True,
    ceiling: Any = None,
    keep_probes: bool = True,
    groups: Groups | None = None,
    n_repeats: int = 1,
) -> ProbeResult:
    """Fit a probe on some objects, score it on the others, and compare with the features without a probe.

    Objects are assigned to folds at random. A fold's probe is fitted on the triplets wholly among the other folds' objects
    (everything: mean, scale, PCA, α, stopping) and scored on those wholly among its own. Zero-shot accuracy is
    that of `zero_shot` on the same held-out triplets; its mean vector is the training objects'.

    Parameters
    ----------
    features : store, mapping of str to ndarray (n, d), or ndarray (n, d)
    triplets : Triplets or array-like of int, shape (t, 3)
    probe : LinearProbe, KernelProbe or MLPProbe, optional
        Cloned for every fold; a `LinearProbe` with its defaults if left out.
    cv : int
        Number of folds over objects, 2 or more.
    random_state : int
        Seed of the folds. The same one gives the same folds for every cell.
    zero_shot : str
        Metric to compare with.
    ci : bool or {"new objects", "these objects"}
        As for `odd_one_out`.
    ceiling : optional
        As for `odd_one_out`.
    keep_probes : bool
        Whether the result holds the fitted probes, of the first repeat.
    groups : mapping or Series of stimulus name to group, or sequence of one label a row; optional
        Folds, and the validation folds within training objects, divide no group. By default stimuli of one concept are a
        group; rows of a plain array are their own.
    n_repeats : int
        How often to assign objects to folds anew (seeds `random_state`, `random_state` + 1, …), since accuracy depends on
        the assignment. A triplet's score is the mean over the repeats that held it out.

    Returns
    -------
    ProbeResult
        `table` has `repeat`, `fold`, `accuracy` on held-out triplets, and the columns `cross_entropy`, `zero_shot`, `zero_shot_metric`,
        `gain`, `gain_se`, `gain_low`, `gain_high` (the paired difference), `alpha`, `n_iter`, `n_train_triplets`,
        `n_train_objects`, `n_test_objects`. `summary()` pools the folds; there, gains are corrected (Holm) for
        the number of cells: `gain_p_corrected`, `gain_low_corrected`, `gain_high_corrected`, `n_compared`; `n_triplets` counts each triplet that was held out
        once. For new objects, intervals in `table` are for the fold's probe as it is; those in `summary()` are for a probe
        fitted to as many other objects, too.

    Raises
    ------
    BadInputError
        With fewer objects than folds need, or a fold without triplets.

    References
    ----------
    Nadeau & Bengio 2003, *Inference for the generalization error*, doi:10.1023/A:1024068626366 (the correlation of
    cross-validated results).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X, t = rng.normal(size=(30, 4)), np.array([rng.permutation(30)[:3] for _ in range(900)])
    >>> result = cross_validate_probe(X, t, LinearProbe(alpha=0.01, cv=0, max_iter=3))
    >>> result.table["fold"].tolist(), result.table["n_iter"].tolist(), len(result.summary())
    ([0, 1, 2], [3, 3, 3], 1)
    """
    probe = LinearProbe() if probe is None else probe
    cv, estimand, n_repeats = (
        number_of_folds(cv),
        checked_estimand(ci),
        whole_number("n_repeats", n_repeats, 1),
    )
    about = {
        "metric": "dot",
        "probe": type(probe).__name__.removesuffix("Probe").lower(),
        "seed": random_state,
        "chance": CHANCE,
        "zero_shot_metric": zero_shot,
        **ceiling_columns(ceiling),
    }
    rows, pooled, probes, gains = [], [], [], []
    outcomes: list[_Outcome] = []
    folds: dict[str | int, int] = {}
    seeds = range(random_state, random_state + n_repeats)
    fits = _fits(features, triplets, probe, cv, seeds, zero_shot, groups)
    for labels, assigned, fitted, counts, outcome in progress(
        fits, "probes", total=len(cells_of(features)) * cv * n_repeats
    ):
        rows.append({**labels, **about, **counts, **_columns([outcome], len(assigned), estimand)})
        del rows[-1]["gain_freedom"]
        if counts["repeat"] == 0:
            folds.update(assigned)
            if keep_probes:
                probes.append(fitted)
        outcomes.append(outcome)
        if len(outcomes) == cv * n_repeats:
            row = {
                **labels,
                **about,
                **_columns(outcomes, len(assigned), estimand, cv),
                "n_test_objects": len(assigned),
                "n_repeats": n_repeats,
            }
            pooled.append(row)
            gains.append((row["gain"], row["gain_se"], row.pop("gain_freedom")))
            outcomes = []
    for row, columns in zip(pooled, corrected(gains), strict=True):
        row |= {name: columns.pop(name) for name in ("n_compared", "correction")}
        row |= {f"gain_{name}": value for name, value in columns.items() if name != "p"}
    return ProbeResult(tidy(rows), tuple(probes), tidy(pooled), folds)


def _fits(
    features: Any,
    triplets: Any,
    probe: Probe,
    cv: int,
    seeds: Iterable[int],
    zero_shot: str,
    groups: Groups | None,
) -> Iterator[tuple[dict[str, Any], dict[Any, int], Probe, dict[str, Any], _Outcome]]:
    """Every fold of every repeat and cell: labels, the fold of each judged object, the probe, its counts, its outcome."""
    for matched in matched_cells(features, triplets, "cells"):
        used = np.flatnonzero(matched.groups.used)
        X = matched.X[matched.rows[used]]
        indices = matched.groups.indices
        if len(used) < matched.groups.n:
            indices = within(indices, used)
        objects = used.tolist() if matched.names is None else [matched.names[i] for i in used]
        group = groups_of(groups, matched.cell, len(matched.X), matched.names)[matched.rows[used]]
        people = matched.groups.subjects
        for repeat, seed in enumerate(seeds):
            fold = object_folds(len(used), cv, seed, group)
            assigned = dict(zip(objects, fold.tolist(), strict=True))
            for number, rows in enumerate(each_fold(indices, fold)):
                who = None if people is None else people[rows[1]]
                fitted, counts, outcome = _one_fold(
                    X, indices, fold == number, rows, probe, zero_shot, group, who
                )
                place = {"seed": seed, "repeat": repeat, "fold": number}
                yield matched.labels, assigned, fitted, {**place, **counts}, outcome


def _one_fold(
    X: Matrix,
    indices: Indices,
    out: npt.NDArray[np.bool_],
    rows: tuple[Indices, Indices],
    probe: Probe,
    zero_shot: str,
    group: Rows,
    subjects: Rows | None = None,
) -> tuple[Probe, dict[str, Any], _Outcome]:
    """Fit on the other folds' objects, score on those of this one, which are `out`."""
    train, test = np.flatnonzero(~out), np.flatnonzero(out)
    fitted = clone(probe).fit(X[train], within(indices[rows[0]], train), group[train])
    held_out = indices[rows[1]]
    groups = Grouped(within(held_out, test), len(test))
    S, tolerance = similarity_and_tolerance(fitted.transform(X[test]), "dot")
    codes = groups.choose(S, tolerance)
    held = X[test]
    if zero_shot == "centred cosine":  # the mean is that of the training objects
        held, zero_shot = held - row_mean(X, train), "cosine"
    without = groups.choose(*similarity_and_tolerance(held, zero_shot))
    outcome = _Outcome(
        group,
        subjects,
        rows[1],
        held_out,
        groups.ungrouped(SCORE["chance"][codes]),
        groups.ungrouped(SCORE["chance"][without]),
        groups.ungrouped(TIED[codes]),
        cross_entropy(S, groups),
    )
    counts = {
        "alpha": fitted.alpha_,
        "n_iter": fitted.n_iter_,
        "n_train_triplets": len(rows[0]),
        "n_train_objects": len(train),
        "n_test_objects": len(test),
    }
    return fitted, counts, outcome


class _Scored(NamedTuple):
    """The held-out triplets of some folds, in grouped order: with the probe, and without."""

    groups: Grouped
    score: npt.NDArray[np.float64]
    zero_shot: npt.NDArray[np.float64]
    n_ties: int

    @classmethod
    def of(cls, outcomes: list[_Outcome], n: int, repeated: bool) -> _Scored:
        """Put folds together; a triplet that several repeats held out counts once, with its mean."""
        rows, indices, score, zero_shot, tied = (
            np.concatenate(arrays) for arrays in list(zip(*outcomes, strict=True))[2:7]
        )
        known = [outcome.subjects for outcome in outcomes if outcome.subjects is not None]
        subjects = np.concatenate(known) if known else None
        if repeated:
            _, first, of = np.unique(rows, return_index=True, return_inverse=True)
            often, indices = np.bincount(of), indices[first]
            subjects = None if subjects is None else subjects[first]
            score, zero_shot, tied = (np.bincount(of, weights=x) / often for x in (score, zero_shot, tied))
        groups = Grouped(indices, n, subjects=subjects).clustered(outcomes[0].group)
        return cls(groups, score[groups.order], zero_shot[groups.order], int(np.count_nonzero(tied)))

    def intervals(self, estimand: str | None) -> tuple[Interval, Interval]:
        """Accuracy and gain, for these probes."""
        gain = interval(self.score - self.zero_shot, self.groups, estimand, bounds=(-1.0, 1.0))
        return interval(self.score, self.groups, estimand), gain


def _columns(outcomes: list[_Outcome], n: int, estimand: str | None, cv: int | None = None) -> dict[str, Any]:
    """Accuracy, zero-shot accuracy and gain over the held-out triplets: of one fold, or of all `cv` of each repeat."""
    repeated = cv is not None and len(outcomes) > cv
    scored = _Scored.of(outcomes, n, repeated)
    accuracy, gain = scored.intervals(estimand)
    if cv is not None:
        once = [(accuracy, gain)]
        if repeated:
            repeats = [outcomes[start : start + cv] for start in range(0, len(outcomes), cv)]
            once = [_Scored.of(repeat, n, False).intervals(estimand) for repeat in repeats]
        accuracy = _refitted(accuracy, [one for one, _ in once], cv, (0.0, 1.0))
        gain = _refitted(gain, [one for _, one in once], cv, (-1.0, 1.0))
    losses, sizes = zip(*[(outcome.cross_entropy, len(outcome.score)) for outcome in outcomes], strict=True)
    return {
        **accuracy.columns,
        "n_triplets": len(scored.score),
        "n_ties": scored.n_ties,
        "cross_entropy": float(np.average(losses, weights=sizes)),
        "zero_shot": float(scored.zero_shot.mean()),
        "gain": gain.mean,
        "gain_se": gain.se,
        "gain_low": gain.low,
        "gain_high": gain.high,
        "gain_freedom": gain.freedom,
        "n_objects": scored.groups.n_clusters,
    }


def _refitted(found: Interval, once: Sequence[Interval], cv: int, bounds: tuple[float, float]) -> Interval:
    """Widen an interval for these probes to one for probes fitted to as many other objects.

    The clustered variance takes the probes as they are. But folds share training objects, and one's training objects are
    another's held-out ones, so their results correlate: Nadeau & Bengio (2003) add n_test / n_train = 1 / (cv - 1) times the
    variance of one test, which further repeats do not lessen. It is that of one repeat here, clustered by object, and not the
    variance between folds: so few tell little, and `tests.benchmarks.inference_probes` finds such intervals far wider.
    """
    variance = found.se**2 + float(np.mean([one.se**2 for one in once])) / (cv - 1)
    if found.estimand not in NEW or not variance > UNVARIED**2:
        return found
    se = float(np.sqrt(variance))
    reach = quantile(found.freedom) * se
    low, high = max(found.mean - reach, bounds[0]), min(found.mean + reach, bounds[1])
    return replace(found, se=se, low=low, high=high)
