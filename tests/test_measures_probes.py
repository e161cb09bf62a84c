"""Probes: gradients against autograd, the rotation, known truth, no peeking, files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from ldm_kit.datasets.triplets import Triplets
from ldm_kit.errors import BadInputError, MismatchError, UnknownNameError
from ldm_kit.measures import (
    KernelProbe,
    LinearProbe,
    MLPProbe,
    cross_validate_probe,
    odd_one_out,
    score_interval,
    triplet_scores,
)
from ldm_kit.measures.cross_validation import ProbeResult
from ldm_kit.measures.descent import LinearDescent, MLPDescent, cross_entropy, minimise
from ldm_kit.measures.fitting import Probe
from ldm_kit.measures.folds import each_fold, object_folds, within
from ldm_kit.measures.grouped import Grouped
from tests.benchmarks.inference_probes import WORLDS, coverage, one_truth
from tests.small_store import SmallStore, drawn_choices, random_triplets

PROBES = [LinearProbe(), KernelProbe(), MLPProbe(hidden=8)]


def a_world(
    n: int = 56, d: int = 40, t: int = 8000, noise: float = 1.0, seed: int = 0
) -> tuple[Any, Any, Any]:
    """Embedding, features (a noisy linear map of it), choices drawn from it."""
    rng = np.random.default_rng(seed)
    embedding = rng.gamma(1.0, 0.8, size=(n, 6))
    X = embedding @ rng.normal(size=(6, d)) + noise * rng.normal(size=(n, d))
    return embedding, X.astype(np.float32), drawn_choices(embedding, random_triplets(n, t, seed), seed)


def torch_loss(Z: torch.Tensor, triplets: np.ndarray) -> torch.Tensor:
    a, b, c = (Z[torch.as_tensor(triplets[:, k])] for k in range(3))
    logits = torch.stack([(a * b).sum(1), (a * c).sum(1), (b * c).sum(1)], dim=1)
    return torch.nn.functional.cross_entropy(logits, torch.zeros(len(triplets), dtype=torch.long))


@pytest.mark.parametrize("penalty", ["frobenius", "squared", "identity"])
@pytest.mark.parametrize("d", [7, 30])
def test_gradient_agrees_with_autograd(penalty: str, d: int) -> None:
    """In full coordinates (d = 7), and in rotated ones (30 dimensions of 12 objects)."""
    rng = np.random.default_rng(0)
    n, alpha = 12, 0.3
    X, triplets = rng.normal(size=(n, d)), random_triplets(n, 50)
    descent = LinearDescent(X, triplets, penalty=penalty)
    x = descent.start + 0.3 * rng.normal(size=descent.start.shape)
    value, gradient = descent.value_and_slope(x, alpha)

    at = torch.tensor(x, requires_grad=True)
    r = descent.rank
    inside = at[: r * r].reshape(r, r)
    b = at[r * r : r * r + r]
    if descent.Q is None:
        W, bias = inside, b
    else:
        Q = torch.tensor(descent.Q)
        beta = at[-1] / np.sqrt(descent.extra)
        W = Q @ inside @ Q.T + beta * (torch.eye(d, dtype=torch.float64) - Q @ Q.T)
        bias = Q @ b
    m = torch.trace(W) / d if penalty == "identity" else 0.0
    size = torch.linalg.norm(W - m * torch.eye(d, dtype=torch.float64))
    loss = torch_loss(torch.tensor(X) @ W + bias, triplets) + alpha * (
        size if penalty == "frobenius" else size**2
    )
    loss.backward()
    assert value == pytest.approx(float(loss.detach()), rel=1e-12)
    assert at.grad is not None
    assert np.linalg.norm(gradient - at.grad.numpy()) <= 1e-8 * np.linalg.norm(gradient)


def test_mlp_gradient_agrees_with_autograd() -> None:
    rng = np.random.default_rng(0)
    X, triplets = rng.normal(size=(12, 5)), random_triplets(12, 50)
    descent = MLPDescent(X, triplets, hidden=4, random_state=0)
    x = descent.start + 0.3 * rng.normal(size=descent.start.shape)
    value, gradient = descent.value_and_slope(x, 0.1)
    at = torch.tensor(x, requires_grad=True)
    sizes = [int(np.prod(shape)) for shape in descent.shapes]
    W, U, c, V, b = (part.reshape(shape) for part, shape in zip(at.split(sizes), descent.shapes, strict=True))
    Xt = torch.tensor(X)
    loss = torch_loss(Xt @ W + torch.tanh(Xt @ U + c) @ V + b, triplets) + 0.1 * (at**2).sum()
    loss.backward()
    assert value == pytest.approx(float(loss.detach()), rel=1e-12)
    assert at.grad is not None
    assert np.linalg.norm(gradient - at.grad.numpy()) <= 1e-8 * np.linalg.norm(gradient)


@pytest.mark.parametrize("penalty", ["frobenius", "squared", "identity"])
def test_the_rotation_changes_no_prediction(penalty: str) -> None:
    rng = np.random.default_rng(0)
    X, new = rng.normal(size=(15, 60)), rng.normal(size=(20, 60))
    X -= X.mean(axis=0)
    triplets = random_triplets(15, 200)
    S = []
    for rotate in (False, True):
        descent = LinearDescent(X, triplets, penalty=penalty, rotate=rotate)
        assert (descent.rank, descent.extra) == ((15, 45) if rotate else (60, 0))
        found = descent.run(0.01, max_iter=12)
        W, b = descent.full(found.x)
        Z = new @ W + b
        assert np.allclose(descent.similarity(new)(found.x), Z @ Z.T, rtol=1e-9, atol=1e-9)
        S.append(Z @ Z.T)
    assert np.allclose(S[0], S[1], rtol=1e-6, atol=1e-6 * np.abs(S[0]).max())


def test_lbfgs_finds_what_scipy_finds() -> None:
    _, X, triplets = a_world(n=20, d=6, t=600)
    X64 = X.astype(np.float64) / 5
    descent = LinearDescent(X64, triplets, penalty="squared")
    ours = descent.run(0.01, max_iter=500)
    scipys = minimize(
        descent.value_and_slope,
        descent.start,
        args=(0.01,),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 2000},
    )
    assert ours.value == pytest.approx(scipys.fun, rel=1e-3)
    # and in float32, where scipy's stops at once
    in32 = LinearDescent(X64.astype(np.float32), triplets, penalty="squared").run(0.01, max_iter=500)
    assert in32.value == pytest.approx(scipys.fun, rel=1e-3)
    assert in32.x.dtype == np.float32


def test_lbfgs_on_rosenbrock() -> None:
    def rosenbrock(x: np.ndarray) -> tuple[float, np.ndarray]:
        a, b = x
        return (1 - a) ** 2 + 100 * (b - a**2) ** 2, np.array(
            [-2 * (1 - a) - 400 * a * (b - a**2), 200 * (b - a**2)]
        )

    found = minimise(rosenbrock, np.array([-1.2, 1.0]), max_iter=200, tolerance=1e-12)
    assert found.x == pytest.approx([1, 1], abs=1e-3)


@pytest.fixture(scope="module")
def spose(things_root: Path) -> np.ndarray:
    return np.loadtxt(things_root / "spose_embedding_66d_sorted.txt")


@pytest.mark.slow
def test_known_truth_is_recovered(spose: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    n = 400
    truth = spose[rng.permutation(len(spose))[:n]]
    X = (truth @ rng.normal(size=(66, 300)) + 0.5 * rng.normal(size=(n, 300))).astype(np.float32)
    triplets = drawn_choices(truth, random_triplets(n, 600_000))
    result = cross_validate_probe(X, triplets, LinearProbe(alphas=(0.0,), n_components=80), random_state=0)
    fold = object_folds(n, 3, 0)
    own = []
    for _, rows in each_fold(triplets, fold):
        own.append(odd_one_out(truth, triplets[rows], "dot", ci=False)["accuracy"][0])
    accuracy = result.table["accuracy"].to_numpy()
    print("held out", accuracy, "the truth's own", own, "zero-shot", result.table["zero_shot"].to_numpy())
    assert abs(accuracy.mean() - np.mean(own)) < 0.01
    assert result.summary()["gain_low"][0] > 0


def test_no_information_and_shuffled_choices_give_chance() -> None:
    _, X, triplets = a_world(t=12_000)
    rng = np.random.default_rng(5)
    noise = rng.normal(size=X.shape)
    odd = rng.integers(3, size=len(triplets))
    shuffled, rows = triplets.copy(), np.arange(len(triplets))
    shuffled[rows, odd], shuffled[:, 2] = triplets[:, 2], triplets[rows, odd]
    for features, choices in ((noise, triplets), (X, shuffled)):
        for probe in PROBES:
            row = cross_validate_probe(features, choices, probe).summary().iloc[0]
            assert row["ci_low"] <= 1 / 3 <= row["ci_high"], (probe, row["accuracy"])


def test_a_probe_gains_where_there_is_something_to_learn() -> None:
    _, X, triplets = a_world(noise=2.0)
    for probe in PROBES:
        result = cross_validate_probe(X, triplets, probe)
        row = result.summary().iloc[0]
        assert row["gain_low"] > 0, probe
        assert len(result.probes) == 3 and result.table["fold"].tolist() == [0, 1, 2]
        assert (result.table["n_iter"] <= 60).all() and (result.table["n_train_objects"] >= 37).all()
        # the mean of the folds, weighted by their triplets, is the pooled accuracy
        table = result.table
        pooled = np.average(table["accuracy"], weights=table["n_triplets"].astype(float))
        assert row["accuracy"] == pytest.approx(pooled) and row["n_triplets"] == table["n_triplets"].sum()
        assert row["gain"] == pytest.approx(row["accuracy"] - row["zero_shot"])


def test_the_table_matches_a_fold_done_by_hand() -> None:
    _, X, triplets = a_world(t=3000)
    probe = LinearProbe(random_state=3)
    result = cross_validate_probe(X, triplets, probe, random_state=1)
    fold = object_folds(56, 3, 1)
    number = 2
    train, test = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
    inside = [row for row in triplets if set(row) <= set(train)]
    held = np.array([row for row in triplets if set(row) <= set(test)])
    position = {old: new for new, old in enumerate(train)}
    mine = clone(probe).fit(X[train], [[position[i] for i in row] for row in inside])
    row = result.table.iloc[number]
    assert row["n_train_triplets"] == len(inside) and row["n_triplets"] == len(held)
    assert row["accuracy"] == pytest.approx(mine.score(X, held))
    Z = mine.transform(X)
    assert row["cross_entropy"] == pytest.approx(cross_entropy(Z @ Z.T, Grouped(held, len(X))), rel=1e-5)
    assert row["alpha"] == mine.alpha_ and row["n_iter"] == mine.n_iter_
    centred = X - X[train].mean(axis=0)
    assert row["zero_shot"] == pytest.approx(odd_one_out(centred, held)["accuracy"][0])


@pytest.mark.parametrize("probe", [*PROBES, LinearProbe(n_components=10)], ids=str)
def test_no_peeking(probe: Probe) -> None:
    """Whatever happens to held-out objects and their choices, the fitted probe stays the same."""
    _, X, triplets = a_world(t=3000)
    fold = object_folds(56, 3, 0)
    result = cross_validate_probe(X, triplets, probe, random_state=0)
    out = np.flatnonzero(fold == 0)
    other_X = X.copy()
    other_X[out] = 100 * np.random.default_rng(9).normal(size=other_X[out].shape)
    other = triplets.copy()
    touched = np.isin(triplets, out).any(axis=1)
    other[touched] = other[touched][:, [2, 0, 1]]
    again = cross_validate_probe(other_X, other, probe, random_state=0)
    probe_X = X[fold != 0]
    assert np.array_equal(result.probes[0].transform(probe_X), again.probes[0].transform(probe_X))
    assert not np.array_equal(result.probes[1].transform(probe_X), again.probes[1].transform(probe_X))


@pytest.mark.slow
def test_real_choices(things_root: Path) -> None:
    """One seed of the five that the benchmark reports."""
    X = np.load(things_root / "clip_vit_b32_things.npy")
    triplets = np.loadtxt(things_root / "human_triplets_50k.txt", dtype=np.int64)
    probe = LinearProbe(n_components=150, alphas=(0.01,), max_iter=6, patience=3)
    row = cross_validate_probe(X, triplets, probe, random_state=0).summary().iloc[0]
    print("held-out accuracy", row["accuracy"], "gain", row["gain"])
    assert row["accuracy"] > 0.52 and row["gain"] > 0.02


@pytest.mark.parametrize(
    "probe",
    [
        LinearProbe(),
        LinearProbe(n_components=5, penalty="frobenius"),
        KernelProbe(gamma=0.5),
        MLPProbe(hidden=3),
    ],
    ids=str,
)
def test_files_and_parameters(probe: Probe, tmp_path: Path) -> None:
    _, X, triplets = a_world(n=30, t=2000)
    assert clone(probe).get_params() == probe.get_params()
    assert clone(probe).set_params(random_state=5).random_state == 5
    with pytest.raises(NotFittedError):
        probe.transform(X)
    fitted = clone(probe).fit(X, triplets)
    path = fitted.save(tmp_path / "probe")
    assert path.name == "probe.safetensors" and b"pickle" not in path.read_bytes()
    loaded = type(probe).load(path)
    assert np.array_equal(loaded.transform(X), fitted.transform(X))
    assert loaded.get_params() == fitted.get_params() and loaded.n_iter_ == fitted.n_iter_
    assert fitted.transform(X).shape[0] == 30 and 1 / 3 < loaded.score(X, triplets) <= 1
    other = MLPProbe if isinstance(probe, LinearProbe) else LinearProbe
    with pytest.raises(BadInputError, match="Load it with the class"):
        other.load(path)
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    with pytest.raises(BadInputError, match="cannot be read as a probe"):
        type(probe).load(tmp_path / "broken.safetensors")
    with pytest.raises(MismatchError, match="was fitted on 40"):
        loaded.transform(X[:, :7])


def test_blocks_whose_names_hold_dots_have_a_file_each(tmp_path: Path) -> None:
    _, X, triplets = a_world(n=30, t=500)
    probes = [LinearProbe(alpha=0.01, cv=0, max_iter=k).fit(X, triplets) for k in (1, 2)]
    for number, probe in enumerate(probes):
        probe.save(tmp_path / f"down_blocks.{number}")
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "down_blocks.0.safetensors",
        "down_blocks.1.safetensors",
    ]
    for number, probe in enumerate(probes):
        for name in (f"down_blocks.{number}", f"down_blocks.{number}.safetensors"):
            assert np.array_equal(LinearProbe.load(tmp_path / name).W_, probe.W_)


@pytest.mark.parametrize(
    "probe",
    [
        LinearProbe(alpha=np.float32(0.01), random_state=np.int64(1)),
        LinearProbe(alphas=np.array([0.0, 0.01])),
        KernelProbe(gamma=np.float64(0.5), n_components=np.int64(3)),
        MLPProbe(hidden=np.int64(3)),
    ],
    ids=str,
)
def test_parameters_may_be_numpys(probe: Probe, tmp_path: Path) -> None:
    _, X, triplets = a_world(n=30, t=1000)
    fitted = clone(probe).fit(X, triplets)
    loaded = type(probe).load(fitted.save(tmp_path / "probe"))
    assert np.array_equal(loaded.transform(X), fitted.transform(X))
    for name, value in probe.get_params().items():
        assert np.array_equal(loaded.get_params()[name], value)


def test_same_request_same_probe() -> None:
    _, X, triplets = a_world(t=2000)
    one, two = (cross_validate_probe(X, triplets, LinearProbe(), random_state=4).table for _ in range(2))
    assert one.equals(two)


def test_a_store_gives_a_row_per_cell_and_fold() -> None:
    _, X, triplets = a_world(t=3000)
    names = tuple(f"s{i:02}" for i in range(60))
    wide = np.concatenate([X, X[:4]])
    order = np.random.default_rng(0).permutation(60)
    store = SmallStore(
        [names[i] for i in order], {("a", 0.1, "none"): wide[order], ("b", 0.1, "none"): wide[order][:, ::-1]}
    )
    # names 56 to 59 have features but were never judged: they take no part
    result = cross_validate_probe(store, Triplets(triplets, names=names), keep_probes=False)
    assert isinstance(result, ProbeResult) and result.probes == ()
    assert result.table["block"].tolist() == ["a"] * 3 + ["b"] * 3
    plain = cross_validate_probe(X, triplets)
    assert result.table["accuracy"].tolist()[:3] == plain.table["accuracy"].tolist()
    with pytest.raises(AttributeError):
        result.table = plain.table  # type: ignore[misc]


def test_bad_input() -> None:
    _, X, triplets = a_world(t=2000)
    with pytest.raises(BadInputError, match="5 objects cannot make 3 folds"):
        cross_validate_probe(X[:5], [[0, 1, 2], [2, 3, 4]])
    with pytest.raises(BadInputError, match="cv=1: at least 2"):
        cross_validate_probe(X, triplets, cv=1)
    with pytest.raises(BadInputError, match=r"Fold 0 has no (held-out|training) triplets"):
        cross_validate_probe(X[:12], [[i, i + 1, i + 2] for i in range(0, 10)], cv=4)
    with pytest.raises(BadInputError, match="no triplets to learn from"):
        LinearProbe().fit(X, np.empty((0, 3), np.int64))
    with pytest.raises(BadInputError, match="all the same"):
        LinearProbe().fit(np.ones((30, 4)), random_triplets(30, 500))
    with pytest.raises(BadInputError, match="n_components=99"):
        LinearProbe(n_components=99).fit(X, triplets)
    with pytest.raises(UnknownNameError, match="penalty"):
        LinearProbe(penalty="lasso").fit(X, triplets)
    with pytest.raises(UnknownNameError, match="kernel"):
        KernelProbe(kernel="rbff").fit(X, triplets)
    with pytest.raises(MismatchError, match="56 rows"):
        LinearProbe().fit(X, Triplets(triplets[:3], names=tuple(str(i) for i in range(99))))
    with pytest.raises(BadInputError, match="α unchosen"):
        LinearProbe(cv=0).fit(X, triplets)
    assert LinearProbe(cv=0, alpha=0.01, max_iter=3).fit(X, triplets).n_iter_ == 3


def test_folds_follow_the_rule() -> None:
    triplets, fold = random_triplets(40, 3000), object_folds(40, 3, 2)
    assert np.bincount(fold).tolist() == [14, 13, 13]
    for number, (train, test) in enumerate(each_fold(triplets, fold)):
        inside = [row for row, t in enumerate(triplets) if all(fold[i] != number for i in t)]
        held = [row for row, t in enumerate(triplets) if all(fold[i] == number for i in t)]
        assert train.tolist() == inside and test.tolist() == held
    members = np.flatnonzero(fold == 2)
    assert np.array_equal(members[within(triplets[test], members)], triplets[test])
    assert within(triplets[:0], members).shape == (0, 3)


@pytest.mark.parametrize("cv", [7, 9, 66])
def test_many_folds_are_those_done_one_by_one(cv: int) -> None:
    """Folds are bits: of one byte, of eight, or too many for either."""
    n = 3 * cv
    fold = object_folds(n, cv, 1)
    own = np.array([np.flatnonzero(fold == number) for number in range(cv)])
    triplets = np.concatenate([own, random_triplets(n, 2000)])
    for number, (train, test) in enumerate(each_fold(triplets, fold)):
        inside = fold[triplets] == number
        assert np.array_equal(train, np.flatnonzero(~inside.any(axis=1)))
        assert np.array_equal(test, np.flatnonzero(inside.all(axis=1)))


@pytest.mark.parametrize(
    ("probe", "message"),
    [
        (LinearProbe(max_iter=-1), "max_iter=-1: give a whole number from 0"),
        (LinearProbe(patience=0), "patience=0: give a whole number from 1"),
        (LinearProbe(patience=2.5), "patience=2.5"),
        (LinearProbe(cv="3"), "cv='3'"),
        (LinearProbe(cv=1), "=1: at least 2"),
        (LinearProbe(n_components=0), "n_components=0: give a whole number from 1"),
        (LinearProbe(alpha="much"), "alpha='much': give a number of 0 or more"),
        (LinearProbe(alpha=float("nan")), "alpha=nan"),
        (LinearProbe(alphas=(-5.0,)), "each of alphas=-5.0: give a number of 0 or more"),
        (LinearProbe(alphas=()), "`alphas` is empty"),
        (KernelProbe(alphas=(0.0, -1.0)), "each of alphas=-1.0"),
        (KernelProbe(gamma=-1), "gamma=-1: give a number above 0"),
        (KernelProbe(n_components=0), "n_components=0: give a whole number from 1"),
        (KernelProbe(n_components=9999), "n_components=9999, but the 30 training objects have 29 components"),
        (LinearProbe(random_state=None), "random_state=None: give a whole number from 0"),
        (MLPProbe(hidden=0), "hidden=0: give a whole number from 1"),
        (MLPProbe(alpha=None), "alpha=None: give a number of 0 or more"),
    ],
    ids=str,
)
def test_parameters_out_of_range(probe: Probe, message: str) -> None:
    _, X, triplets = a_world(n=30, t=500)
    with pytest.raises(BadInputError, match=re.escape(message)):
        probe.fit(X, triplets)


def test_folds_are_a_whole_number() -> None:
    _, X, triplets = a_world(t=2000)
    for cv in ("3", 2.5, None, True):
        with pytest.raises(BadInputError, match="cv="):
            cross_validate_probe(X, triplets, cv=cv)


def test_repeats_average_over_fold_splits() -> None:
    _, X, triplets = a_world(t=4000)
    probe = LinearProbe(alpha=0.01, cv=0, max_iter=4)
    result = cross_validate_probe(X, triplets, probe, random_state=3, n_repeats=3)
    each = [cross_validate_probe(X, triplets, probe, random_state=seed) for seed in (3, 4, 5)]
    table, row = result.table, result.summary().iloc[0]
    assert table["repeat"].tolist() == [0] * 3 + [1] * 3 + [2] * 3 and table["seed"].tolist()[::3] == [
        3,
        4,
        5,
    ]
    single = [value for one in each for value in one.table["accuracy"]]
    assert table["accuracy"].tolist() == single
    assert result.folds == each[0].folds and len(result.probes) == 3
    # a triplet's score is its mean over the repeats that held it out
    scores: dict[int, list[float]] = {}
    for number, one in enumerate(each):
        fold = np.array([one.folds[i] for i in range(len(X))])
        for k in range(3):
            held = np.flatnonzero((fold[triplets] == k).all(axis=1))
            fitted = probe if number else result.probes[k]
            if number:
                train = np.flatnonzero(fold != k)
                fitted = clone(probe).fit(
                    X[train], within(triplets[(fold[triplets] != k).all(axis=1)], train)
                )
            for i, score in zip(
                held, triplet_scores(fitted.transform(X), triplets[held], "dot"), strict=True
            ):
                scores.setdefault(int(i), []).append(float(score))
    assert row["n_triplets"] == len(scores) and row["n_repeats"] == 3
    assert row["accuracy"] == pytest.approx(np.mean([np.mean(values) for values in scores.values()]))


def test_the_pooled_interval_is_for_probes_fitted_to_other_objects() -> None:
    """The clustered variance of all held-out triplets, and half of it more with three folds (Nadeau & Bengio)."""
    _, X, triplets = a_world(t=4000)
    row = cross_validate_probe(X, triplets, LinearProbe(alpha=0.01, cv=0, max_iter=4)).summary().iloc[0]
    fold, held, scores = object_folds(56, 3, 0), [], []
    for k in range(3):
        train, test = np.flatnonzero(fold != k), (fold[triplets] == k).all(axis=1)
        probe = LinearProbe(alpha=0.01, cv=0, max_iter=4)
        probe.fit(X[train], within(triplets[(fold[triplets] != k).all(axis=1)], train))
        held.append(triplets[test])
        scores.append(triplet_scores(probe.transform(X), triplets[test], "dot"))
    bare = score_interval(np.concatenate(scores), np.concatenate(held))
    assert row["accuracy"] == pytest.approx(bare.mean)
    assert row["se"] == pytest.approx(bare.se * np.sqrt(3 / 2))
    same = cross_validate_probe(X, triplets, LinearProbe(alpha=0.01, cv=0, max_iter=4), ci="these objects")
    bare = score_interval(np.concatenate(scores), np.concatenate(held), ci="these objects")
    assert same.summary()["se"][0] == pytest.approx(bare.se)


@pytest.mark.slow
@pytest.mark.parametrize(("n_repeats", "studies"), [(1, 100), (5, 25)])
def test_the_interval_holds_the_gain_on_new_objects(n_repeats: int, studies: int) -> None:
    """A small version of the benchmark; 95 % coverage is found as 0.88 or less once in 100 times."""
    world = WORLDS["4,000 triplets, 8 dimensions"]
    truth = float(np.mean([one_truth(world, seed) for seed in range(150)]))
    found = coverage(world, n_repeats, studies, truth)
    assert found.loc["ours", "coverage"] >= 0.88
    assert found.loc["ours", "half width"] < 0.8 * found.loc["between folds", "half width"]
