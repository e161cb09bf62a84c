"""Do intervals cover, and tests err, as often as they say? By simulation: ``python -m tests.benchmarks.inference``.

People, objects and noise are drawn anew in each simulated study. Objects have a place in a space that people's choices follow
(softmax over dot products); a cell holds that place faintly, beside noise of its own. The truth is the accuracy in a study of
30,000 objects. What came out stands in README.md.

``--studies N`` sets how many studies a row has (400 by default, some 20 minutes on one core), ``--only objects`` (or people, concepts,
draws, max-t, ceiling) which table is made.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
import pandas as pd

import ldm_kit as lk
from ldm_kit.datasets import Triplets
from ldm_kit.measures.grouped import Grouped
from ldm_kit.measures.statistics import corrected, interval, quantile

D, SHARE = 6, 0.55  # dimensions of the space; how much of it a cell holds
CLOSE = 2.0  # a cell that people differ in agreeing with: by 0.05 from person to person, as with SPoSE
MANY = 30_000
N_CELLS = 5
SHARPNESS = 0.28  # standard deviation over people of how sharply they choose, around 1


def draw_triplets(n: int, t: int, rng: np.random.Generator) -> np.ndarray:
    """Any three different objects, `t` times."""
    rows = rng.integers(0, n, (2 * t + 100, 3))
    distinct = (rows[:, 0] != rows[:, 1]) & (rows[:, 0] != rows[:, 2]) & (rows[:, 1] != rows[:, 2])
    return rows[distinct][:t]


def pair_similarities(X: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Dot products of the pair that is left when item 0, 1 or 2 is the odd one."""
    a, b, c = (X[rows[:, i]] for i in range(3))
    return np.stack([(b * c).sum(axis=1), (a * c).sum(axis=1), (a * b).sum(axis=1)], axis=1)


def judged(
    z: np.ndarray, rows: np.ndarray, rng: np.random.Generator, sharpness: np.ndarray | float = 1.0
) -> np.ndarray:
    """The same triplets with the odd one last, as people chose it."""
    utility = pair_similarities(z, rows) * np.reshape(sharpness, (-1, 1)) + rng.gumbel(size=rows.shape)
    odd = utility.argmax(axis=1)
    return np.take_along_axis(rows, (odd[:, None] + [1, 2, 0]) % 3, axis=1)


def cells(
    z: np.ndarray, rng: np.random.Generator, number: int = N_CELLS, share: float = SHARE
) -> list[np.ndarray]:
    """Blocks that hold people's space equally well, with noise of their own: in truth none is better."""
    return [np.hstack([share * z, rng.normal(size=z.shape)]) for _ in range(number)]


def scores(X: np.ndarray, triplets: np.ndarray) -> np.ndarray:
    """By cosine; ties have probability zero."""
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    return (pair_similarities(unit, triplets).argmax(axis=1) == 2).astype(float)


@cache
def truth(people: bool = False, share: float = SHARE) -> float:
    """Expected accuracy of a cell, over new objects (and people)."""
    rng = np.random.default_rng(10**6)
    z = rng.normal(size=(MANY, D))
    rows = draw_triplets(MANY, 1_000_000, rng)
    choices = judged(z, rows, rng, sharp(len(rows), rng) if people else 1.0)
    return float(np.mean([scores(X, choices).mean() for X in cells(z, rng, share=share)]))


def sharp(n: int, rng: np.random.Generator) -> np.ndarray:
    return np.clip(rng.normal(1.0, SHARPNESS, n), 0.05, None)


def objects_study(n: int, t: int, seed: int) -> dict[str, float]:
    """One study: does the interval of a cell cover, and does any of ten true nulls seem different?"""
    rng = np.random.default_rng([n, t, seed])
    z = rng.normal(size=(n, D))
    triplets = judged(z, draw_triplets(n, t, rng), rng)
    groups = Grouped(triplets, n)
    values = [scores(X, triplets)[groups.order] for X in cells(z, rng)]
    one = interval(values[0], groups)
    gaps = [
        interval(values[a] - values[b], groups, bounds=(-1.0, 1.0)) for a in range(N_CELLS) for b in range(a)
    ]
    found = {"covered": one.low <= truth() <= one.high, "width": one.high - one.low}
    found["covered, n - 1"] = abs(one.mean - truth()) <= quantile(n - 1) * one.se
    for name, freedom in (("error", None), ("error, n - 1", n - 1)):
        rows = corrected([(gap.mean, gap.se, freedom or gap.freedom) for gap in gaps])
        found[name] = min(row["p_corrected"] for row in rows) < 0.05
    return found


