"""How good the bundled model is: reconstructions, samples recognised, use of its text. `python -m tests.benchmarks.samples`, some 20 min.

The figures of the model card (`ldm_kit/data/tiny-ldm/README.md`) come from here. The classifier is trained on the drawings alone;
its checkpoint stays in a folder that is named on the command line.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from ldm_kit import training
from ldm_kit.datasets import emoji
from ldm_kit.models.registry import packaged
from ldm_kit.training.text import encode_text

PER_CONCEPT = 3  # samples


def psnr(one: np.ndarray, two: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB, mean over images."""
    error = ((one.astype(float) - two) ** 2).mean(axis=(1, 2, 3))
    return float((10 * np.log10(255**2 / error)).mean())


def interval(values: np.ndarray) -> str:
    """Mean and 95 % interval over images."""
    return f"{values.mean():+.4f} ± {1.96 * values.std(ddof=1) / np.sqrt(len(values)):.4f}"


def main(checkpoints: str = "") -> None:
    torch.set_num_threads(2)
    pipe, names = training.open_model(packaged("tiny-ldm")), emoji.names()
    for style in emoji.STYLES:
        images = training.evaluation_images(names, style)
        print(f"reconstruction, {style}: {psnr(training.reconstruct(pipe.vae, images), images):.1f} dB")

    held_out = training.evaluation_images(names)
    labels = [emoji.prompt(name) for name in names]
    order = np.random.default_rng(0).permutation(len(names))
    shuffled = [labels[order[(row + 1) % len(names)]] for row in np.argsort(order)]
    table = training.loss_by_prompt(
        pipe, held_out, {"none": [""] * len(names), "label": labels, "shuffled": shuffled}
    )
    wide = table.pivot(index=["noise_level", "image"], columns="conditioning", values="loss")
    for level, rows in wide.groupby("noise_level"):
        print(f"loss at {level}: with none {rows['none'].mean():.4f};", end=" ")
        print(f"none - label {interval((rows['none'] - rows['label']).to_numpy())};", end=" ")
        print(f"shuffled - label {interval((rows['shuffled'] - rows['label']).to_numpy())}")

    vectors = encode_text(pipe.text_encoder, pipe.tokenizer, labels).mean(dim=1)
    print(
        f"labels' mean cosine: {float(torch.nn.functional.cosine_similarity(vectors[:-1], vectors[1:]).mean()):.3f}"
    )

    with tempfile.TemporaryDirectory() as folder:
        classifier = training.train_classifier(training.draw(24), Path(checkpoints or folder))
    fresh = training.draw(3, seed=1)
    for what, pixels, concepts in (
        ("drawings of the training styles, varied anew", fresh.pixels, fresh.concepts),
        ("drawings of the held-out style", held_out, names),
        ("the same, sent through the autoencoder", training.reconstruct(pipe.vae, held_out), names),
    ):
        share = training.classify(classifier, pixels, concepts)["correct"].mean()
        print(f"classifier, {what}: {share:.1%} of {len(pixels)}")
    wanted = [name for name in names for _ in range(PER_CONCEPT)]
    samples = training.sample(pipe, [emoji.prompt(name) for name in wanted], batch_size=64)
    seen = training.classify(classifier, samples, wanted)
    print(f"classifier, guided samples: {seen['correct'].mean():.1%} of {len(seen)}")
    by_concept: pd.Series = seen.groupby("concept")["correct"].mean()
    print("never recognised:", ", ".join(by_concept[by_concept == 0].index[:40]))
    Path("outputs").mkdir(exist_ok=True)
    sheet = np.concatenate(
        [np.concatenate(list(samples[i * 60 : i * 60 + 60 : 3]), axis=1) for i in range(16)]
    )
    Image.fromarray(sheet).save("outputs/samples.png")
    print("outputs/samples.png: one sample of each of the first 320 concepts")


if __name__ == "__main__":
    main(*sys.argv[1:])
