"""The family of DeepFloyd IF, stage I: the design of Imagen, a U-Net over small images, conditioned on T5."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor, nn

from ldm_kit.errors import BadInputError
from ldm_kit.models.model import OpenedModel, Text, to_images, to_pixels
from ldm_kit.models.noise import NoiseLevel


class DeepFloydIF(OpenedModel):
    """DeepFloyd IF's first stage: noise is added to pixels themselves, there is no autoencoder.

    Notes
    -----
    Prompts are made lower-case and stripped of spaces at their ends, as diffusers' pipeline does unless
    `ftfy` and `beautifulsoup4` are installed, when it also cleans up web captions. Here the features must
    not depend on which packages are installed. The later stages only enlarge what the first has made.
    """

    NEEDED = ("tokenizer", "text_encoder", "unet", "scheduler")
    # T5 could read more; the text encoder of IF was used with this many.
    TOKENS: ClassVar[int] = 77

    @property
    def image_size(self) -> int:
        """Side of the square images that the model was trained on, in pixels."""
        return self.latent_shape[1]

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Shape of one image, (3, height, width)."""
        config = self.denoiser.config
        if int(config.in_channels) != 3:
            raise BadInputError(
                f"The U-Net of {self.identity.source!r} takes {config.in_channels} channels: it is a later stage, "
                "which enlarges an image. Load the first, such as 'deepfloyd-if'."
            )
        return 3, int(config.sample_size), int(config.sample_size)

    @property
    def preprocessing(self) -> dict[str, Any]:
        """What is done to images, as data."""
        return {**super().preprocessing, "posterior": "none"}

    def encode(self, images: Sequence[Image.Image], *, posterior: Tensor | None = None) -> Tensor:
        """Return the pixels in −1…1, (n, 3, height, width), float32; there is no posterior to sample from."""
        return to_pixels([self.preprocess(image) for image in images], self.device)

    def decode(self, latents: Tensor) -> list[Image.Image]:
        """Turn pixels into images again."""
        return to_images(latents)

    def encode_prompt(self, prompt: str) -> Text:
        """Encode one prompt: T5's sequence, (1, 77, channels), its padding hidden from T5 but not from the U-Net."""
        ids, mask = self._tokens(prompt.lower().strip(), length=self.TOKENS)
        sequence = self.components["text_encoder"](ids, attention_mask=mask)[0]
        return {"sequence": sequence.to(self.dtype)}

    @property
    def text_shapes(self) -> dict[str, tuple[int, ...]]:
        """The sequence of tokens."""
        config = self.denoiser.config
        return {"sequence": (8, int(config.encoder_hid_dim or config.cross_attention_dim))}

    def predict(self, denoiser: nn.Module, noised: Tensor, level: NoiseLevel, text: Text) -> Tensor:
        """Run the U-Net once; returns the noise alone, where the network predicts a variance with it."""
        timesteps = torch.full((len(noised),), level.timestep, device=noised.device)
        prediction: Tensor = denoiser(
            noised, timesteps, encoder_hidden_states=text["sequence"], return_dict=False
        )[0]
        return prediction[:, : noised.shape[1]]
