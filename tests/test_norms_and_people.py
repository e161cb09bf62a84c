"""The norms that the simulated observers judge by, against people: they were revised by looking at SPoSE on half of the concepts alone.

What is measured here stands in the README of the project. Nothing of the norms was fitted to it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import ldm_kit as lk
from ldm_kit.datasets import emoji, observers
from ldm_kit.datasets.embeddings import read_embedding

SPOSE = "spose_embedding_66d_sorted.txt"


def accuracy(choices: lk.Triplets | np.ndarray, concepts: list[str]) -> tuple[float, float, float]:
    """Of the weighted norms: by plain dot products, as the observers judge; with the interval for other concepts."""
    row = lk.odd_one_out(observers.norms().loc[concepts].to_numpy(), choices, "dot").iloc[0]
    return float(row["accuracy"]), float(row["ci_low"]), float(row["ci_high"])


def drawn_from_spose(root: Path, concepts: list[str]) -> np.ndarray:
    """Choices of a human model: SPoSE's own rule, every set judged once."""
    vectors = read_embedding(root / SPOSE).loc[concepts].to_numpy()
    return observers.simulate_choices(vectors, 100_000, 1.0, seed=0, n_repeated=0)[0]


def test_the_norms_predict_real_peoples_choices(things_root: Path) -> None:
    concepts = emoji.names()
    listed = (things_root / "unique_id.txt").read_text(encoding="utf-8").split()
    indices = np.loadtxt(things_root / "human_triplets_50k.txt", dtype=int)
    chosen = [row for row in indices.tolist() if all(listed[i] in concepts for i in row)]
    assert len(chosen) == 294
    norms, score = observers.norms(), 0.0
    for i, j, k in chosen:  # plainly, a tie scoring what a guess among the best would
        a, b, odd = (norms.loc[listed[item]].to_numpy() for item in (i, j, k))
        pairs = [float(a @ b), float(a @ odd), float(b @ odd)]
        best = [place for place in range(3) if pairs[place] > max(pairs) - 1e-9]
        score += (0 in best) / len(best)
    people = lk.read_triplets(things_root / "human_triplets_50k.txt", listed, dataset="things").among(
        concepts
    )
    found, low, high = accuracy(people, concepts)
    assert found == pytest.approx(score / 294, abs=1e-12) and found == pytest.approx(0.6088, abs=0.0001)
    assert 0.53 < low < found < high and (high - low) / 2 == pytest.approx(0.060, abs=0.001)


def test_the_norms_predict_the_choices_of_a_human_model(things_root: Path) -> None:
    concepts = emoji.names()
    choices = drawn_from_spose(things_root, concepts)
    found, low, high = accuracy(choices, concepts)
    assert (found, low, high) == pytest.approx((0.6438, 0.6237, 0.6640), abs=0.002)
    assert low > 0.55
    # what nobody can do better than, who must say the same of a set every time
    vectors = read_embedding(things_root / SPOSE).loc[concepts].to_numpy()
    most = observers.choice_probabilities(vectors, choices, 1.0).max(axis=1).mean()
    assert found < most == pytest.approx(0.688, abs=0.002)


@pytest.mark.parametrize(
    ("first", "expected"),
    [(1, (0.6435, 0.6154, 0.6717)), (0, (0.6418, 0.6131, 0.6705))],
    ids=["the half that nobody looked at", "the half that the norms were revised by"],
)
def test_they_do_so_on_either_half_of_the_concepts(
    things_root: Path, first: int, expected: tuple[float, float, float]
) -> None:
    half = emoji.names()[first::2]
    found = accuracy(drawn_from_spose(things_root, half), half)
    assert found == pytest.approx(expected, abs=0.002)
    assert found[1] > 0.55
