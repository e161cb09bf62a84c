"""Error bars of a mean over triplets that share objects.

Two questions have two answers, and a table says in its column `estimand` which one it gives:

- ``"new objects"`` (default): how far might the mean be off for *other objects of the same kind*? Triplets
  that share an object are correlated, so the variance of the sum is the sum of e_t e_u over all pairs of
  triplets (t, u) that share an object, each pair once, where e is the deviation from the mean (dyadic
  cluster-robust variance: Fafchamps & Gubert 2007; Aronow, Samii & Assenova 2015, doi:10.1093/pan/mpv018).
  By inclusion and exclusion it is a sum over objects, minus one over pairs, plus one over sets of three:
  linear in the number of triplets.
- ``"these objects"``: how far might it be off had *the same objects* been judged again? That is binomial.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from ldm_kit.errors import unknown_name
from ldm_kit.measures import kernels
from ldm_kit.measures.grouped import Grouped
from ldm_kit.measures.kernels import in_threads

ESTIMANDS = ("new objects", "these objects")
LEVEL = 0.95
UNVARIED = 1e-12  # a standard error of rounding alone: all triplets score the same


@dataclass(frozen=True)
class Interval:
    """A mean, its standard error and its confidence interval."""

    mean: float
    se: float = float("nan")
    low: float = float("nan")
    high: float = float("nan")
    estimand: str = ""

    @property
    def columns(self) -> dict[str, float | str]:
        """The columns of the tidy table."""
        return {
            "accuracy": self.mean,
            "se": self.se,
            "ci_low": self.low,
            "ci_high": self.high,
            "estimand": self.estimand,
        }


def checked_estimand(ci: bool | str) -> str | None:
    """Turn the argument `ci` of a measure into an estimand, or None for no interval.

    Examples
    --------
    >>> checked_estimand(True), checked_estimand(False)
    ('new objects', None)
    """
    if isinstance(ci, bool):
        return ESTIMANDS[0] if ci else None
    if ci not in ESTIMANDS:
        raise unknown_name("estimand", ci, ESTIMANDS, "Pick one, or ci=True or ci=False.")
    return ci


def interval(
    values: npt.NDArray[np.floating],
    groups: Grouped,
    estimand: str | None = "new objects",
    *,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Interval:
    """Mean of one value a triplet, with its confidence interval.

    Parameters
    ----------
    values : ndarray of float, shape (t,)
        In *grouped* order, e.g. a score in 0 to 1 or a difference of two.
    groups : Grouped
    estimand : {"new objects", "these objects"} or None
    bounds : (float, float)
        What the mean can be at least and at most; the interval is cut there.

    Returns
    -------
    Interval
        All NaN without triplets; the error is NaN where there are too few to tell. Where all scores are the
        same, see `finished`.

    Examples
    --------
    >>> g = Grouped(np.array([[0, 1, 2], [3, 4, 5], [6, 7, 8]]), 9)
    >>> round(interval(np.array([1.0, 0.0, 1.0]), g).mean, 3)
    0.667
    """
    if not len(values):
        return Interval(float("nan"), estimand=estimand or "")
    mean = float(values.mean(dtype=np.float64))
    deviations = values - mean
    clustered = clustered_variance(deviations, groups) if estimand == "new objects" else float("nan")
    return finished(mean, float(np.dot(deviations, deviations)), clustered, groups, estimand, bounds=bounds)


def finished(
    mean: float,
    squares: float,
    clustered: float,
    groups: Grouped,
    estimand: str | None,
    *,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Interval:
    """Make the interval from a mean, the sum of squared deviations and the clustered variance.

    Where all triplets score the same, as ten of ten easily do, the variance is 0, but that does not make the mean
    certain. A mean of scores in 0 to 1 then gets Wilson's interval, for as many independent triplets as there are,
    or, for new objects, as the objects could fill without sharing. A difference of scores gets no width at all:
    it is 0 for cells that choose alike, however many triplets there are. `se` is 0 in either case.

    Examples
    --------
    >>> finished(0.5, 0.5, 0.25, Grouped(np.array([[0, 1, 2], [3, 4, 5]]), 6), "new objects").se
    0.5
    """
    t = len(groups)
    if estimand is None or not t:
        return Interval(mean, estimand=estimand or "")
    if estimand == "these objects":
        variance, freedom = squares / t / max(t - 1, 1), t - 1
    else:
        variance, freedom = clustered, groups.n_used - 1
    if t < 2:
        variance = float("nan")
    se = float(np.sqrt(variance))
    if se <= UNVARIED and bounds == (0.0, 1.0):
        low, high = _wilson(mean, t if estimand == "these objects" else max(groups.n_used / 3, 1))
        return Interval(mean, se, low, high, estimand)
    reach = quantile(freedom) * se
    return Interval(mean, se, max(mean - reach, bounds[0]), min(mean + reach, bounds[1]), estimand)


def proportion(
    values: npt.NDArray[np.floating] | tuple[float, float, float], estimand: str | None
) -> Interval:
    """Mean of independent scores in 0 to 1, with Wilson's interval (right for few of them, too).

    Parameters
    ----------
    values : ndarray of float, or (count, sum, sum of squares)
    estimand : str or None
        Goes into the table; None for no interval.

    Examples
    --------
    >>> found = proportion(np.array([1.0, 1.0, 1.0, 0.0]), "these objects")
    >>> found.mean, round(found.low, 2), round(found.high, 2)
    (0.75, 0.3, 0.95)
    """
    if not isinstance(values, tuple):
        values = len(values), float(values.sum()), float(np.dot(values, values))
    n, total, squares = values
    if not n:
        return Interval(float("nan"), estimand=estimand or "")
    mean = total / n
    if estimand is None:
        return Interval(mean)
    se = float(np.sqrt(max(squares / n - mean**2, 0.0) / n))
    return Interval(mean, se, *_wilson(mean, n), estimand)


def _wilson(mean: float, n: float) -> tuple[float, float]:
    """The ends of Wilson's interval for a mean of `n` independent scores in 0 to 1."""
    z = NormalDist().inv_cdf(0.5 + LEVEL / 2)
    middle = (mean + z**2 / (2 * n)) / (1 + z**2 / n)
    reach = z / (1 + z**2 / n) * np.sqrt(max(mean * (1 - mean), 0.0) / n + z**2 / (4 * n**2))
    return max(float(middle - reach), 0.0), min(float(middle + reach), 1.0)


