"""Comparisons, RSA, CKA, categories and dimensions against independent references."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import false_discovery_control, pearsonr, spearmanr, t as t_distribution
from sklearn.linear_model import Ridge
from sklearn.model_selection import LeaveOneOut, cross_val_score
from sklearn.neighbors import NearestCentroid

from ldm_kit.datasets.triplets import Triplets, checked_indices
from ldm_kit.errors import BadInputError, MismatchError, UnknownNameError
from ldm_kit.measures import (
    LinearProbe,
    accuracy_by_category,
    accuracy_by_concept,
    categorise,
    cka,
    compare,
    cross_validate_probe,
    dimension_regression,
    odd_one_out,
    rsa,
    triplet_scores,
    zero_shot,
)
from ldm_kit.measures.cells import membership
from ldm_kit.measures.folds import object_folds
from ldm_kit.measures.statistics import raised
from ldm_kit.sentences import format_difference
from ldm_kit.tables import from_text, tidy, write_table
from tests.small_store import SmallStore, drawn_choices, random_triplets


@pytest.fixture
def world() -> tuple[SmallStore, Triplets]:
    rng = np.random.default_rng(0)
    names = tuple(f"s{i:02}" for i in range(40))
    truth = rng.gamma(1.0, 1.0, size=(40, 5))
    cells = {
        (block, level, conditioning): truth + noise * rng.normal(size=(40, 5))
        for block, noise in (("down", 3.0), ("mid", 1.0), ("up", 0.3))
        for level in (0.1, 0.9)
        for conditioning in ("none", "label")
    }
    triplets = Triplets(drawn_choices(truth, random_triplets(40, 4000)), names=names, judgements="simulated")
    return SmallStore(names, cells), triplets


def many_blocks() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Ten blocks, each noisier than the last: differences of which some are shown only if nobody counts them."""
    rng = np.random.default_rng(12)
    truth = rng.gamma(1.0, 1.0, size=(40, 5))
    cells = {f"b{i}": truth + (0.4 + 0.4 * i) * rng.normal(size=(40, 5)) for i in range(10)}
    return cells, drawn_choices(truth, random_triplets(40, 3000))


@pytest.mark.parametrize("correction", ["holm", "bh", "none"])
def test_a_corrected_interval_says_what_the_corrected_test_says(correction: str) -> None:
    table = compare(*many_blocks(), correction=correction)
    excludes = (table["low_corrected"] > 0) | (table["high_corrected"] < 0)
    assert (excludes == (table["p_corrected"] < 0.05)).all() and 0 < excludes.sum() < len(table)
    raw = table[["ci_low", "ci_high"]].to_numpy()
    ours = table[["low_corrected", "high_corrected"]].to_numpy()
    surest = table["p"].argmin()
    half = float(t_distribution.ppf(1 - 0.025 / len(table), 39 / 4) * table["se"][surest])  # Bonferroni
    if correction == "holm":
        assert ours[surest] == pytest.approx(table["difference"][surest] + np.array([-half, half]))
    if correction == "none":
        np.testing.assert_allclose(ours, raw)
    else:
        assert (ours[:, 0] <= raw[:, 0] + 1e-12).all() and (ours[:, 1] >= raw[:, 1] - 1e-12).all()


def test_no_sentence_says_a_gain_that_the_corrected_test_does_not_show() -> None:
    table = compare(*many_blocks())
    seeming = table[(table["ci_low"] > 0) & (table["p_corrected"] >= 0.05)]
    shown = table[(table["ci_low"] > 0) & (table["p_corrected"] < 0.05)]
    assert len(seeming) and len(shown)
    for _, row in seeming.iterrows():
        sentence = format_difference(row)
        assert "a gain" not in sentence and "cannot be told from zero" in sentence, sentence
        assert "corrected for 45 comparisons" in sentence
    assert all(format_difference(row).endswith(": a gain") for _, row in shown.iterrows())
    assert "a gain" not in format_difference(compare(*many_blocks(), ci="these objects").assign(
        low_corrected=np.nan).iloc[0])  # fmt: skip
    cells, triplets = many_blocks()
    gains = cross_validate_probe(cells, triplets, LinearProbe(alphas=(0.01,), max_iter=5)).summary()
    for _, row in gains.iterrows():
        assert format_difference(row, "gain").endswith("a gain") == (
            row["gain_p_corrected"] < 0.05 and row["gain"] > 0
        )
    assert (
        gains["gain_high_corrected"] - gains["gain_low_corrected"] >= gains["gain_high"] - gains["gain_low"]
    ).all()


