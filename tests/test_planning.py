"""A study is planned as large as it must be, and pilot data give the variances that they were made with."""

from __future__ import annotations

import itertools
import math
import warnings

import numpy as np
import pytest
from scipy import stats

import ldm_kit as lk
from ldm_kit.errors import BadInputError, MismatchError
from ldm_kit.measures import planning, variances
from ldm_kit.measures.variances import CLIP

OBJECT, PERSON, REST, SAMPLE, FLICKER = 0.06, 0.08, 0.4, 0.05, 0.3  # standard deviations


def pilot(n: int, t: int, p: int, rng: np.random.Generator) -> lk.Triplets:
    rows = rng.random((t, n)).argsort(axis=1)[:, :3]
    names = tuple(f"object {i}" for i in range(n))
    return lk.Triplets(rows, names, judgements="simulated", subjects=rng.integers(0, p, t))


def scored(triplets: lk.Triplets, rng: np.random.Generator, draws: int = 1) -> np.ndarray:
    """Scores of simulated observers, which no accuracy bounds: a mean, effects of known variance, and a rest."""
    objects, people = rng.normal(0, OBJECT, len(triplets.names)), rng.normal(0, PERSON, 1000)
    shared = 0.5 + objects[triplets.indices].sum(axis=1) + people[triplets.subjects]
    shared = shared + rng.normal(0, REST, len(triplets))
    if draws == 1:
        return shared
    return shared + rng.normal(0, SAMPLE, (draws, 1)) + rng.normal(0, FLICKER, (draws, len(triplets)))


def test_moments_are_those_of_a_loop_over_all_pairs() -> None:
    rng = np.random.default_rng(0)
    triplets = pilot(8, 60, 3, rng)  # of 56 sets, so several are judged repeatedly
    values = rng.random(60)
    halves: dict[tuple[int, bool], list[float]] = {}
    for a, b in itertools.combinations(range(60), 2):
        shared = len(set(triplets.indices[a]) & set(triplets.indices[b]))
        same = triplets.subjects[a] == triplets.subjects[b]
        halves.setdefault((shared, same), []).append((values[a] - values[b]) ** 2 / 2)
    assert (3, False) in halves and (3, True) in halves
    expected = [np.mean(halves[key]) for key in ((0, False), (1, False), (0, True))]
    np.testing.assert_allclose(variances._moments(values, triplets, triplets.subjects), expected)
    alone = [np.mean(halves[k, False] + halves[k, True]) for k in (0, 1)]
    np.testing.assert_allclose(variances._moments(values, triplets, np.zeros(60, int))[:2], alone)


@pytest.mark.slow
@pytest.mark.parametrize("draws", [1, 3])
def test_estimates_are_unbiased(draws: int) -> None:
    """On average, they are the variances of the simulation: before those below zero become 0."""
    found = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        triplets = pilot(30, 400, 12, rng)
        values = np.atleast_2d(scored(triplets, rng, draws))
        found.append(list(variances._estimates(values, triplets, triplets.subjects).values()))
    truth = [9 * OBJECT**2, 3 * OBJECT**2 + REST**2, PERSON**2]
    if draws > 1:
        truth.append(SAMPLE**2 + FLICKER**2 / 400)
    found = np.array(found)[:, : len(truth)]
    error = found.std(axis=0, ddof=1) / np.sqrt(len(found))
    assert (np.abs(found.mean(axis=0) - truth) < 3 * error).all(), (found.mean(axis=0), truth, error)
    assert (error[:3] < np.multiply(truth[:3], [0.07, 0.01, 0.07])).all()  # a wrong factor would be seen


@pytest.mark.slow
def test_the_model_foretells_how_far_means_scatter() -> None:
    model = lk.VarianceModel(9 * OBJECT**2, 3 * OBJECT**2 + REST**2, PERSON**2)
    for n, t, p in ((20, 300, 10), (60, 150, 40)):
        rng = np.random.default_rng(n)
        means = [scored(triplets := pilot(n, t, p, rng), rng).mean() for _ in range(1500)]
        assert len(triplets) == t
        # People judge unequally many triplets by chance: a little more than 1 / p.
        assert np.std(means) == pytest.approx(model.se(n, t, p), rel=0.07)


def test_a_binary_pilot_without_people_has_the_standard_error_of_the_kit() -> None:
    rng = np.random.default_rng(1)
    triplets = pilot(60, 3000, 1, rng)
    skill = rng.normal(0, 0.08, 60)
    right = (rng.random(3000) < 0.5 + skill[triplets.indices].sum(axis=1)).astype(float)
    model = lk.fit_variances(right, triplets, people=0)
    assert model.se(60, 3000, 1) == pytest.approx(lk.score_interval(right, triplets).se, rel=0.06)


