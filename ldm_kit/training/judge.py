"""How good are the samples? A classifier that has only ever seen Toybox drawings says what each one shows.

    python -m ldm_kit.training.judge --model ldm_kit/data/tiny-ldm --samples 8

The judge is a small convolutional network, trained afresh each time (a minute or two) on drawings that are noised, blurred and
shifted in brightness, so that it looks at shape and colour and not at the crispness that only a drawing has. Its own accuracy, on
exemplars it never saw, is reported beside what it says of the samples: the one bounds what the other can mean.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from diffusers import StableDiffusionPipeline
from torch import nn
from torch.nn import functional

from ldm_kit.datasets import toybox
from ldm_kit.training.loop import step_generators, train
from ldm_kit.training.model_folder import open_model
from ldm_kit.training.pictures import as_input, draw
from ldm_kit.training.samples import contact_sheet, sample

__all__ = ["accuracy", "judge_samples", "train_judge"]

HELD_OUT = 10_001  # first exemplar of the held-out drawings, far from any that is trained on


def _network(n_objects: int, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        for inside, outside in ((3, 24), (24, 48), (48, 96), (96, 128)):
            layers += [
                nn.Conv2d(inside, outside, 3, stride=2, padding=1),
                nn.GroupNorm(8, outside),
                nn.SiLU(),
                nn.Conv2d(outside, outside, 3, padding=1),
                nn.GroupNorm(8, outside),
                nn.SiLU(),
            ]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * 128, n_objects))


def _worsen(pictures: torch.Tensor, rng: np.random.Generator, torch_rng: torch.Generator) -> torch.Tensor:
    """Blur half of a batch and noise all of it, differently strongly, so that crispness decides nothing."""
    n = len(pictures)
    blurred = functional.avg_pool2d(functional.pad(pictures, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    mix = torch.from_numpy(rng.uniform(-1, 1, size=n).clip(0).astype(np.float32)).view(-1, 1, 1, 1)
    noise = torch.from_numpy(rng.uniform(0, 0.25, size=n).astype(np.float32)).view(-1, 1, 1, 1)
    light = torch.from_numpy(rng.uniform(-0.15, 0.15, size=(n, 3)).astype(np.float32)).view(-1, 3, 1, 1)
    mixed = pictures + mix * (blurred - pictures) + light
    return mixed + noise * torch.randn(pictures.shape, generator=torch_rng)


def train_judge(
    out: Path, *, exemplars: int = 60, steps: int = 1200, batch_size: int = 64, seed: int = 0
) -> nn.Module:
    """Train (or go on training) the judge on Toybox drawings.

    Parameters
    ----------
    out : pathlib.Path
        Folder of its checkpoint ``judge.safetensors``.
    exemplars : int, default 60
        Drawings an object; exemplar 0 is not among them.
    steps, batch_size, seed
        The recipe.

    Returns
    -------
    torch.nn.Module
        Takes float32 ``(n, 3, 64, 64)`` from -1 to 1, gives ``(n, 56)`` scores.

    Examples
    --------
    >>> judge = train_judge(Path("outputs/judge"))  # doctest: +SKIP
    """
    pictures = draw(exemplars, seed=seed, variants=1)
    order = {name: index for index, name in enumerate(toybox.names())}
    answers = torch.tensor([order[name] for name in pictures.objects])
    judge = _network(len(order), seed)

    def loss_of_step(step: int) -> torch.Tensor:
        rng, torch_rng = step_generators(seed, "judge", step)
        rows = rng.integers(len(pictures), size=batch_size)
        scores = judge(_worsen(as_input(pictures.pixels[rows]), rng, torch_rng))
        return functional.cross_entropy(scores, answers[rows], label_smoothing=0.05)

    identity = {"stage": "judge", "seed": seed, "exemplars": exemplars, "batch_size": batch_size}
    averages, _ = train(
        {"judge": judge},
        loss_of_step,
        steps=steps,
        learning_rate=2e-3,
        path=out / "judge.safetensors",
        identity=identity,
        name="judge",
        save_every=400,
    )
    return averages["judge"]


@torch.no_grad()
def _told(judge: nn.Module, pixels: npt.NDArray[np.uint8]) -> list[str]:
    names = toybox.names()
    scores = torch.cat([judge(as_input(pixels[i : i + 128])) for i in range(0, len(pixels), 128)])
    return [names[index] for index in scores.argmax(dim=1).tolist()]


def accuracy(judge: nn.Module, *, exemplars: int = 10, seed: int = 0) -> float:
    """Share of held-out drawings that the judge tells rightly.

    Examples
    --------
    >>> accuracy(judge)  # doctest: +SKIP
    0.99
    """
    pictures = draw(exemplars, seed=seed, variants=1, first=HELD_OUT)
    return float(
        np.mean([a == b for a, b in zip(_told(judge, pictures.pixels), pictures.objects, strict=True)])
    )


def judge_samples(
    judge: nn.Module,
    pipe: StableDiffusionPipeline,
    *,
    samples: int = 8,
    steps: int = 25,
    guidance: float = 4.0,
    seed: int = 0,
    objects: Sequence[str] | None = None,
) -> tuple[pd.DataFrame, npt.NDArray[np.uint8]]:
    """Draw each object from "a photo of a {name}" and let the judge tell what the pictures show.

    Parameters
    ----------
    judge : torch.nn.Module
        Of `train_judge`.
    pipe : diffusers.StableDiffusionPipeline
        The model to judge.
    samples : int, default 8
        Pictures an object.
    steps, guidance, seed
        Of the sampling; `sample` says more.
    objects : sequence of str, optional
        What to draw; all of Toybox by default.

    Returns
    -------
    told : pandas.DataFrame, one row a sample
        Columns ``object``, ``told`` and ``right``.
    pixels : ndarray of uint8, shape (objects x samples, 64, 64, 3)
        The samples, in the same order.

    Examples
    --------
    >>> told, pixels = judge_samples(judge, pipe, samples=8)  # doctest: +SKIP
    >>> told["right"].mean()  # doctest: +SKIP
    """
    asked = [name for name in objects or toybox.names() for _ in range(samples)]
    pixels = sample(pipe, [toybox.prompt(name) for name in asked], steps=steps, guidance=guidance, seed=seed)
    told = pd.DataFrame({"object": asked, "told": _told(judge, pixels)})
    return told.assign(right=told["object"] == told["told"]), pixels


def main(arguments: list[str] | None = None) -> None:
    """Judge a model folder from the command line; prints the figures of the model card."""
    parser = argparse.ArgumentParser(
        prog="python -m ldm_kit.training.judge", description=(__doc__ or "").splitlines()[0]
    )
    default = Path(__file__).resolve().parent.parent / "data" / "tiny-ldm"
    parser.add_argument(
        "--model", type=Path, default=default, help="a folder in diffusers format (default: the bundled one)"
    )
    parser.add_argument("--samples", type=int, default=8, help="samples an object (default: 8)")
    parser.add_argument("--steps", type=int, default=25, help="denoising steps (default: 25)")
    parser.add_argument("--guidance", type=float, default=4.0, help="guidance scale (default: 4)")
    parser.add_argument("--out", type=Path, default=Path("outputs/judge"), help="where tables and sheets go")
    given = parser.parse_args(arguments)
    judge = train_judge(given.out)
    pipe = open_model(given.model)
    told, pixels = judge_samples(
        judge, pipe, samples=given.samples, steps=given.steps, guidance=given.guidance
    )
    told.to_csv(given.out / "told.csv", index=False)
    marks = [t if r else f"not {o}: {t}" for o, t, r in told.itertuples(index=False)]
    contact_sheet(pixels, marks, columns=16, zoom=1).save(given.out / "samples.png")
    print(f"judge on held-out drawings: {accuracy(judge):.3f}")
    print(f"samples told to be their object: {told['right'].mean():.3f} of {len(told)}")
    print("hardest:", told.groupby("object")["right"].mean().sort_values().head(10).to_dict())


if __name__ == "__main__":
    main()