def people_study(n: int, people: int, each: int, seed: int, differ: bool = True) -> dict[str, float]:
    """One study of some people, who differ in how sharply they choose: does the interval over both cover, and over objects alone?"""
    rng = np.random.default_rng([n, people, each, seed])
    z = rng.normal(size=(n, D))
    person = np.repeat(np.arange(people), each)
    sharpness = sharp(people, rng)[person] if differ else 1.0
    triplets = judged(z, draw_triplets(n, len(person), rng), rng, sharpness)
    groups = Grouped(triplets, n, subjects=person)
    first, second = (scores(X, triplets)[groups.order] for X in cells(z, rng, 2, CLOSE))
    both, alone = interval(first, groups), interval(first, groups, "new objects")
    gap = interval(first - second, groups, bounds=(-1.0, 1.0))
    true = truth(differ, CLOSE)
    return {
        "covered": both.low <= true <= both.high,
        "difference covered": gap.low <= 0 <= gap.high,
        "objects alone": alone.low <= true <= alone.high,
        "se": both.se,
        "se, objects alone": alone.se,
    }


def concepts_study(n: int, pictures: int, t: int, seed: int) -> dict[str, float]:
    """One study with several pictures a concept, which people judge alike and cells see much alike."""
    rng = np.random.default_rng([n, pictures, t, seed])
    concept = np.repeat(np.arange(n), pictures)
    z = rng.normal(size=(n, D))[concept]
    rows = draw_triplets(n * pictures, 4 * t, rng)
    of = concept[rows]
    apart = (of[:, 0] != of[:, 1]) & (of[:, 0] != of[:, 2]) & (of[:, 1] != of[:, 2])
    triplets = judged(z, rows[apart][:t], rng)
    own = rng.normal(size=(n, D))[concept]
    X = np.hstack([SHARE * z, 0.9 * own + np.sqrt(1 - 0.9**2) * rng.normal(size=z.shape)])
    groups = Grouped(triplets, len(z))
    values = scores(X, triplets)
    together = groups.clustered(concept)
    found = {}
    for name, which in (("covered", together), ("pictures alone", groups)):
        one = interval(values[which.order], which)
        found[name] = one.low <= truth() <= one.high
    return found


def draws_study(n: int, t: int, draws: int, seed: int) -> dict[str, float]:
    """One study at high noise, each object's noise drawn apart, `draws` times: does the interval of the mean over draws cover?"""
    rng = np.random.default_rng([n, t, draws, seed])
    z = rng.normal(size=(n, D))
    triplets = judged(z, draw_triplets(n, t, rng), rng)
    groups = Grouped(triplets, n)
    each = [scores(X, triplets)[groups.order] for X in cells(z, rng, draws)]
    one = interval(np.mean(each, axis=0), groups)
    return {
        "covered": one.low <= truth() <= one.high,
        "se": one.se,
        "between draws": float(np.std([x.mean() for x in each], ddof=1)) if draws > 1 else np.nan,
    }