def test_differences_are_those_of_the_accuracies(world: tuple[SmallStore, Triplets]) -> None:
    store, triplets = world
    table = compare(store, triplets)
    assert len(table) == 3 * 4
    single = odd_one_out(store, triplets).set_index(["block", "noise_level", "conditioning"])["accuracy"]
    for row in table.itertuples():
        expected = (
            single[row.a, row.noise_level, row.conditioning]
            - single[row.b, row.noise_level, row.conditioning]
        )
        assert row.difference == pytest.approx(expected)
        assert row.ci_low <= row.difference <= row.ci_high and row.p <= row.p_corrected <= 1
    worst = table[(table["a"] == "down") & (table["b"] == "up")]
    assert (worst["ci_high"] < 0).all() and (worst["p_corrected"] < 0.05).all()
    averaged = compare(store, triplets, average=["noise_level", "conditioning"])
    assert len(averaged) == 3
    assert averaged["accuracy_a"][0] == pytest.approx(single["down"].mean())
    conditioning_table = compare(store, triplets, by="conditioning", reference="none")
    assert (
        len(conditioning_table) == 6
        and set(conditioning_table["a"]) == {"label"}
        and set(conditioning_table["b"]) == {"none"}
    )


def test_null_differences_are_rarely_significant() -> None:
    rng = np.random.default_rng(0)
    triplets = random_triplets(60, 3000)
    found = compare({f"b{k}": rng.normal(size=(60, 5)) for k in range(12)}, triplets)
    assert len(found) == 66
    assert (found["p"] < 0.05).mean() < 0.2 and (found["p_corrected"] < 0.05).mean() < 0.05


def test_comparison_errors(world: tuple[SmallStore, Triplets]) -> None:
    store, triplets = world
    with pytest.raises(UnknownNameError, match="Unknown label 'blok'. Did you mean 'block'"):
        compare(store, triplets, by="blok")
    with pytest.raises(UnknownNameError, match="reference block 'top'"):
        compare(store, triplets, reference="top")
    with pytest.raises(UnknownNameError, match="correction"):
        compare(store, triplets, correction="bonferoni")
    with pytest.raises(BadInputError, match="nothing to compare"):
        compare({"only": np.eye(40)}, triplets)
    uneven = SmallStore(store.names, {key: store[key] for key in store.cells()[:-1]})
    with pytest.raises(MismatchError, match="averaged over different cells"):
        compare(uneven, triplets, average=["conditioning", "noise_level"])


def test_corrections() -> None:
    p = np.random.default_rng(0).uniform(size=20) ** 3
    assert raised(p, "bh") == pytest.approx(false_discovery_control(p, method="bh"))
    holm, running = {}, 0.0
    for rank, value in enumerate(sorted(p)):
        running = max(running, (20 - rank) * value)
        holm[value] = min(running, 1.0)
    assert np.minimum(raised(p, "holm"), 1) == pytest.approx([holm[value] for value in p])


@pytest.mark.slow
def test_rsa_on_the_48_objects(things_root: Path) -> None:
    human = np.load(things_root / "rdm48_human.npy")
    rows = pd.read_csv(things_root / "names48.tsv", sep="\t")["things_row0"].to_numpy()
    spose = np.loadtxt(things_root / "spose_embedding_66d_sorted.txt")
    found = {
        (metric, method): rsa(spose, human, rows, metric=metric, method=method)["correlation"][0]
        for metric in ("dot", "choice probability")
        for method in ("pearson", "spearman")
    }
    assert round(found["dot", "pearson"], 3) == 0.883 and round(found["dot", "spearman"], 3) == 0.878
    assert round(found["choice probability", "pearson"], 3) == 0.906
    assert round(found["choice probability", "spearman"], 3) == 0.898


