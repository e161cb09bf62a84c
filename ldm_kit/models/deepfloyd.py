"""The family of DeepFloyd IF, stage I: the design of Imagen, a U-Net over small pictures, told by T5."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor, nn

from ldm_kit.errors import BadInputError
from ldm_kit.models.noise import NoiseLevel, clean_from_prediction
from ldm_kit.models.opened import OpenedModel, Text
from ldm_kit.models.prompt_encoding import tokens_of
from ldm_kit.models.raw import to_pictures, to_pixels


@dataclass(frozen=True, eq=False)
class DeepFloydIF(OpenedModel):
    """DeepFloyd IF's first stage: noise is added to pixels themselves, there is no VAE.

    Notes
    -----
    Prompts are made lower-case and stripped of spaces at their ends, as diffusers' pipeline does unless
    `ftfy` and `beautifulsoup4` are installed, when it also cleans up web captions. Here the features must
    not depend on which packages are there. The later stages only enlarge what the first has made.
    """

    NEEDED = ("tokenizer", "text_encoder", "unet", "scheduler")
    PICTURE_PARTS = ()
    # T5 could read more; the text encoder of IF was used with this many.
    TOKENS: ClassVar[int] = 77

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
                "which enlarges a picture. Load the first, such as 'DeepFloyd/IF-I-XL-v1.0'."
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

    def encode_prompt(self, prompt: str) -> Text:
        """Encode one prompt: T5's sequence, (1, 77, channels), its padding hidden from T5 but not from the U-Net."""
        ids, mask = tokens_of(self.parts["tokenizer"], prompt.lower().strip(), self.TOKENS, self.device)
        sequence = self.parts["text_encoder"](ids, attention_mask=mask)[0]
        return {"sequence": sequence.to(self.dtype)}

    def dummy_text(self, device: torch.device) -> Text:
        """Give text of the right shape for one picture, without running the text encoder."""
        config = self.denoiser.config
        channels = int(config.encoder_hid_dim or config.cross_attention_dim)
        return {"sequence": torch.zeros(1, 8, channels, device=device)}

    def predict(self, denoiser: nn.Module, noised: Tensor, level: NoiseLevel, text: Text) -> Tensor:
        """Run the U-Net once; gives the noise alone, where the network predicts a variance with it."""
        timesteps = torch.full((len(noised),), level.timestep, device=noised.device)
        prediction: Tensor = denoiser(
            noised, timesteps, encoder_hidden_states=text["sequence"], return_dict=False
        )[0]
        return prediction[:, : noised.shape[1]]

    def clean_estimate(self, noised: Tensor, prediction: Tensor, level: NoiseLevel) -> Tensor:
        """Turn a prediction into the model's estimate of the clean picture."""
        kind = str(self.parts["scheduler"].config.prediction_type)
        return clean_from_prediction(kind, noised, prediction, level)
