"""What the model is trained on: emoji in the training styles, varied in pose and background, each with captions.

The evaluation style is left out, always.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageEnhance
from tqdm.auto import tqdm

from ldm_kit.datasets import emoji
from ldm_kit.errors import whole_number

SIZE = 64  # side of the model's images, in pixels
# Light and muted, so that an object's own colours stand out.
_BACKGROUNDS = ("#f3ead9", "#dfe9ee", "#cfe3cf", "#f4d9d0", "#ddd3ea", "#c8d6e6", "#e9e2b8", "#d9c7b0")
_WHITE = 0.6  # share of images on white, as the evaluation images are


@dataclass(frozen=True)
class TrainingImages:
    """Varied drawings, each with several captions.

    Attributes
    ----------
    pixels : ndarray of uint8, shape (n, 64, 64, 3)
    concepts : tuple of str, length n
        What each image shows.
    captions : tuple of tuple of str, n by variants
    """

    pixels: npt.NDArray[np.uint8]
    concepts: tuple[str, ...]
    captions: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.concepts)


def draw(exemplars: int, *, seed: int = 0, concepts: Sequence[str] | None = None) -> TrainingImages:
    """Draw training images: `exemplars` of each concept, their styles in turn.

    Parameters
    ----------
    exemplars : int
        Images a concept, at least 1.
    seed : int, default 0
        Of pose, background and colour; image `e` of a concept depends on ``(seed, concept, e)`` alone.
    concepts : sequence of str, optional
        All by default.

    Returns
    -------
    TrainingImages
        Exemplar by exemplar, each of all concepts.

    Raises
    ------
    BadInputError
        If `exemplars` is below 1.
    UnknownNameError
        If there is no such concept.

    Examples
    --------
    >>> draw(2, concepts=["apple", "cat"]).pixels.shape
    (4, 64, 64, 3)
    """
    whole_number("exemplars", exemplars, 1)
    concepts = emoji.names() if concepts is None else concepts
    which = [(name, exemplar) for exemplar in range(exemplars) for name in concepts]
    bar = tqdm(which, desc="drawing", mininterval=2.0)
    return TrainingImages(
        np.stack([_vary(name, exemplar, seed) for name, exemplar in bar]),
        tuple(name for name, _ in which),
        tuple(training_captions(name) for name, _ in which),
    )


def evaluation_images(concepts: Sequence[str], style: str = emoji.EVALUATION_STYLE) -> npt.NDArray[np.uint8]:
    """Return drawings as the data set shows them: on white, unvaried.

    Parameters
    ----------
    concepts : sequence of str, length n
    style : str
        The style for evaluation by default.

    Returns
    -------
    ndarray of uint8, shape (n, 64, 64, 3)

    Examples
    --------
    >>> evaluation_images(["apple"]).shape
    (1, 64, 64, 3)
    """
    white = Image.new("RGBA", (128, 128), "white")
    images = (Image.alpha_composite(white, emoji.picture(name, style)) for name in concepts)
    return np.stack(
        [np.asarray(image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BICUBIC)) for image in images]
    )


@cache
def _source(name: str, style: str) -> Image.Image:
    return emoji.picture(name, style)


def _vary(name: str, exemplar: int, seed: int) -> npt.NDArray[np.uint8]:
    """One drawing with its own size, place, turn, mirror image, light and background."""
    rng = emoji.generator(seed, name, exemplar, "pose")
    drawing = _source(name, emoji.TRAINING_STYLES[exemplar % len(emoji.TRAINING_STYLES)])
    if rng.random() < 0.5:
        drawing = drawing.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    drawing = drawing.rotate(rng.uniform(-12, 12), Image.Resampling.BICUBIC)
    side = round(SIZE * rng.uniform(0.75, 1.0))
    drawing = drawing.resize((side, side), Image.Resampling.LANCZOS)
    drawing = ImageEnhance.Brightness(drawing).enhance(rng.uniform(0.88, 1.08))
    drawing = ImageEnhance.Color(drawing).enhance(rng.uniform(0.75, 1.15))
    white = rng.random() < _WHITE
    image = Image.new("RGBA", (SIZE, SIZE), "white" if white else str(rng.choice(_BACKGROUNDS)))
    image.alpha_composite(drawing, tuple(rng.integers(0, SIZE - side + 1, size=2).tolist()))
    return np.asarray(image.convert("RGB"))


def training_captions(name: str) -> tuple[str, ...]:
    """Return the captions that an image is trained with; the plain prompt comes as often as all others together.

    Examples
    --------
    >>> len(training_captions("apple")), training_captions("apple")[8]
    (16, 'a drawing of an apple')
    """
    label = emoji.label(name)
    article = "an" if label[0] in "aeiou" else "a"
    return (emoji.prompt(name),) * 8 + (f"a drawing of {article} {label}", label, *emoji.captions(name))


def as_input(pixels: npt.NDArray[np.uint8]) -> torch.Tensor:
    """Return pixels as the networks take them: float32 from -1 to 1, channels first."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1


def as_pixels(tensor: torch.Tensor) -> npt.NDArray[np.uint8]:
    """Return what a network paints, ``(n, 3, h, w)`` from -1 to 1, as ``(n, h, w, 3)`` of uint8.

    Examples
    --------
    >>> pixels = np.arange(48, dtype=np.uint8).reshape(1, 4, 4, 3)
    >>> bool((as_pixels(as_input(pixels)) == pixels).all())
    True
    """
    scaled = ((tensor.detach().float().cpu() + 1) * 127.5).round().clamp(0, 255)
    return scaled.to(torch.uint8).permute(0, 2, 3, 1).numpy()
