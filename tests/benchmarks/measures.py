"""Time the measures at the full size of THINGS: ``python -m tests.benchmarks.measures [--quick]``.

Everything is measured in one process, against reference loops written from the rule (timed on a part and
extrapolated), so that the ratios carry over to other machines better than seconds do. n = 1,854 objects, d = 1,280
dimensions (a noisy linear map of SPoSE), 4.7 million triplets whose odd item is drawn by SPoSE's softmax.
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cosine_similarity

from ldm_kit.datasets.triplets import Triplets
from ldm_kit.measures import LinearProbe, cross_validate_probe, object_folds, odd_one_out
from ldm_kit.measures.folds import each_fold
from ldm_kit.measures.grouped import Grouped
from ldm_kit.measures.metrics import similarity_and_tolerance
from tests.small_store import SmallStore, drawn_choices, random_triplets


def seconds(function: Callable[[], object], repeats: int = 5) -> float:
    """The least of some runs, after one that warms up."""
    function()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return min(times)


def loop_zero_shot(X: np.ndarray, triplets: np.ndarray) -> float:
    """The rule, one triplet at a time."""
    right = 0
    for i, j, k in triplets:
        s = [X[a] @ X[b] / (np.linalg.norm(X[a]) * np.linalg.norm(X[b])) for a, b in ((j, k), (i, k), (i, j))]
        right += int(np.argmax(s)) == 2
    return right / len(triplets)


def loop_in_torch(X: np.ndarray, triplets: np.ndarray) -> float:
    """The same in the manner of published code: three cosines of tensors, a tie check, a softmax, an argmax."""
    torch.set_num_threads(1)  # more would only wait for each other on vectors this small
    features = torch.from_numpy(X)
    right = torch.zeros(len(triplets))
    for row, triplet in enumerate(triplets):
        a, b, c = features[triplet]
        pairs = [cosine_similarity(x, y, dim=0) for x, y in ((b, c), (a, c), (a, b))]
        similarities = torch.stack(pairs)
        if len(torch.unique(similarities)) == 3:
            right[row] = torch.argmax(torch.softmax(similarities, dim=0)) == 2
    return float(right.mean())


def loop_folds(triplets: np.ndarray, fold: np.ndarray, n_folds: int) -> list[tuple[list[int], list[int]]]:
    """Training triplets wholly among the other folds' objects, held-out ones wholly among this one's."""
    out = []
    for number in range(n_folds):
        inside = set(np.flatnonzero(fold != number).tolist())
        train, test = [], []
        for row, triplet in enumerate(triplets):
            if all(item in inside for item in triplet):
                train.append(row)
            elif not any(item in inside for item in triplet):
                test.append(row)
        out.append((train, test))
    return out


def peak_gib() -> float:
    """The process's largest memory so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="470,000 triplets, 10 cells")
    parser.add_argument("--no-probe", action="store_true", help="leave out the probe, which takes longest")
    options = parser.parse_args()
    t, cells = (470_000, 10) if options.quick else (4_700_000, 90)

    root = Path(os.environ.get("LDM_KIT_THINGS") or Path(__file__).parents[2] / "../shared/things")
    spose = np.loadtxt(root / "spose_embedding_66d_sorted.txt")
    rng = np.random.default_rng(0)
    n, d = len(spose), 1280
    X = (spose @ rng.normal(size=(66, d)) + 2 * rng.normal(size=(n, d))).astype(np.float32)
    triplets = np.concatenate(
        [
            drawn_choices(spose, random_triplets(n, part, seed), seed)
            for seed, part in enumerate([t // 10] * 10)
        ]
    )
    print(f"{n} objects, {d} dimensions, {len(triplets):,} triplets, {len(os.sched_getaffinity(0))} cores")

    names = tuple(f"s{i}" for i in range(n))
    named = Triplets(triplets, names=names)
    loops = {}
    for label, loop_of in (("numpy", loop_zero_shot), ("torch", loop_in_torch)):
        began = time.perf_counter()
        expected = loop_of(X, triplets[:5000])
        loops[label] = (time.perf_counter() - began) * len(triplets) / 5000
        assert abs(expected - odd_one_out(X, triplets[:5000])["accuracy"][0]) < 1e-6
    began = time.perf_counter()
    accuracy = odd_one_out(X, named)["accuracy"][0]
    first = time.perf_counter() - began
    shared = Grouped.of(named)
    ours = seconds(lambda: odd_one_out(X, shared))
    plain = seconds(lambda: odd_one_out(X, triplets), 2)
    groups = Grouped(triplets, n)
    S, tolerance = similarity_and_tolerance(X)
    matrix = seconds(lambda: X @ X.T)
    gathers = seconds(lambda: groups.choose(S, tolerance))
    print(
        f"zero-shot accuracy {accuracy:.4f}; loops: {loops['numpy']:.0f} s numpy, {loops['torch']:.0f} s torch"
    )
    for label, took in (
        ("a further cell", ours),
        ("first cell", first),
        ("plain arrays, checked anew", plain),
    ):
        print(
            f"zero-shot, interval included, {label}: {1000 * took:.0f} ms; ratio {loops['numpy'] / took:,.0f} to the "
            f"numpy loop, {loops['torch'] / took:,.0f} to the torch loop (must 5,000)"
        )
    print(
        f"  floors: matrix {1000 * matrix:.0f} ms, gathers {1000 * gathers:.0f} ms; a further cell takes "
        f"{ours / (matrix + gathers):.1f} × their sum (stretch 2)"
    )
    print(f"  peak memory so far {peak_gib():.2f} GiB")

    store = SmallStore(list(names), {(f"b{k}", 0.1, "none"): X for k in range(cells)})
    began = time.perf_counter()
    odd_one_out(store, Triplets(triplets, names=names))
    print(f"{cells} cells from a store: {time.perf_counter() - began:.1f} s (must 15, stretch 8, for 90)")

    fold = object_folds(n, 3, 0)
    part = triplets[:50_000]
    began = time.perf_counter()
    expected = loop_folds(part, fold, 3)
    loop = (time.perf_counter() - began) * len(triplets) / len(part)
    for number, (train, test) in enumerate(each_fold(part, fold)):
        assert (train.tolist(), test.tolist()) == expected[number]
    ours = seconds(lambda: list(each_fold(triplets, fold)))
    print(f"folds: {1000 * ours:.0f} ms; loop {loop:.1f} s; ratio {loop / ours:,.0f} (must 250)")
    print(f"  peak memory so far {peak_gib():.2f} GiB")

    if not options.no_probe:
        began = time.perf_counter()
        result = cross_validate_probe(X, triplets, LinearProbe())
        row = result.summary().iloc[0]
        print(
            f"3-fold linear probe, λ nested: {time.perf_counter() - began:.0f} s (must 120, stretch 45); held-out "
            f"{row['accuracy']:.4f}, zero-shot {row['zero_shot']:.4f}, iterations {result.table['n_iter'].tolist()}"
        )
        print(f"  peak memory {peak_gib():.2f} GiB (must 2)")


if __name__ == "__main__":
    main()
