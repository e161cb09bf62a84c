"""The family of PixArt: a diffusion transformer (DiT) that attends to T5's reading of the prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ldm_kit.models.latent_diffusion import LatentDiffusion
from ldm_kit.models.noise import NoiseLevel
from ldm_kit.models.opened import Text
from ldm_kit.models.prompt_encoding import tokens_of


@dataclass(frozen=True, eq=False, repr=False)
class PixArt(LatentDiffusion):
    """PixArt-α.

    Notes
    -----
    Prompts are made lower-case and stripped of spaces at their ends: what diffusers' pipeline does unless
    `ftfy` and `beautifulsoup4` are installed, when it also cleans up web captions. Here the features must
    not depend on which packages are there.
    """

    NEEDED = ("vae", "text_encoder", "tokenizer", "transformer", "scheduler")
    DENOISER = "transformer"
    # How many tokens of a prompt are read.
    TOKENS: ClassVar[int] = 120

    def encode_prompt(self, prompt: str) -> Text:
        """Encode one prompt: T5's sequence, and the mask that hides its padding."""
        ids, mask = tokens_of(self.parts["tokenizer"], prompt.lower().strip(), self.TOKENS, self.device)
        sequence = self.parts["text_encoder"](ids, attention_mask=mask)[0]
        return {"sequence": sequence.to(self.dtype), "mask": mask}

    def dummy_text(self, device: torch.device) -> Text:
        """Give text of the right shape for one picture, without running the text encoder."""
        config = self.denoiser.config
        channels = int(config.caption_channels or config.cross_attention_dim)
        return {
            "sequence": torch.zeros(1, 8, channels, device=device),
            "mask": torch.ones(1, 8, dtype=torch.long, device=device),
        }

    def predict(self, denoiser: nn.Module, noised: Tensor, level: NoiseLevel, text: Text) -> Tensor:
        """Run the transformer once; gives the noise alone, where the network predicts a variance with it."""
        n, channels = noised.shape[:2]
        side = self.picture_size
        size = torch.full((n, 2), side, dtype=noised.dtype, device=noised.device)
        prediction: Tensor = denoiser(
            noised,
            encoder_hidden_states=text["sequence"],
            encoder_attention_mask=text["mask"],
            timestep=torch.full((n,), level.timestep, device=noised.device),
            # Read by the networks of 1,024 pixels, ignored by the others.
            added_cond_kwargs={"resolution": size, "aspect_ratio": torch.ones_like(size[:, :1])},
            return_dict=False,
        )[0]
        return prediction[:, :channels]


@dataclass(frozen=True, eq=False, repr=False)
class PixArtSigma(PixArt):
    """PixArt-Σ, which reads longer prompts."""

    TOKENS = 300
