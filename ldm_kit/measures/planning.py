"""How many objects, triplets, people and noise samples a study needs, for a wanted half-width or power."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import nctdtr, ndtr, stdtrit

from ldm_kit.errors import BadInputError, real_number, whole_number
from ldm_kit.measures.statistics import LEVEL
from ldm_kit.measures.variances import CLIP, TERMS, Numbers, VarianceModel

LEAST = {"objects": 3, "triplets": 1, "people": 1, "draws": 1}
MOST = 10**9  # a larger number counts as none
NORMAL = 1e5  # degrees of freedom from which Student's t is taken for normal


def plan_study(
    half_width: float | None = None,
    effect: float | None = None,
    power: float | None = None,
    *,
    n_objects: float | Iterable[float] | None = None,
    n_triplets: float | Iterable[float] | None = None,
    n_people: float | Iterable[float] | None = None,
    n_draws: float | Iterable[float] | None = None,
    triplets_per_person: int | None = None,
    variances: VarianceModel = CLIP,
) -> pd.DataFrame:
    """How large a study must be for a 95 % interval of a wanted half-width, or to find an effect with a wanted power.

    Parameters
    ----------
    half_width : float, optional
        Wanted half-width of the interval, in units of accuracy: 0.01 for ±0.01.
    effect, power : float, optional
        The other way: the wanted probability (0.9 by default) that the interval of an effect of this size excludes zero.
    n_objects, n_triplets, n_people, n_draws : int or sequence of int, optional
        What is fixed; with sequences, each combination is a design. None: solved for. Of several that are solved for,
        each gets the same share of the variance that the fixed ones leave. `n_triplets` counts judgements.
    triplets_per_person : int, optional
        Each person judges so many, so ``n_triplets = triplets_per_person * n_people``, and `n_triplets` is not given.
    variances : VarianceModel
        From `fit_variances` or by hand. By default what was seen on CLIP, SE² = 0.024 / n_objects + 0.32 / n_triplets +
        0.05² / n_people, and nothing between noise samples, as CLIP takes no noise: for a denoiser give `draws`, the variance
        between noise samples of the accuracy with one.

    Returns
    -------
    pandas.DataFrame
        A row a design: `n_objects`, `n_triplets`, `n_people`, `n_draws`; `se`, `half_width`, `power` (NaN without an
        effect); `limited_by`, the largest term of SE²; `enough`, whether the design does what is wanted; `wanted` (half-width
        or power) and `effect`; `note`. Where no number is enough, what was solved for is <NA>, `se`, `half_width` and `power`
        are what ever larger numbers approach, and `note` says so. Half-widths are infinite for a single person, or
        a single noise sample, if these vary: nothing says by how much.

    Raises
    ------
    BadInputError
        If both ways or none are given, or a number is out of range.

    References
    ----------
    Satterthwaite 1946, doi:10.2307/3002019 (degrees of freedom); power is that of the noncentral t.

    Examples
    --------
    >>> plan_study(half_width=0.03, n_objects=[100, 335], n_people=30)[["n_triplets", "enough", "limited_by"]]
       n_triplets  enough limited_by
    0        <NA>   False    objects
    1        4205    True     people
    """
    goal = _Goal.checked(half_width, effect, power)
    given = dict(zip(TERMS, (n_objects, n_triplets, n_people, n_draws), strict=True))
    if triplets_per_person is not None:
        whole_number("triplets_per_person", triplets_per_person, 1)
        if n_triplets is not None:
            raise BadInputError(
                f"n_triplets={n_triplets!r} and triplets_per_person={triplets_per_person}: give one of the two."
            )
    designs = itertools.product(*(_listed(term, given[term]) for term in TERMS))
    rows = [
        _planned(dict(zip(TERMS, design, strict=True)), triplets_per_person, variances, goal)
        for design in designs
    ]
    return pd.DataFrame(rows).astype({f"n_{term}": "Int64" for term in TERMS})


@dataclass(frozen=True)
class _Goal:
    """A wanted half-width, or a wanted power for an effect; `wanted` is the one or the other."""

    wanted: float
    effect: float = math.nan

    @classmethod
    def checked(cls, half_width: float | None, effect: float | None, power: float | None) -> _Goal:
        """Read the two ways of asking."""
        if (half_width is None) == (effect is None) or (half_width is not None and power is not None):
            raise BadInputError(
                f"half_width={half_width}, effect={effect}, power={power}: give either half_width=0.01, the wanted "
                "half-width of the interval, or effect=0.02, power=0.9, the effect to be found."
            )
        if half_width is not None:
            return cls(real_number("half_width", half_width, positive=True))
        power = 0.9 if power is None else power
        if not 1 - LEVEL < real_number("power", power) < 1:
            raise BadInputError(f"power={power}: give a probability between {1 - LEVEL:.2f} and 1.")
        return cls(power, real_number("effect", effect, positive=True))

    def found(self, variances: VarianceModel, numbers: Numbers) -> dict[str, Any]:
        """The columns of the table for a study of that size."""
        terms, freedom = variances.terms(numbers), variances.freedom(numbers)
        se = math.sqrt(sum(terms.values()))
        reach = (float(stdtrit(freedom, 0.5 + LEVEL / 2)) if freedom else math.inf) if se else 0.0
        by_effect = not math.isnan(self.effect)
        power = _power(self.effect, se, freedom) if by_effect else math.nan
        return {
            **{f"n_{term}": number for term, number in numbers.items()},
            "se": se,
            "half_width": reach * se if se else 0.0,
            "power": power,
            "limited_by": max(terms, key=terms.__getitem__) if se else "",
            "enough": power >= self.wanted if by_effect else reach * se <= self.wanted,
            "wanted": self.wanted,
            "effect": self.effect,
            "note": "",
        }


def _power(effect: float, se: float, freedom: float) -> float:
    """Probability that the interval excludes zero: of a two-sided test at 1 - `LEVEL`, by the noncentral t."""
    if not freedom:
        return 0.0
    if not se:
        return 1.0
    critical, shift = float(stdtrit(freedom, 0.5 + LEVEL / 2)), min(effect / se, 1000.0)
    if freedom > NORMAL:
        return float(ndtr(shift - critical) + ndtr(-shift - critical))
    other = (
        float(nctdtr(freedom, shift, -critical)) if shift < 5 else 0.0
    )  # below 1e-6, and NaN for large shifts
    return float(1 - nctdtr(freedom, shift, critical)) + other


def _listed(term: str, value: Any) -> list[float | None]:
    """The values of one number that designs have: checked, None for one that is solved for."""
    values = [value] if value is None or np.ndim(value) == 0 else list(value)
    if not values:
        raise BadInputError(f"n_{term} is empty: give a number, several, or None to solve for it.")
    return [None if one is None else whole_number(f"n_{term}", one, LEAST[term]) for one in values]


def _planned(
    design: dict[str, float | None], per_person: int | None, variances: VarianceModel, goal: _Goal
) -> dict[str, Any]:
    """A row of the table: the least numbers of what is None that are enough."""
    linked = per_person is not None
    free = [term for term in TERMS if design[term] is None and not (linked and term == "triplets")]
    weight = {term: getattr(variances, term) for term in free}
    if per_person is not None and "people" in free:  # who brings triplets, too
        weight["people"] += variances.triplets / per_person

    def number(term: str, scale: float) -> float:
        if term not in free:
            return design[term] or 0.0
        # What varies is needed twice at least: from one nobody learns by how much.
        least = max(LEAST[term], 2 if getattr(variances, term) else 1)
        size = scale * weight[term] if weight[term] else 0.0
        return max(least, size if math.isinf(size) else math.ceil(size - 1e-9))

    def found(scale: float) -> dict[str, Any]:
        numbers = {term: number(term, scale) for term in TERMS}
        if per_person is not None:
            numbers["triplets"] = numbers["people"] * per_person
        return goal.found(variances, numbers)

    most = max(weight.values(), default=0.0)
    if not most:
        return found(0.0)
    if not found(MOST / most)["enough"]:
        row, needed = found(math.inf), "half_width" if math.isnan(goal.effect) else "power"
        short = [term for term in free if weight[term]]
        solved = [*short, "triplets"] if linked and "people" in short else short
        why = f"ever more approach a {needed.replace('_', '-')} of {row[needed]:.3g}, limited by {row['limited_by']}"
        note = f"more than {MOST:.0e} would be needed" if row["enough"] else why
        blank: dict[str, Any] = {f"n_{term}": None for term in solved}
        return {
            **row,
            **blank,
            "enough": False,
            "note": f"no number of {' and '.join(short)} is enough: {note}",
        }
    low, high = 0, MOST  # of the largest free number: bisection over whole numbers finds the least
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if found(middle / most)["enough"] else (middle, high)
    return found(high / most)
