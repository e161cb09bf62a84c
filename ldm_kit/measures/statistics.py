"""Error bars of a mean over triplets that share objects, and corrections for how many means are compared.

Several questions have several answers, and a table's column `estimand` states which one it holds:

- ``"new objects and people"`` (default where at least two people are known): how far might the mean be off for *other
  objects and other people of the same kind*? Triplets that share an object or a person are correlated, so the variance of
  the sum is the sum of e_t e_u over all pairs of triplets (t, u) that share either, each pair once, where e is the
  deviation from the mean (over objects the dyadic cluster-robust variance: Fafchamps & Gubert 2007; Aronow, Samii &
  Assenova 2015, doi:10.1093/pan/mpv018; over both the multiway one: Cameron, Gelbach & Miller 2011,
  doi:10.1198/jbes.2010.07136). By inclusion and exclusion it is a sum over objects, minus one over pairs, plus one over
  sets of three, plus the same for people: linear in the number of triplets.
- ``"new objects"`` (default where people are not known): the part that triplets sharing an object make up. Pictures of one concept
  are one object here (`groups`).
- ``"these objects"``: how far might it be off had *the same objects* been judged again? That is binomial.

The quantile is Student's, with (n - 1) / 4 degrees of freedom for n objects: an estimated number, Satterthwaite's, was too high where
the variance had come out too low, and let twice as many errors pass (simulation: tests/benchmarks/README.md). For people, one fewer
than there are (than would weigh as much, judging equally often); the two are combined by Satterthwaite 1946, doi:10.2307/3002019.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import stdtr, stdtrit

from ldm_kit.datasets.triplets import Triplets, checked_indices
from ldm_kit.errors import BadInputError, MismatchError, one_of
from ldm_kit.measures import kernels
from ldm_kit.measures.cells import Cell, groups_of
from ldm_kit.measures.grouped import Grouped
from ldm_kit.measures.kernels import in_threads

ESTIMANDS = ("new objects and people", "new objects", "these objects")
NEW = ESTIMANDS[:2]
CORRECTIONS = ("holm", "bh", "none")
LEVEL = 0.95
OBJECTS_EACH = 4  # for one degree of freedom
PEOPLE_AT_LEAST = (
    0.6  # share of the variance that counts as people's for degrees of freedom: without, 91 % with 5 people
)
UNVARIED = 1e-12  # a standard error of rounding alone: all triplets score the same
SIXTHS = 6  # a zero-shot score is 0, 1/3, 1/2 or 1: a whole number of sixths


@dataclass(frozen=True)
class Interval:
    """A mean, its standard error, its 95 % confidence interval (NaN where there is none), what it generalises over.

    `freedom` is the (effective) degrees of freedom of the standard error; `n_people` how many people judged, where they are known.
    """

    mean: float
    se: float = float("nan")
    low: float = float("nan")
    high: float = float("nan")
    estimand: str = ""
    freedom: float = float("nan")
    n_people: int | None = None

    @property
    def columns(self) -> dict[str, Any]:
        """The columns of the tidy table."""
        people = {} if self.n_people is None else {"n_people": self.n_people}
        return {
            "accuracy": self.mean,
            "se": self.se,
            "ci_low": self.low,
            "ci_high": self.high,
            "estimand": self.estimand,
            "freedom": self.freedom,
            **people,
        }


def score_interval(
    scores: npt.ArrayLike,
    triplets: Triplets | npt.ArrayLike,
    ci: bool | str = True,
    *,
    groups: Any = None,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Interval:
    """Mean of one value a triplet, with its 95 % interval: of `triplet_scores`, or of a difference of two.

    Parameters
    ----------
    scores : array-like of float, shape (t,)
        One value a triplet, in the order of `triplets`.
    triplets : Triplets or array-like of int, shape (t, 3)
        Which objects each value is about: triplets that share objects are not independent.
    ci : bool or {"new objects and people", "new objects", "these objects"}
        What the interval generalises over: other objects, and other people where at least two are known (also `True`), or
        the same ones judged again.
    groups : mapping of stimulus name to group, or one group for each stimulus, optional
        Which objects are one, such as several pictures of a concept; by default each is its own.
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
    if isinstance(triplets, Triplets):
        grouped = Grouped.of(triplets)
    else:
        grouped = Grouped(indices, int(indices.max(initial=-1)) + 1)
    if groups is not None:
        grouped = grouped.clustered(
            groups_of(groups, Cell({"block": "scores"}, tuple), grouped.n, grouped.names)
        )
    return interval(values[grouped.order], grouped, checked_estimand(ci), bounds=bounds)


def checked_estimand(ci: bool | str) -> str | None:
    """Turn the argument `ci` of a measure into an estimand, or None for no interval; "" leaves it to the data.

    Examples
    --------
    >>> checked_estimand(True), checked_estimand("these objects"), checked_estimand(False)
    ('', 'these objects', None)
    """
    if isinstance(ci, bool):
        return "" if ci else None
    return one_of("estimand", ci, ESTIMANDS, "Choose one, or ci=True or ci=False.")


