"""The family of DeepFloyd IF, stage I: the design of Imagen, a U-Net over small images, conditioned on T5."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from ldm_kit.errors import BadInputError
from ldm_kit.models.model import OpenedModel, Text


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
    def latent_shape(self) -> tuple[int, int, int]:
        """Shape of one image, (3, height, width)."""
        config = self.denoiser.config
        if int(config.in_channels) != 3:
            raise BadInputError(
                f"The U-Net of {self.identity.source!r} takes {config.in_channels} channels: it is a later stage. "
                "Load the first, such as 'deepfloyd-if'."
            )
        return 3, int(config.sample_size), int(config.sample_size)

    def encode_prompt(self, prompt: str) -> Text:
        """Encode one prompt: T5's sequence, (1, 77, channels), its padding hidden from T5 but not from the U-Net."""
        ids, mask = self._tokens(prompt.lower().strip(), length=self.TOKENS)
        sequence = self.components["text_encoder"](ids, attention_mask=mask)[0]
        return {"sequence": sequence.to(self.dtype)}

    def denoiser_inputs(self, noised: Tensor, timesteps: Tensor, text: Text) -> dict[str, Any]:
        """Return the U-Net's inputs."""
        return {"sample": noised, "timestep": timesteps, "encoder_hidden_states": text["sequence"]}