def half_width(model: lk.VarianceModel, n: float, t: float, p: float) -> float:
    """By the formulas, with scipy.stats."""
    terms = np.array([model.objects / n, model.triplets / t, model.people / p])
    freedom = terms.sum() ** 2 / (terms**2 / np.array([(n - 1) / 4, t - 1, p - 1])).sum()
    return float(stats.t.ppf(0.975, freedom) * np.sqrt(terms.sum()))


@pytest.mark.parametrize("free", ["n_objects", "n_triplets", "n_people"])
def test_the_least_number_that_is_enough_is_found(free: str) -> None:
    fixed = {"n_objects": 600, "n_triplets": 9000, "n_people": 50}
    row = lk.plan_study(half_width=0.023, **{**fixed, free: None}).iloc[0]
    sizes = [int(row[name]) for name in fixed]
    assert (
        row["enough"] and row["half_width"] == pytest.approx(half_width(CLIP, *sizes)) and row["n_draws"] == 1
    )
    one_less = [size - (name == free) for name, size in zip(fixed, sizes, strict=True)]
    assert half_width(CLIP, *sizes) <= 0.023 < half_width(CLIP, *one_less)
    terms = {"objects": 0.024 / sizes[0], "triplets": 0.32 / sizes[1], "people": 0.0025 / sizes[2]}
    assert row["limited_by"] == max(terms, key=terms.get)
    assert row["se"] == pytest.approx(math.sqrt(sum(terms.values())))


def test_power_is_that_of_a_t_test() -> None:
    people_alone = lk.VarianceModel(objects=0, triplets=0, people=0.04)
    row = lk.plan_study(effect=0.1, power=0.9, variances=people_alone, n_objects=100, n_triplets=1000).iloc[0]
    assert (
        row["n_people"] == 44
    )  # G*Power, and R's power.t.test(delta = 0.5, power = 0.9, type = "one.sample")
    rng = np.random.default_rng(0)
    samples = rng.normal(0.1, 0.2, (20_000, 44))
    rejected = stats.ttest_1samp(samples, 0, axis=1).pvalue < 0.05
    assert row["power"] == pytest.approx(rejected.mean(), abs=0.007)


@pytest.mark.parametrize(("freedom", "shift"), [(4.5, 1.0), (43, 3.3), (43, 60.0), (2e5, 2.5)])
def test_power_in_the_tails(freedom: float, shift: float) -> None:
    """A small or a certain effect, few or many degrees of freedom, against draws of Student's ratio."""
    rng = np.random.default_rng(0)
    ratio = (shift + rng.normal(size=400_000)) / np.sqrt(rng.chisquare(freedom, 400_000) / freedom)
    expected = (np.abs(ratio) > stats.t.ppf(0.975, freedom)).mean()
    assert planning._power(shift, 1.0, freedom) == pytest.approx(expected, abs=0.003)


def test_what_is_solved_for_together_shares_the_variance() -> None:
    row = lk.plan_study(half_width=0.01).iloc[0]
    terms = [0.024 / row["n_objects"], 0.32 / row["n_triplets"], 0.0025 / row["n_people"]]
    assert max(terms) == pytest.approx(min(terms), rel=0.01)
    assert row["enough"] and row["half_width"] == pytest.approx(0.01, rel=0.01)


def test_triplets_of_each_person_are_counted() -> None:
    row = lk.plan_study(half_width=0.05, n_objects=335, triplets_per_person=10).iloc[0]
    assert row["n_triplets"] == 10 * row["n_people"]
    people = int(row["n_people"])
    assert (
        half_width(CLIP, 335, 10 * people, people)
        <= 0.05
        < half_width(CLIP, 335, 10 * people - 10, people - 1)
    )
    grid = lk.plan_study(
        half_width=0.05, n_objects=335, triplets_per_person=10, n_people=[people - 1, people]
    )
    assert grid["enough"].tolist() == [False, True] and grid["n_triplets"].tolist() == [
        10 * people - 10,
        10 * people,
    ]


def test_where_no_number_is_enough_the_plan_says_so() -> None:
    table = lk.plan_study(half_width=0.01, n_people=20, n_triplets=100_000, n_objects=[None, 335])
    assert table["n_objects"].isna().tolist() == [True, False] and not table["enough"].any()
    first = table.iloc[0]
    assert first["half_width"] == pytest.approx(half_width(CLIP, 1e12, 1e5, 20), rel=1e-4)
    assert "no number of objects is enough" in first["note"] and "limited by people" in first["note"]
    both = lk.plan_study(effect=0.02, n_people=20).iloc[0]
    assert "no number of objects and triplets" in both["note"] and both["n_draws"] == 1
    assert both["power"] < 0.9 and "power of" in both["note"]


