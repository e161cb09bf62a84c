"""The emoji as a data set, and its simulated observers: the SPoSE rule, checked against loops; as sure as people are."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.special import gammaln

from ldm_kit.datasets import Dataset, Triplets, emoji, load_dataset, observers
from ldm_kit.datasets.triplets import aggregate_repeated
from ldm_kit.errors import BadInputError, MismatchError, UnknownNameError


def named_triplets(data: Dataset) -> list[list[str]]:
    assert data.triplets is not None
    return [[data.triplets.names[i] for i in row] for row in data.triplets]


def test_emoji() -> None:
    data = load_dataset("emoji")
    assert len(data.stimuli) == 335 and data.stimuli.names == tuple(sorted(data.stimuli.names))
    assert data.triplets is not None and len(data.triplets) == 105_000
    assert data.triplets.judgements == "simulated" and "simulated" in repr(data)
    assert data.categories is not None and (data.categories.sum(axis=1) == 1).all()
    assert data.categories.loc["apple.png", emoji.category("apple")] and data.categories.shape[1] == 23
    assert data.embeddings["norms"].index.tolist() == list(data.stimuli.names)
    assert data.embeddings["norms"].loc["banana.png", "food"] == observers.norms().loc["banana", "food"] > 0
    assert data.repeated is not None and len(data.repeated) == 200 and (data.repeated.n == 25).all()
    assert data.stimuli.select(["ice_cream"]).labels == ("ice cream",) and all(data.stimuli.captions)
    shown = Image.open(emoji.FOLDER / "images" / "noto" / "apple.png").convert("RGBA")
    on_white = Image.alpha_composite(Image.new("RGBA", shown.size, "white"), shown).convert("RGB")
    assert np.array_equal(np.asarray(data.stimuli.open("apple")), np.asarray(on_white))
    assert data.stimuli.fingerprint("apple.png") == data.stimuli[[0, 1, 2, 6]].fingerprint("apple.png")
    assert len({data.stimuli.fingerprint(name) for name in data.stimuli}) == 335


def test_exemplars_are_the_concepts_in_every_other_style() -> None:
    data = load_dataset("emoji", n_triplets=40)
    assert data.exemplars is not None and "1,005 more images" in repr(data)
    styles = Counter(name.partition("/")[0] for name in data.exemplars.names)
    assert styles == {"fluent_flat": 335, "fluent": 335, "twemoji": 335}
    assert set(data.exemplars.concepts) == set(data.stimuli.concepts)
    chosen = data.exemplars.select(["ice_cream"])
    assert chosen.names == ("fluent_flat/ice_cream.png", "fluent/ice_cream.png", "twemoji/ice_cream.png")
    assert set(chosen.labels) == {"ice cream"} and chosen.open(0).size == (128, 128)
    assert not set(data.exemplars.names) & set(data.stimuli.names)


def test_the_former_data_set_is_an_error_that_names_the_present_one() -> None:
    # in two parts, so that a search for the old name finds the changelog alone
    with pytest.raises(UnknownNameError, match="emoji"):
        load_dataset("toy" + "box")


def test_emoji_choices_are_reproducible_and_follow_the_norms() -> None:
    one, two, other = (load_dataset("emoji", n_triplets=3000, seed=seed) for seed in (0, 0, 1))
    assert named_triplets(one) == named_triplets(two) != named_triplets(other)
    assert one.triplets is not None
    x = one.embeddings["norms"].to_numpy()
    i, j, k = (x[column] for column in one.triplets.indices.T)
    pair = np.sum(i * j, axis=1)
    hit = np.mean((pair > np.sum(i * k, axis=1)) & (pair > np.sum(j * k, axis=1)))
    assert 0.6 < hit < 0.7  # half of the three that people score, and the observers are as sure as they


def test_emoji_judged_by_an_embedding_is_matched_by_name(tmp_path: Path) -> None:
    """Concepts in another order and strangers among them; objects of a kind share a dimension."""
    names = [*emoji.names()[::-1], "aardvark"]
    kinds = sorted({emoji.category(name) for name in names[:-1]})
    vectors = [[9.0 * (kind == emoji.category(name)) for kind in kinds] for name in names[:-1]]
    np.save(tmp_path / "vice_embedding.npy", np.array([*vectors, [0.0] * len(kinds)]))
    (tmp_path / "unique_id.txt").write_text("\n".join(names), encoding="utf-8")
    data = load_dataset("emoji", human_model=tmp_path / "vice_embedding.npy", n_triplets=4000)
    assert data.triplets is not None and data.triplets.judgements == "human model"
    assert data.judgements == "human model" and "simulated choices" not in repr(data)
    assert (
        data.default_embedding == "vice_embedding"
        and data.describe_embedding(data.default_embedding) == "vice_embedding (human model)"
    )
    assert data.describe_embedding("norms") == "norms (simulated)"
    assert data.embeddings["vice_embedding"].shape == (335, 23)
    same = [
        (emoji.category(a[:-4]), emoji.category(b[:-4]), emoji.category(c[:-4]))
        for a, b, c in named_triplets(data)
    ]
    decided = [(a, b, c) for a, b, c in same if len({a, b, c}) == 2]
    assert len(decided) > 100 and np.mean([a == b for a, b, _ in decided]) > 0.99
    (tmp_path / "unique_id.txt").write_text("\n".join(["apples", *names[1:]]), encoding="utf-8")
    with pytest.raises(UnknownNameError, match="concept of 'vice_embedding.npy'"):
        load_dataset("emoji", human_model=tmp_path / "vice_embedding.npy")
    (tmp_path / "unique_id.txt").write_text("\n".join(names[1:]), encoding="utf-8")
    with pytest.raises(MismatchError, match="336 rows, but there are 335 concepts"):
        load_dataset("emoji", human_model=tmp_path / "vice_embedding.npy")


def test_emoji_judged_by_spose(things_root: Path) -> None:
    data = load_dataset("emoji", human_model=things_root / "spose_embedding_66d_sorted.txt")
    assert data.triplets is not None and data.repeated is not None
    assert data.triplets.judgements == "human model" and 0.6 < data.repeated.share.mean() < 0.8
    assert data.embeddings["spose_embedding_66d_sorted"].loc["banana.png", "food-related"] > 1


def test_emoji_with_choices_of_people(tmp_path: Path) -> None:
    path = tmp_path / "class.csv"
    path.write_text("apple,banana,car\nice_cream,apple,airplane\n", encoding="utf-8")
    (tmp_path / "captions.csv").write_text("apple,a red one\n", encoding="utf-8")
    data = load_dataset("emoji", triplets=path, captions=tmp_path / "captions.csv")
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
        load_dataset("emoji", ntriplets=3)
    with pytest.raises(UnknownNameError, match=r"option of the data set 'emoji' 'root'.*leave it out"):
        load_dataset("emoji", root=tmp_path)


def test_a_table_of_categories_can_be_summed() -> None:
    data = load_dataset("emoji", n_triplets=40)
    assert data.categories is not None and isinstance(data.categories, pd.DataFrame)
    part = load_dataset("emoji").subset(data.stimuli.names[:200])
    assert part.repeated is not None and 0 < len(part.repeated) < 200
    assert part.repeated[["i", "j", "k"]].isin(part.stimuli.names).all(axis=None)
    part = data.subset(["apple", "banana", "car"])
    assert part.categories is not None and part.categories.sum().max() == 2 and data.repeated is None


# --- observers ---------------------------------------------------------------------------------------------------


def test_norms_are_the_grades_of_the_emoji_times_the_root_of_a_weight() -> None:
    norms = observers.norms()
    grades = pd.read_csv(emoji.FOLDER / "norms.csv").set_index("concept")
    weights = pd.read_csv(emoji.FOLDER / "dimensions.csv").set_index("dimension")
    assert list(norms.index) == emoji.names() and norms.shape == (335, 60)
    assert list(norms.columns) == list(weights.index) and weights["meaning"].str.len().min() > 2
    assert grades.to_numpy().min() == 0 and grades.to_numpy().max() == 1 and (weights["weight"] > 0).all()
    assert (grades > 0).any(axis=0).all() and (grades > 0).any(axis=1).all()
    assert not norms.duplicated().any(), "two concepts that no observer could distinguish"
    # a dot product counts each property by its weight
    for one, other in (("apple", "banana"), ("apple", "hammer"), ("cat", "cat")):
        plain = sum(
            weights.at[name, "weight"] * grades.at[one, name] * grades.at[other, name]
            for name in weights.index
        )
        assert norms.loc[one] @ norms.loc[other] == pytest.approx(plain, rel=1e-12)
    norms.iloc[:] = 0
    assert observers.norms().to_numpy().any(), "a caller may change what it was given"


def test_norms_hold_categories_together() -> None:
    """Within a category objects are, on average, more alike than across: the observers are worth modelling."""
    norms = observers.norms()
    likeness = norms.to_numpy() @ norms.to_numpy().T
    kinds = np.array([emoji.category(name) for name in norms.index])
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
        got = observers.choice_probabilities(embedding, triplets, temperature)
        for row, (i, j, k) in zip(got, triplets, strict=True):
            # item c is the odd one out when the other two stay together
            strengths = [
                math.exp(sum(a * b for a, b in zip(embedding[p], embedding[q], strict=True)) / temperature)
                for p, q in ((j, k), (i, k), (i, j))
            ]
            assert row == pytest.approx([s / sum(strengths) for s in strengths], rel=1e-12)


def test_probabilities_of_large_similarities_are_finite() -> None:
    got = observers.choice_probabilities([[1e3, 0], [1e3, 0], [0, 1e3]], [[0, 1, 2]], 0.01)
    assert got.tolist() == [[0, 0, 1]]


def test_the_odd_one_comes_last_as_often_as_its_probability_says() -> None:
    embedding = np.array([[2.0, 0], [1.5, 0.3], [0.2, 1.0]])
    triplets, _ = observers.simulate_choices(embedding, 6000, 1.0, n_repeated=1, n_repeats=6000)
    expected = observers.choice_probabilities(embedding, [[0, 1, 2]])[0]
    got = np.bincount(triplets[:, 2], minlength=3) / len(triplets)
    assert got == pytest.approx(expected, abs=0.025)
    assert abs((triplets[:, 0] < triplets[:, 1]).mean() - 0.5) < 0.03, "the pair's order must be random"


def test_default_judgements() -> None:
    triplets, subjects = observers.simulate_choices(observers.norms())
    assert triplets.shape == (105_000, 3) and triplets.dtype == np.int64
    assert subjects.shape == (105_000,) and set(subjects) == set(range(25))
    assert (np.diff(np.sort(triplets, axis=1)) > 0).all()
    assert triplets.min() == 0 and triplets.max() == 334
    _, times = np.unique(np.sort(triplets, axis=1), axis=0, return_counts=True)
    assert sorted(set(times)) == [1, 25] and (times == 25).sum() == 200
    again, again_subjects = observers.simulate_choices(observers.norms())
    assert np.array_equal(triplets, again) and np.array_equal(subjects, again_subjects)
    assert not np.array_equal(triplets, observers.simulate_choices(observers.norms(), seed=1)[0])


def test_each_judge_sees_each_repeated_triplet_once() -> None:
    triplets, subjects = observers.simulate_choices(observers.norms(), 300, n_repeated=10, n_repeats=20)
    judged = np.column_stack([np.sort(triplets, axis=1), subjects])
    assert len(np.unique(judged, axis=0)) == 300


def test_more_judgements_than_triplets_exist() -> None:
    triplets, _ = observers.simulate_choices(np.eye(4), 1000, n_repeated=0)
    _, times = np.unique(np.sort(triplets, axis=1), axis=0, return_counts=True)
    assert times.tolist() == [250] * 4


def test_distinct_triplets_cover_every_set_once() -> None:
    rows = observers._distinct_triplets(9, 84, np.random.default_rng(0))
    assert sorted(map(tuple, rows.tolist())) == list(itertools.combinations(range(9), 3))


def majority_share(triplets: np.ndarray, n: int) -> float:
    """Mean share of the majority's answer, over triplets judged more than once."""
    repeated = aggregate_repeated(Triplets(triplets, tuple(map(str, range(n)))), at_least=2)
    return float(repeated["share"].mean())