def settled(estimand: str | None, groups: Grouped) -> str | None:
    """The estimand, where it was left to the data: people are new where at least two are known."""
    if estimand == "":
        return ESTIMANDS[0] if groups.people is not None else ESTIMANDS[1]
    if estimand == ESTIMANDS[0] and len(groups) and groups.people is None:
        known = "nobody's judgements are marked" if groups.subjects is None else "one person judged them all"
        raise BadInputError(
            f"An interval over new people needs judgements of two people or more: {known}. Give triplets whose `subjects` "
            'say who judged, or ask for ci="new objects".'
        )
    return estimand


def interval(
    values: npt.NDArray[np.floating],
    groups: Grouped,
    estimand: str | None = "",
    *,
    bounds: tuple[float, float] = (0.0, 1.0),
    more: float = 0.0,
) -> Interval:
    """Mean of one value a triplet, in *grouped* order, with its interval; see `score_interval`.

    `more` is variance of the mean that the values do not show, such as that between draws of noise.
    """
    estimand = settled(estimand, groups)
    if not len(values):
        return Interval(float("nan"), estimand=estimand or "")
    mean = float(values.mean(dtype=np.float64))
    deviations = values - mean
    squares = float(np.dot(deviations, deviations))
    parts = _parts(deviations, groups, estimand) if estimand in NEW else _again(squares, len(values))
    return _finished(mean, parts, groups, estimand, bounds, more)


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
    estimand = settled(estimand, groups)
    if estimand in NEW and groups.clusters is not None:
        counts = np.bincount(codes, minlength=8).astype(np.int64)
        return interval(score[codes], groups, estimand), counts
    sixths = np.rint(score * SIXTHS).astype(np.int64)
    whole = SIXTHS**2
    if estimand in NEW and len(codes):
        most = 2 * SIXTHS * int(groups.everything.pairs.max(initial=0))
        found = groups.tally(codes, sixths, np.int16 if most <= np.iinfo(np.int16).max else np.int32)
        counts = found.counts
        mean = float(counts @ sixths) / len(codes)
        objects, pairs = groups.squared_sums(found, mean)
        position, number = groups.repeats
        sets = _sum_over_sets(float(counts @ (sixths - mean) ** 2), sixths[codes[position]] - mean, number)
        people = 0.0
        if estimand == ESTIMANDS[0] and groups.people is not None:
            people = groups.people.apart(codes, sixths.astype(np.float64) - mean) / whole
        parts = _variances((objects - pairs + sets) / whole, sets / whole, people, groups, estimand)
    else:
        counts = np.zeros(8, np.int64)
        kernels.count_codes(codes, counts)
        mean = float(counts @ sixths) / len(codes) if len(codes) else float("nan")
        parts = _again(float(counts @ (sixths - mean) ** 2) / whole, len(codes))
    return _finished(mean / SIXTHS, parts, groups, estimand), counts


def clustered_variance(
    deviations: npt.NDArray[np.floating], groups: Grouped, estimand: str = "new objects"
) -> float:
    """Variance of a mean over triplets, robust to their sharing objects (and people), from grouped deviations.

    (Sum over objects of E_o² - over pairs of E_op² + over sets of E_opq²) / t², each E being the sum of the
    deviations of the triplets that hold the object, the pair, the set: a pair of triplets sharing 1, 2 or 3 objects is
    counted 1, 2 - 1 or 3 - 3 + 1 times. For new people, too: plus the sum of e_t e_u over pairs of triplets of one person
    that share no object, unless that is negative. Then divided by 1 - s, with s the share of pairs of triplets that share an
    object or a person: as the mean was estimated from the same triplets, the sum is expected to be s times the variance too
    small. Never less than the variance without sharing (the difference may come out lower, even negative, by chance).
    NaN if every two triplets share: they hold no information about others.

    Examples
    --------
    >>> clustered_variance(np.array([0.5, -0.5]), Grouped(np.array([[0, 1, 2], [3, 4, 5]]), 6))
    0.25
    """
    return _parts(deviations, groups, estimand).variance


def standard_error(deviations: npt.NDArray[np.floating], groups: Grouped, estimand: str) -> float:
    """Standard error of a weighted mean, from each grouped triplet's deviation times its weight (weights have mean 1)."""
    if estimand in NEW:
        return float(np.sqrt(_parts(deviations, groups, estimand).variance))
    return float(np.sqrt(_again(float(np.dot(deviations, deviations)), len(deviations)).variance))


class _Variances(NamedTuple):
    """Variance of a mean from objects (with single judgements) and from people, and the degrees of freedom of either.

    `independent` is how many triplets without a shared object the mean is worth.
    """

    objects: float
    people: float
    freedom: tuple[float, float | None]
    independent: float

    @property
    def variance(self) -> float:
        return self.objects + self.people

    @property
    def satterthwaite(self) -> float:
        """Degrees of freedom of the sum (Satterthwaite 1946); the part of few people may have come out too small."""
        below = self.objects**2 / self.freedom[0]
        if self.freedom[1] is not None:
            below += max(self.people, PEOPLE_AT_LEAST * self.variance) ** 2 / self.freedom[1]
        return self.variance**2 / below if below > 0 else self.freedom[0]


