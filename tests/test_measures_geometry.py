"""RSA and CKA: what they compare, what cannot be compared, and their intervals."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from rsatoolbox.data import Dataset
from rsatoolbox.rdm import RDMs, calc_rdm, compare as compare_rdms
from scipy.spatial.distance import pdist, squareform
from scipy.stats import t as t_distribution

from ldm_kit.errors import BadInputError, MismatchError
from ldm_kit.measures import cka, rsa
from ldm_kit.measures.geometry import METHODS
from tests.small_store import SmallStore

NAMES = [f"s{i:02}" for i in range(14)]
CONCEPTS = list("aabcdddefghijk")


def two_views(seed: int = 0, n: int = 14) -> tuple[np.ndarray, np.ndarray]:
    """Features of the same objects that agree in part."""
    rng = np.random.default_rng(seed)
    X, Y = rng.normal(size=(n, 5)), rng.normal(size=(n, 30))
    Y[:, :5] += X
    return X, Y


def distances(X: np.ndarray) -> np.ndarray:
    return squareform(pdist(X, "sqeuclidean"))


def jackknife(without: list[float]) -> float:
    g = len(without)
    return float(np.sqrt((g - 1) * np.var(without)))


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0, 1e-6])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_squared_distances_are_compared_by_cosine_whatever_their_scale(scale: float, dtype: type) -> None:
    X, Y = two_views()
    human = distances(Y)
    reference = compare_rdms(
        calc_rdm(Dataset(X), method="euclidean"), RDMs(human[np.triu_indices(14, 1)][None]), method="cosine"
    )
    found = rsa((scale * X).astype(dtype), human, metric="euclidean", method="cosine")["correlation"][0]
    assert found == pytest.approx(reference[0, 0], abs=1e-6 if dtype is np.float32 else 1e-12)


def test_dot_products_have_no_zero_to_compare_by_cosine() -> None:
    X, Y = two_views()
    with pytest.raises(
        BadInputError, match=r"depend on the scale.*Metrics that can: (?!.*dot,).*cosine.*pearson"
    ):
        rsa(X, distances(Y), metric="dot", method="cosine")
    for method in set(METHODS) - {"cosine"}:
        values = [
            rsa(s * X, distances(Y), metric="dot", method=method)["correlation"][0] for s in (0.01, 1, 100)
        ]
        assert values == pytest.approx([values[1]] * 3)


@pytest.mark.parametrize("method", METHODS)
def test_a_matrix_that_does_not_vary_is_an_error(method: str) -> None:
    X, Y = two_views()
    rng = np.random.default_rng(0)
    alike = np.ones((14, 14)) - np.eye(14)
    noise = rng.normal(size=(14, 14))
    for human in (alike, 3 * alike, alike * (1 + 1e-8 * (noise + noise.T)), 0 * alike):
        with pytest.raises(BadInputError, match=r"human matrix are all the same \(.*Give a matrix"):
            rsa(X, human, method=method)
    simplex = np.eye(14)
    rotated = np.linalg.qr(noise)[0].astype(np.float32)
    for cell, metrics in {
        "simplex": (
            simplex,
            ("cosine", "centred cosine", "dot", "euclidean", "correlation", "choice probability"),
        ),
        "rotated": (rotated, ("cosine", "dot", "euclidean")),
        "moved": (rotated + np.float32(100), ("euclidean",)),
        "dead": (
            np.ones((14, 5), np.float32) + 1e-7 * np.sign(X).astype(np.float32),
            ("cosine", "euclidean"),
        ),
    }.items():
        features, allowed = metrics
        for metric in allowed:
            if (metric, method) == ("dot", "cosine"):
                continue
            store = SmallStore(NAMES, {(cell, 0.5, "label"): features})
            with pytest.raises(
                BadInputError, match=rf"'{cell}' \(noise_level 0.5, conditioning label\).*{metric!r}"
            ):
                rsa(store, distances(Y), NAMES, metric=metric, method=method)
    little = np.eye(14) + 1e-3 * noise  # little, but no rounding
    assert rsa(little, distances(little), metric="euclidean", method=method)["correlation"][
        0
    ] == pytest.approx(1)


def test_rsa_leaves_out_one_group_at_a_time() -> None:
    X, Y = two_views()
    human, group = distances(Y), np.array(CONCEPTS)
    store = SmallStore(NAMES, {("mid", 0.5, "none"): X})
    store.concepts = tuple(CONCEPTS)
    frame = pd.DataFrame(human, index=NAMES)
    row = rsa(store, frame, method="pearson").iloc[0]
    left = [np.ix_(group != g, group != g) for g in sorted(set(CONCEPTS))]
    upper = np.triu_indices
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    model = 1 - unit @ unit.T
    without = [
        np.corrcoef(model[one][upper(len(one[0]), 1)], human[one][upper(len(one[0]), 1)])[0, 1]
        for one in left
    ]
    assert row["se"] == pytest.approx(jackknife(without)) and row["estimand"] == "new objects"
    reach = t_distribution.ppf(0.975, len(left) - 1) * row["se"]
    assert row["ci_high"] - row["correlation"] == pytest.approx(reach)
    order = np.random.default_rng(1).permutation(14)
    mapping = dict(zip(NAMES, CONCEPTS, strict=True))
    for found in (
        rsa(store, frame.iloc[order, order], method="pearson"),
        rsa(store, frame, method="pearson", groups=mapping),
        rsa(X, human, method="pearson", groups=CONCEPTS),
        rsa(X, human, method="pearson", groups=pd.Series(CONCEPTS)),
    ):
        assert found["se"][0] == pytest.approx(row["se"])
    alone = rsa(store, frame, method="pearson", groups=NAMES)
    assert alone["se"][0] == pytest.approx(rsa(X, human, method="pearson")["se"][0]) != row["se"]
    part = rsa(store, frame.iloc[:9, :9], method="pearson", groups=mapping)
    assert part["se"][0] == pytest.approx(
        rsa(X[:9], human[:9, :9], method="pearson", groups=CONCEPTS[:9])["se"][0]
    )
    one = rsa(X, human, groups=["all"] * 14)
    assert one[["se", "ci_low", "ci_high"]].isna().all(axis=None) and one["correlation"].notna().all()
    with pytest.raises(MismatchError, match="13 labels"):
        rsa(X, human, groups=CONCEPTS[:13])
    with pytest.raises(MismatchError, match="s13"):
        rsa(store, frame, groups=dict(list(mapping.items())[:13]))


def test_without_a_group_that_alone_varies_there_is_no_interval() -> None:
    X, human = np.eye(6), np.ones((6, 6)) - np.eye(6)
    X[5, 4] = 1  # only the last object is near another
    human[5, :5] = human[:5, 5] = [0.9, 0.7, 0.8, 0.6, 0.1]
    row = rsa(X, human).iloc[0]
    assert row["correlation"] > 0 and np.isnan(row[["se", "ci_low", "ci_high"]].astype(float)).all()


@pytest.mark.parametrize("debiased", [True, False])
@pytest.mark.parametrize("groups", [None, CONCEPTS])
def test_cka_intervals_are_those_of_cka_computed_without_each_group(
    debiased: bool, groups: list[str] | None
) -> None:
    X, Y = two_views()
    table = cka({"x": X, "y": Y}, debiased=debiased, groups=groups).set_index(["block", "block_b"])
    group = np.array(NAMES if groups is None else groups)
    kept = [group != g for g in sorted(set(group))]
    without = [cka(X[rows], Y[rows], debiased=debiased, ci=False)["cka"][0] for rows in kept]
    row = table.loc[("x", "y")]
    assert row["se"] == pytest.approx(jackknife(without)) and row["estimand"] == "new objects"
    reach = t_distribution.ppf(0.975, len(kept) - 1) * row["se"]
    assert row["ci_low"] == pytest.approx(max(row["cka"] - reach, -1 if debiased else 0))
    assert row["ci_high"] == pytest.approx(min(row["cka"] + reach, 1))
    columns = ["cka", "se", "ci_low", "ci_high"]
    assert table.loc[("x", "x"), columns].tolist() == [1, 0, 1, 1]
    np.testing.assert_allclose(*(table.loc[pair, columns].astype(float) for pair in (("x", "y"), ("y", "x"))))
    apart = cka({"x": X}, {"y": Y}, debiased=debiased, groups=groups)
    np.testing.assert_allclose(apart.loc[0, columns].astype(float), row[columns].astype(float))


def test_cka_is_the_same_with_and_without_intervals() -> None:
    X, Y = (view.astype(np.float32) for view in two_views())
    with_, without = (cka({"x": X, "y": Y, "x again": 3 * X}, ci=ci) for ci in (True, False))
    assert with_["cka"].tolist() == without["cka"].tolist()
    assert without[["se", "ci_low", "ci_high"]].isna().all(axis=None) and set(without["estimand"]) == {""}
    again = with_[(with_["block"] == "x") & (with_["block_b"] == "x again")].iloc[0]
    assert again["ci_low"] == pytest.approx(1, abs=1e-5) == again["ci_high"]


def test_cka_groups_are_the_concepts_of_a_store() -> None:
    X, Y = two_views()
    one = SmallStore(NAMES, {("a", 0.1, "none"): X})
    one.concepts = tuple(CONCEPTS)
    other = SmallStore(NAMES[::-1], {("b", 0.1, "none"): Y[::-1]})
    expected = cka(X, Y, groups=CONCEPTS)["se"][0]
    assert expected != pytest.approx(cka(X, Y)["se"][0])
    mapping = dict(zip(NAMES[::-1], CONCEPTS[::-1], strict=True))
    for found in (cka(one, other), cka(other, one, groups=mapping), cka({"a": X}, {"b": Y}, groups=CONCEPTS)):
        assert found["se"][0] == pytest.approx(expected)
    other.concepts = tuple(CONCEPTS[::-1])
    assert cka(X[::-1], other)["se"][0] == pytest.approx(expected)
    few = cka(X[:4], Y[:4])
    assert few["cka"].notna().all() and few[["se", "ci_low", "ci_high"]].isna().all(axis=None)
    with pytest.raises(MismatchError, match="13 labels"):
        cka(X, Y, groups=CONCEPTS[:13])


def test_intervals_cover_the_value_of_all_objects_if_groups_are_kept_together() -> None:
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(4, 12))

    def drawn(n: int) -> tuple[np.ndarray, np.ndarray]:
        """Four images of each of n concepts."""
        shared, own = (np.repeat(rng.normal(size=(n, 4)), 4, axis=0) for _ in range(2))
        shared += 0.3 * rng.normal(size=shared.shape)
        return shared @ mixing + rng.normal(size=(4 * n, 12)), np.hstack([shared, own])

    truth = np.mean([cka(*drawn(100), ci=False)["cka"][0] for _ in range(10)])
    covered = dict.fromkeys(("concepts", "images"), 0)
    for _ in range(40):
        X, Y = drawn(24)
        for name, groups in (("concepts", np.repeat(np.arange(24), 4)), ("images", None)):
            row = cka(X, Y, groups=groups).iloc[0]
            covered[name] += row["ci_low"] <= truth <= row["ci_high"]
    assert covered["concepts"] >= 36 and covered["images"] <= 34, covered