def expected_share(embedding: np.ndarray, temperature: float, n_sets: int, n_observers: int = 25) -> float:
    """The same in closed form: the mean, over sets, of every way in which so many observers can vote, by its probability."""
    shown = observers._distinct_triplets(len(embedding), n_sets, np.random.default_rng(0))
    n = n_observers
    votes = np.array([(a, b, n - a - b) for a in range(n + 1) for b in range(n + 1 - a)])
    ways = gammaln(n + 1) - gammaln(votes + 1).sum(axis=1)
    total = 0.0
    for part in np.array_split(shown, max(1, n_sets // 5000)):
        probabilities = observers.choice_probabilities(embedding, part, temperature)
        chance = np.exp(np.log(np.maximum(probabilities, 1e-300)) @ votes.T + ways)
        total += float((chance @ (votes.max(axis=1) / n)).sum())
    return total / n_sets


PEOPLE_AGREE = 0.68  # how often people give the majority's answer, on THINGS triplets judged repeatedly


@pytest.mark.slow
def test_observers_agree_as_people_do() -> None:
    norms = observers.norms().to_numpy()
    # 0.01 of temperature is 0.0014 of agreement; the sets drawn leave an error of 0.0004
    assert expected_share(norms, observers.TEMPERATURE, 200_000) == pytest.approx(PEOPLE_AGREE, abs=0.001)
    triplets, _ = observers.simulate_choices(norms, 60_000, seed=9, n_repeated=2400, n_repeats=25)
    assert majority_share(triplets, 335) == pytest.approx(PEOPLE_AGREE, abs=0.01)


def test_the_share_of_the_repeated_triplets_is_that_of_the_observers() -> None:
    data = load_dataset("emoji")
    assert data.repeated is not None
    share = data.repeated["share"]
    assert share.mean() == pytest.approx(PEOPLE_AGREE, abs=2.6 * share.std() / len(share) ** 0.5)


def test_people_agree_as_often_as_is_said(things_root: Path) -> None:
    published = pd.read_csv(things_root / "noise_ceiling_triplets.csv")["prop_max"]
    assert published.mean() == pytest.approx(PEOPLE_AGREE, abs=0.005)


def test_a_lower_temperature_is_surer() -> None:
    embedding = np.random.default_rng(0).random((30, 6))
    shares = []
    for temperature in (0.1, 0.3, 1.0):
        triplets, _ = observers.simulate_choices(
            embedding, 50_000, temperature, seed=3, n_repeated=2000, n_repeats=25
        )
        shares.append(majority_share(triplets, 30))
        assert shares[-1] == pytest.approx(expected_share(embedding, temperature, 4060), abs=0.01)
    assert shares == sorted(shares, reverse=True)


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
        observers.choice_probabilities(*arguments)


def test_more_repeats_than_judgements() -> None:
    with pytest.raises(BadInputError, match="100 judgements of 4 objects with 10 triplets judged 20 times"):
        observers.simulate_choices(np.eye(4), 100, n_repeated=10, n_repeats=20)
