"""Whether choices suffice for a probe: where they are said to, it can be fitted."""

from __future__ import annotations

import numpy as np
import pytest

import ldm_kit as lk
from ldm_kit.checks import sets_needed
from ldm_kit.datasets.triplets import Triplets
from ldm_kit.errors import BadInputError

NAMES = tuple(f"{i:02}" for i in range(56))


def drawn(n: int, seed: int) -> Triplets:
    rng = np.random.default_rng(seed)
    return Triplets(np.array([rng.choice(56, 3, replace=False) for _ in range(n)]), NAMES, "human")


@pytest.mark.parametrize("probe", [lk.LinearProbe(seed=0), lk.KernelProbe(seed=0)], ids=["linear", "kernel"])
@pytest.mark.parametrize("n_folds", [2, 3])
def test_where_there_are_said_to_be_enough_a_probe_is_fitted(probe: object, n_folds: int) -> None:
    features = np.random.default_rng(0).normal(size=(56, 8))
    fitted = 0
    for seed in range(8):
        triplets = drawn(350, seed)
        if not lk.check_enough_triplets(triplets, n_folds, seed):
            lk.cross_validate_probe(features, triplets, probe, n_folds=n_folds, seed=seed)
            fitted += 1
    assert fitted


def test_as_many_as_are_named_are_enough_and_repeats_do_not_count() -> None:
    for n_folds in (2, 3, 4):
        needed = sets_needed(56, n_folds)
        assert (
            np.mean(
                [lk.check_enough_triplets(drawn(needed, seed), n_folds, seed) == "" for seed in range(10)]
            )
            >= 0.6
        )
    few = drawn(10, 0)
    class_of_30 = Triplets(np.tile(few.indices, (100, 1)), NAMES, "human")
    told = lk.check_enough_triplets(class_of_30)
    assert "1,000 human choices are about 10 different sets" in told and "about 500" in told
    with pytest.raises(BadInputError):
        lk.cross_validate_probe(np.random.default_rng(0).normal(size=(56, 8)), class_of_30)


def test_a_handful_of_objects_is_too_few() -> None:
    assert lk.check_enough_triplets(Triplets(np.array([[0, 1, 2]]), NAMES[:3], "human"))
