"""Baselines that need no denoiser: a picture's raw pixels, and the latent that a VAE makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ldm_kit.errors import BadInputError
from ldm_kit.models.encoder import Encoder, MapReadout, Readouts
from ldm_kit.models.noise import NoiseLevel
from ldm_kit.models.opened import Identity, Text

PIXELS = 64


@dataclass(frozen=True, eq=False, repr=False)
class Pixels(Encoder):
    """Raw pixels in −1…1, one block ``pixels`` of 3 × 64 × 64 values by default.

    Pooled over space (the default of `extract`) only the mean colour is left; ``pooling="flat"`` keeps them.
    """

    @property
    def preprocessing(self) -> dict[str, Any]:
        """What is done to pictures; nothing samples them."""
        return {**super().preprocessing, "posterior": "none"}

    @property
    def picture_size(self) -> int:
        """Side of the square that pictures are cut and scaled to."""
        return int(self.parts["size"])

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(3, size, size)."""
        return 3, self.picture_size, self.picture_size

    def encode(self, pictures: Sequence[Image.Image], *, posterior: Tensor | None = None) -> Tensor:
        """Give the pixels in −1…1, (n, 3, size, size), float32."""
        return to_pixels([self.preprocess(picture) for picture in pictures]).to(self.device)

    def decode(self, latents: Tensor) -> list[Image.Image]:
        """Make pixels a picture again."""
        return to_pictures(latents)

    def predict(self, denoiser: nn.Module, noised: Tensor, level: NoiseLevel, text: Text) -> Tensor:
        """Pass the pixels on."""
        denoiser({"pixels": noised})
        return noised


@dataclass(frozen=True, eq=False, repr=False)
class Latent(Encoder):
    """What a latent diffusion model's VAE makes of a picture, without noise: one block, ``latent``.

    It is scaled as the denoiser expects it; only the VAE is loaded.
    """

    @property
    def picture_size(self) -> int:
        """Side of the square pictures that the model was made for, in pixels."""
        return int(self.parts["model"].picture_size)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Shape of one latent, (channels, height, width)."""
        shape: tuple[int, int, int] = self.parts["model"].latent_shape
        return shape

    @property
    def preprocessing(self) -> dict[str, Any]:
        """What the diffusion model does to pictures."""
        return dict(self.parts["model"].preprocessing)

    def preprocess(self, picture: Image.Image) -> Image.Image:
        """Scale and cut a picture as the diffusion model does."""
        shown: Image.Image = self.parts["model"].preprocess(picture)
        return shown

    def encode(self, pictures: Sequence[Image.Image], *, posterior: Tensor | None = None) -> Tensor:
        """Encode as the diffusion model does, (n, channels, height, width), float32."""
        encode = self.parts["model"].encode
        latents: Tensor = encode(pictures) if posterior is None else encode(pictures, posterior=posterior)
        return latents

    def decode(self, latents: Tensor) -> list[Image.Image]:
        """Decode as the diffusion model does."""
        pictures: list[Image.Image] = self.parts["model"].decode(latents)
        return pictures

    def predict(self, denoiser: nn.Module, noised: Tensor, level: NoiseLevel, text: Text) -> Tensor:
        """Pass the latent on."""
        denoiser({"latent": noised})
        return noised


def open_pixels(size: str, label: str, device: torch.device) -> Pixels:
    """Open raw pixels as a model.

    Parameters
    ----------
    size : str
        Pixels on a side, 1–1024; empty for 64.
    label : str
    device : torch.device

    Raises
    ------
    BadInputError
        If `size` is no such number.

    Examples
    --------
    >>> open_pixels("8", "pixels:8", torch.device("cpu")).latent_shape
    (3, 8, 8)
    """
    if size and not (size.isascii() and size.isdigit() and 1 <= int(size) <= 1024):
        raise BadInputError(
            f"'pixels:{size}': give the number of pixels on a side, 1 to 1024, as in 'pixels:{PIXELS}'."
        )
    identity = Identity(label, "pixels", "1", "float32", Pixels.__name__)
    return Pixels(
        identity, Readouts({"pixels": MapReadout()}), {"size": int(size) if size else PIXELS}, device
    )


def to_pixels(pictures: Sequence[Image.Image]) -> Tensor:
    """Stack RGB pictures of one size as (n, 3, height, width) in −1…1, float32.

    Examples
    --------
    >>> to_pixels([Image.new("RGB", (2, 2), "white")]).unique()
    tensor([1.])
    """
    stacked = np.stack([np.asarray(picture) for picture in pictures])
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).to(torch.float32) / 127.5 - 1


def to_pictures(pixels: Tensor) -> list[Image.Image]:
    """Make pictures of pixels in −1…1, (n, 3, height, width); values beyond are clipped.

    Examples
    --------
    >>> to_pictures(torch.zeros(1, 3, 2, 2))[0].getpixel((0, 0))
    (128, 128, 128)
    """
    values = ((pixels.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return [Image.fromarray(array) for array in values.permute(0, 2, 3, 1).cpu().numpy()]
