"""Score every probe on CLIP and 50,000 human triplets, five seeds: ``python -m tests.benchmarks.probes``."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np

from ldm_kit.measures import KernelProbe, LinearProbe, MLPProbe, cross_validate_probe

PROBES = {
    "linear": LinearProbe(),
    "linear, frobenius": LinearProbe(penalty="frobenius"),
    "MLP": MLPProbe(),
    "kernel, rbf": KernelProbe(),
    "kernel, polynomial": KernelProbe(kernel="polynomial"),
    "kernel, laplacian": KernelProbe(kernel="laplacian"),
}


def main() -> None:
    """Measure, and print the table."""
    root = Path(os.environ.get("LDM_KIT_THINGS") or Path(__file__).parents[2] / "../shared/things")
    X = np.load(root / "clip_vit_b32_things.npy", allow_pickle=False)
    triplets = np.loadtxt(root / "human_triplets_50k.txt", dtype=np.int64)
    print("| probe | accuracy | gain | seconds |\n|---|---|---|---|")
    for name, probe in PROBES.items():
        began = time.perf_counter()
        tables = [cross_validate_probe(X, triplets, probe, random_state=seed).table for seed in range(5)]
        accuracy, gain = (
            np.mean([table[column].mean() for table in tables]) for column in ("accuracy", "gain")
        )
        print(f"| {name} | {accuracy:.4f} | {gain:.4f} | {time.perf_counter() - began:.0f} |", flush=True)


if __name__ == "__main__":
    main()
