"""What the model is trained on: Toybox pictures and their captions, as arrays.

Exemplar 0 of every object is left out, always: it is the evaluation picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from tqdm.auto import tqdm

from ldm_kit.datasets import toybox
from ldm_kit.errors import BadInputError

__all__ = ["Pictures", "as_input", "as_pictures", "draw"]


@dataclass(frozen=True)
class Pictures:
    """Rendered pictures, each with several captions.

    Attributes
    ----------
    pixels : ndarray of uint8, shape (n, size, size, 3)
    objects : tuple of str, length n
        What each picture shows.
    exemplars : ndarray of int64, shape (n,)
        Which picture of the object; never 0.
    captions : tuple of tuple of str, n by variants
    """

    pixels: npt.NDArray[np.uint8]
    objects: tuple[str, ...]
    exemplars: npt.NDArray[np.int64]
    captions: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.objects)


def draw(
    exemplars: int,
    *,
    seed: int = 0,
    size: int = 64,
    variants: int = 6,
    first: int = 1,
    objects: Sequence[str] | None = None,
) -> Pictures:
    """Render training pictures: for each object, exemplars ``first`` to ``first + exemplars - 1``.

    Parameters
    ----------
    exemplars : int
        Pictures an object.
    seed : int, default 0
        Toybox's seed.
    size : int, default 64
        Side in pixels.
    variants : int, default 6
        Captions a picture; about half of them are the plain label prompt.
    first : int, default 1
        First exemplar; a later one gives held-out pictures.
    objects : sequence of str, optional
        All of Toybox by default.

    Returns
    -------
    Pictures

    Raises
    ------
    BadInputError
        If `first` is below 1 (exemplar 0 is for evaluation) or no exemplar is asked for.

    Examples
    --------
    >>> draw(2, objects=["apple", "cat"], size=16).pixels.shape
    (4, 16, 16, 3)
    """
    if first < 1 or exemplars < 1:
        raise BadInputError(
            f"first is {first} and exemplars {exemplars}; both must be at least 1, since exemplar 0 of "
            "each object is the evaluation picture, which no training may see."
        )
    objects = toybox.names() if objects is None else objects
    which = [(name, exemplar) for exemplar in range(first, first + exemplars) for name in objects]
    pixels = np.stack(
        [
            np.asarray(toybox.render(name, exemplar, seed, size))
            for name, exemplar in tqdm(which, desc="drawing", mininterval=2.0)
        ]
    )
    captions = tuple(
        tuple(toybox.caption(name, exemplar, seed, v) for v in range(variants)) for name, exemplar in which
    )
    return Pictures(
        pixels, tuple(name for name, _ in which), np.array([e for _, e in which], dtype=np.int64), captions
    )


def as_input(pixels: npt.NDArray[np.uint8]) -> torch.Tensor:
    """Pixels as the networks want them: float32 from -1 to 1, channels first.

    Examples
    --------
    >>> as_input(np.zeros((2, 8, 8, 3), np.uint8)).shape
    torch.Size([2, 3, 8, 8])
    """
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1


def as_pictures(tensor: torch.Tensor) -> npt.NDArray[np.uint8]:
    """The way back: ``(n, 3, h, w)`` from -1 to 1 becomes ``(n, h, w, 3)`` of uint8.

    Examples
    --------
    >>> pixels = np.arange(48, dtype=np.uint8).reshape(1, 4, 4, 3)
    >>> bool((as_pictures(as_input(pixels)) == pixels).all())
    True
    """
    scaled = ((tensor.detach().float().cpu() + 1) * 127.5).round().clamp(0, 255)
    return scaled.to(torch.uint8).permute(0, 2, 3, 1).numpy()
