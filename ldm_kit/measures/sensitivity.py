"""A second opinion on one cell: a logistic model with crossed random effects of objects and people."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse
from scipy.special import expit, stdtrit

from ldm_kit.datasets.triplets import Triplets
from ldm_kit.errors import BadInputError, MismatchError
from ldm_kit.measures.statistics import LEVEL, score_interval
from ldm_kit.tables import tidy

MOST_TIES = 0.05  # share of triplets that may be left out
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(40)


def crossed_logistic(scores: npt.ArrayLike, triplets: Triplets) -> pd.DataFrame:
    """Accuracy by a logistic model with random effects of objects and people, beside the default estimate.

    The log odds that a triplet is right are a mean, plus an effect of each of its three objects, plus one of the person: normal
    effects, crossed. `statsmodels.BinomialBayesMixedGLM` fits it by variational Bayes. If both rows agree, the result does not
    hang on how the default interval is made. A sensitivity analysis for some thousands of triplets, not for a whole grid.

    Parameters
    ----------
    scores : array-like of float, shape (t,)
        Of one cell, from `triplet_scores`, in the order of `triplets`. Ties (scores other than 0 and 1) are left out. For a contrast
        of two cells, pass one cell's scores on the triplets where the two differ: 1/2 is then no difference.
    triplets : Triplets
        With `subjects`; without, there is no effect of people, and no statement about new ones.

    Returns
    -------
    pandas.DataFrame
        The tidy table, two rows, `method` "crossed logistic" and "default" (of `score_interval`, on the same triplets). `accuracy` of
        the first is that of a new person on new objects: the logistic function's mean over the effects' normal distribution
        (by Gauss–Hermite quadrature). `sd_objects` and `sd_people` are in log odds. `n_ties` were left out.

    Raises
    ------
    MismatchError
        If there is not one score a triplet.
    BadInputError
        If scores lie outside 0 to 1, more than 5 % are ties, or all are the same.
    ModuleNotFoundError
        If statsmodels is not installed.

    Notes
    -----
    Mean-field variational Bayes treats effects as independent, so its interval of the mean is that for *these* objects and
    people, and far too narrow. The interval here is Wald's, as lme4 gives it: the mean's variance from the joint information
    of mean and effects at the estimated SDs, with Student's t for the fewer of objects and people, minus 1. It takes the SDs as
    known. Their priors are log-normal with median 1 and SD 1 of the logarithm. Variational Bayes is known to underestimate SDs;
    here the priors outweigh that: of simulated 0.3 and 0.4 (objects, people; 1000 triplets, 60 objects, 30 people) it found
    0.30 and 0.42 on average, of 0.1 and 0.2 it found 0.16 and 0.27. The interval is then a little too wide.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> rows, subjects = rng.random((500, 20)).argsort(axis=1)[:, :3], rng.integers(0, 10, 500)
    >>> choices = Triplets(rows, tuple(map(str, range(20))), judgements="simulated", subjects=subjects)
    >>> lk.crossed_logistic(rng.integers(0, 2, 500), choices)["method"].tolist()
    ['crossed logistic', 'default']
    """
    values, n_ties = np.asarray(scores, dtype=np.float64), 0
    if values.shape != (len(triplets),):
        raise MismatchError(
            f"The scores have shape {values.shape}, and there are {len(triplets)} triplets. Pass one cell's score for each triplet."
        )
    if not ((values >= 0) & (values <= 1)).all():
        raise BadInputError(
            "Scores lie outside 0 to 1, or are NaN. For a contrast, pass one cell's scores on the triplets where both differ."
        )
    sure = (values == 0) | (values == 1)
    n_ties = int((~sure).sum())
    if n_ties > MOST_TIES * len(values):
        raise BadInputError(
            f"{n_ties} of {len(values)} triplets are ties, which this model leaves out: too many ({MOST_TIES:.0%} at most). Use "
            "`score_interval`, which counts them."
        )
    values, triplets = values[sure], triplets.take(sure)
    if values.size == 0 or values.min() == values.max():
        raise BadInputError(
            "All triplets score the same, so no effect can be estimated. Use `score_interval`."
        )
    objects = np.unique(triplets.indices, return_inverse=True)[1].reshape(-1, 3)
    kinds, columns = [np.zeros(objects.max() + 1, int)], objects
    if triplets.subjects is not None and len(np.unique(triplets.subjects)) > 1:
        person = np.unique(triplets.subjects, return_inverse=True)[1]
        kinds.append(np.ones(person.max() + 1, int))
        columns = np.column_stack([objects, person + len(kinds[0])])
    kind = np.concatenate(kinds)
    t, k = columns.shape
    members = sparse.csr_matrix(
        (np.ones(t * k), columns.ravel(), np.arange(0, t * k + 1, k)), shape=(t, len(kind))
    )
    mean, effects, sd = _fit(values, members, kind)
    spread = float(np.sqrt(3 * sd[0] ** 2 + sum(sd[1:] ** 2)))
    se = _standard_error(members, mean + members @ effects, 1 / sd[kind] ** 2)
    reach = float(stdtrit(min(map(len, kinds)) - 1, 0.5 + LEVEL / 2)) * se
    accuracy, low, high = (_marginal(mean + step, spread) for step in (0.0, -reach, reach))
    slope = (_marginal(mean + 1e-3, spread) - _marginal(mean - 1e-3, spread)) / 2e-3
    about = {
        "judgements": triplets.judgements,
        "dataset": triplets.dataset,
        "n_triplets": t,
        "n_ties": n_ties,
    }
    fitted = {
        "accuracy": accuracy,
        "se": slope * se,
        "ci_low": low,
        "ci_high": high,
        "sd_objects": float(sd[0]),
        "sd_people": float(sd[1]) if len(sd) > 1 else float("nan"),
        "estimand": "new objects and people" if len(sd) > 1 else "new objects",
    }
    plain = score_interval(values, triplets).columns
    return tidy([{"method": "crossed logistic", **about, **fitted}, {"method": "default", **about, **plain}])


def _fit(
    values: npt.NDArray[np.float64], members: sparse.csr_matrix, kind: npt.NDArray[np.int64]
) -> tuple[float, npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The posterior means, by variational Bayes: of the mean, of each effect, and of each kind's SD."""
    try:
        from statsmodels.genmod.bayes_mixed_glm import BinomialBayesMixedGLM
    except ModuleNotFoundError as error:
        error.add_note("lk.crossed_logistic needs it; install it with: pip install 'ldm-kit[sensitivity]'")
        raise
    size = 1 + kind.max() + 1 + len(kind)
    model = BinomialBayesMixedGLM(values, np.ones((len(values), 1)), members, kind)
    # A start of our own, so that nothing is random; L-BFGS needs no matrix of all effects by all effects.
    found = model.fit_vb(mean=np.zeros(size), sd=np.full(size, 0.5), fit_method="L-BFGS-B")
    return float(found.fe_mean[0]), found.vc_mean, np.exp(found.vcp_mean)


def _standard_error(
    members: sparse.csr_matrix, log_odds: npt.NDArray[np.float64], precision: npt.NDArray[np.float64]
) -> float:
    """Of the mean, with the effects' variances known: from the joint information of the mean and all effects."""
    right = expit(log_odds)
    weight = right * (1 - right)
    shared = members.T @ weight
    information = (members.T @ sparse.diags_array(weight) @ members).toarray() + np.diag(precision)
    return float(1 / np.sqrt(weight.sum() - shared @ np.linalg.solve(information, shared)))


def _marginal(mean: float, spread: float) -> float:
    """Mean of the logistic function of a normal variable, by Gauss–Hermite quadrature.

    Examples
    --------
    >>> round(_marginal(0.0, 1.0), 6), round(_marginal(1.0, 0.0), 4)
    (0.5, 0.7311)
    """
    return float(WEIGHTS @ expit(mean + spread * NODES) / WEIGHTS.sum())
