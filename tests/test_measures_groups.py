"""Images of one concept are held out together: folds, halves, validation folds, and what dividing them would cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import Ridge
from sklearn.model_selection import LeaveOneGroupOut

from ldm_kit.datasets.triplets import Triplets
from ldm_kit.errors import BadInputError, MismatchError
from ldm_kit.measures import (
    LinearProbe,
    MLPProbe,
    best_cell,
    categorise,
    cross_validate_probe,
    dimension_regression,
    object_folds,
    odd_one_out,
    split_objects,
)
from ldm_kit.measures.cells import cells_of, groups_of
from ldm_kit.measures.folds import wholly_in
from ldm_kit.measures.readout import left_out_errors
from tests.small_store import SmallStore, drawn_choices, random_triplets

REPLICATES = 6


class StoreOfConcepts(SmallStore):
    """A small store that says what its stimuli show, as `FeatureStore` does."""

    def __init__(self, names: Sequence[str], arrays: Any, concepts: Sequence[str]) -> None:
        super().__init__(names, arrays)
        self.concepts = tuple(concepts)


def unrelated(images: int, seed: int, n_concepts: int = 60) -> tuple[Any, Any, Any]:
    """Features that tell concepts apart but say nothing of people; choices by the concepts' embedding; each row's concept.

    A triplet's images show three concepts: of two of the same one, any such features know that they belong together.
    """
    rng = np.random.default_rng(seed)
    concept = rng.permutation(np.repeat(np.arange(n_concepts), images))
    X = rng.normal(size=(n_concepts, 60))[concept] + 0.2 * rng.normal(size=(len(concept), 60))
    embedding = 3 * rng.normal(size=(n_concepts, 1))[concept]
    image = np.argsort(concept, kind="stable").reshape(n_concepts, images)
    triplets = image[random_triplets(n_concepts, 9000, seed), rng.integers(images, size=(9000, 3))]
    return X, drawn_choices(embedding, triplets, seed), concept


def mean_and_se(values: Sequence[float]) -> tuple[float, float]:
    return float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values)))


def test_where_each_object_is_a_group_the_folds_are_those_without_groups() -> None:
    for n, cv, seed in ((10, 3, 0), (335, 3, 1), (56, 10, 2)):
        expected = np.random.default_rng(seed).permutation(np.arange(n) % cv)
        labels = np.random.default_rng(9).permutation(n)
        for groups in (None, labels, [f"concept {i}" for i in labels]):
            assert np.array_equal(object_folds(n, cv, seed, groups), expected)
    names = [f"s{i}" for i in np.random.default_rng(3).permutation(20)]
    fold = dict(zip(sorted(names), np.random.default_rng(4).permutation(np.arange(20) % 2), strict=True))
    halves = tuple(tuple(name for name in names if fold[name] == half) for half in (0, 1))
    assert split_objects(names, 4) == split_objects(names, 4, groups=names) == halves
    X, triplets, concept = unrelated(1, 0)
    one, two = (
        cross_validate_probe(X, triplets, LinearProbe(max_iter=5), groups=groups)
        for groups in (None, concept)
    )
    pd.testing.assert_frame_equal(one.table, two.table)
    Y, kinds = X[:, :2] + X[:, 2:4], pd.Series(concept % 3)
    for table in (
        (lambda groups: dimension_regression(X, Y, groups=groups)),
        (lambda groups: categorise(X, kinds, groups=groups)),
    ):
        pd.testing.assert_frame_equal(table(None), table(concept))


@pytest.mark.parametrize("images", [2, 5])
def test_no_group_is_divided(images: int) -> None:
    X, triplets, concept = unrelated(images, 0)
    n = len(X)
    names = [f"{c:02}_{i}.png" for i, c in enumerate(concept)]
    concept_of = dict(zip(names, concept, strict=True))
    store = StoreOfConcepts(names, {("mid", 0.5, "none"): X}, [f"c{c}" for c in concept])
    named = Triplets(triplets, tuple(names))

    def divided(fold: Any) -> int:
        return sum(len(set(fold[concept == c])) > 1 for c in range(60))

    assert divided(object_folds(n, 3, 1)) > 30
    fold = object_folds(n, 3, 1, concept)
    assert divided(fold) == 0 and (np.bincount(fold) == n // 3).all()
    halves = split_objects(names, 0, groups=pd.Series(concept_of))
    assert not {concept_of[name] for name in halves[0]} & {concept_of[name] for name in halves[1]}
    probe = LinearProbe(alpha=0.01, cv=0, max_iter=1)
    for features, choices, groups in (
        (store, named, None),
        (X, named, concept_of),
        (X, triplets, concept.tolist()),
    ):
        folds = cross_validate_probe(features, choices, probe, random_state=1, groups=groups).folds
        assert [folds[key] for key in folds] == fold.tolist()
    each = cross_validate_probe(store, named, probe, groups=np.arange(n)).folds
    assert divided(np.array(list(each.values()))) > 30


def test_the_halves_of_the_best_cell_divide_no_concept() -> None:
    X, triplets, concept = unrelated(2, 0)
    names = [f"{i:03}.png" for i in range(len(X))]
    store = StoreOfConcepts(names[::-1], {("mid", 0.5, "none"): X[::-1]}, [str(c) for c in concept[::-1]])
    half = object_folds(len(X), 2, 5, concept)
    expected = [odd_one_out(X, triplets[wholly_in(triplets, half) == k])["accuracy"][0] for k in (1, 0)]
    for table in (
        best_cell(store, Triplets(triplets, tuple(names)), random_state=5),
        best_cell({"mid": X}, triplets, random_state=5, groups=concept),
        best_cell(
            {"mid": X},
            Triplets(triplets, tuple(names)),
            random_state=5,
            groups=dict(zip(names, concept, strict=True)),
        ),
    ):
        assert table["accuracy"].tolist() == pytest.approx(expected)
    assert best_cell({"mid": X}, triplets, random_state=5)["accuracy"].tolist() != pytest.approx(expected)


@pytest.mark.parametrize("images", [1, 2, 5])
def test_a_probe_on_unrelated_features_is_at_chance_only_if_concepts_are_held_out(images: int) -> None:
    probe = LinearProbe(alphas=(0.0, 0.03), max_iter=15)
    accuracy: dict[bool, list[float]] = {True: [], False: []}
    for seed in range(REPLICATES):
        X, triplets, concept = unrelated(images, seed)
        for whole, values in accuracy.items():
            result = cross_validate_probe(
                X, triplets, probe, groups=concept if whole else None, keep_probes=False
            )
            values.append(result.summary()["accuracy"][0])
    mean, se = mean_and_se(accuracy[True])
    assert abs(mean - 1 / 3) < 3 * se, (mean, se)
    mean, se = mean_and_se(accuracy[False])
    assert (mean - 1 / 3 > 3 * se) == (images > 1), (mean, se)


@pytest.mark.parametrize("images", [2, 5])
@pytest.mark.parametrize("probe", [LinearProbe(), MLPProbe(hidden=4)], ids=["linear", "mlp"])
def test_validation_folds_divide_no_group(probe: Any, images: int) -> None:
    """On unrelated features, iterations help with other images of the same concepts, but not with other concepts."""
    X, triplets, concept = unrelated(images, 0)
    assert probe.fit(X, triplets, concept).n_iter_ < 5
    assert probe.fit(X, triplets).n_iter_ > 10
    names = tuple(str(i) for i in range(len(X)))
    assert probe.fit(X, Triplets(triplets, names), dict(zip(names, concept, strict=True))).n_iter_ < 5


@pytest.mark.parametrize("images", [1, 2, 5])
def test_categories_and_dimensions_of_unrelated_features_are_not_read(images: int) -> None:
    right: dict[bool, list[float]] = {True: [], False: []}
    r2: dict[bool, list[float]] = {True: [], False: []}
    for seed in range(REPLICATES):
        X, _, concept = unrelated(images, seed)
        rng = np.random.default_rng(100 + seed)
        kind, target = rng.permutation(np.arange(60) % 4)[concept], rng.normal(size=(60, 3))[concept]
        for whole in (True, False):
            groups = concept if whole else None
            right[whole].append(categorise(X, pd.Series(kind), groups=groups)["accuracy"][0])
            r2[whole].append(dimension_regression(X, target, groups=groups)["r2"].mean())
    mean, se = mean_and_se(right[True])
    assert abs(mean - 1 / 4) < 3 * se + 0.02, (mean, se)  # centroids that miss an object lie away from it
    assert np.mean(r2[True]) < 0.05
    if images > 1:
        assert np.mean(right[False]) > 0.4 and np.mean(r2[False]) > 0.1


def test_leaving_out_groups_agrees_with_sklearn() -> None:
    rng = np.random.default_rng(0)
    for n, d in ((40, 10), (30, 60)):
        X, Y, group = rng.normal(size=(n, d)), rng.normal(size=(n, 2)), rng.integers(9, size=n)
        X -= X.mean(axis=0)
        penalties = np.array([0.1, 10.0])
        expected = np.zeros((2, 2))
        for train, out in LeaveOneGroupOut().split(X, Y, group):
            for row, penalty in enumerate(penalties):
                predicted = Ridge(penalty).fit(X[train], Y[train]).predict(X[out])
                expected[row] += np.sum((Y[out] - predicted) ** 2, axis=0)
        np.testing.assert_allclose(left_out_errors(X, Y, penalties, group), expected, rtol=1e-8)


def test_intervals_of_categories_and_dimensions_are_over_groups() -> None:
    """Copies of every object add no information: the interval is that of one each."""
    rng = np.random.default_rng(0)
    X, kind = rng.normal(size=(60, 5)), np.arange(60) % 3
    X[:, 0] += kind
    Y = X[:, :1] + rng.normal(size=(60, 1))
    copies, group = np.repeat(np.arange(60), 4), np.repeat(np.arange(60), 4)
    whole = categorise(X[copies], pd.Series(kind[copies]), groups=group).iloc[0]
    assert whole["se"] == pytest.approx(np.sqrt(whole["accuracy"] * (1 - whole["accuracy"]) / 60), rel=0.05)
    one, four = dimension_regression(X, Y), dimension_regression(X[copies], Y[copies], groups=group)
    assert four["r2"][0] == pytest.approx(one["r2"][0], abs=0.02)
    assert four["r2_se"][0] == pytest.approx(one["r2_se"][0], rel=0.05)


NAMES = ["a", "b", "c", "a2", "b2", "c2"]


@pytest.mark.parametrize(
    ("groups", "error", "message"),
    [
        ({"a": 1}, MismatchError, "5 stimuli have no row in the mapping `groups`: b, c, a2, b2, c2"),
        ([1, 2], MismatchError, "`groups` has 2 labels, the features of 'mid' have 6 rows"),
        ([1, 2, None, 1, 2, 3], MismatchError, "no label for 1 of 6 rows: c"),
        ("concept", BadInputError, "is a word"),
        (pd.Series([1, 2], index=["a", "a"]), MismatchError, "more than one group in `groups`: a"),
    ],
)
def test_groups_that_do_not_fit_are_errors(groups: Any, error: type[Exception], message: str) -> None:
    cell = cells_of(SmallStore(NAMES, {("mid", 0.5, "none"): np.eye(6)}))[0]
    with pytest.raises(error, match=message):
        groups_of(groups, cell, 6)


def test_groups_are_found_by_name() -> None:
    arrays = {("mid", 0.5, "none"): np.eye(6)}
    by_name = {name: name[0] for name in reversed(NAMES)}
    cell, plain = cells_of(StoreOfConcepts(NAMES, arrays, list("abcabc")))[0], cells_of(np.eye(6))[0]
    for given, where, names in (
        (None, cell, None),
        (by_name, cell, None),
        (pd.Series(by_name), cell, None),
        (pd.Series(by_name), plain, NAMES),
        (list("xyzxyz"), plain, None),
    ):
        assert groups_of(given, where, 6, names).tolist() == [0, 1, 2, 0, 1, 2]
    assert groups_of(None, plain, 6).tolist() == list(range(6))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: object_folds(12, 3, 0, list("aaaaaabbbbbb")),
            "12 objects in 2 groups cannot make 3 folds.*at most 2 folds",
        ),
        (lambda: object_folds(9, 2, 0, ["a"] * 9), "9 objects in 1 groups cannot make 2 folds.*more groups"),
        (lambda: object_folds(12, 2, 0, ["a"] * 11 + ["b"]), "has 1 of 12 objects in 2 groups"),
        (
            lambda: categorise(np.eye(6), pd.Series(list("ababab")), groups=list("xyxyxy")),
            "Only 0 categories",
        ),
    ],
)
def test_too_few_groups_are_errors(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        call()
