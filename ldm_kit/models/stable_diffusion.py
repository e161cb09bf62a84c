"""The family of Stable Diffusion 1 and 2: a U-Net over a VAE's latents, a CLIP text encoder."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ldm_kit.models.latent_diffusion import LatentDiffusion
from ldm_kit.models.noise import NoiseLevel
from ldm_kit.models.opened import Text
from ldm_kit.models.prompt_encoding import tokens_of


@dataclass(frozen=True, eq=False, repr=False)
class StableDiffusion(LatentDiffusion):
    """Stable Diffusion 1.x, 2.x, Turbo, and everything of their shape.

    Examples
    --------
    >>> model = lk.load_model("tiny-ldm")  # doctest: +SKIP
    >>> model.encode([picture]).shape  # doctest: +SKIP
    torch.Size([1, 4, 16, 16])
    """

    NEEDED = ("vae", "text_encoder", "tokenizer", "unet", "scheduler")
    IMG2IMG = True

    def encode_prompt(self, prompt: str) -> Text:
        """Encode one prompt to the sequence that the U-Net attends to, (1, tokens, channels)."""
        tokenizer, encoder = self.parts["tokenizer"], self.parts["text_encoder"]
        ids, mask = tokens_of(tokenizer, prompt, tokenizer.model_max_length, self.device)
        # Stable Diffusion reads the padding too, unless its text encoder says otherwise.
        masked = getattr(encoder.config, "use_attention_mask", False)
        sequence = encoder(ids, attention_mask=mask if masked else None)[0]
        return {"sequence": sequence.to(self.dtype)}

    def dummy_text(self, device: torch.device) -> Text:
        """Give text of the right shape for one picture, without running the text encoder."""
        channels = int(self.denoiser.config.cross_attention_dim)
        return {"sequence": torch.zeros(1, 8, channels, device=device)}

    def predict(self, denoiser: nn.Module, noised: Tensor, level: NoiseLevel, text: Text) -> Tensor:
        """Run the U-Net once."""
        timesteps = torch.full((len(noised),), level.timestep, device=noised.device)
        prediction: Tensor = denoiser(
            noised, timesteps, encoder_hidden_states=text["sequence"], return_dict=False
        )[0]
        return prediction
