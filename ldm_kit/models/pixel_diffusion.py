"""What models over pixels share: noise is added to the picture itself, there is no VAE."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image
from torch import Tensor

from ldm_kit.errors import BadInputError
from ldm_kit.models.noise import NoiseLevel, clean_from_prediction
from ldm_kit.models.opened import OpenedModel
from ldm_kit.models.raw import to_pictures, to_pixels


@dataclass(frozen=True, eq=False, repr=False)
class PixelDiffusion(OpenedModel):
    """A U-Net over small pictures; a family adds its text encoders and how its U-Net is called."""

    PICTURE_PARTS = ()

    @property
    def picture_size(self) -> int:
        """Side of the square pictures that the model was made for, in pixels."""
        return self.latent_shape[1]

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Shape of one picture, (3, height, width)."""
        config = self.denoiser.config
        if int(config.in_channels) != 3:
            raise BadInputError(
                f"The U-Net of {self.identity.source!r} takes {config.in_channels} channels: it is a later stage, "
                "which enlarges a picture. Load the first, such as 'deepfloyd-if'."
            )
        return 3, int(config.sample_size), int(config.sample_size)

    @property
    def preprocessing(self) -> dict[str, Any]:
        """What is done to pictures, as data."""
        return {**super().preprocessing, "posterior": "none"}

    def encode(self, pictures: Sequence[Image.Image], *, posterior: Tensor | None = None) -> Tensor:
        """Give the pixels in −1…1, (n, 3, height, width), float32; there is no posterior to sample from."""
        return to_pixels([self.preprocess(picture) for picture in pictures]).to(self.device)

    def decode(self, latents: Tensor) -> list[Image.Image]:
        """Make pixels pictures again."""
        return to_pictures(latents)

    def clean_estimate(self, noised: Tensor, prediction: Tensor, level: NoiseLevel) -> Tensor:
        """Turn a prediction into the model's estimate of the clean picture."""
        kind = str(self.parts["scheduler"].config.prediction_type)
        return clean_from_prediction(kind, noised, prediction, level)
