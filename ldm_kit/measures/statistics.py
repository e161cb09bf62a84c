"""Error bars of a mean over triplets that share objects, and corrections for how many means are compared.

Two questions have two answers, and a table's column `estimand` states which one it holds:

- ``"new objects"`` (default): how far might the mean be off for *other objects of the same kind*? Triplets
  that share an object are correlated, so the variance of the sum is the sum of e_t e_u over all pairs of
  triplets (t, u) that share an object, each pair once, where e is the deviation from the mean (dyadic
  cluster-robust variance: Fafchamps & Gubert 2007; Aronow, Samii & Assenova 2015, doi:10.1093/pan/mpv018).
  By inclusion and exclusion it is a sum over objects, minus one over pairs, plus one over sets of three:
  linear in the number of triplets.
- ``"these objects"``: how far might it be off had *the same objects* been judged again? That is binomial.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import stdtr, stdtrit

from ldm_kit.datasets.triplets import Triplets, checked_indices
from ldm_kit.errors import MismatchError, one_of
from ldm_kit.measures import kernels
from ldm_kit.measures.grouped import Grouped
from ldm_kit.measures.kernels import in_threads

ESTIMANDS = ("new objects", "these objects")
CORRECTIONS = ("holm", "bh", "none")
LEVEL = 0.95
UNVARIED = 1e-12  # a standard error of rounding alone: all triplets score the same
SIXTHS = 6  # a zero-shot score is 0, 1/3, 1/2 or 1: a whole number of sixths


@dataclass(frozen=True)
class Interval:
    """A mean, its standard error, its 95 % confidence interval (NaN where there is none), and the estimand."""

    mean: float
    se: float = float("nan")
    low: float = float("nan")
    high: float = float("nan")
    estimand: str = ""

    @property
    def columns(self) -> dict[str, float | str]:
        """The columns of the tidy table."""
        names = ("accuracy", "se", "ci_low", "ci_high", "estimand")
        return dict(zip(names, (self.mean, self.se, self.low, self.high, self.estimand), strict=True))


def score_interval(
    scores: npt.ArrayLike,
    triplets: Triplets | npt.ArrayLike,
    ci: bool | str = True,
    *,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Interval:
    """Mean of one value a triplet, with its 95 % interval: of `triplet_scores`, or of a difference of two.

    Parameters
    ----------
    scores : array-like of float, shape (t,)
        One value a triplet, in the order of `triplets`.
    triplets : Triplets or array-like of int, shape (t, 3)
        Which objects each value is about: triplets that share objects are not independent.
    ci : bool or {"new objects", "these objects"}
        What the interval generalises over: other objects of the same kind (also `True`), or the same ones judged again.
    bounds : (float, float)
        The least and the greatest that the mean can be; (-1, 1) for a difference of scores.

    Returns
    -------
    Interval
        With `mean`, `se`, `low`, `high` and `estimand`. Where all scores in 0 to 1 are the same, the interval is Wilson's; a
        difference that is 0 throughout has no width. NaN without triplets, or with too few to estimate it.

    Raises
    ------
    MismatchError
        If there is not one score a triplet.

    References
    ----------
    Aronow, Samii & Assenova 2015, doi:10.1093/pan/mpv018 (variance where observations share objects).

    Examples
    --------
    >>> found = score_interval([1.0, 0.0, 1.0], [[0, 1, 2], [3, 4, 5], [6, 7, 8]])
    >>> round(found.mean, 3), round(found.se, 3)
    (0.667, 0.333)
    """
    indices = checked_indices(triplets.indices if isinstance(triplets, Triplets) else triplets, None)
    values = np.asarray(scores, dtype=np.float64)
    if values.shape != (len(indices),):
        raise MismatchError(
            f"The scores have shape {values.shape}, and there are {len(indices)} triplets. Pass one score for each triplet."
        )
    groups = Grouped(indices, int(indices.max(initial=-1)) + 1)
    return interval(values[groups.order], groups, checked_estimand(ci), bounds=bounds)


def checked_estimand(ci: bool | str) -> str | None:
    """Turn the argument `ci` of a measure into an estimand, or None for no interval.

    Examples
    --------
    >>> checked_estimand(True), checked_estimand(False)
    ('new objects', None)
    """
    if isinstance(ci, bool):
        return ESTIMANDS[0] if ci else None
    return one_of("estimand", ci, ESTIMANDS, "Choose one, or ci=True or ci=False.")


def interval(
    values: npt.NDArray[np.floating],
    groups: Grouped,
    estimand: str | None = "new objects",
    *,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Interval:
    """Mean of one value a triplet, in *grouped* order, with its interval; see `score_interval`."""
    if not len(values):
        return Interval(float("nan"), estimand=estimand or "")
    mean = float(values.mean(dtype=np.float64))
    deviations = values - mean
    clustered = clustered_variance(deviations, groups) if estimand == "new objects" else float("nan")
    return _finished(mean, float(np.dot(deviations, deviations)), clustered, groups, estimand, bounds)


def interval_of_codes(
    codes: npt.NDArray[np.uint8], score: npt.NDArray[np.float64], groups: Grouped, estimand: str | None
) -> tuple[Interval, npt.NDArray[np.int64]]:
    """What `interval` returns for ``score[codes]``, and how many triplets bear each code.

    Scores are added in whole sixths of two bytes, which takes a third of the time that adding floats takes, rounds nothing,
    and needs no mean beforehand: the interval costs about as much as the choices themselves.

    Examples
    --------
    >>> groups = Grouped(np.array([[0, 1, 2], [3, 4, 5]]), 6)
    >>> interval_of_codes(np.array([4, 1], np.uint8), np.eye(8)[4], groups, None)[0].mean
    0.5
    """
    sixths = np.rint(score * SIXTHS).astype(np.int64)
    if estimand == "new objects" and len(codes):
        most = 2 * SIXTHS * int(groups.everything.pairs.max(initial=0))
        found = groups.tally(codes, sixths, np.int16 if most <= np.iinfo(np.int16).max else np.int32)
        counts = found.counts
        mean = float(counts @ sixths) / len(codes)
        objects, pairs = groups.squared_sums(found, mean)
        position, number = groups.repeats
        sets = _sum_over_sets(float(counts @ (sixths - mean) ** 2), sixths[codes[position]] - mean, number)
        clustered = _variance(objects - pairs + sets, sets, groups)
    else:
        counts, clustered = np.zeros(8, np.int64), float("nan")
        kernels.count_codes(codes, counts)
        mean = float(counts @ sixths) / len(codes) if len(codes) else float("nan")
    squares, whole = float(counts @ (sixths - mean) ** 2), SIXTHS**2
    return _finished(mean / SIXTHS, squares / whole, clustered / whole, groups, estimand), counts


def clustered_variance(deviations: npt.NDArray[np.floating], groups: Grouped) -> float:
    """Variance of a mean over triplets, robust to their sharing objects, from grouped deviations.

    (Sum over objects of E_o² - over pairs of E_op² + over sets of E_opq²) / t², each E being the sum of the
    deviations of the triplets that hold the object, the pair, the set: a pair of triplets sharing 1, 2 or 3 objects is
    counted 1, 2 - 1 or 3 - 3 + 1 times. Then divided by 1 - s, with s the share of pairs of triplets that share an
    object: as the mean was estimated from the same triplets, the sum is expected to be s times the variance too
    small. Never less than the variance without sharing (the difference may come out lower, even negative, by chance).
    NaN if every two triplets share an object: they hold no information about other objects.

    Examples
    --------
    >>> clustered_variance(np.array([0.5, -0.5]), Grouped(np.array([[0, 1, 2], [3, 4, 5]]), 6))
    0.25
    """

    def work(part: tuple[int, int]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        objects, pairs = np.zeros(groups.n), np.zeros((groups.n, groups.n))
        kernels.sum_by_object_and_pair(deviations, *groups.loops, part[0], part[1], objects, pairs)
        return objects, pairs

    (objects, pairs), *others = in_threads(work, groups.parts)
    for more_objects, more_pairs in others:
        objects += more_objects
        pairs += more_pairs
    position, number = groups.repeats
    sets = _sum_over_sets(float(np.dot(deviations, deviations)), deviations[position], number)
    total = float(np.dot(objects, objects)) - float(kernels.sum_of_squared_pairs(pairs)) + sets
    return _variance(total, sets, groups)


def _sum_over_sets(
    squares: float, repeated: npt.NDArray[np.floating], number: npt.NDArray[np.int64]
) -> float:
    """Sum over sets of three of the squared sum, from the sum of squares and the values of sets judged repeatedly."""
    if not len(repeated):
        return squares
    return squares + float(np.sum(np.bincount(number, weights=repeated) ** 2) - np.dot(repeated, repeated))


def _variance(total: float, sets: float, groups: Grouped) -> float:
    """The last steps of `clustered_variance`."""
    apart = 1 - groups.sharing
    return max(total / apart, sets) / len(groups) ** 2 if apart > 1e-9 else float("nan")


def _finished(
    mean: float,
    squares: float,
    clustered: float,
    groups: Grouped,
    estimand: str | None,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Interval:
    """Make the interval from a mean, the sum of squared deviations and the clustered variance.

    Where all triplets score the same, as ten of ten easily do, the variance is 0, but the mean is not
    certain. A mean of scores in 0 to 1 then gets Wilson's interval, for as many independent triplets as there are,
    or, for new objects, as the objects could fill without sharing. A difference of scores has no width:
    it is 0 for cells that choose alike, however many triplets there are. `se` is 0 in either case.
    """
    t = len(groups)
    if estimand is None or not t:
        return Interval(mean, estimand=estimand or "")
    if estimand == "these objects":
        variance, freedom, independent = squares / t / max(t - 1, 1), t - 1, float(t)
    else:
        variance, freedom, independent = clustered, groups.n_used - 1, max(groups.n_used / 3, 1)
    se = float(np.sqrt(variance)) if t > 1 else float("nan")
    if se <= UNVARIED and bounds == (0.0, 1.0):
        return Interval(mean, se, *_wilson(mean, independent), estimand)
    reach = quantile(freedom) * se
    return Interval(mean, se, max(mean - reach, bounds[0]), min(mean + reach, bounds[1]), estimand)


def proportion(n: int, total: float, squares: float, estimand: str | None) -> Interval:
    """Mean of `n` independent scores in 0 to 1 from their sum and sum of squares, with Wilson's interval.

    Examples
    --------
    >>> found = proportion(4, 3.0, 3.0, "these objects")
    >>> found.mean, round(found.low, 2), round(found.high, 2)
    (0.75, 0.3, 0.95)
    """
    mean = total / n
    if estimand is None:
        return Interval(mean)
    se = float(np.sqrt(max(squares / n - mean**2, 0.0) / n))
    return Interval(mean, se, *_wilson(mean, n), estimand)


def _wilson(mean: float, n: float) -> tuple[float, float]:
    """The ends of Wilson's interval for a mean of `n` independent scores in 0 to 1 (right for few of them, too)."""
    z = NormalDist().inv_cdf(0.5 + LEVEL / 2)
    middle = (mean + z**2 / (2 * n)) / (1 + z**2 / n)
    reach = z / (1 + z**2 / n) * np.sqrt(max(mean * (1 - mean), 0.0) / n + z**2 / (4 * n**2))
    return max(float(middle - reach), 0.0), min(float(middle + reach), 1.0)


