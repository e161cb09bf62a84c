"""Intervals over people, concepts and draws of noise; many cells at once; what a verdict needs."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest

import ldm_kit as lk
from ldm_kit.datasets import Triplets
from ldm_kit.errors import BadInputError, MismatchError
from ldm_kit.measures import statistics as st
from ldm_kit.measures.grouped import Grouped
from ldm_kit.sentences import to_tell
from tests.benchmarks import inference as bench
from tests.small_store import SmallStore


def pairs_that_share(
    values: np.ndarray, indices: np.ndarray, person: np.ndarray | None, concept: np.ndarray
) -> tuple[float, float, float]:
    """Sums of e_t e_u over pairs of triplets that share an object, and of those that share a person alone; the share of either."""
    objects = people = either = 0.0
    for t, u in product(range(len(values)), repeat=2):
        together = bool({*concept[indices[t]]} & {*concept[indices[u]]})
        same = person is not None and person[t] == person[u]
        objects += values[t] * values[u] * together
        people += values[t] * values[u] * (same and not together)
        either += together or same
    return objects, people, either / len(values) ** 2


@pytest.mark.parametrize("pictures", [1, 2, 4])
@pytest.mark.parametrize("n_people", [0, 3, 30])
def test_the_variance_is_that_of_all_pairs_that_share(pictures: int, n_people: int) -> None:
    rng = np.random.default_rng(pictures + n_people)
    n, t = 24, 60
    indices = np.array([rng.permutation(n)[:3] for _ in range(t)])
    indices[-5:] = indices[:5]  # judged again, some by the same person
    person = rng.integers(0, n_people, t) if n_people else None
    concept = np.arange(n) // pictures
    values = indices.sum(axis=1) % 5 + (0 if person is None else person % 3) + rng.normal(size=t)
    values = values - values.mean()
    groups = Grouped(indices, n, subjects=person).clustered(concept)
    objects, people, either = pairs_that_share(values, indices, person, concept)
    found = st.clustered_variance(
        values[groups.order], groups, "new objects and people" if n_people else "new objects"
    )
    repeats = np.sort(indices, axis=1)
    sets = sum(values[(repeats == one).all(axis=1)].sum() ** 2 for one in np.unique(repeats, axis=0))
    if pictures > 1:  # a set of three concepts, or, with fewer, the triplet itself
        assert groups.overlaps is not None
        sets = groups.overlaps(values[groups.order])[1]
    expected = (max(objects / (1 - either), sets) + max(people, 0) / (1 - either)) / t**2
    assert found == pytest.approx(expected)


def test_codes_and_values_give_the_same_interval_over_people() -> None:
    rng = np.random.default_rng(0)
    indices = np.array([rng.permutation(40)[:3] for _ in range(500)])
    groups = Grouped(indices, 40, subjects=rng.integers(0, 7, 500))
    codes = rng.integers(1, 8, 500).astype(np.uint8)
    score = np.array([0, 0, 0, 0, 1, 1 / 2, 1 / 2, 1 / 3])
    a, b = st.interval_of_codes(codes, score, groups, "")[0], st.interval(score[codes], groups)
    assert a.estimand == b.estimand == "new objects and people" and a.n_people == 7
    np.testing.assert_allclose([a.mean, a.se, a.low, a.freedom], [b.mean, b.se, b.low, b.freedom])


@pytest.mark.slow
@pytest.mark.parametrize(("people", "each"), [(5, 300), (100, 60)])
def test_the_interval_over_people_covers_and_that_over_objects_alone_does_not(people: int, each: int) -> None:
    studies = pd.DataFrame([bench.people_study(200, people, each, seed) for seed in range(50)]).astype(float)
    assert 0.88 <= studies["covered"].mean() <= 1.0
    assert 0.88 <= studies["difference covered"].mean() <= 1.0
    if people == 5:
        assert studies["objects alone"].mean() < 0.75


@pytest.mark.slow
def test_few_objects_need_fewer_degrees_of_freedom() -> None:
    studies = pd.DataFrame([bench.objects_study(28, 2000, seed) for seed in range(120)]).astype(float).mean()
    assert 0.90 <= studies["covered"] <= 0.99 and studies["error"] <= 0.08
    assert studies["error, n - 1"] > 0.10  # what they were before


@pytest.mark.slow
def test_draws_of_noise_are_in_the_interval() -> None:
    for draws in (1, 5):
        studies = pd.DataFrame([bench.draws_study(200, 5000, draws, seed) for seed in range(80)]).astype(
            float
        )
        assert 0.90 <= studies["covered"].mean() <= 0.99
    one, five = (bench.draws_study(200, 5000, k, 0)["se"] for k in (1, 5))
    assert five < 0.8 * one


def drawn_world() -> tuple[SmallStore, Triplets]:
    """A store that holds three draws of noise of two blocks."""
    rng = np.random.default_rng(3)
    names = tuple(f"s{i:02}" for i in range(60))
    z = rng.normal(size=(60, 4))
    cells = {
        (block, 0.9, "none", draw): z + noise * rng.normal(size=z.shape)
        for block, noise in (("mid", 3.0), ("up", 0.7))
        for draw in range(3)
    }
    triplets = bench.judged(2 * z, bench.draw_triplets(60, 3000, rng), rng)
    return SmallStore(names, cells), Triplets(triplets, names, "simulated")


def test_draws_are_one_row_and_their_spread_counts_for_the_same_objects() -> None:
    store, triplets = drawn_world()
    table = lk.odd_one_out(store, triplets)
    assert table["block"].tolist() == ["mid", "up"] and table["n_draws"].tolist() == [3, 3]
    alone = {key: lk.triplet_scores(store[key], triplets.indices) for key in store.cells()}
    mid = np.stack([scores for key, scores in alone.items() if key[0] == "mid"])
    assert table["accuracy"][0] == pytest.approx(mid.mean())
    assert table["se"][0] == pytest.approx(lk.score_interval(mid.mean(axis=0), triplets).se)
    again = lk.odd_one_out(store, triplets, ci="these objects")["se"][0]
    binomial = np.var(mid.mean(axis=0)) / (len(triplets) - 1)
    assert again**2 == pytest.approx(binomial + np.var(mid.mean(axis=1), ddof=1) / 3)
    compared = lk.compare(store, triplets, reference="mid")
    assert len(compared) == 1 and compared["n_draws"][0] == 3
    assert compared["difference"][0] == pytest.approx(table["accuracy"][1] - table["accuracy"][0])
    assert len(lk.compare(store, triplets, by="draw")) == 6


def test_a_label_without_a_value_keeps_no_draws_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    store, triplets = drawn_world()
    labels = store.labels
    monkeypatch.setattr(store, "labels", lambda key: labels(key) | {"sigma": float("nan")})
    assert lk.odd_one_out(store, triplets)["n_draws"].tolist() == [3, 3]


def test_concepts_of_a_store_are_what_is_new() -> None:
    rng = np.random.default_rng(4)
    z = rng.normal(size=(30, 4))[np.arange(60) // 2]
    names = tuple(f"s{i:02}" for i in range(60))
    indices = bench.judged(z, bench.draw_triplets(60, 2000, rng), rng)
    triplets = Triplets(indices, names, "simulated")
    concepts = {name: f"c{i // 2}" for i, name in enumerate(names)}
    X = z + rng.normal(size=z.shape)
    pictures = lk.odd_one_out(X, triplets)
    alone = lk.odd_one_out(X, triplets, groups=[*concepts.values()])
    assert pictures["n_objects"][0] == 60 and alone["n_objects"][0] == 30
    assert alone["freedom"][0] == pytest.approx(29 / 4) and alone["se"][0] > pictures["se"][0]
    assert lk.score_interval(lk.triplet_scores(X, triplets), triplets, groups=concepts).se == pytest.approx(
        alone["se"][0]
    )
    with pytest.raises(MismatchError, match="59 labels"):
        lk.odd_one_out(X, triplets, groups=[*concepts.values()][1:])


def test_new_people_must_be_known() -> None:
    scores, indices = np.ones(2), np.array([[0, 1, 2], [3, 4, 5]])
    names = tuple("abcdef")
    for subjects in (None, np.zeros(2, int)):
        triplets = Triplets(indices, names, subjects=subjects)
        assert lk.score_interval(scores, triplets).estimand == "new objects"
        with pytest.raises(BadInputError, match="two people or more"):
            lk.score_interval(scores, triplets, ci="new objects and people")


def test_nobody_counts_twice_in_a_ceiling() -> None:
    once = bench.repeated_people()
    stubborn = Triplets(
        np.concatenate([once.indices, once.indices]),
        once.names,
        "simulated",
        subjects=np.tile(once.subjects, 2),
    )
    a, b = (lk.noise_ceiling(one).iloc[0] for one in (once, stubborn))
    same = ["ceiling_low", "ceiling_high", "ceiling_low_se", "ceiling_high_se", "n_judgements"]
    assert a[same].tolist() == b[same].tolist() and b["n_self_repeats"] == len(once)
    assert a["estimand"] == "new objects and people" and a["n_people"] == 20
    alone = lk.noise_ceiling(once, ci="new objects").iloc[0]
    assert alone["ceiling_low_se"] != a["ceiling_low_se"]


def brute_force_p(cells: dict[str, np.ndarray], triplets: np.ndarray, orders: np.ndarray) -> np.ndarray:
    """Max-T by permuting the rows of all cells and scoring anew."""
    accuracy = np.array(
        [[lk.triplet_scores(X[order], triplets).mean() for X in cells.values()] for order in orders]
    )
    t = (accuracy - 1 / 3) / accuracy[1:].std(axis=0, ddof=1)
    return (1 + (t[1:].max(axis=1)[:, None] >= t[0]).sum(axis=0)) / len(orders)


def test_max_t_is_that_of_permuted_rows() -> None:
    from ldm_kit.measures.simultaneous import _orders

    rng = np.random.default_rng(5)
    z = rng.normal(size=(20, 3))
    triplets = bench.judged(z, bench.draw_triplets(20, 300, rng), rng)
    cells = {
        name: noise * rng.normal(size=z.shape) + z for name, noise in (("a", 2.0), ("b", 5.0), ("c", 50.0))
    }
    table = lk.max_t_test(cells, triplets, n_permutations=60, random_state=7)
    orders = _orders(Grouped(triplets, 20), 60, 7)
    assert table["p_max_t"].tolist() == brute_force_p(cells, triplets, orders).tolist()
    plain = lk.odd_one_out(cells, triplets)
    assert table["accuracy"].tolist() == plain["accuracy"].tolist()
    assert (table["low_simultaneous"] < plain["ci_low"]).all()


def test_cells_of_different_stimuli_are_not_permuted_together() -> None:
    rng = np.random.default_rng(0)
    arrays = {"a": rng.normal(size=(20, 3)), "b": rng.normal(size=(25, 3))}
    with pytest.raises(MismatchError, match="20 and 25 rows"):
        lk.max_t_test(arrays, bench.draw_triplets(20, 50, rng), n_permutations=1)


def test_cells_that_agree_cost_nothing_and_others_no_more_than_bonferroni() -> None:
    from scipy.stats import t as student

    rng = np.random.default_rng(6)
    E = rng.normal(size=(8, 400))
    from ldm_kit.measures.simultaneous import _critical

    assert _critical([E[0]] * 8, [50.0] * 8, 0) == pytest.approx(student.ppf(0.975, 50), abs=0.05)
    independent = _critical(list(E), [50.0] * 8, 0)
    assert independent == pytest.approx(student.ppf(1 - 0.025 / 8, 50), abs=0.12)


@pytest.mark.slow
def test_max_t_errs_as_seldom_as_it_says() -> None:
    studies = pd.DataFrame([bench.max_t_study(56, 1000, 6, seed) for seed in range(25)]).astype(float).mean()
    assert studies["error above chance"] <= 0.16
    assert studies["all covered"] >= 0.84
    assert studies["error against a cell"] <= 0.16


def test_the_reference_of_max_t_is_one_cell() -> None:
    store, triplets = drawn_world()
    table = lk.max_t_test(store, triplets, reference={"block": "mid"}, n_permutations=1)
    assert table["block"].tolist() == ["up"] and table["difference"][0] > 0
    assert table["p_max_t"][0] < 0.05 and table["low_simultaneous"][0] > 0
    assert lk.verdict(table.iloc[0]) == "above"
    with pytest.raises(BadInputError, match="names 2 cells"):
        lk.max_t_test(store, triplets, reference={"conditioning": "none"})


@pytest.mark.parametrize(
    ("low", "high", "margin", "said"),
    [
        (0.01, 0.03, None, "above"),
        (-0.03, -0.01, None, "below"),
        (-0.01, 0.03, None, "cannot be told"),
        (-0.01, 0.03, 0.02, "cannot be told"),
        (-0.01, 0.015, 0.02, "within the margin"),
        (0.005, 0.015, 0.02, "within the margin"),
        (0.005, 0.025, 0.02, "above"),
    ],
)
def test_verdicts(low: float, high: float, margin: float | None, said: str) -> None:
    row = {"difference": (low + high) / 2, "low_corrected": low, "high_corrected": high, "n_objects": 100}
    assert lk.verdict(row, margin=margin) == said
    assert (to_tell(row, margin=margin) is None) == (said != "cannot be told")


def test_so_many_objects_would_tell() -> None:
    row = {
        "difference": 0.01,
        "low_corrected": -0.01,
        "high_corrected": 0.03,
        "n_objects": 100,
        "n_compared": 1,
    }
    assert to_tell(row) == 401  # half as wide with four times as many; one more, so that zero is outside
    assert "about 401 objects would tell" in lk.format_difference(row)
    assert to_tell(row | {"difference": 0.0, "low_corrected": -0.02, "high_corrected": 0.02}) is None