def test_rsa_agrees_with_scipy() -> None:
    rng = np.random.default_rng(0)
    X, upper = rng.normal(size=(15, 4)), np.triu_indices(15, 1)
    human = np.abs(rng.normal(size=(15, 15)))
    human = human + human.T
    np.fill_diagonal(human, 0)
    names = [f"s{i}" for i in range(15)]
    store = SmallStore(names, {("mid", 0.5, "none"): X})
    order = rng.permutation(15)
    frame = pd.DataFrame(human[np.ix_(order, order)], index=[names[i] for i in order])
    model = 1 - np.corrcoef(X)
    for method, reference in (("spearman", spearmanr), ("pearson", pearsonr)):
        row = rsa(store, frame, metric="correlation", method=method).iloc[0]
        assert row["correlation"] == pytest.approx(reference(model[upper], human[upper])[0])
        assert row["ci_low"] < row["correlation"] < row["ci_high"] and row["block"] == "mid"
    with pytest.raises(MismatchError, match="over 15 stimuli, 14 were named"):
        rsa(store, frame, names[:14])
    with pytest.raises(UnknownNameError, match="method"):
        rsa(store, frame, method="spearmann")
    with pytest.raises(UnknownNameError, match="stimulus"):
        rsa(store, frame.rename(index={"s3": "s99"}))
    with pytest.raises(BadInputError, match="not symmetric"):
        rsa(X, rng.normal(size=(15, 15)))
    with pytest.raises(BadInputError, match=r"up to 1 on its diagonal.* give 1 - similarity"):
        rsa(X, np.corrcoef(X))
    # pandas numbers rows that nobody named
    assert rsa(X, pd.DataFrame(human))["correlation"][0] == rsa(X, human)["correlation"][0]
    with pytest.raises(MismatchError, match="Stimuli were named"):
        rsa(X, frame)


def song_cka(X: np.ndarray, Y: np.ndarray) -> float:
    """Debiased CKA by Song et al.'s formula of HSIC."""

    def hsic(K: np.ndarray, L: np.ndarray) -> float:
        n = len(K)
        K, L = K - np.diag(np.diag(K)), L - np.diag(np.diag(L))
        ones = np.ones(n)
        middle = ones @ K @ ones * (ones @ L @ ones) / ((n - 1) * (n - 2))
        return float((np.trace(K @ L) + middle - 2 / (n - 2) * (ones @ K @ L @ ones)) / (n * (n - 3)))

    K, L = X @ X.T, Y @ Y.T
    return hsic(K, L) / np.sqrt(hsic(K, K) * hsic(L, L))


def test_cka_agrees_with_the_formulas() -> None:
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(20, 6)), rng.normal(size=(20, 30))
    Y[:, :6] += X
    table = cka({"x": X, "y": Y}).set_index(["block", "block_b"])["cka"]
    assert table["x", "y"] == pytest.approx(song_cka(X, Y)) == table["y", "x"]
    assert table["x", "x"] == pytest.approx(1)
    Xc, Yc = X - X.mean(axis=0), Y - Y.mean(axis=0)
    expected = np.linalg.norm(Xc.T @ Yc) ** 2 / np.linalg.norm(Xc.T @ Xc) / np.linalg.norm(Yc.T @ Yc)
    biased = cka({"x": X}, {"y": Y}, debiased=False)
    assert biased["cka"].tolist() == pytest.approx([expected]) and biased["block_b"].tolist() == ["y"]
    # two geometries that have nothing in common, with more dimensions than stimuli
    far = cka(rng.normal(size=(20, 500)), rng.normal(size=(20, 500)))["cka"][0]
    assert abs(far) < 0.3
    names = [f"s{i}" for i in range(20)]
    one = SmallStore(names, {("a", 0.1, "none"): X})
    other = SmallStore(names[::-1], {("b", 0.1, "none"): Y[::-1]})
    assert cka(one, other)["cka"][0] == pytest.approx(song_cka(X, Y))
    with pytest.raises(MismatchError, match="in one store only: s0"):
        cka(one, SmallStore(names[1:], {("b", 0.1, "none"): Y[1:]}))
    with pytest.raises(BadInputError, match="at least 4"):
        cka(X[:3])


