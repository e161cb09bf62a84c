"""Cross-validate a probe over objects: it is always scored on objects that it never saw."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import clone

from ldm_kit.datasets.triplets import Triplets
from ldm_kit.errors import number_of_folds, unknown_name
from ldm_kit.measures import objective, protocol_linhardt
from ldm_kit.measures.ceiling import ceiling_columns
from ldm_kit.measures.cells import cells_of, progress
from ldm_kit.measures.folds import each_fold, object_folds, within
from ldm_kit.measures.grouped import Grouped
from ldm_kit.measures.linear_probe import LinearProbe
from ldm_kit.measures.metrics import row_mean, similarity_and_tolerance
from ldm_kit.measures.probe import Probe
from ldm_kit.measures.statistics import checked_estimand, corrected, interval
from ldm_kit.measures.zero_shot import CHANCE, SCORE, TIED, matched_cells
from ldm_kit.tables import tidy

Matrix = npt.NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class ProbeResult:
    """What cross-validation found.

    Attributes
    ----------
    table : pandas.DataFrame
        The tidy table, one row per cell and fold.
    probes : tuple of Probe
        The fitted probe of each row of `table`; empty if they were not kept.
    pooled : pandas.DataFrame
        The tidy table, one row per cell: all folds' held-out triplets together.
    folds : mapping of str (or int) to int
        The fold that each judged object was held out in, by its name, or by its row where objects have no names.
        An object that nobody judged is not in it: no probe saw it.
    """

    table: pd.DataFrame
    probes: tuple[Probe, ...]
    pooled: pd.DataFrame = field(repr=False)
    folds: Mapping[str | int, int] = field(repr=False)

    def summary(self) -> pd.DataFrame:
        """One row per cell, the held-out triplets of all folds together (`pooled`)."""
        return self.pooled


@dataclass(frozen=True, eq=False)
class _Fold:
    """Per-triplet outcomes on one fold's held-out objects."""

    indices: npt.NDArray[np.int64]  # rows of the whole array
    score: npt.NDArray[np.float64]
    zero_shot: npt.NDArray[np.float64]
    tied: npt.NDArray[np.bool_]
    cross_entropy: float


def cross_validate_probe(
    features: Any,
    triplets: Triplets | npt.ArrayLike,
    probe: Probe | None = None,
    n_folds: int = 3,
    seed: int = 0,
    *,
    zero_shot: str = "centred cosine",
    protocol: str | None = None,
    ci: bool | str = True,
    ceiling: Any = None,
    keep_probes: bool = True,
) -> ProbeResult:
    """Fit a probe on some objects, score it on the others, and compare with no probe at all.

    Objects are dealt to folds. A fold's probe is fitted on the triplets wholly among the other folds' objects
    (everything: mean, scale, PCA, λ, stopping) and scored on those wholly among its own. Zero-shot accuracy is
    that of `zero_shot` on the same held-out triplets; its mean vector is the training objects'.

    Parameters
    ----------
    features : store, mapping of str to ndarray (n, d), or ndarray (n, d)
    triplets : Triplets or array-like of int, shape (t, 3)
    probe : LinearProbe, KernelProbe or MLPProbe, optional
        Cloned for every fold; a `LinearProbe` with its defaults if not given.
    n_folds : int
        Folds over objects.
    seed : int
        Of the folds. The same seed gives the same folds for every cell.
    zero_shot : str
        Metric to compare with.
    protocol : {"linhardt2024"}, optional
        Reproduce that paper's protocol, which peeks at held-out objects (see
        `ldm_kit.measures.protocol_linhardt`); the column `probe` then says so. None: ours.
    ci : bool or {"new objects", "these objects"}
        As for `odd_one_out`.
    ceiling : optional
        As for `odd_one_out`.
    keep_probes : bool
        Whether the result holds the fitted probes.

    Returns
    -------
    ProbeResult
        `table` has `accuracy` on held-out triplets, and the columns `cross_entropy`, `zero_shot`,
        `zero_shot_metric`, `gain`, `gain_se`, `gain_low`, `gain_high` (the paired difference), `lam`,
        `iterations`, `n_train_triplets`, `n_train_objects`, `n_test_objects`. `summary()` pools the folds; there, gains are corrected (Holm) for
        the number of cells: `gain_p_corrected`, `gain_low_corrected`, `gain_high_corrected`, `n_compared`.

    Raises
    ------
    BadInputError
        With fewer objects than folds need, or a fold without triplets.

    Examples
    --------
    >>> result = cross_validate_probe(store, data.triplets, LinearProbe(), seed=1)  # doctest: +SKIP
    >>> result.summary()[["block", "accuracy", "zero_shot", "gain", "gain_low", "gain_high"]]  # doctest: +SKIP
    """
    probe = LinearProbe() if probe is None else probe
    if protocol not in (None, protocol_linhardt.NAME):
        raise unknown_name("protocol", protocol, [protocol_linhardt.NAME], "Pick it, or None for ours.")
    n_folds, estimand = number_of_folds(n_folds), checked_estimand(ci)
    more = ceiling_columns(ceiling)
    rows, pooled, probes, gains = [], [], [], []
    steps = progress(
        _steps(features, triplets, n_folds, seed), "probes", total=len(cells_of(features)) * n_folds
    )
    folds: list[_Fold] = []
    dealt: dict[str | int, int] = {}
    for labels, objects, X, indices, fold, number, rows_of_it in steps:
        dealt.update(zip(objects, fold.tolist(), strict=True))
        fitted, counts, outcome = _one_fold(X, indices, fold, number, rows_of_it, probe, zero_shot, protocol)
        about = {
            **labels,
            "metric": "dot",
            "probe": probe_name(probe) + (f" ({protocol})" if protocol else ""),
            "seed": seed,
            "chance": CHANCE,
            "zero_shot_metric": zero_shot,
            **more,
        }
        rows.append({**about, "fold": number, **counts, **_columns([outcome], len(X), estimand)})
        if keep_probes:
            probes.append(fitted)
        folds.append(outcome)
        if number == n_folds - 1:
            pooled.append({**about, **_columns(folds, len(X), estimand), "n_test_objects": len(X)})
            held = np.concatenate([outcome.indices for outcome in folds])
            independent = len(held) if estimand == "these objects" else len(np.unique(held))
            gains.append((pooled[-1]["gain"], pooled[-1]["gain_se"], independent - 1))
            folds = []
    for row, columns in zip(pooled, corrected(gains), strict=True):
        row["n_compared"] = columns.pop("n_compared")
        row.update({f"gain_{name}": value for name, value in columns.items() if name != "p"})
    return ProbeResult(tidy(rows), tuple(probes), tidy(pooled), dealt)


