"""Time the readers at the size of THINGS: ``python -m tests.benchmarks.reading [--rows N]``.

4.7 million choices over 1,854 concepts: three columns of indices, the same where concepts have numbers for names, and
THINGS-data's released file. Beside each stands `pandas.read_csv` of the same file, below which no reader can go.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from ldm_kit.datasets import read_triplets
from ldm_kit.datasets.triplets import Triplets, aggregate_repeated
from tests.benchmarks.measures import seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=4_700_000)
    n = parser.parse_args().rows
    rng = np.random.default_rng(0)
    first, step = rng.integers(0, 1854, n), rng.integers(1, 900, n)
    indices = np.stack([first, (first + step) % 1854, (first + 2 * step) % 1854], axis=1)
    words, numbers = [f"concept_{row}" for row in range(1854)], [str(row) for row in range(1854)]
    with tempfile.TemporaryDirectory() as folder:
        plain, released = Path(folder) / "plain.txt", Path(folder) / "released.csv"
        pd.DataFrame(indices).to_csv(plain, sep=" ", header=False, index=False)
        table = pd.DataFrame(indices + 1, columns=["image1", "image2", "image3"])
        table.assign(choice=rng.integers(1, 4, n), RT=812.5, subject_id=rng.integers(0, 12_000, n)).to_csv(
            released, sep="\t", index=False
        )
        bare = {
            file: seconds(lambda file=file: pd.read_csv(file, sep=r"\s+"), 2) for file in (plain, released)
        }
        for what, file, names in [
            ("three columns", plain, words),
            ("three columns, names are numbers", plain, numbers),
            ("released", released, words),
        ]:
            took = seconds(lambda file=file, names=names: read_triplets(file, names), 2)
            print(f"{what:<34} {took:6.2f} s   read_csv alone {bare[file]:6.2f} s")
    triplets = Triplets(indices, tuple(words))
    print(f"{'among half of the names':<34} {seconds(lambda: triplets.among(words[::2]), 3):6.2f} s")
    print(f"{'aggregate_repeated':<34} {seconds(lambda: aggregate_repeated(triplets), 2):6.2f} s")


if __name__ == "__main__":
    main()