def clustered_variance(deviations: npt.NDArray[np.floating], groups: Grouped) -> float:
    """Variance of a mean over triplets, robust to their sharing objects.

    Parameters
    ----------
    deviations : ndarray of float, shape (t,)
        Deviations from the mean, in grouped order.
    groups : Grouped

    Returns
    -------
    float
        (sum over objects of E_o² - over pairs of E_op² + over sets of E_opq²) / t², each E being the
        sum of the deviations of the triplets that hold the object, the pair, the set: a pair of triplets
        sharing 1, 2 or 3 objects is counted 1, 2 - 1 or 3 - 3 + 1 times. Then divided by 1 - s, with s
        the share of pairs of triplets that share an object: as the mean was estimated from the same
        triplets, the sum is expected to be s times the variance too small. Never less than the variance
        without sharing (the difference may come out lower, even negative, by chance). NaN if every two
        triplets share an object: they tell nothing about other objects.

    Examples
    --------
    >>> apart = Grouped(np.array([[0, 1, 2], [3, 4, 5]]), 6)
    >>> clustered_variance(np.array([0.5, -0.5]), apart)
    0.25
    """
    total, sets = _sum_over_sharing(deviations, groups)
    apart = 1 - sharing(groups)
    return max(total / apart, sets) / len(groups) ** 2 if apart > 1e-9 else float("nan")


def sharing(groups: Grouped) -> float:
    """Share of the ordered pairs of triplets (with itself, too) that have an object in common.

    Examples
    --------
    >>> sharing(Grouped(np.array([[0, 1, 2], [3, 4, 5]]), 6))
    0.5
    """
    if groups.sharing is None:
        total = _sum_over_sharing(np.ones(len(groups)), groups)[0]
        object.__setattr__(groups, "sharing", total / len(groups) ** 2)
    return float(groups.sharing or 0.0)


def _sum_over_sharing(values: npt.NDArray[np.floating], groups: Grouped) -> tuple[float, float]:
    """Sum of v_t v_u over pairs of triplets that share an object, and over those of the same three."""
    objects, pairs = _sums(values, groups)
    sets = float(np.dot(values, values))
    position, number = groups.repeats
    if position.size:
        repeated = values[position]
        sets += float(np.sum(np.bincount(number, weights=repeated) ** 2) - np.dot(repeated, repeated))
    return float(np.dot(objects, objects)) - float(kernels.sum_of_squared_pairs(pairs)) + sets, sets


def _sums(
    values: npt.NDArray[np.floating], groups: Grouped
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Sums of the values over each object and over each pair (both halves of `pairs` add up)."""

    def work(part: tuple[int, int]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        objects, pairs = np.zeros(groups.n), np.zeros((groups.n, groups.n))
        kernels.sum_by_object_and_pair(values, *groups.loops, part[0], part[1], objects, pairs)
        return objects, pairs

    done = in_threads(work, groups.parts)
    objects, pairs = done[0]
    for more_objects, more_pairs in done[1:]:
        objects += more_objects
        pairs += more_pairs
    return objects, pairs


@lru_cache(maxsize=256)
def quantile(freedom: int) -> float:
    """Two-sided quantile of Student's t at `LEVEL`."""
    from scipy.special import stdtrit

    return float(stdtrit(max(freedom, 1), 0.5 + LEVEL / 2))