def test_one_person_or_one_noise_sample_tells_nothing_about_others() -> None:
    noisy = lk.VarianceModel(0.024, 0.25, 0.0, draws=1e-4)
    table = lk.plan_study(
        half_width=0.02, n_objects=1000, n_triplets=9000, n_draws=[1, 8, None], variances=noisy
    )
    assert np.isinf(table["half_width"].iloc[0]) and table["n_people"].tolist() == [1, 1, 1]
    assert table["enough"].tolist() == [False, True, True] and 2 <= table["n_draws"].iloc[2] <= 8


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({}, "give either half_width=0.01"),
        ({"half_width": 0.01, "effect": 0.02}, "give either half_width=0.01"),
        ({"half_width": 0.01, "power": 0.9}, "give either half_width=0.01"),
        ({"power": 0.9}, "give either half_width=0.01"),
        ({"half_width": 0}, "above 0"),
        ({"effect": 0.02, "power": 1}, "between 0.05 and 1"),
        ({"half_width": 0.01, "n_objects": 2}, "n_objects=2"),
        ({"half_width": 0.01, "n_people": []}, "n_people is empty"),
        ({"half_width": 0.01, "n_people": [3.5]}, "n_people=3.5"),
        ({"half_width": 0.01, "n_triplets": 10, "triplets_per_person": 10}, "one of the two"),
    ],
)
def test_what_cannot_be_planned_is_an_error(asked: dict[str, object], told: str) -> None:
    with pytest.raises(BadInputError, match=told):
        lk.plan_study(**asked)


def test_what_a_pilot_cannot_tell_is_an_error() -> None:
    rng = np.random.default_rng(0)
    triplets = pilot(10, 50, 3, rng)
    nobody = lk.Triplets(triplets.indices, triplets.names, judgements="simulated")
    scores = rng.random(50)
    with pytest.raises(MismatchError, match="50 triplets"):
        lk.fit_variances(scores[:-1], triplets)
    with pytest.raises(BadInputError, match="people=0.0025"):
        lk.fit_variances(scores, nobody)
    with pytest.raises(BadInputError, match="the pilot has several people"):
        lk.fit_variances(scores, triplets, people=0.1)
    with pytest.raises(BadInputError, match="too few triplets to estimate objects"):
        lk.fit_variances(scores[:2], nobody.take(np.array([0, 0])), people=0)
    with pytest.raises(BadInputError, match="NaN"):
        lk.fit_variances(np.full(50, np.nan), triplets)
    with pytest.raises(BadInputError, match="objects=-1"):
        lk.VarianceModel(-1, 0.25, 0)


def test_a_variance_below_zero_is_0_and_said() -> None:
    triplets = pilot(10, 40, 4, np.random.default_rng(3))
    with pytest.warns(UserWarning, match="taken as 0"):
        for seed in range(5):
            model = lk.fit_variances(np.random.default_rng(seed).random(40), triplets)
            assert min(model.objects, model.people, model.triplets) >= 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lk.fit_variances(triplets.subjects / 4, triplets)


def test_the_figure_draws_designs_and_what_is_wanted() -> None:
    table = lk.plan_study(
        half_width=0.03, n_objects=[100, 335], n_people=[1, 30, 100], triplets_per_person=20
    )
    figure = lk.plots.study_plan(table)
    assert [line.name for line in figure.data] == ["100", "335"]
    np.testing.assert_allclose(figure.data[1].y, table["half_width"].to_numpy()[4:])  # not the infinite one
    (wanted,) = figure.layout.shapes
    assert wanted.y0 == 0.03 and wanted.line.dash == "dash"
    assert "20 triplets a person" in figure.layout.title.text
    powers = lk.plots.study_plan(
        lk.plan_study(effect=0.02, n_objects=335, n_people=20, n_triplets=[1000, 9000]), "n_triplets"
    )
    assert powers.layout.yaxis.title.text == "power" and "20 people" in powers.layout.title.text
    with pytest.raises(BadInputError, match="n_objects"):
        lk.plots.study_plan(lk.plan_study(half_width=0.01, n_people=20, n_triplets=1000))
    with pytest.raises(BadInputError, match="n_triplets"):
        lk.plots.study_plan(lk.plan_study(half_width=0.1, n_objects=50, n_people=5, n_triplets=[100, 200]))
