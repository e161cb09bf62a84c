"""Zero-shot odd-one-out: known answers on real data, a brute-force loop, ties, names, bad input."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ldm_kit.datasets.triplets import Triplets
from ldm_kit.errors import BadInputError, MismatchError, NonFiniteError, UnknownNameError
from ldm_kit.measures import METRICS, best_cell, odd_one_out, predicted_odd, split_objects, triplet_scores
from ldm_kit.measures.metrics import similarity_and_tolerance
from tests.small_store import SmallStore, random_triplets


@pytest.fixture(scope="module")
def human(things_root: Path) -> np.ndarray:
    return np.loadtxt(things_root / "human_triplets_50k.txt", dtype=np.int64)


@pytest.fixture(scope="module")
def clip(things_root: Path) -> np.ndarray:
    return np.load(things_root / "clip_vit_b32_things.npy")


@pytest.mark.slow
def test_known_answers(things_root: Path, human: np.ndarray, clip: np.ndarray) -> None:
    embeddings = {
        "spose66": np.loadtxt(things_root / "spose_embedding_66d_sorted.txt"),
        "spose49": np.loadtxt(things_root / "spose_embedding_49d_sorted.txt"),
        "vice": np.load(things_root / "vice_embedding_42d.npy"),
    }
    table = odd_one_out(embeddings, human, "dot")
    assert table["accuracy"].round(4).tolist() == [0.6486, 0.6405, 0.6357]
    table = odd_one_out(clip, human, ["cosine", "centred cosine"])
    assert table["accuracy"].round(4).tolist() == [0.4841, 0.5025]
    assert table["n_ties"].tolist() == [0, 0]
    assert (table["n_triplets"] == 50_000).all() and (table["chance"] == 1 / 3).all()
    # a mix-up of columns would show
    for column in ((2, 1, 0), (0, 2, 1)):
        assert odd_one_out(embeddings["spose66"], human[:, column], "dot")["accuracy"][0] < 0.21
    shuffled = np.random.default_rng(0).permutation(embeddings["spose66"])
    row = odd_one_out(shuffled, human, "dot").iloc[0]
    assert 0.325 < row["accuracy"] < 0.341
    assert row["ci_low"] < 1 / 3 < row["ci_high"]


def test_known_answers_where_there_are_photographs(
    things_root: Path, human: np.ndarray, clip: np.ndarray
) -> None:
    names = (things_root / "unique_id.txt").read_text().split()
    with_picture = [line.split("\t")[1] for line in (things_root / "images.tsv").read_text().splitlines()[1:]]
    part = Triplets(human, names=tuple(names)).among(with_picture)
    assert len(part) == 5_422
    # the mean that is subtracted is that of all 1,854 vectors
    store = SmallStore(names, {("clip", 0.0, "none"): clip})
    table = odd_one_out(store, part, ["cosine", "centred cosine"])
    assert table["accuracy"].round(3).tolist() == [0.514, 0.529]


def reference_similarity(x: np.ndarray, y: np.ndarray, metric: str, mean: np.ndarray) -> float:
    if metric == "dot":
        return float(x @ y)
    if metric == "euclidean":
        return -float(np.linalg.norm(x - y))
    if metric == "centred cosine":
        x, y = x - mean, y - mean
    if metric == "correlation":
        x, y = x - x.mean(), y - y.mean()
    return float(x @ y / (np.linalg.norm(x) * np.linalg.norm(y)))


def reference(X: np.ndarray, triplets: np.ndarray, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """The odd one of each triplet by the rule, one at a time, and the gap of the two largest similarities."""
    X = X.astype(np.float64)
    mean = X.mean(axis=0)
    odd, gap = [], []
    for i, j, k in triplets:
        # leaving out item 0 leaves the pair (j, k), and so on
        s = [reference_similarity(X[a], X[b], metric, mean) for a, b in ((j, k), (i, k), (i, j))]
        odd.append(int(np.argmax(s)))
        gap.append(sorted(s)[2] - sorted(s)[1])
    return np.array(odd), np.array(gap)


@pytest.mark.slow
@pytest.mark.parametrize("metric", METRICS)
def test_agrees_with_a_loop_on_real_triplets(clip: np.ndarray, human: np.ndarray, metric: str) -> None:
    # lengths vary, so that dot, Euclidean and cosine differ
    X = clip * np.random.default_rng(0).uniform(0.5, 2, size=(len(clip), 1)).astype(np.float32)
    part = human[:20_000]
    expected, gap = reference(X, part, metric)
    assert np.array_equal(predicted_odd(X.astype(np.float64), part, metric), expected)
    found = predicted_odd(X, part, metric)
    assert np.array_equal(found[gap >= 1e-5], expected[gap >= 1e-5])
    accuracy = odd_one_out(X.astype(np.float64), part, metric)["accuracy"][0]
    assert accuracy == pytest.approx(np.mean(expected == 2), abs=1e-12)


def test_ties() -> None:
    # rows: 0 and 1 and 2 alike, 3 apart, 4 as far from 0 as 3 is
    X = np.array([[2.0, 1.0, 1.0], [4.0, 2.0, 2.0], [2.0, 1.0, 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    all_three = [0, 1, 2]
    top_two_with_human = [0, 3, 4]  # s(0,3) = s(0,4) > s(3,4); the human keeps 0 and 3
    top_two_without_human = [3, 4, 0]  # the human keeps 3 and 4
    clear = [0, 1, 3]
    wrong = [0, 3, 1]
    triplets = [all_three, top_two_with_human, top_two_without_human, clear, wrong]
    for dtype in (np.float32, np.float64):
        assert predicted_odd(X.astype(dtype), triplets).tolist() == [-1, -1, -1, 2, 1]
        chance = triplet_scores(X.astype(dtype), triplets)
        assert chance.tolist() == pytest.approx([1 / 3, 1 / 2, 0, 1, 0])
        assert triplet_scores(X.astype(dtype), triplets, ties="linhardt2024").tolist() == [0, 1, 0, 1, 0]
        table = odd_one_out(X.astype(dtype), triplets)
        assert table["n_ties"][0] == 3
        assert table["accuracy"][0] == pytest.approx(chance.mean())


def test_rounding_makes_no_difference_between_duplicates() -> None:
    # two identical stimuli are equally similar to a third, whatever the order of summation
    rng = np.random.default_rng(1)
    for dtype, d in ((np.float32, 1280), (np.float64, 777)):
        X = rng.normal(size=(40, d)).astype(dtype)
        X[20:] = X[:20] * dtype(3)
        triplets = [[i, j, j + 20] for i in range(20) for j in range(20) if i != j]
        best = predicted_odd(X, triplets)
        assert (best == 0).all()  # the pair j, j + 20
        X[20:] = X[:20]
        triplets = [[j, i, j + 20] for i in range(20) for j in range(20) if i != j]
        assert np.array_equal(
            triplet_scores(X, [[i, j, k] for j, i, k in triplets], "correlation"), np.zeros(380)
        )
    # 0 apart from 1 and 2, which are alike and opposite: s(0,1) = s(0,2)
    Y = np.array([[1.0, 0.3, 0.1], [0.3, 1.0, 0.0], [0.3, 1.0, 0.0]])
    Y[2, 1] = -1.0
    Y[0, 1] = 0.0
    assert predicted_odd(Y, [[0, 1, 2]]).tolist() == [-1]


def test_order_of_rows_and_the_two_kept_items_do_not_matter() -> None:
    rng = np.random.default_rng(0)
    X, triplets = rng.normal(size=(30, 5)), random_triplets(30, 500)
    one = triplet_scores(X, triplets)
    assert np.array_equal(one, triplet_scores(X, triplets[:, [1, 0, 2]]))
    shuffle = rng.permutation(500)
    assert np.array_equal(one[shuffle], triplet_scores(X, triplets[shuffle]))


def test_threads_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from ldm_kit.measures import grouped

    rng = np.random.default_rng(0)
    X, triplets = rng.normal(size=(50, 5)), random_triplets(50, 5000)
    alone = odd_one_out(X, triplets)
    monkeypatch.setattr(grouped, "WORTH_THREADS", 100)
    monkeypatch.setenv("NUMBA_NUM_THREADS", "3")
    together = odd_one_out(X, triplets)
    assert together["accuracy"][0] == alone["accuracy"][0]
    assert together["se"][0] == pytest.approx(alone["se"][0], rel=1e-12)


def test_a_store_is_matched_by_name_and_labels_the_rows() -> None:
    rng = np.random.default_rng(0)
    names = tuple("abcdefgh")
    X = {("mid", level, "none"): rng.normal(size=(8, 4)) for level in (0.1, 0.5)}
    triplets = Triplets(random_triplets(8, 60), names=names, judgements="simulated", dataset="toy")
    table = odd_one_out(SmallStore(names, X), triplets, ceiling=(0.6, 0.7, "somewhere"))
    assert table["noise_level"].tolist() == [0.1, 0.5] and table["timestep"].tolist() == [100, 500]
    assert set(table["judgements"]) == {"simulated"} and set(table["dataset"]) == {"toy"}
    assert table["ceiling_high"].tolist() == [0.7, 0.7] and set(table["ceiling_source"]) == {"somewhere"}
    order = rng.permutation(8)
    shuffled = SmallStore([names[i] for i in order], {key: array[order] for key, array in X.items()})
    assert odd_one_out(shuffled, triplets)["accuracy"].tolist() == table["accuracy"].tolist()
    by_key = predicted_odd(shuffled, triplets)
    assert list(by_key) == list(X)
    assert np.array_equal(by_key["mid", 0.5, "none"], predicted_odd(X["mid", 0.5, "none"], triplets))
    # a stimulus that nobody judged may lack features; a judged one may not
    some = triplets.take(~(triplets.indices == 7).any(axis=1))
    without = SmallStore(names[:7], {key: array[:7] for key, array in X.items()})
    assert odd_one_out(without, some)["n_triplets"].tolist() == [len(some)] * 2
    with pytest.raises(MismatchError, match="1 judged stimuli have no features: h"):
        odd_one_out(without, triplets)
    mean = odd_one_out(without, some, "centred cosine", centre_on=["a", "b"])
    rows = odd_one_out(X["mid", 0.1, "none"][:7], some.indices, "centred cosine", centre_on=[0, 1])
    assert mean["accuracy"][0] == rows["accuracy"][0]


def test_unjudged_rows_may_be_zero_but_judged_ones_may_not() -> None:
    X = np.eye(5)
    X[4] = 0
    assert odd_one_out(X, [[0, 1, 2], [1, 2, 3]])["n_triplets"][0] == 2
    with pytest.raises(BadInputError, match=r"1 rows .* all zeros.* rows 4"):
        odd_one_out(X, [[0, 1, 4]])


@pytest.mark.parametrize(
    ("triplets", "message"),
    [
        ([[0, 1, 9]], r"point outside the 5 stimuli \(0 to 4\)"),
        ([[0, -1, 2]], "point outside"),
        ([[0, 1, 1]], "name an item twice"),
        ([[0.0, 1.0, 2.0]], r"not \(t, 3\) of integers"),
        ([[0, 1]], r"not \(t, 3\)"),
        ([[0, 1, 2], [0, 1]], r"different lengths, not \(t, 3\)"),
        (None, r"not \(t, 3\)"),
    ],
)
def test_bad_triplets(triplets: Any, message: str) -> None:
    for measure in (odd_one_out, predicted_odd, triplet_scores):
        with pytest.raises(BadInputError, match=message):
            measure(np.eye(5), triplets)


def test_bad_features() -> None:
    triplets = [[0, 1, 2]]
    X = np.eye(5)
    X[3, 3] = np.nan
    with pytest.raises(NonFiniteError, match="1 of 5 stimuli: rows 3"):
        odd_one_out(X, triplets)
    with pytest.raises(NonFiniteError, match="rows d"):
        odd_one_out(
            SmallStore("abcde", {("m", 0.1, "none"): X}), Triplets(np.array(triplets), names=tuple("abcde"))
        )
    with pytest.raises(BadInputError, match="a matrix of numbers"):
        odd_one_out(np.ones((5, 2, 2)), triplets)
    with pytest.raises(BadInputError, match="constant across dimensions.*rows 1"):
        odd_one_out(np.array([[1.0, 2], [3, 3], [2, 1]]), triplets, "correlation")
    with pytest.raises(BadInputError, match="equal the mean"):
        odd_one_out(np.array([[1.0, 2], [2, 1], [1.5, 1.5]]), triplets, "centred cosine")
    with pytest.raises(MismatchError, match="5 rows, the triplets are over 3"):
        odd_one_out(np.eye(5), Triplets(np.array(triplets), names=("a", "b", "c")))
    with pytest.raises(UnknownNameError, match="Did you mean 'cosine'"):
        odd_one_out(np.eye(5), triplets, "cosin")
    with pytest.raises(UnknownNameError, match="tie rule"):
        odd_one_out(np.eye(5), triplets, ties="none")
    with pytest.raises(UnknownNameError, match="estimand"):
        odd_one_out(np.eye(5), triplets, ci="bootstrap")
    with pytest.raises(BadInputError, match="neither one row of a table"):
        odd_one_out(np.eye(5), triplets, ceiling=0.7)
    store = SmallStore("abcde", {("m", 0.1, "none"): np.eye(5)})
    named = Triplets(np.array(triplets), names=tuple("abcde"))
    for centre_on in ("a", 0):
        with pytest.raises(BadInputError, match=rf"Give a list, even of one: \[{centre_on!r}\]"):
            odd_one_out(store, named, "centred cosine", centre_on=centre_on)


def test_no_triplets_give_an_empty_answer() -> None:
    row = odd_one_out(np.eye(5), np.empty((0, 3), np.int64)).iloc[0]
    assert row["n_triplets"] == 0 and np.isnan(row["accuracy"])


def test_the_headline_is_reported_where_it_was_not_chosen() -> None:
    rng = np.random.default_rng(0)
    names = tuple(f"s{i}" for i in range(60))
    cells = {(f"b{k}", 0.5, "none"): rng.normal(size=(60, 4)) for k in range(40)}
    triplets = Triplets(random_triplets(60, 4000), names=names)
    store = SmallStore(names, cells)
    everywhere = odd_one_out(store, triplets)["accuracy"].max()
    table = best_cell(store, triplets, random_state=3)
    assert table["fold"].tolist() == [0, 1]
    # forty cells of noise: the best looks good where it was picked, not where it is reported
    assert (table["accuracy_where_chosen"] > 0.36).all() and everywhere > 0.35
    assert ((table["ci_low"] < 1 / 3) & (table["ci_high"] > 1 / 3)).all()
    halves = split_objects(names, 3)
    for row in table.itertuples():
        part = triplets.among(halves[1 - row.fold])
        assert len(part) == row.n_triplets
    with pytest.raises(BadInputError, match="no triplets of its own"):
        best_cell(np.random.default_rng(0).normal(size=(60, 3)), [[i, i + 1, i + 2] for i in range(6)])


def test_halves_are_reproducible_and_disjoint() -> None:
    names = [f"s{i}" for i in range(31)]
    a, b = split_objects(names, 5)
    assert set(a) | set(b) == set(names) and not set(a) & set(b) and len(a) - len(b) == 1
    again = split_objects(names[::-1], 5)
    assert [set(part) for part in again] == [set(a), set(b)]
    assert set(split_objects(names, 6)[0]) != set(a)


@pytest.mark.slow
def test_names_survive_any_order_of_import() -> None:
    code = (
        "import ldm_kit.measures as m\n"
        "for name in reversed(m.__all__): getattr(m, name)\n"
        "import types, sys\n"
        "bad = [n for n in m.__all__ if isinstance(getattr(m, n), types.ModuleType)]\n"
        "assert not bad, bad\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.parametrize("metric", ["dot", "euclidean"])
def test_one_long_row_makes_no_ties_among_the_others(metric: str) -> None:
    rng = np.random.default_rng(0)
    X, triplets = rng.normal(size=(40, 16)).astype(np.float32), random_triplets(40, 3000)
    X[0] *= 1000
    expected, gap = reference(X, triplets, metric)
    found = predicted_odd(X, triplets, metric)
    # distances: the long row moves the mean away from the others, and rounding is of lengths from there
    clear = gap >= (0 if metric == "dot" else 2e-3)
    assert np.array_equal(found[clear], expected[clear])
    # and what does tie still ties, in each dtype, whatever the lengths
    X[20:] = X[:20]
    pairs = [[j, j + 20, i] for i in range(20) for j in range(20) if i != j]
    for dtype in (np.float32, np.float64):
        scores = triplet_scores(X.astype(dtype), np.array(pairs)[:, [0, 2, 1]], metric, ties="chance")
        assert set(scores.tolist()) <= {0.0, 0.5}


def test_categories_tie_as_triplets_do() -> None:
    X = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0], [1e4, 1e4]], np.float32)
    _, tolerance = similarity_and_tolerance(X, "dot")
    assert tolerance.to_each(slice(1), slice(1, 3)) < 1e-5 < tolerance.to_each(slice(1), slice(1, 5))


@pytest.mark.parametrize("scale", [1e-25, 1e25])
@pytest.mark.parametrize("metric", METRICS)
def test_features_of_any_size_are_compared(metric: str, scale: float) -> None:
    X, triplets = np.random.default_rng(0).normal(size=(30, 8)).astype(np.float32), random_triplets(30, 500)
    assert np.array_equal(
        predicted_odd(X * np.float32(scale), triplets, metric), predicted_odd(X, triplets, metric)
    )


def test_a_short_row_among_long_ones_has_a_direction() -> None:
    X = np.array([[1e5, 0.0], [1e-3, 1e-3], [0.0, 1e5]], np.float32)
    assert triplet_scores(X, [[0, 2, 1]]).tolist() == [0.0]
    assert triplet_scores(X, [[0, 1, 2], [1, 2, 0]]).tolist() == [0.5, 0.5]
    X[1] = 0
    with pytest.raises(BadInputError, match="all zeros"):
        triplet_scores(X, [[0, 2, 1]])
    # short, yet not what the mean is; and the mean but for rounding
    Y = np.array([[1e5, 1.0], [-1e5, -1.0], [1e-3, 0.0], [-1e-3, 0.0]], np.float32)
    assert predicted_odd(Y, [[0, 2, 1]], "centred cosine").tolist() == [2]
    rng = np.random.default_rng(0)
    for dtype in (np.float32, np.float64):
        Z = rng.normal(size=(9, 50)).astype(dtype)
        Z[8] = Z[:8].mean(axis=0)
        with pytest.raises(BadInputError, match=r"equal the mean.* rows 8"):
            predicted_odd(Z, [[0, 1, 8]], "centred cosine")
        Z[8] = 0.1
        with pytest.raises(BadInputError, match=r"constant across dimensions.* rows 8"):
            predicted_odd(Z, [[0, 1, 8]], "correlation")
