"""Whether choices suffice for a probe: where the check passes, it can be fitted."""

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


@pytest.mark.slow
@pytest.mark.parametrize("probe", [lk.LinearProbe(), lk.KernelProbe()], ids=["linear", "kernel"])
@pytest.mark.parametrize("cv", [2, 3])
def test_where_there_are_said_to_be_enough_a_probe_is_fitted(probe: object, cv: int) -> None:
    features = np.random.default_rng(0).normal(size=(56, 8))
    enough = [seed for seed in range(12) if not lk.check_enough_triplets(drawn(350, seed), cv, seed)]
    assert len(enough) >= 3  # and those that barely are among them
    for seed in enough:
        lk.cross_validate_probe(features, drawn(350, seed), probe, cv=cv, random_state=seed)


@pytest.mark.parametrize("cv", [2, 3, 4])
def test_about_as_many_as_are_named_are_enough(cv: int) -> None:
    """A quarter more are enough whichever are drawn, half as many never are."""
    needed = sets_needed(56, cv)
    for seed in range(20):
        assert lk.check_enough_triplets(drawn(needed * 5 // 4, seed), cv, seed) == "", seed
        assert lk.check_enough_triplets(drawn(needed // 2, seed), cv, seed) != "", seed


def test_repeats_do_not_count() -> None:
    few = drawn(10, 0)
    class_of_30 = Triplets(np.tile(few.indices, (100, 1)), NAMES, "human")
    verdict = lk.check_enough_triplets(class_of_30)
    assert "1,000 human choices are about 10 different sets" in verdict and "about 500" in verdict
    with pytest.raises(BadInputError):
        lk.cross_validate_probe(np.random.default_rng(0).normal(size=(56, 8)), class_of_30)


def test_a_handful_of_objects_is_too_few() -> None:
    assert lk.check_enough_triplets(Triplets(np.array([[0, 1, 2]]), NAMES[:3], "human"))