def test_ridge_takes_the_penalty_that_leaves_the_least_error_one_object_left_out() -> None:
    rng = np.random.default_rng(0)
    alphas = (0.01, 0.1, 1.0, 10.0)
    for n, d in ((40, 10), (30, 60)):
        X = rng.normal(size=(n, d))
        y = X[:, 0] + rng.normal(size=n)
        fold = object_folds(n, 2, 0)
        predicted = np.empty(n)
        for number in range(2):
            train, test = fold != number, fold == number
            mean_square = np.mean(np.linalg.svd(X[train] - X[train].mean(axis=0), compute_uv=False) ** 2)
            models = [Ridge(alpha * mean_square) for alpha in alphas]
            errors = [
                -cross_val_score(
                    model, X[train], y[train], cv=LeaveOneOut(), scoring="neg_mean_squared_error"
                ).mean()
                for model in models
            ]
            predicted[test] = models[int(np.argmin(errors))].fit(X[train], y[train]).predict(X[test])
        means = np.array([y[fold != number].mean() for number in range(2)])
        expected = 1 - np.sum((y - predicted) ** 2) / np.sum((y - means[fold]) ** 2)
        table = dimension_regression(X, y[:, None], cv=2, alphas=alphas)
        assert table["r2"][0] == pytest.approx(expected, abs=1e-6)
    with pytest.raises(BadInputError, match="are all the same"):
        dimension_regression(np.ones((40, 5)), rng.normal(size=(40, 1)))


def test_dimensions_are_read_from_held_out_objects() -> None:
    rng = np.random.default_rng(0)
    truth = rng.gamma(1.0, 1.0, size=(90, 3))
    names = [f"s{i}" for i in range(90)]
    X = truth[:, :2] @ rng.normal(size=(2, 200)) + 0.1 * rng.normal(size=(90, 200))
    embedding = pd.DataFrame(truth, index=names, columns=["round", "red", "hidden"])
    triplets = Triplets(drawn_choices(truth, random_triplets(90, 6000)), names=tuple(names))
    store = SmallStore(names, {("mid", 0.5, "none"): X})
    table = dimension_regression(store, embedding.iloc[::-1], triplets=triplets)
    r2 = table.set_index("dimension")["r2"]
    assert r2["round"] > 0.9 and r2["red"] > 0.9 and r2["hidden"] < 0.2
    whole = table[table["dimension"] == ""].iloc[0]
    assert 1 / 3 < whole["accuracy"] < whole["embedding_accuracy"] and whole["ci_low"] > 1 / 3
    with pytest.raises(MismatchError, match="1 stimuli have no row in the embedding: s89"):
        dimension_regression(store, embedding.iloc[:89])
    with pytest.raises(MismatchError, match="89 rows"):
        dimension_regression(X, truth[:89])
    with pytest.raises(BadInputError, match="`alphas` is empty"):
        dimension_regression(X, truth, alphas=())
    with pytest.raises(BadInputError, match="each of alphas=-1"):
        dimension_regression(X, truth, alphas=(1.0, -1.0))