def probe_name(probe: Probe) -> str:
    """What the column `probe` says: "linear", "kernel", "mlp".

    Examples
    --------
    >>> probe_name(LinearProbe())
    'linear'
    """
    return type(probe).__name__.removesuffix("Probe").lower()


def _steps(features: Any, triplets: Any, n_folds: int, seed: int) -> Any:
    """Every cell × fold: labels, judged objects, their rows, triplets, folds, fold number, rows of its triplets."""
    for matched in matched_cells(features, triplets, "cells"):
        used = np.flatnonzero(matched.groups.used)
        X = matched.X[matched.rows[used]]
        indices = matched.groups.indices
        if len(used) < matched.groups.n:
            indices = within(indices, np.arange(len(indices)), used, matched.groups.n)
        objects = used.tolist() if matched.names is None else [matched.names[i] for i in used]
        fold = object_folds(len(used), n_folds, seed)
        for number, rows in enumerate(each_fold(indices, fold)):
            yield matched.labels, objects, X, indices, fold, number, rows


def _one_fold(
    X: Matrix,
    indices: npt.NDArray[np.int64],
    fold: npt.NDArray[np.int64],
    number: int,
    rows: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]],
    probe: Probe,
    zero_shot: str,
    protocol: str | None,
) -> tuple[Probe, dict[str, Any], _Fold]:
    """Fit on the other folds' objects, score on this one's."""
    train_rows, test_rows = rows
    train, test = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
    train_triplets = within(indices, train_rows, train, len(X))
    groups = Grouped(within(indices, test_rows, test, len(X)), len(test))
    if protocol is None:
        fitted = clone(probe).fit(X[train], train_triplets)
    else:
        fitted = protocol_linhardt.fit(probe, X, train, test, train_triplets, groups.indices)
    Z = fitted.transform(X[test])
    S, tolerance = similarity_and_tolerance(Z, "dot")
    codes = groups.choose(S, tolerance)
    score = SCORE["chance"][codes] if protocol is None else protocol_linhardt.scores(S, groups)
    outcome = _Fold(
        indices[test_rows],
        groups.ungrouped(score),
        groups.ungrouped(SCORE["chance"][_zero_shot_codes(X, train, test, groups, zero_shot)]),
        groups.ungrouped(TIED[codes]),
        objective.cross_entropy(S, groups),
    )
    counts = {
        "lam": getattr(fitted, "lam_", float("nan")),
        "iterations": getattr(fitted, "n_iter_", None),
        "n_train_triplets": len(train_rows),
        "n_train_objects": len(train),
        "n_test_objects": len(test),
    }
    return fitted, counts, outcome


def _zero_shot_codes(
    X: Matrix, train: npt.NDArray[np.int64], test: npt.NDArray[np.int64], groups: Grouped, metric: str
) -> npt.NDArray[np.uint8]:
    """The held-out triplets' codes without a probe; a mean is that of the training objects."""
    held = X[test]
    if metric == "centred cosine":
        held, metric = held - row_mean(X, train), "cosine"
    S, tolerance = similarity_and_tolerance(held, metric)
    return groups.choose(S, tolerance)


def _columns(folds: list[_Fold], n: int, estimand: str | None) -> dict[str, Any]:
    """Accuracy, zero-shot accuracy and gain over the held-out triplets of some folds."""
    groups = Grouped(np.concatenate([fold.indices for fold in folds]), n)
    score = np.concatenate([fold.score for fold in folds])[groups.order]
    without = np.concatenate([fold.zero_shot for fold in folds])[groups.order]
    gain = interval(score - without, groups, estimand, bounds=(-1.0, 1.0))
    sizes = [len(fold.score) for fold in folds]
    return {
        **interval(score, groups, estimand).columns,
        "n_triplets": len(score),
        "n_ties": int(sum(fold.tied.sum() for fold in folds)),
        "cross_entropy": float(np.average([fold.cross_entropy for fold in folds], weights=sizes)),
        "zero_shot": float(without.mean()),
        "gain": gain.mean,
        "gain_se": gain.se,
        "gain_low": gain.low,
        "gain_high": gain.high,
    }
