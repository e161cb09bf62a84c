"""Pictures drawn by a trained model, and sheets to look at them on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image, ImageDraw
from tqdm.auto import tqdm

from ldm_kit.datasets.toybox import generator
from ldm_kit.errors import BadInputError

__all__ = ["contact_sheet", "sample"]


def sample(
    pipe: StableDiffusionPipeline,
    prompts: Sequence[str],
    *,
    steps: int = 25,
    guidance: float = 4.0,
    seed: int = 0,
    batch_size: int = 32,
) -> npt.NDArray[np.uint8]:
    """Draw one picture for each prompt.

    Parameters
    ----------
    pipe : diffusers.StableDiffusionPipeline
        The model.
    prompts : sequence of str
        What to draw; a prompt that comes twice gives two different pictures.
    steps : int, default 25
        Denoising steps.
    guidance : float, default 4.0
        How strongly the words pull; 1 is no guidance.
    seed : int, default 0
        Picture `i` depends on ``(seed, prompt, i)`` alone, whatever the batch size.
    batch_size : int, default 32
        Pictures at a time.

    Returns
    -------
    ndarray of uint8, shape (n, size, size, 3)

    Raises
    ------
    BadInputError
        If there is no prompt.

    Examples
    --------
    >>> sample(pipe, ["a photo of a cat"]).shape  # doctest: +SKIP
    (1, 64, 64, 3)
    """
    if not prompts:
        raise BadInputError("There are no prompts to draw. Give at least one, e.g. ['a photo of a cat'].")
    pipe.set_progress_bar_config(disable=True)
    parts = []
    for start in tqdm(range(0, len(prompts), batch_size), desc="sampling", mininterval=2.0):
        texts = list(prompts[start : start + batch_size])
        noises = [
            torch.Generator().manual_seed(int(generator("sample", seed, text, start + i).integers(2**62)))
            for i, text in enumerate(texts)
        ]
        out = pipe(
            texts, num_inference_steps=steps, guidance_scale=guidance, generator=noises, output_type="np"
        )
        parts.append((out.images * 255).round().astype(np.uint8))
    return np.concatenate(parts)


def contact_sheet(
    pixels: npt.NDArray[np.uint8], labels: Sequence[str], *, columns: int = 8, zoom: int = 2
) -> Image.Image:
    """Pictures side by side, a label above each.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (n, size, size, 3)
    labels : sequence of str, length n
        An empty label leaves the space blank.
    columns : int, default 8
    zoom : int, default 2
        Enlargement, by whole pixels.

    Returns
    -------
    PIL.Image.Image

    Raises
    ------
    BadInputError
        If there are not as many labels as pictures.

    Examples
    --------
    >>> contact_sheet(np.zeros((3, 8, 8, 3), np.uint8), ["a", "b", ""], columns=2).size
    (36, 56)
    """
    if len(labels) != len(pixels):
        raise BadInputError(f"{len(pixels)} pictures but {len(labels)} labels; give one label a picture.")
    side, gap, text = pixels.shape[1] * zoom, 2, 10
    rows = -(-len(pixels) // columns)
    sheet = Image.new("RGB", (columns * (side + gap), rows * (side + gap + text)), "white")
    pen = ImageDraw.Draw(sheet)
    for index, (picture, name) in enumerate(zip(pixels, labels, strict=True)):
        x, y = (index % columns) * (side + gap), (index // columns) * (side + gap + text)
        pen.text((x + 1, y), name, fill="black")
        sheet.paste(Image.fromarray(picture).resize((side, side), Image.Resampling.NEAREST), (x, y + text))
    return sheet
