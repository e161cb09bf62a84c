"""The crossed logistic model finds what was simulated from it, and its interval holds for new objects and people."""

from __future__ import annotations

import builtins
from typing import Any

import numpy as np
import pytest
from scipy import integrate, stats
from scipy.special import expit

import ldm_kit as lk
from ldm_kit.errors import BadInputError, MismatchError
from ldm_kit.measures import sensitivity

MEAN, OBJECT, PERSON = 0.3, 0.4, 0.4


def simulated(seed: int, n: int = 40, t: int = 800, p: int = 25) -> tuple[np.ndarray, lk.Triplets]:
    """Simulated observers, from the very model."""
    rng = np.random.default_rng(seed)
    rows, people = rng.random((t, n)).argsort(axis=1)[:, :3], rng.integers(0, p, t)
    triplets = lk.Triplets(rows, tuple(map(str, range(n))), judgements="simulated", subjects=people)
    log_odds = MEAN + rng.normal(0, OBJECT, n)[rows].sum(axis=1) + rng.normal(0, PERSON, p)[people]
    return (rng.random(t) < expit(log_odds)).astype(float), triplets


def true_accuracy(mean: float, spread: float) -> float:
    return integrate.quad(lambda z: expit(mean + spread * z) * stats.norm.pdf(z), -9, 9)[0]


def test_the_integral_is_that_of_scipy() -> None:
    for mean, spread in ((0.3, 0.8), (-2.0, 0.1), (1.0, 2.0)):
        assert sensitivity._marginal(mean, spread) == pytest.approx(true_accuracy(mean, spread), abs=1e-5)


def test_the_standard_error_is_that_of_the_inverse_information() -> None:
    """With the mean as one more column: the first entry of the inverse of the whole matrix."""
    from scipy import sparse

    rng = np.random.default_rng(0)
    members = (rng.random((50, 6)) < 0.4).astype(float)
    log_odds, precision = rng.normal(size=50), rng.uniform(1, 5, 6)
    whole = np.column_stack([np.ones(50), members])
    weight = expit(log_odds) * expit(-log_odds)
    information = whole.T @ (weight[:, None] * whole) + np.diag([0, *precision])
    found = sensitivity._standard_error(sparse.csr_matrix(members), log_odds, precision)
    assert found == pytest.approx(np.sqrt(np.linalg.inv(information)[0, 0]))


@pytest.mark.slow
def test_it_finds_what_was_simulated() -> None:
    truth = true_accuracy(MEAN, np.sqrt(3 * OBJECT**2 + PERSON**2))
    tables = [lk.crossed_logistic(*simulated(seed)) for seed in range(12)]
    fitted = [table.iloc[0] for table in tables]
    accuracy = np.array([row["accuracy"] for row in fitted])
    assert accuracy.mean() == pytest.approx(truth, abs=3 * accuracy.std(ddof=1) / np.sqrt(12))
    # The SDs are biased, upward more than downward: see the docstring.
    assert np.mean([row["sd_objects"] for row in fitted]) == pytest.approx(OBJECT, abs=0.06)
    assert np.mean([row["sd_people"] for row in fitted]) == pytest.approx(PERSON, abs=0.1)
    # A mean-field interval, for these objects and people, would be less than half as wide.
    assert 0.75 < accuracy.std(ddof=1) / np.mean([row["se"] for row in fitted]) < 1.35
    assert sum(row["ci_low"] <= truth <= row["ci_high"] for row in fitted) >= 10
    for (values, triplets), table in zip(map(simulated, range(12)), tables, strict=True):
        default, expected = table.iloc[1], lk.score_interval(values, triplets)
        assert (default["accuracy"], default["ci_low"]) == (expected.mean, expected.low)
        assert table.iloc[0]["accuracy"] == pytest.approx(default["accuracy"], abs=0.02)


@pytest.mark.slow
def test_ties_are_left_out_and_people_may_be_unknown() -> None:
    values, triplets = simulated(0)
    values[:20] = 0.5
    nobody = lk.Triplets(triplets.indices, triplets.names, judgements="simulated")
    table = lk.crossed_logistic(values, nobody)
    assert table["n_ties"].tolist() == [20, 20] and table["n_triplets"].tolist() == [780, 780]
    assert table["estimand"].tolist() == ["new objects", "new objects"] and table["sd_people"].isna().all()
    assert table["judgements"].unique().tolist() == ["simulated"]
    without = lk.crossed_logistic(values[20:], nobody.take(slice(20, None)))
    assert without["accuracy"].tolist() == table["accuracy"].tolist()  # nothing is random


def test_what_cannot_be_fitted_is_an_error() -> None:
    values, triplets = simulated(0)
    with pytest.raises(MismatchError, match="800 triplets"):
        lk.crossed_logistic(values[1:], triplets)
    with pytest.raises(BadInputError, match="800 of 800 triplets are ties"):
        lk.crossed_logistic(np.full(800, 1 / 3), triplets)
    with pytest.raises(BadInputError, match="outside 0 to 1"):
        lk.crossed_logistic(values - 1, triplets)
    with pytest.raises(BadInputError, match="score the same"):
        lk.crossed_logistic(np.ones(800), triplets)


def test_without_statsmodels_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *more: Any, **options: Any) -> Any:
        if name.startswith("statsmodels"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *more, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ModuleNotFoundError) as caught:
        lk.crossed_logistic(*simulated(0))
    assert "pip install 'ldm-kit[sensitivity]'" in caught.value.__notes__[0]
