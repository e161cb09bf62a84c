"""Error bars and ceilings: brute force, and simulations whose truth is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import ldm_kit as lk
from ldm_kit.datasets.triplets import Triplets
from ldm_kit.errors import BadInputError, MismatchError, UnknownNameError
from ldm_kit.measures import grouped as grouped_module, noise_ceiling, odd_one_out
from ldm_kit.measures.ceiling import leave_one_out
from ldm_kit.measures.grouped import Grouped
from ldm_kit.measures.statistics import Interval, clustered_variance, interval, interval_of_codes, proportion
from ldm_kit.measures.zero_shot import score_of_code
from tests.small_store import random_triplets


@pytest.mark.parametrize(("n", "t"), [(30, 200), (8, 300), (100, 60)])
def test_variance_is_the_sum_over_pairs_that_share_an_object(n: int, t: int) -> None:
    triplets = random_triplets(n, t, seed=n)
    values = np.random.default_rng(n).normal(size=t)
    expected, share = 0.0, 0.0
    for one, other in product(range(t), repeat=2):
        if set(triplets[one]) & set(triplets[other]):
            expected += values[one] * values[other]
            share += 1 / t**2
    groups = Grouped(triplets, n)
    found = clustered_variance(values[groups.order], groups) * t**2
    assert found == pytest.approx(max(expected / (1 - share), found_floor(values, triplets)), rel=1e-9)


@pytest.mark.parametrize("ties", ["chance", "linhardt2024"])
@pytest.mark.parametrize("estimand", ["new objects", "these objects", None])
@pytest.mark.parametrize(("n", "t"), [(30, 400), (8, 300), (4, 3000)])
def test_whole_numbers_give_the_interval_of_floats(n: int, t: int, estimand: str | None, ties: str) -> None:
    groups = Grouped(random_triplets(n, t, seed=n), n)
    codes = (
        np.random.default_rng(t)
        .choice(8, size=t, p=[0, 0.3, 0.2, 0.1, 0.2, 0.1, 0.05, 0.05])
        .astype(np.uint8)
    )
    score = score_of_code(ties)
    found, counts = interval_of_codes(codes, score, groups, estimand)
    expected = interval(score[codes], groups, estimand)
    assert counts.tolist() == np.bincount(codes, minlength=8).tolist()
    assert found.estimand == expected.estimand
    for name in ("mean", "se", "low", "high"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=1e-9, nan_ok=True)


@pytest.mark.parametrize(("n", "t"), [(30, 300), (8, 300), (700, 300)])
def test_the_share_of_pairs_of_triplets_that_share_an_object(n: int, t: int) -> None:
    triplets = random_triplets(n, t, seed=n)
    members = [set(triplet) for triplet in triplets.tolist()]
    expected = np.mean([bool(one & other) for one in members for other in members])
    assert Grouped(triplets, n).sharing == pytest.approx(expected, rel=1e-12)


def test_bands_of_first_items_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    X, triplets = np.random.default_rng(0).normal(size=(900, 5)), random_triplets(900, 20_000)
    banded = odd_one_out(X, triplets)
    monkeypatch.setattr(grouped_module, "FEW", 10**9)
    whole = Grouped(triplets, 900)
    assert len(whole.start) == 901
    pd.testing.assert_frame_equal(odd_one_out(X, triplets), banded)


def found_floor(values: np.ndarray, triplets: np.ndarray) -> float:
    """Sum over sets of three of the squared sum: the variance if sets were independent."""
    sums: dict[frozenset[int], float] = {}
    for value, triplet in zip(values, triplets, strict=True):
        key = frozenset(triplet.tolist())
        sums[key] = sums.get(key, 0.0) + value
    return float(sum(value**2 for value in sums.values()))


def simulated(truth: np.ndarray, view: np.ndarray, triplets: np.ndarray) -> np.ndarray:
    """Is the model, which sees `view`, right about people, who heed `truth`? Per triplet."""
    i, j, k = triplets.T
    odd = [
        np.argmax([np.einsum("td,td->t", X[a], X[b]) for a, b in ((j, k), (i, k), (i, j))], axis=0)
        for X in (truth, view)
    ]
    return (odd[0] == odd[1]).astype(float)


def new_objects(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    truth = rng.normal(size=(n, 4))
    return truth, truth + rng.normal(size=(n, 4))


@pytest.mark.slow
@pytest.mark.parametrize(("n", "t", "runs"), [(300, 4000, 600), (56, 6000, 400)])
def test_coverage(n: int, t: int, runs: int) -> None:
    rng = np.random.default_rng(0)
    # the expected accuracy for new objects does not depend on how many there are: 600,000 fresh triplets
    fresh = np.arange(1_800_000).reshape(-1, 3)
    expected = simulated(*new_objects(fresh.size, rng), fresh).mean()
    covered = {"new objects": 0, "these objects": 0}
    for _ in range(runs):
        triplets = random_triplets(n, t, seed=int(rng.integers(2**31)))
        groups = Grouped(triplets, n)
        right = simulated(*new_objects(n, rng), triplets)[groups.order]
        for estimand in covered:
            found = interval(right, groups, estimand)
            covered[estimand] += found.low <= expected <= found.high
    print(f"{n} objects, {t} triplets, {runs} runs: coverage", {k: v / runs for k, v in covered.items()})
    assert 0.92 <= covered["new objects"] / runs <= 0.98
    assert covered["these objects"] / runs < 0.85


def test_coverage_of_the_binomial_interval_for_the_same_objects() -> None:
    rng = np.random.default_rng(0)
    p, t = 0.4, 400
    hits = 0
    groups = Grouped(random_triplets(30, t), 30)
    for _ in range(1000):
        found = interval((rng.random(t) < p).astype(float), groups, "these objects")
        hits += found.low <= p <= found.high
    assert 0.92 <= hits / 1000 <= 0.98


def test_features_without_information_are_at_chance() -> None:
    rng = np.random.default_rng(0)
    triplets = random_triplets(200, 20_000)
    covered = 0
    for _ in range(40):
        row = odd_one_out(rng.normal(size=(200, 8)), triplets).iloc[0]
        covered += row["ci_low"] <= 1 / 3 <= row["ci_high"]
    assert covered >= 35


def test_an_interval_of_scores_in_their_own_order_is_that_of_the_table() -> None:
    X, Y = np.random.default_rng(0).normal(size=(2, 30, 5))
    triplets = random_triplets(30, 400)
    for ci in (True, "these objects", False):
        row = odd_one_out(X, triplets, ci=ci).iloc[0]
        found = lk.score_interval(lk.triplet_scores(X, triplets), triplets, ci)
        assert found.estimand == row["estimand"]
        expected = tuple(row[["accuracy", "se", "ci_low", "ci_high"]])
        assert (found.mean, found.se, found.low, found.high) == pytest.approx(expected, rel=1e-9, nan_ok=True)
    named = Triplets(triplets, names=tuple(f"s{i}" for i in range(30)))
    scores = [lk.triplet_scores(one, triplets) for one in (X, Y)]
    gain = lk.score_interval(scores[0] - scores[1], named, bounds=(-1, 1))
    row = lk.compare({"x": X, "y": Y}, named).iloc[0]
    assert (gain.mean, gain.se, gain.low, gain.high) == pytest.approx(
        (row["difference"], row["se"], row["ci_low"], row["ci_high"]), rel=1e-9
    )
    assert np.isnan(lk.score_interval([], np.empty((0, 3), np.int64)).mean)
    with pytest.raises(MismatchError, match="Pass one score for each triplet"):
        lk.score_interval(scores[0][1:], triplets)


def test_triplets_grouped_beforehand_are_measured_alike() -> None:
    X, names = np.random.default_rng(0).normal(size=(30, 5)), tuple(f"s{i}" for i in range(30))
    triplets = Triplets(random_triplets(30, 400), names=names, judgements="simulated", dataset="toy")
    grouped = Grouped.of(triplets)
    for measure in (odd_one_out, lk.compare, lk.accuracy_by_concept):
        cells = {"x": X, "y": X[::-1]}
        pd.testing.assert_frame_equal(measure(cells, grouped), measure(cells, triplets))


def test_small_cases() -> None:
    groups = Grouped(np.array([[0, 1, 2]]), 3)
    assert np.isnan(interval(np.array([1.0]), groups).se)
    all_right = interval(np.ones(50), Grouped(random_triplets(9, 50), 9))
    assert (all_right.mean, all_right.se, all_right.high) == (1.0, 0.0, 1.0)
    assert interval(np.ones(50), Grouped(random_triplets(9, 50), 9), None).estimand == ""


def test_triplets_that_all_agree_leave_doubt() -> None:
    ten = Grouped(np.arange(30).reshape(10, 3), 30)
    for estimand in ("new objects", "these objects"):
        for score in (0.0, 1.0, 1 / 3):
            found, wilson = interval(np.full(10, score), ten, estimand), of(np.full(10, score))
            assert (found.low, found.high) == pytest.approx((wilson.low, wilson.high)) and found.se < 1e-12
        codes = np.full(10, 4, np.uint8)
        whole, _ = interval_of_codes(codes, score_of_code("chance"), ten, estimand)
        assert whole.mean == 1 and round(whole.low, 3) == 0.722 and whole.high == 1
    # more triplets of the same objects are no more objects
    many = Grouped(random_triplets(30, 5000), 30)
    assert round(interval(np.ones(5000), many, "new objects").low, 3) == 0.722
    assert interval(np.ones(5000), many, "these objects").low > 0.999
    alike = interval(np.zeros(10), ten, bounds=(-1.0, 1.0))
    assert (alike.low, alike.high) == (0.0, 0.0)


def of(scores: np.ndarray) -> Interval:
    """The interval of independent scores."""
    return proportion(len(scores), scores.sum(), np.dot(scores, scores), "new objects")


def test_wilson() -> None:
    # Newcombe 1998, table I: 15 of 148
    found = of(np.repeat([1.0, 0.0], [15, 133]))
    assert (round(found.low, 4), round(found.high, 4)) == (0.0624, 0.1605)


def repeated(counts: list[tuple[int, int, int]]) -> np.ndarray:
    """Judgements of the sets 0, 1, 2 and 3, 4, 5 and so on: how many found each item odd."""
    rows = []
    for number, answers in enumerate(counts):
        items = [3 * number, 3 * number + 1, 3 * number + 2]
        for odd, times in enumerate(answers):
            others = [item for place, item in enumerate(items) if place != odd]
            rows += [[*others, items[odd]]] * times
    return np.random.default_rng(0).permutation(np.array(rows))


def judge_by_judge(answers: tuple[int, int, int]) -> float:
    """One participant against the majority of the others, one participant at a time."""
    participants = [odd for odd, times in enumerate(answers) for _ in range(times)]
    right = 0.0
    for number, own in enumerate(participants):
        others = participants[:number] + participants[number + 1 :]
        most = max(others.count(odd) for odd in range(3))
        majority = [odd for odd in range(3) if others.count(odd) == most]
        right += (own in majority) / len(majority)
    return right / len(participants)


def test_ceiling_by_hand() -> None:
    counts = [(3, 1, 0), (2, 2, 1), (5, 0, 0), (1, 1, 1), (2, 0, 0)]
    expected_low = np.mean([judge_by_judge(answers) for answers in counts])
    expected_high = np.mean([max(answers) / sum(answers) for answers in counts])
    row = noise_ceiling(repeated(counts), min_judgements=2).iloc[0]
    assert row["ceiling_low"] == pytest.approx(expected_low)
    assert row["ceiling_high_uncorrected"] == pytest.approx(expected_high)
    assert row["ceiling_high"] == row["ceiling_high_uncorrected"] - row["ceiling_high_bias"] < expected_high
    assert row["n_triplets"] == 5 and row["n_judgements"] == 19
    assert "5 sets judged 2–5 times" in row["ceiling_source"]
    three = noise_ceiling(repeated(counts), min_judgements=3).iloc[0]
    assert three["n_triplets"] == 4 and three["min_judgements"] == 3
    assert leave_one_out(np.array(counts))[0] == pytest.approx(judge_by_judge(counts[0]))
    # Sets judged five times are enough, by default; where there are none, the source says so.
    assert noise_ceiling(repeated([(3, 1, 1), (2, 2, 1), (1, 1, 0)]))["n_triplets"][0] == 2
    assert noise_ceiling(repeated(counts))["n_triplets"][0] == 5, (
        "two sets of five are too few to stand for all"
    )
    few = noise_ceiling(repeated([(3, 1, 0), (2, 0, 0)])).iloc[0]
    assert few["n_triplets"] == 2 and "few judged each set" in few["ceiling_source"]


def test_sets_judged_once_are_left_out() -> None:
    once = np.array([[100, 101, 102], [101, 102, 103]])
    both = np.concatenate([repeated([(3, 1, 0)]), once])
    triplets = Triplets(both, names=tuple(str(i) for i in range(104)), judgements="simulated", dataset="toy")
    row = noise_ceiling(triplets).iloc[0]
    assert row["n_triplets"] == 1 and row["judgements"] == "simulated" and "of toy" in row["ceiling_source"]
    with pytest.raises(BadInputError, match="No set of three was judged 2 times"):
        noise_ceiling(once)
    with pytest.raises(BadInputError, match="judged once has no ceiling"):
        noise_ceiling(both, min_judgements=1)


@pytest.mark.slow
def test_ceiling_brackets_the_best_model() -> None:
    """Participants who answer (0.6, 0.3, 0.1): the best model is right 0.6 of the time."""
    rng = np.random.default_rng(0)
    few = noise_ceiling(repeated([tuple(rng.multinomial(5, [0.6, 0.3, 0.1])) for _ in range(2000)])).iloc[0]
    assert few["ceiling_low"] < 0.6 < few["ceiling_high_uncorrected"] - 0.03
    assert abs(few["ceiling_high"] - 0.6) < 0.01
    many = noise_ceiling(repeated([tuple(rng.multinomial(60, [0.6, 0.3, 0.1])) for _ in range(300)])).iloc[0]
    assert abs(many["ceiling_high"] - 0.6) < 0.01 and abs(many["ceiling_low"] - 0.6) < 0.01
    assert many["ceiling_high_bias"] < few["ceiling_high_bias"]


def test_things_ceiling(things_root: Path) -> None:
    path = things_root / "noise_ceiling_triplets.csv"
    summary = pd.read_csv(path)
    row = noise_ceiling(summary).iloc[0]
    assert round(row["ceiling_high_uncorrected"], 4) == 0.6835 and row["n_triplets"] == 1985
    assert row["ceiling_low"] < row["ceiling_high"] < row["ceiling_high_uncorrected"]
    # 0.679 over triplets judged often; corrected, the two agree better
    often = noise_ceiling(summary, min_judgements=30).iloc[0]
    assert round(often["ceiling_high_uncorrected"], 3) == 0.679
    names = ("ceiling_high", "ceiling_high_uncorrected")
    corrected, raw = (abs(row[name] - often[name]) for name in names)
    assert corrected < 0.002 < 0.004 < raw
    with pytest.raises(UnknownNameError, match="Unknown column 'prop_max'"):
        noise_ceiling(summary.drop(columns="prop_max"))


def a_class(folder: Path, dataset: str, stimuli: Sequence[str], players: int, sets: int) -> Path:
    """What some people wrote down who all saw the same sets, and mostly agree."""
    rng = np.random.default_rng(0)
    shown = [rng.choice(len(stimuli), 3, replace=False) for _ in range(sets)]
    folder.mkdir()
    for player in range(players):
        lines = ["player,judgements,dataset,image1,image2,image3,choice"]
        for three in shown:
            choice = rng.choice(3, p=[0.6, 0.3, 0.1]) + 1
            lines.append(f"p{player},human,{dataset},{','.join(stimuli[i] for i in three)},{choice}")
        (folder / f"p{player}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.mark.parametrize(("players", "sets"), [(30, 60), (5, 120)])
def test_the_ceiling_of_a_class_is_of_its_own_choices(tmp_path: Path, players: int, sets: int) -> None:
    names = lk.load_dataset("emoji").stimuli.names
    folder = a_class(tmp_path / "class", "emoji", names, players, sets)
    data = lk.load_dataset("emoji", triplets=folder)
    expected = lk.noise_ceiling(lk.read_choices(folder))
    found = lk.ceiling_of(data)
    assert found is not None
    columns = ["ceiling_low", "ceiling_high", "ceiling_source", "n_judgements"]
    pd.testing.assert_frame_equal(found[columns], expected[columns])
    # one player alone repeats nothing, and borrows nobody's ceiling
    assert lk.ceiling_of(lk.load_dataset("emoji", triplets=folder / "p0.csv")) is None


@pytest.mark.slow
def test_things_ceiling_is_not_laid_over_other_choices(things_root: Path, tmp_path: Path) -> None:
    own = lk.load_dataset("things", things_root)
    published = lk.ceiling_of(own)
    assert published is not None and "repeated triplets of things" in published["ceiling_source"][0]
    named = lk.ceiling_of(lk.load_dataset("things", things_root, triplets="human_triplets_50k.txt"))
    assert named is not None and named["ceiling_source"][0] == published["ceiling_source"][0]
    folder = a_class(tmp_path / "class", "things", own.stimuli.names, 5, 120)
    choices = lk.read_choices(folder, own.stimuli.names)
    for data in (lk.load_dataset("things", things_root, triplets=folder), replace(own, triplets=choices)):
        found = lk.ceiling_of(data)
        assert found is not None and found["n_judgements"][0] == 600
        assert found["ceiling_low"][0] == lk.noise_ceiling(choices)["ceiling_low"][0]
    assert lk.ceiling_of(lk.load_dataset("things", things_root, triplets=folder / "p0.csv")) is None


def test_judgements_that_are_none() -> None:
    for judgements in (None, [["a", "b", "c"]], [[0, 1, 2], [0, 1]], [[0, -1, 2]]):
        with pytest.raises(BadInputError, match="Triplets|triplets"):
            noise_ceiling(judgements)
    for times, share in ((30, np.nan), (30, 68.0), (30, 0.2), (0, 0.5), (np.nan, 0.5), ("many", 0.5)):
        table = pd.DataFrame({"n_per_triplet": [30, times], "prop_max": [0.6, share]})
        with pytest.raises(
            BadInputError, match="1 of 2 rows of the summary are impossible, the first at row 1"
        ):
            noise_ceiling(table)
