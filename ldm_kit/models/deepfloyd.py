"""The family of DeepFloyd IF, stage I: the design of Imagen, a U-Net over small pictures, told by T5."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ldm_kit.models.noise import NoiseLevel
from ldm_kit.models.opened import Text
from ldm_kit.models.pixel_diffusion import PixelDiffusion
from ldm_kit.models.prompt_encoding import tokens_of


@dataclass(frozen=True, eq=False, repr=False)
class DeepFloydIF(PixelDiffusion):
    """DeepFloyd IF's first stage: noise is added to pixels themselves, there is no VAE.

    Notes
    -----
    Prompts are made lower-case and stripped of spaces at their ends, as diffusers' pipeline does unless
    `ftfy` and `beautifulsoup4` are installed, when it also cleans up web captions. Here the features must
    not depend on which packages are there. The later stages only enlarge what the first has made.
    """

    NEEDED = ("tokenizer", "text_encoder", "unet", "scheduler")
    # T5 could read more; the text encoder of IF was used with this many.
    TOKENS: ClassVar[int] = 77

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
