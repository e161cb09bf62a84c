"""Toybox as a data set, and its simulated observers: the SPoSE rule, checked against loops; a ceiling like people's."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import bisect

from ldm_kit.datasets import Dataset, Triplets, bundled, load_dataset, toybox
from ldm_kit.datasets.triplets import aggregate_repeated
from ldm_kit.errors import BadInputError, MismatchError, UnknownNameError


def named_triplets(data: Dataset) -> list[list[str]]:
    assert data.triplets is not None
    return [[data.triplets.names[i] for i in row] for row in data.triplets]


def test_toybox() -> None:
    data = load_dataset("toybox")
    assert len(data.stimuli) == 56 and data.stimuli.names == tuple(sorted(data.stimuli.names))
    assert data.triplets is not None and len(data.triplets) == 20_000
    assert data.triplets.judgements == "simulated" and "simulated" in repr(data)
    assert data.categories is not None and (data.categories.sum(axis=1) == 1).all()
    assert data.categories.loc["apple.png", toybox.category("apple")]
    assert data.embeddings["norms"].index.tolist() == list(data.stimuli.names)
    assert data.embeddings["norms"].loc["banana.png", "edible"] == 1
    assert data.repeated is not None and data.repeated.n.min() >= 10
    assert data.stimuli.select(["ice_cream"]).labels == ("ice cream",) and all(data.stimuli.captions)
    assert np.array_equal(np.asarray(data.stimuli.open("apple")), np.asarray(toybox.render("apple", 0)))
    assert data.stimuli.fingerprint("apple.png") == data.stimuli[[0, 1, 2]].fingerprint("apple.png")
    assert len({data.stimuli.fingerprint(name) for name in data.stimuli}) == 56


def test_toybox_choices_are_reproducible_and_follow_the_norms() -> None:
    one, two, other = (load_dataset("toybox", n_triplets=3000, seed=seed) for seed in (0, 0, 1))
    assert named_triplets(one) == named_triplets(two) != named_triplets(other)
    assert one.triplets is not None
    x = one.embeddings["norms"].to_numpy()
    i, j, k = (x[column] for column in one.triplets.indices.T)
    pair = np.sum(i * j, axis=1)
    hit = np.mean((pair > np.sum(i * k, axis=1)) & (pair > np.sum(j * k, axis=1)))
    assert 0.55 < hit < 0.75


def test_toybox_judged_by_an_embedding_is_matched_by_name(tmp_path: Path) -> None:
    """Concepts in another order and strangers among them; objects of a kind share a dimension."""
    names = [*toybox.names()[::-1], "aardvark"]
    kinds = sorted({toybox.category(name) for name in names[:-1]})
    vectors = [[9.0 * (kind == toybox.category(name)) for kind in kinds] for name in names[:-1]]
    np.save(tmp_path / "vice_embedding.npy", np.array([*vectors, [0.0] * len(kinds)]))
    (tmp_path / "unique_id.txt").write_text("\n".join(names), encoding="utf-8")
    data = load_dataset("toybox", human_model=tmp_path / "vice_embedding.npy", n_triplets=2000)
    assert data.triplets is not None and data.triplets.judgements == "human model"
    assert data.judgements == "human model" and "simulated choices" not in repr(data)
    assert (
        data.default_embedding == "vice_embedding"
        and data.describe_embedding(data.default_embedding) == "vice_embedding (human model)"
    )
    assert data.describe_embedding("norms") == "norms (simulated)"
    assert data.embeddings["vice_embedding"].shape == (56, 14)
    same = [
        (toybox.category(a[:-4]), toybox.category(b[:-4]), toybox.category(c[:-4]))
        for a, b, c in named_triplets(data)
    ]
    decided = [(a, b, c) for a, b, c in same if len({a, b, c}) == 2]
    assert len(decided) > 100 and np.mean([a == b for a, b, _ in decided]) > 0.99
    (tmp_path / "unique_id.txt").write_text("\n".join(["apples", *names[1:]]), encoding="utf-8")
    with pytest.raises(UnknownNameError, match="concept of 'vice_embedding.npy'"):
        load_dataset("toybox", human_model=tmp_path / "vice_embedding.npy")
    (tmp_path / "unique_id.txt").write_text("\n".join(names[1:]), encoding="utf-8")
    with pytest.raises(MismatchError, match="57 rows, but there are 56 concepts"):
        load_dataset("toybox", human_model=tmp_path / "vice_embedding.npy")


def test_toybox_judged_by_spose(things_root: Path) -> None:
    data = load_dataset("toybox", human_model=things_root / "spose_embedding_66d_sorted.txt")
    assert data.triplets is not None and data.repeated is not None
    assert data.triplets.judgements == "human model" and 0.6 < data.repeated.share.mean() < 0.8
    assert data.embeddings["spose_embedding_66d_sorted"].loc["banana.png", "food-related"] > 1


def test_toybox_with_choices_of_people(tmp_path: Path) -> None:
    path = tmp_path / "class.csv"
    path.write_text("apple,banana,car\nice_cream,apple,airplane\n", encoding="utf-8")
    (tmp_path / "captions.csv").write_text("apple,a red one\n", encoding="utf-8")
    data = load_dataset("toybox", triplets=path, captions=tmp_path / "captions.csv")
    assert [caption for caption in data.stimuli.captions if caption] == ["a red one"]
    assert named_triplets(data) == [
        ["apple.png", "banana.png", "car.png"],
        ["ice_cream.png", "apple.png", "airplane.png"],
    ]
    assert data.triplets is not None and data.judgements == "human"
    assert (
        data.describe_embedding(data.default_embedding) == "norms (simulated)"
    )  # who chose does not change who wrote them
    with pytest.raises(UnknownNameError, match="Did you mean 'n_triplets'"):
        load_dataset("toybox", ntriplets=3)
    with pytest.raises(UnknownNameError, match=r"option of the data set 'toybox' 'root'.*leave it out"):
        load_dataset("toybox", root=tmp_path)


def test_a_table_of_categories_can_be_summed() -> None:
    data = load_dataset("toybox", n_triplets=40)
    assert data.categories is not None and isinstance(data.categories, pd.DataFrame)
    part = load_dataset("toybox").subset(data.stimuli.names[:20])
    assert part.repeated is not None and 0 < len(part.repeated) < 200
    assert part.repeated[["i", "j", "k"]].isin(part.stimuli.names).all(axis=None)
    part = data.subset(["apple", "banana", "car"])
    assert part.categories is not None and part.categories.sum().max() == 2 and data.repeated is None


# --- observers ---------------------------------------------------------------------------------------------------


def test_norms_are_the_objects_of_toybox_graded_from_0_to_1() -> None:
    norms = bundled.norms()
    assert list(norms.index) == toybox.names()
    assert 20 <= norms.shape[1] <= 30
    assert norms.to_numpy().min() == 0 and norms.to_numpy().max() == 1
    assert (norms.sum(axis=0) > 0).all() and (norms.sum(axis=1) >= 1).all()
    assert not norms.duplicated().any(), "two objects that no observer could distinguish"


def test_norms_hold_categories_together() -> None:
    """Within a category objects are, on average, more alike than across: the observers are worth modelling."""
    norms = bundled.norms()
    likeness = norms.to_numpy() @ norms.to_numpy().T
    kinds = np.array([toybox.category(name) for name in norms.index])
    same = kinds[:, None] == kinds[None, :]
    off = ~np.eye(len(kinds), dtype=bool)
    for kind in set(kinds):
        rows = kinds == kind
        assert likeness[rows][same[rows] & off[rows]].mean() > 1.5 * likeness[rows][~same[rows]].mean(), kind


def test_probabilities_are_those_of_a_loop() -> None:
    rng = np.random.default_rng(1)
    embedding = rng.random((7, 4))
    triplets = np.array(list(itertools.permutations(range(7), 3)))
    for temperature in (0.3, 1.0):
        got = bundled.choice_probabilities(embedding, triplets, temperature)
        for row, (i, j, k) in zip(got, triplets, strict=True):
            # item c is the odd one out when the other two stay together
            strengths = [
                math.exp(sum(a * b for a, b in zip(embedding[p], embedding[q], strict=True)) / temperature)
                for p, q in ((j, k), (i, k), (i, j))
            ]
            assert row == pytest.approx([s / sum(strengths) for s in strengths], rel=1e-12)


def test_probabilities_of_large_similarities_are_finite() -> None:
    got = bundled.choice_probabilities([[1e3, 0], [1e3, 0], [0, 1e3]], [[0, 1, 2]], 0.01)
    assert got.tolist() == [[0, 0, 1]]


def test_the_odd_one_comes_last_as_often_as_its_probability_says() -> None:
    embedding = np.array([[2.0, 0], [1.5, 0.3], [0.2, 1.0]])
    triplets, _ = bundled.simulate_choices(embedding, 6000, 1.0, n_repeated=1, n_repeats=6000)
    expected = bundled.choice_probabilities(embedding, [[0, 1, 2]])[0]
    got = np.bincount(triplets[:, 2], minlength=3) / len(triplets)
    assert got == pytest.approx(expected, abs=0.025)
    assert abs((triplets[:, 0] < triplets[:, 1]).mean() - 0.5) < 0.03, "the pair's order must be random"


def test_default_judgements() -> None:
    triplets, subjects = bundled.simulate_choices(bundled.norms())
    assert triplets.shape == (20_000, 3) and triplets.dtype == np.int64
    assert subjects.shape == (20_000,) and set(subjects) == set(range(25))
    assert all(len(set(row)) == 3 for row in triplets)
    assert triplets.min() == 0 and triplets.max() == 55
    _, times = np.unique(np.sort(triplets, axis=1), axis=0, return_counts=True)
    assert sorted(set(times)) == [1, 25] and (times == 25).sum() == 200
    again, again_subjects = bundled.simulate_choices(bundled.norms())
    assert np.array_equal(triplets, again) and np.array_equal(subjects, again_subjects)
    assert not np.array_equal(triplets, bundled.simulate_choices(bundled.norms(), seed=1)[0])


def test_each_judge_sees_each_repeated_triplet_once() -> None:
    triplets, subjects = bundled.simulate_choices(bundled.norms(), 300, n_repeated=10, n_repeats=20)
    judged = np.column_stack([np.sort(triplets, axis=1), subjects])
    assert len(np.unique(judged, axis=0)) == 300


def test_more_judgements_than_triplets_exist() -> None:
    triplets, _ = bundled.simulate_choices(np.eye(4), 1000, n_repeated=0)
    _, times = np.unique(np.sort(triplets, axis=1), axis=0, return_counts=True)
    assert times.tolist() == [250] * 4


def test_distinct_triplets_cover_every_set_once() -> None:
    rows = bundled._distinct_triplets(9, 84, np.random.default_rng(0))
    assert sorted(map(tuple, rows.tolist())) == list(itertools.combinations(range(9), 3))


def majority_share(triplets: np.ndarray, n: int) -> float:
    """Mean share of the majority's answer, over triplets judged more than once."""
    repeated = aggregate_repeated(Triplets(triplets, tuple(map(str, range(n)))), at_least=2)
    return float(repeated["share"].mean())