def max_t_study(n: int, t: int, n_cells: int, seed: int) -> dict[str, float]:
    """One study of cells that are at chance, and of cells of which all are equally good."""
    rng = np.random.default_rng([n, t, n_cells, seed])
    z = rng.normal(size=(n, D))
    triplets = judged(z, draw_triplets(n, t, rng), rng)
    shared = rng.normal(size=(n, 20))
    null = {f"c{i}": shared + rng.normal(size=shared.shape) for i in range(n_cells)}
    table = lk.max_t_test(null, triplets, n_permutations=199, random_state=seed)
    good = {f"c{i}": X for i, X in enumerate(cells(z, rng, n_cells))}
    inside = lk.max_t_test(good, triplets, n_permutations=1, random_state=seed)
    against = lk.max_t_test(good, triplets, reference={"block": "c0"}, n_permutations=1, random_state=seed)
    return {
        "error above chance": (table["p_max_t"] < 0.05).any(),
        "all covered": inside["low_simultaneous"].le(truth()).all()
        and inside["high_simultaneous"].ge(truth()).all(),
        "error against a cell": (against["p_max_t"] < 0.05).any(),
    }


def ceiling_study(judges: int, seed: int) -> dict[str, float]:
    """One study of 1,000 sets, each judged so often: how far are the upper bound and its uncorrected form from the truth?"""
    rng = np.random.default_rng([judges, seed])
    z = rng.normal(size=(200, D))
    rows = np.repeat(draw_triplets(200, 1000, rng), judges, axis=0)
    utility = pair_similarities(z, rows[::judges])
    share = np.exp(utility - utility.max(axis=1, keepdims=True))
    true = float((share.max(axis=1) / share.sum(axis=1)).mean())
    row = lk.noise_ceiling(judged(z, rows, rng), min_judgements=2, ci=False).iloc[0]
    return {
        "corrected": row["ceiling_high"] - true,
        "uncorrected": row["ceiling_high_uncorrected"] - true,
        "lower bound": row["ceiling_low"] - true,
    }


def repeated_people(seed: int = 0) -> Triplets:
    """Choices of 20 people, some sets twice by the same person, for tests."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(60, D))
    rows = draw_triplets(60, 40, rng)
    return Triplets(
        np.concatenate([judged(z, rows, rng) for _ in range(20)]),
        tuple(f"object {i}" for i in range(60)),
        "simulated",
        subjects=np.repeat(np.arange(20), 40),
    )


TABLES: dict[str, tuple[Callable[..., dict[str, float]], list[dict[str, int]], float]] = {
    "objects": (
        objects_study,
        [
            {"n": n, "t": t}
            for n, several in {
                28: (150, 2000, 12000),
                56: (400, 2000, 20000),
                200: (1000, 20000),
                880: (5000, 60000),
            }.items()
            for t in several
        ],
        3.0,
    ),
    "people": (
        people_study,
        [
            {"n": n, "people": people, "each": each}
            for n in (56, 200, 880)
            for people, each in ((5, 300), (10, 200), (30, 100), (100, 60), (300, 40))
        ],
        1.0,
    ),
    "concepts": (concepts_study, [{"n": 100, "pictures": k, "t": 5000} for k in (1, 2, 5)], 1.0),
    "draws": (draws_study, [{"n": 200, "t": 5000, "draws": k} for k in (1, 2, 5)], 1.0),
    "max-t": (max_t_study, [{"n": n, "t": t, "n_cells": 12} for n, t in ((56, 2000), (200, 5000))], 1.0),
    "ceiling": (ceiling_study, [{"judges": k} for k in (2, 3, 5, 10, 20)], 0.05),
}


def rows_of(name: str, studies: int) -> Iterator[dict[str, float]]:
    """One row for each size of study: shares, or means, over the studies."""
    study, sizes, times = TABLES[name]
    for size in sizes:
        began, number = time.process_time(), max(int(studies * times), 10)
        if size.get("t", 0) >= 20_000:
            number = max(number // 4, 10)
        frame = pd.DataFrame([study(**size, seed=seed) for seed in range(number)]).astype(float)
        yield {**size, "studies": number, **frame.mean().to_dict(), "seconds": time.process_time() - began}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", type=int, default=400)
    parser.add_argument("--only", choices=TABLES)
    asked = parser.parse_args()
    for name in [asked.only] if asked.only else TABLES:
        print(f"\n{name}", flush=True)
        for row in rows_of(name, asked.studies):
            print("  " + ", ".join(f"{key} {value:.4g}" for key, value in row.items()), flush=True)


if __name__ == "__main__":
    main()
