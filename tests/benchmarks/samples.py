"""``python -m tests.benchmarks.samples [MODEL]``: how many samples of a model a classifier recognises.

By default of the bundled one; these are the figures of its model card. Takes some minutes.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import ldm_kit as lk
from ldm_kit import training
from ldm_kit.datasets import toybox

BUNDLED = Path(lk.__file__).parent / "data" / "tiny-ldm"


def main(model: Path = BUNDLED, samples: int = 8) -> None:
    names = [name for name in toybox.names() for _ in range(samples)]
    with tempfile.TemporaryDirectory() as folder:
        classifier = training.train_classifier(Path(folder))
    pixels = training.sample(training.open_model(model), [toybox.prompt(name) for name in names])
    table = training.classify(classifier, pixels, names)
    print(f"held-out drawings recognised: {training.classifier_accuracy(classifier):.3f}")
    print(f"samples recognised: {table['correct'].mean():.3f} of {len(table)}")
    print("hardest:", table.groupby("object")["correct"].mean().sort_values().head(10).to_dict())


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