def calibrated_temperature(embedding: np.ndarray, share: float, n_observers: int = 25) -> float:
    """The temperature, to three decimals, at which observers agree with their majority as often as `share`."""
    rng = np.random.default_rng(0)
    shown = bundled._distinct_triplets(len(embedding), 1000, rng)
    # the same luck at every temperature: what changes is the temperature alone
    luck = rng.random((n_observers, 1000))

    def excess(logarithm: float) -> float:
        probabilities = bundled.choice_probabilities(embedding, shown, math.exp(logarithm))
        odd = np.stack([bundled._draw(probabilities, uniform) for uniform in luck])
        votes = np.stack([(odd == column).sum(axis=0) for column in range(3)])
        return float((votes.max(axis=0) / n_observers).mean() - share)

    return round(math.exp(bisect(excess, math.log(1e-3), math.log(1e3), xtol=1e-9)), 3)


PEOPLE_AGREE = 0.68  # how often people give the majority's answer, on THINGS triplets judged repeatedly


def test_observers_agree_as_people_do() -> None:
    norms = bundled.norms().to_numpy()
    assert calibrated_temperature(norms, PEOPLE_AGREE) == bundled.TEMPERATURE
    # triplets that the calibration did not see, enough of them for 0.01
    triplets, _ = bundled.simulate_choices(norms, 60_000, seed=9, n_repeated=2400, n_repeats=25)
    assert majority_share(triplets, 56) == pytest.approx(PEOPLE_AGREE, abs=0.01)


def test_a_lower_temperature_is_surer() -> None:
    embedding = np.random.default_rng(0).random((30, 6))
    temperature = calibrated_temperature(embedding, 0.8)
    triplets, _ = bundled.simulate_choices(
        embedding, 50_000, temperature, seed=3, n_repeated=2000, n_repeats=25
    )
    assert majority_share(triplets, 30) == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[1.0], [2.0]], [[0, 1, 2]]), r"outside the 2 stimuli \(0 to 1\)"),
        (([[1.0], [np.nan], [2.0]], [[0, 1, 2]]), "finite numbers"),
        (([1.0, 2.0], [[0, 1, 2]]), r"shape \(2,\)"),
        (([[1.0], [1.0], [2.0]], [[0, 1, 2]], 0.0), "above 0"),
    ],
)
def test_what_cannot_be_judged(arguments: tuple, message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        bundled.choice_probabilities(*arguments)


def test_more_repeats_than_judgements() -> None:
    with pytest.raises(BadInputError, match="100 judgements of 4 objects with 10 triplets judged 20 times"):
        bundled.simulate_choices(np.eye(4), 100, n_repeated=10, n_repeats=20)