def test_categorisation_agrees_with_sklearn() -> None:
    rng = np.random.default_rng(0)
    label = np.repeat(np.arange(6), 10)
    X = rng.normal(size=(6, 8))[label] + 1.5 * rng.normal(size=(60, 8))
    table = categorise(X, pd.Series([f"c{k}" for k in label]), cv=10, metric="euclidean")
    # ten folds of six: one object of each category is held out, whichever it is
    right = []
    for held in range(60):
        train = np.arange(60) != held
        right.append(NearestCentroid().fit(X[train], label[train]).predict(X[[held]])[0] == label[held])
    overall = table[table["category"] == ""].iloc[0]
    assert abs(overall["accuracy"] - np.mean(right)) < 0.08
    assert overall["n_objects"] == 60 and overall["chance"] == pytest.approx(1 / 6)
    assert table["accuracy"][1:].mean() == pytest.approx(overall["accuracy"])
    noise = categorise(rng.normal(size=(60, 8)), pd.Series([f"c{k}" for k in label])).iloc[0]
    assert noise["ci_low"] < 1 / 6 < noise["ci_high"]
    with pytest.raises(BadInputError, match="two are needed"):
        categorise(X, pd.Series(["same"] * 60))
    for cv in ("3", 2.5, 1):
        with pytest.raises(BadInputError, match="cv="):
            categorise(X, pd.Series([f"c{k}" for k in label]), cv=cv)


def test_things_categories(things_root: Path) -> None:
    table = pd.read_csv(things_root / "categories53_things_order.tsv", sep="\t", index_col="uniqueID")
    spose = np.loadtxt(things_root / "spose_embedding_66d_sorted.txt")
    found = categorise(spose, table.iloc[:, 1:28])
    overall = found.iloc[0]
    print(
        f"{overall['accuracy']:.3f} over {overall['n_objects']} objects, {overall['n_categories']} categories"
    )
    assert overall["n_categories"] > 20 and overall["accuracy"] > 0.7


def test_accuracy_per_concept_and_category(world: tuple[SmallStore, Triplets]) -> None:
    store, triplets = world
    X = store["mid", 0.1, "none"]
    right = triplet_scores(X, triplets)
    concepts = accuracy_by_concept(X, triplets).set_index("concept")
    for i in (0, 17):
        held = (triplets.indices == i).any(axis=1)
        row = concepts.loc[triplets.names[i]]
        assert row["accuracy"] == pytest.approx(right[held].mean()) and row["n_triplets"] == held.sum()
        assert row["ci_low"] < row["accuracy"] < row["ci_high"]
    kinds = {
        name: "even" if i % 2 == 0 else ["odd", "third"] if i % 3 == 0 else "odd"
        for i, name in enumerate(store.names)
    }
    table = accuracy_by_category(store, triplets, kinds)
    assert len(table) == 3 * 12
    row = table[(table["block"] == "mid") & (table["category"] == "third")].iloc[0]
    held = np.isin(triplets.indices, [i for i in range(40) if i % 2 and i % 3 == 0]).any(axis=1)
    assert row["accuracy"] == pytest.approx(right[held].mean()) and row["n_objects"] == 7
    with pytest.raises(MismatchError, match="39 stimuli have no row"):
        accuracy_by_category(store, triplets, {"s00": "even"})


def test_a_missing_category_is_none() -> None:
    names = ["a", "b", "c", "d"]
    expected = pd.DataFrame({"x": [True, False, False, False], "y": [False, False, True, True]}, index=names)
    for categories in (
        {"a": "x", "b": None, "c": "y", "d": ["y", np.nan]},
        pd.Series(["x", np.nan, "y", "y"], index=names),
        pd.Series(["x", pd.NA, "y", "y"], index=names).astype("category"),
        pd.DataFrame({"x": [1, 0, np.nan, 0], "y": [np.nan, np.nan, 1, 1]}, index=names),
        pd.DataFrame({"x": [True, False, None, False], "y": [None, None, True, True]}, index=names),
    ):
        pd.testing.assert_frame_equal(membership(categories, names, 4), expected)
    assert membership(pd.Series([2, 10, 2]), None, 3)[2].tolist() == [True, False, True]


@pytest.mark.parametrize("cv", [2.5, "3", True])
def test_folds_are_a_whole_number(cv):
    with pytest.raises(BadInputError, match="cv="):
        object_folds(30, cv)


