"""A store of a few arrays in memory, choices drawn from a known truth, and a few of the emoji."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

import ldm_kit as lk
from ldm_kit.datasets import observers
from ldm_kit.datasets.triplets import aggregate_repeated


class SmallStore:
    """What measures need of a feature store: names, cells, labels, arrays."""

    def __init__(self, names: Sequence[str], arrays: Mapping[tuple[Any, ...], npt.NDArray[Any]]) -> None:
        self.names = tuple(names)
        self.arrays = dict(arrays)

    def cells(self) -> list[tuple[Any, ...]]:
        return list(self.arrays)

    def labels(self, key: tuple[Any, ...]) -> dict[str, Any]:
        block, level, conditioning, *draw = key
        return {
            "model": "small",
            "block": block,
            "noise_level": level,
            "timestep": round(level * 1000),
            "conditioning": conditioning,
            **({"draw": draw[0]} if draw else {}),
        }

    def __getitem__(self, key: tuple[Any, ...]) -> npt.NDArray[Any]:
        return self.arrays[key]


def random_triplets(n: int, t: int, seed: int = 0) -> npt.NDArray[np.int64]:
    """Random sets of three different objects."""
    rng = np.random.default_rng(seed)
    out = rng.integers(n, size=(t, 3))
    while True:
        same = (out[:, 0] == out[:, 1]) | (out[:, 0] == out[:, 2]) | (out[:, 1] == out[:, 2])
        if not same.any():
            return out
        out[same] = rng.integers(n, size=(int(same.sum()), 3))


def drawn_choices(
    embedding: npt.NDArray[Any], triplets: npt.NDArray[np.int64], seed: int = 0
) -> npt.NDArray[np.int64]:
    """Reorder each triplet so that its last item is drawn by the softmax over the pairs' dot products."""
    rng = np.random.default_rng(seed)
    i, j, k = triplets.T
    dots = [np.einsum("td,td->t", embedding[a], embedding[b]) for a, b in ((j, k), (i, k), (i, j))]
    logits = np.stack(dots, axis=1)
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    ends = np.cumsum(odds / odds.sum(axis=1, keepdims=True), axis=1)
    odd = np.minimum((rng.random(len(triplets))[:, None] > ends).sum(axis=1), 2)
    rows = np.arange(len(triplets))
    out = triplets.copy()
    out[rows, odd], out[:, 2] = triplets[:, 2], triplets[rows, odd]
    return out


def few_emoji(n: int, n_triplets: int = 4000) -> lk.Dataset:
    """Emoji from all over the list, with as many choices by the simulated observers about these alone."""
    data = lk.load_dataset("emoji", n_triplets=100)
    some = data.subset(data.stimuli.names[:: len(data.stimuli) // n][:n])
    norms = some.embeddings["norms"].to_numpy()
    choices, subjects = observers.simulate_choices(norms, n_triplets, n_repeated=20)
    triplets = lk.Triplets(choices, some.stimuli.names, "simulated", "emoji", subjects)
    return replace(some, triplets=triplets, repeated=aggregate_repeated(triplets))
