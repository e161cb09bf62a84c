"""A model of what the mean of triplets' scores varies over, and its estimate from pilot data.

The squared standard error of an odd-one-out accuracy is a sum of four terms,

    SE² = objects / n_objects + triplets / n_triplets + people / n_people + draws / n_draws.

They are the random effects of a generalizability study (Brennan 2001, *Generalizability Theory*): a score is the mean plus
the effects of three objects, a person and a noise sample, plus a rest. `ldm_kit.measures.planning` solves for the numbers.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ldm_kit.datasets.triplets import Triplets
from ldm_kit.errors import BadInputError, MismatchError, real_number
from ldm_kit.measures.grouped import set_keys

TERMS = ("objects", "triplets", "people", "draws")

Numbers = dict[str, float]  # of objects, triplets, people, draws


@dataclass(frozen=True)
class VarianceModel:
    """What a mean over triplets varies over: SE² is the sum of each coefficient over its number.

    Parameters
    ----------
    objects : float
        Nine times the covariance of the scores of two triplets that share an object (each triplet has three objects).
        0 for a statement about these objects alone. For the paired difference of two cells it is smaller than for one cell.
    triplets : float
        Variance of one triplet's score within a person; at most 0.25 if scores are right or wrong.
    people : float
        Variance between people of their true mean scores. 0 for a statement about these people alone.
    draws : float
        Variance between noise samples of the accuracy with one noise sample. 0 if the model takes no noise, or for a
        statement about these samples alone.
    source : str
        Where the numbers come from.

    Raises
    ------
    BadInputError
        If a coefficient is not a finite number of 0 or more.

    Examples
    --------
    >>> model = VarianceModel(objects=0.024, triplets=0.25, people=0)
    >>> round(model.se(n_objects=600, n_triplets=2500, n_people=20), 4)
    0.0118
    """

    objects: float
    triplets: float
    people: float
    draws: float = 0.0
    source: str = "given"

    def __post_init__(self) -> None:
        for term in TERMS:
            object.__setattr__(self, term, real_number(term, getattr(self, term)))

    def terms(self, numbers: Numbers) -> Numbers:
        """Return the four terms of SE²; a number may be infinite.

        Examples
        --------
        >>> VarianceModel(0.02, 0.2, 0).terms({"objects": 10, "triplets": 100, "people": 1, "draws": 1})
        {'objects': 0.002, 'triplets': 0.002, 'people': 0.0, 'draws': 0.0}
        """
        return {term: getattr(self, term) / numbers[term] for term in TERMS}

    def se(self, n_objects: float, n_triplets: float, n_people: float, n_draws: float = 1) -> float:
        """Standard error of the mean in a study of that size."""
        sizes = (n_objects, n_triplets, n_people, n_draws)
        return math.sqrt(sum(self.terms(dict(zip(TERMS, sizes, strict=True))).values()))

    def freedom(self, numbers: Numbers) -> float:
        """Degrees of freedom of SE² (Satterthwaite 1946); 0 if a term cannot be estimated, as from one person.

        The terms' own are (n - 1) / 4 for objects, as many triplets hold each, and n - 1 for the others.

        Examples
        --------
        >>> VarianceModel(0, 0, 0.01).freedom({"objects": 9, "triplets": 1000, "people": 9, "draws": 1})
        8.0
        """
        of_term = {term: (n - 1) / (4 if term == "objects" else 1) for term, n in numbers.items()}
        terms = {term: variance for term, variance in self.terms(numbers).items() if variance > 0}
        if any(of_term[term] <= 0 for term in terms):
            return 0.0
        total = sum(terms.values())
        return total**2 / sum(v**2 / of_term[term] for term, v in terms.items()) if terms else math.inf


# An accuracy in THINGS' human choices. 0.32 has a margin: right or wrong answers vary by 0.25 at most, and `fit_variances` on
# 50,000 of the choices gives 0.025 / n_objects + 0.250 / n_triplets. CLIP takes no noise, so nothing varies between draws.
CLIP = VarianceModel(
    0.024,
    0.32,
    0.05**2,
    0.0,
    source="CLIP on THINGS' human choices (no noise samples); people: an SD of 0.05",
)


def fit_variances(
    scores: npt.ArrayLike, triplets: Triplets, *, people: float | None = None, draws: float | None = None
) -> VarianceModel:
    """Estimate a variance model from pilot data, by the method of moments.

    Half the expected squared difference of two scores is the variance V of a score if the two triplets share neither object
    nor person; V minus the variance of an object's effect if they share one object; V minus the variance of a person's
    effect if they share the person. Each is averaged over all such pairs of triplets, so no mean has to be estimated, and
    the estimates are unbiased in any design. Pairs that share two or three objects are left out.

    Parameters
    ----------
    scores : array-like of float, shape (t,) or (draws, t)
        From `triplet_scores`, in the order of `triplets`; or a paired difference of two cells' scores. A row for each noise
        sample, if there are several.
    triplets : Triplets
        With `subjects`.
    people, draws : float, optional
        Coefficients that the pilot cannot tell: `people` where it has no `subjects` or just one, `draws` (0 if omitted)
        where it has one noise sample.

    Returns
    -------
    VarianceModel
        An estimate below zero becomes 0, with a warning. The fewer people, objects and noise samples the pilot has, the less
        certain their coefficients: from k people by a factor of about 1 ± √(2 / (k - 1)) at best.

    Raises
    ------
    MismatchError
        If there is not one score a triplet.
    BadInputError
        If there is nothing to estimate a coefficient from, or a coefficient is given that the pilot has, too.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> rows, subjects = rng.random((2000, 40)).argsort(axis=1)[:, :3], rng.integers(0, 20, 2000)
    >>> pilot = Triplets(rows, tuple(map(str, range(40))), judgements="simulated", subjects=subjects)
    >>> share = rng.uniform(0.3, 0.7, 20)  # of right answers; its variance is 0.4² / 12 = 0.013
    >>> round(fit_variances(rng.random(2000) < share[subjects], pilot).people, 2)
    0.01
    """
    values = np.atleast_2d(np.asarray(scores, dtype=np.float64))
    if values.ndim != 2 or values.shape[1] != len(triplets):
        raise MismatchError(
            f"The scores have shape {np.shape(scores)}, and there are {len(triplets)} triplets. Pass one cell's score for "
            "each triplet, or an array (draws, triplets)."
        )
    if not np.isfinite(values).all():
        raise BadInputError(
            "Scores are NaN or infinite. Leave out those triplets, with `triplets.take(rows)`."
        )
    _, person = np.unique(
        np.zeros(len(triplets)) if triplets.subjects is None else triplets.subjects, return_inverse=True
    )
    some = len(triplets) > 0 and person.max() > 0
    n_draws = len(values)
    if not some and people is None:
        raise BadInputError(
            "The pilot's triplets name no subjects, or one, so how much people vary is unknown. Give `Triplets` with "
            "`subjects`, or the coefficient: people=0 for these people alone, people=0.0025 for an SD of 0.05."
        )
    for name, value, known in (("people", people, some), ("draws", draws, n_draws > 1)):
        if value is not None and known:
            raise BadInputError(f"{name}={value} is given, and the pilot has several {name}. Leave it out.")
    estimates = _estimates(values, triplets, person)
    if not some:
        estimates["people"] = people or 0.0
    if n_draws == 1:
        estimates["draws"] = draws or 0.0
    missing = [name for name, value in estimates.items() if np.isnan(value)]
    if missing:
        raise BadInputError(
            f"The pilot has too few triplets to estimate {' and '.join(missing)}: it needs pairs of triplets that share one "
            "object, that share none, and several by one person."
        )
    low = {name: value for name, value in estimates.items() if value < -1e-12}
    if low:
        told = ", ".join(f"{name} {value:.2g}" for name, value in low.items())
        warnings.warn(
            f"The pilot is too small to show these variances, which are taken as 0: {told}. A plan that counts on 0 is "
            "too small: use a larger pilot, or `dataclasses.replace(model, people=0.0025)`.",
            stacklevel=2,
        )
    about = f"pilot: {len(triplets)} triplets, {len(triplets.judged)} objects, {person.max() + 1 if some else 'unknown'} people"
    kept = {name: max(float(value), 0.0) for name, value in estimates.items()}
    return VarianceModel(**kept, source=f"{about}, {n_draws} noise sample{'s' if n_draws > 1 else ''}")


def _estimates(
    values: npt.NDArray[np.float64], triplets: Triplets, person: npt.NDArray[np.int64]
) -> dict[str, float]:
    """The coefficients, unbiased, so perhaps below zero; NaN for one person's `people`, one sample's `draws`."""
    n_draws, means = len(values), values.mean(axis=0)
    found = _moments(means, triplets, person)
    for own in values - means if n_draws > 1 else ():
        # Samples vary triplet by triplet, too. That is in the coefficient of the draws, and so is taken out of the others.
        found = found - _moments(own, triplets, person) / (n_draws * (n_draws - 1))
    apart, one_object, one_person = found
    return {
        "objects": 9 * (apart - one_object),
        "triplets": one_person if person.max(initial=0) else apart,
        "people": apart - one_person,
        "draws": float(values.mean(axis=1).var(ddof=1)) if n_draws > 1 else float("nan"),
    }


def _moments(
    values: npt.NDArray[np.float64], triplets: Triplets, person: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Half the mean squared difference of two scores: of triplets that share nothing, one object, the person alone.

    With a single person, "nothing" and "one object" are what the triplets share otherwise. NaN without such a pair.
    """
    n, rows = len(triplets.names), np.sort(triplets.indices, axis=1).T
    pairs = np.stack([rows[0] * n + rows[1], rows[0] * n + rows[2], rows[1] * n + rows[2]])
    sets = set_keys(triplets.indices, n)
    n_people = int(person.max(initial=0)) + 1

    def shared(who: npt.NDArray[np.int64], k: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Sums over pairs of triplets with the same `who` that share none, and exactly one, object."""
        everything = _within(who[None], values)
        by_object, by_pair, by_set = (_within(keys * k + who, values) for keys in (rows, pairs, sets[None]))
        # Sharing m objects is counted m, m (m - 1) / 2 and m (m - 1) (m - 2) / 6 times by the three.
        return everything - by_object + by_pair - by_set, by_object - 2 * by_pair + 3 * by_set

    apart, one = shared(np.zeros_like(person), 1)
    own = np.full(2, np.nan)
    if n_people > 1:
        own, own_one = shared(person, n_people)
        apart, one = apart - own, one - own_one
    return np.array([total / count if count > 0.5 else np.nan for total, count in (apart, one, own)])


def _within(keys: npt.NDArray[np.int64], values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Half the squared differences of all pairs with the same key, added up, and the number of these pairs."""
    _, group = np.unique(keys, return_inverse=True)
    group, each = group.ravel(), np.tile(values - values.mean(), len(keys))
    count = np.bincount(group).astype(np.float64)
    total, squares = np.bincount(group, weights=each), np.bincount(group, weights=each**2)
    return np.array([(count * squares - total**2).sum() / 2, (count * (count - 1)).sum() / 2])