@pytest.mark.parametrize("centre_on", [[40], [-1], np.ones(5, bool)])
def test_rows_to_centre_on_must_exist(centre_on):
    X = np.random.default_rng(0).normal(size=(5, 3))
    with pytest.raises((BadInputError, MismatchError), match="there are 5|were named"):
        odd_one_out(X, [[0, 1, 2]], metric="centred cosine", centre_on=centre_on)


def test_timesteps_of_flow_matching_need_not_be_whole():
    store = SmallStore(["a", "b", "c"], {("block", 1 / 3, "none"): np.eye(3)})
    store.labels = lambda key: {"block": "block", "timestep": 333.333333}
    triplets = Triplets(np.array([[0, 1, 2]]), names=("a", "b", "c"))
    assert odd_one_out(store, triplets)["timestep"].item() == 333.333333


def test_plain_triplets_are_grouped_once_for_all_cells(monkeypatch):
    made = []
    monkeypatch.setattr(zero_shot, "checked_indices", lambda *a: made.append(a) or checked_indices(*a))
    X = np.random.default_rng(0).normal(size=(5, 3))
    cells, kinds = {"a": X, "b": X}, pd.Series(["x", "x", "y", "y", "y"])
    for number, measure in enumerate((odd_one_out, compare, accuracy_by_concept), 1):
        measure(cells, [[0, 1, 2]])
        assert len(made) == number
    accuracy_by_category(cells, [[0, 1, 2]], kinds)
    assert len(made) == 4


@pytest.mark.parametrize("order", [1, -1])
def test_cells_of_other_numbers_of_rows_are_paired_triplet_by_triplet(order: int) -> None:
    X, triplets = np.random.default_rng(0).normal(size=(600, 8)), random_triplets(500, 6000)
    cells = {"a": X[:500], "b": X, "c": X[:500]}
    table = compare(dict(list(cells.items())[::order]), triplets)
    assert (table["difference"] == 0).all() and (table["se"] == 0).all() and (table["p"] == 1).all()


def test_tables_whose_names_hold_dots_have_a_file_each(tmp_path: Path) -> None:
    for number in (0, 1):
        path = write_table(tidy([{"fold": number}]), tmp_path / f"up_blocks.{number}")
        assert path == write_table(tidy([{"fold": number}]), path)
    kept = [f"up_blocks.{number}.{ending}" for number in (0, 1) for ending in ("csv", "parquet")]
    assert sorted(file.name for file in tmp_path.iterdir()) == kept
    assert pd.read_parquet(tmp_path / "up_blocks.0.parquet")["fold"].tolist() == [0]


def test_a_spreadsheet_runs_no_cell_of_a_csv(tmp_path: Path) -> None:
    names = [
        "=cmd|' /C calc'!A0",
        "+1 apple",
        "-apple.png",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        "＝1",
        "'=x",
        "it's",
        "-0.5",
    ]
    table = pd.DataFrame({"block": names, "gain": [-0.5] * 10, "n": pd.array([-1, None] * 5, dtype="Int64")})
    table = table.assign(kind=pd.Categorical(names), other=[*names[:9], None])
    table.columns = ["=block", *table.columns[1:]]
    path = write_table(table, tmp_path / "a")
    pd.testing.assert_frame_equal(pd.read_parquet(path)[["=block", "gain"]], table[["=block", "gain"]])
    with path.with_suffix(".csv").open(newline="", encoding="utf-8") as file:
        header, *lines = csv.reader(file)
    assert header == ["'=block", "gain", "n", "kind", "other"]
    for name, line, n in zip(names, lines, ["-1", ""] * 5, strict=True):
        assert line[1:3] == ["-0.5", n]
        assert line[0] == line[3] == (name if name in ("it's", "-0.5") else f"'{name}")
        assert from_text(line[0]) == name
    assert [line[4] for line in lines[7:]] == ["''=x", "it's", ""]
