"""Whatever a file holds, it is read as what it is or refused by name."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.mutations import broken_triplets, mutated_images, outcome_of_image, outcome_of_triplets


@pytest.fixture
def photographs(tmp_path: Path) -> list[Path]:
    """Real ones lie outside the repository; a smooth drawing compresses as they do."""
    across, down = np.meshgrid(np.linspace(0, 9, 60), np.linspace(0, 5, 40))
    pixels = np.stack(
        [127 + 120 * np.sin(across), 127 + 120 * np.cos(down), 20 * (across + down) % 255], axis=2
    )
    Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "photograph.png")
    return [tmp_path / "photograph.png"]


def test_mutated_images_open_or_are_refused_by_name(tmp_path: Path, photographs: list[Path]) -> None:
    outcomes = Counter(outcome_of_image(path) for path in mutated_images(photographs, tmp_path, 400))
    assert outcomes["opened"] > 80 and outcomes["refused"] > 80, outcomes


def test_broken_triplets_are_read_as_they_are_or_refused_by_name(tmp_path: Path) -> None:
    outcomes: Counter[str] = Counter()
    for what, name, content, meant in broken_triplets():
        (tmp_path / name).write_bytes(content)
        try:
            outcomes[outcome_of_triplets(tmp_path / name, meant)] += 1
        except Exception as error:
            raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error
    assert outcomes["read"] > 30 and outcomes["refused"] > 60, outcomes