def quantile(freedom: int) -> float:
    """Two-sided quantile of Student's t at `LEVEL`."""
    return float(stdtrit(max(freedom, 1), 0.5 + LEVEL / 2))


def corrected(found: Sequence[tuple[float, float, int]], correction: str = "holm") -> list[dict[str, float]]:
    """Correct differences for how many of them there are: their p, and the intervals that agree with it.

    For each (difference, standard error, degrees of freedom): `p` (two-sided, Student's t), `p_corrected`,
    `n_compared` (1 without a correction), and `low_corrected` and `high_corrected`: the interval of the level at which
    the correction tested this difference, so that it excludes zero exactly where `p_corrected` is below 0.05
    (Ludbrook 2000).

    Examples
    --------
    >>> first, second = corrected([(0.04, 0.015, 60), (0.04, 0.019, 60)])
    >>> round(first["p_corrected"], 3), first["low_corrected"] > 0
    (0.02, True)
    """
    p = np.array([_p_value(*one) for one in found])
    rows: list[dict[str, Any]] = []
    for (mean, se, freedom), raw, new in zip(found, p.tolist(), raised(p, correction).tolist(), strict=True):
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


def raised(p: npt.NDArray[np.float64], correction: str) -> npt.NDArray[np.float64]:
    """Corrected p values, not yet cut at 1: Holm's, Benjamini and Hochberg's, or as they are.

    Examples
    --------
    >>> raised(np.array([0.01, 0.04, 0.03]), "holm").round(6).tolist()
    [0.03, 0.06, 0.06]
    """
    if correction == "none":
        return p
    m, order = len(p), np.argsort(p, kind="stable")
    out = np.empty(m)
    if correction == "holm":
        out[order] = np.maximum.accumulate((m - np.arange(m)) * p[order])
    else:
        out[order[::-1]] = np.minimum.accumulate((p[order] * m / (np.arange(m) + 1))[::-1])
    return out


def _p_value(difference: float, se: float, freedom: int) -> float:
    """Two-sided p of Student's t; 1 for no difference at all."""
    if difference == 0:
        return 1.0
    if se == 0:
        return 0.0
    return float(2 * stdtr(max(freedom, 1), -abs(difference) / se))