def _again(squares: float, t: int) -> _Variances:
    """Variance of a mean, had the same objects been judged again: binomial, from the sum of squared deviations."""
    variance = squares / t / max(t - 1, 1) if t else float("nan")
    return _Variances(variance if t > 1 else float("nan"), 0.0, (max(t - 1, 1), None), float(t))


def _parts(deviations: npt.NDArray[np.floating], groups: Grouped, estimand: str) -> _Variances:
    """The parts of `clustered_variance`."""
    people = 0.0
    if estimand == ESTIMANDS[0] and groups.people is not None:
        people = groups.people.apart(deviations)
    if groups.overlaps is not None:
        return _variances(*groups.overlaps(deviations.astype(np.float64)), people, groups, estimand)

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
    return _variances(total, sets, people, groups, estimand)


def _sum_over_sets(
    squares: float, repeated: npt.NDArray[np.floating], number: npt.NDArray[np.int64]
) -> float:
    """Sum over sets of three of the squared sum, from the sum of squares and the values of sets judged repeatedly."""
    if not len(repeated):
        return squares
    return squares + float(np.sum(np.bincount(number, weights=repeated) ** 2) - np.dot(repeated, repeated))


def _variances(total: float, sets: float, people: float, groups: Grouped, estimand: str) -> _Variances:
    """The last steps of `clustered_variance`: from sums over pairs of triplets to variances of their mean."""
    two_way = estimand == ESTIMANDS[0] and groups.people is not None
    shared = groups.sharing + (groups.sharing_of_people if two_way else 0.0)
    apart, t, n = 1 - shared, len(groups), groups.n_clusters
    of_people = max(groups.people.freedom, 1) if two_way and groups.people else None
    freedom = (max((n - 1) / OBJECTS_EACH, 1), of_people)
    objects, apart = (total / apart, apart) if apart > 1e-9 else (float("nan"), float("nan"))
    variances = max(objects, sets) / t**2, max(people, 0.0) / apart / t**2
    return _Variances(*variances, freedom, max(n / 3, 1))


def _finished(
    mean: float,
    parts: _Variances,
    groups: Grouped,
    estimand: str | None,
    bounds: tuple[float, float] = (0.0, 1.0),
    more: float = 0.0,
) -> Interval:
    """Make the interval from a mean and the parts of its variance.

    Where all triplets score the same, as ten of ten easily do, the variance is 0, but the mean is not
    certain. A mean of scores in 0 to 1 then gets Wilson's interval, for as many independent triplets as there are,
    or, for new objects, as the objects could fill without sharing. A difference of scores has no width:
    it is 0 for cells that choose alike, however many triplets there are. `se` is 0 in either case.
    """
    t = len(groups)
    n_people = None if groups.people is None else groups.people.n
    if estimand is None or not t:
        return Interval(mean, estimand=estimand or "", n_people=n_people)
    se = float(np.sqrt(parts.variance + more)) if t > 1 else float("nan")
    freedom = parts.satterthwaite
    if se <= UNVARIED and bounds == (0.0, 1.0):
        return Interval(mean, se, *_wilson(mean, parts.independent), estimand, freedom, n_people)
    reach = quantile(freedom) * se
    low, high = max(mean - reach, bounds[0]), min(mean + reach, bounds[1])
    return Interval(mean, se, low, high, estimand, freedom, n_people)


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
    return Interval(mean, se, *_wilson(mean, n), estimand, n - 1)


def _wilson(mean: float, n: float) -> tuple[float, float]:
    """The ends of Wilson's interval for a mean of `n` independent scores in 0 to 1 (right for few of them, too)."""
    z = NormalDist().inv_cdf(0.5 + LEVEL / 2)
    middle = (mean + z**2 / (2 * n)) / (1 + z**2 / n)
    reach = z / (1 + z**2 / n) * np.sqrt(max(mean * (1 - mean), 0.0) / n + z**2 / (4 * n**2))
    return max(float(middle - reach), 0.0), min(float(middle + reach), 1.0)


def quantile(freedom: float) -> float:
    """Two-sided quantile of Student's t at `LEVEL`."""
    return float(stdtrit(max(freedom, 1), 0.5 + LEVEL / 2))


def corrected(
    found: Sequence[tuple[float, float, float]], correction: str = "holm"
) -> list[dict[str, float]]:
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
                "correction": correction,
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


def _p_value(difference: float, se: float, freedom: float) -> float:
    """Two-sided p of Student's t; 1 for no difference at all."""
    if difference == 0:
        return 1.0
    if se == 0:
        return 0.0
    return float(2 * stdtr(max(freedom, 1), -abs(difference) / se))
