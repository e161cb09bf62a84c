"""Whether a probe's interval holds the gain of a probe on new objects: ``python -m tests.benchmarks.inference_probes``.

A study is 56 objects from a population, and choices among them. The truth is the mean gain of a probe that was fitted to as
many objects as one of three folds leaves, on other objects of the population. *For these probes* is the clustered interval
of the held-out triplets alone; *between folds* is the corrected resampled t of Nadeau & Bengio (2003), as
Bouckaert & Frank (2004) use it for repeated cross-validation.
"""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ldm_kit.measures import LinearProbe
from ldm_kit.measures.cross_validation import _columns, _fits, _one_fold, _Scored
from ldm_kit.measures.statistics import quantile
from tests.small_store import drawn_choices, random_triplets

FAST = LinearProbe(alpha=0.01, cv=0, max_iter=8, penalty="identity")
CV = 3


class World(NamedTuple):
    """A population: features are three noisy dimensions of what people see, and `others` that they do not."""

    triplets: int = 4000
    others: int = 5
    objects: int = 56
    probe: LinearProbe = FAST
    cv: int = CV


WORLDS = {
    "4,000 triplets, 8 dimensions": World(),
    "2,000 triplets, 8 dimensions": World(triplets=2000),
    "6,000 triplets, 43 dimensions": World(triplets=6000, others=40),
    "α and stopping chosen": World(probe=LinearProbe(alphas=(0.0, 0.01, 0.1), max_iter=20, patience=4)),
    "5 folds": World(triplets=6000, cv=5),
}


def study(world: World, rng: np.random.Generator, n: int, triplets: int) -> tuple[Any, Any]:
    """Draw objects' features, and choices among them."""
    seen = rng.normal(size=(n, 5))
    X = np.column_stack(
        [seen[:, :3] + 0.5 * rng.normal(size=(n, 3)), 1.2 * rng.normal(size=(n, world.others))]
    )
    seed = int(rng.integers(2**31))
    return X, drawn_choices(1.2 * seen, random_triplets(n, triplets, seed), seed)


def one_truth(world: World, seed: int) -> float:
    """The gain of one probe on 150 new objects."""
    rng = np.random.default_rng([1, seed])
    X, triplets = study(world, rng, world.objects, world.triplets)
    n = world.objects - (world.objects + seed % world.cv) // world.cv  # one of the sizes that folds leave
    new_X, new = study(world, rng, 150, 6000)
    inside = triplets[(triplets < n).all(axis=1)]
    indices, X = np.concatenate([inside, new + n]), np.concatenate([X[:n], new_X])
    rows = np.arange(len(inside)), np.arange(len(inside), len(indices))
    everyone = np.arange(len(X))
    outcome = _one_fold(X, indices, everyone >= n, rows, world.probe, "centred cosine", everyone)[2]
    return float(np.mean(outcome.score - outcome.zero_shot))


def intervals(world: World, seed: int, n_repeats: int) -> dict[str, tuple[float, float]]:
    """The ends of each kind of interval of the gain, for one study."""
    X, triplets = study(world, np.random.default_rng([2, seed]), world.objects, world.triplets)
    fits = _fits(X, triplets, world.probe, world.cv, range(n_repeats), "centred cosine", None)
    outcomes = [fit[-1] for fit in fits]
    bare = _Scored.of(outcomes, len(X), n_repeats > 1).intervals("new objects")[1]
    ours = _columns(outcomes, len(X), "new objects", world.cv)
    folds = np.array([np.mean(one.score - one.zero_shot) for one in outcomes])
    reach = quantile(len(folds) - 1) * np.sqrt((1 / len(folds) + 1 / (world.cv - 1)) * folds.var(ddof=1))
    return {
        "for these probes": (bare.low, bare.high),
        "between folds": (ours["gain"] - reach, ours["gain"] + reach),
        "ours": (ours["gain_low"], ours["gain_high"]),
    }


def coverage(world: World, n_repeats: int, studies: int, truth: float) -> pd.DataFrame:
    """How often each kind of interval holds the truth, and half of its mean width."""
    found = pd.DataFrame([intervals(world, seed, n_repeats) for seed in range(studies)])
    held = {kind: float(np.mean([low <= truth <= high for low, high in found[kind]])) for kind in found}
    half = {kind: float(np.mean([(high - low) / 2 for low, high in found[kind]])) for kind in found}
    return pd.DataFrame({"coverage": held, "half width": half})


def main(studies: int = 300) -> None:
    """Measure, and print the table."""
    print(f"{studies} studies each, of 56 objects; ± {1.96 * np.sqrt(0.95 * 0.05 / studies):.3f}\n")
    print("| world | repeats | interval | coverage | half width |\n|---|---|---|---|---|")
    for name, world in WORLDS.items():
        truth = float(np.mean([one_truth(world, seed) for seed in range(3 * studies)]))
        for n_repeats in (1, 5):
            for kind, row in coverage(world, n_repeats, studies, truth).iterrows():
                print(
                    f"| {name} | {n_repeats} | {kind} | {row['coverage']:.3f} | {row['half width']:.3f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
