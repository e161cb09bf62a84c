"""The family of Stable Diffusion 3 and 3.5: a transformer (MMDiT), flow matching, three text encoders."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ldm_kit.models.flow_matching import FlowMatching
from ldm_kit.models.noise import NoiseLevel
from ldm_kit.models.opened import Text
from ldm_kit.models.prompt_encoding import clip_penultimate, tokens_of

# diffusers' default; the models were trained with 77 and 256.
T5_TOKENS = 256


@dataclass(frozen=True, eq=False, repr=False)
class StableDiffusion3(FlowMatching):
    """Stable Diffusion 3 and 3.5.

    Notes
    -----
    T5, the third text encoder and two thirds of the model's size, can be left out:
    ``load_model("sd3-medium", drop=("text_encoder_3", "tokenizer_3"))``. Its place is then taken by zeros, as
    in diffusers and as in a part of the training.
    """

    NEEDED = ("vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2", "transformer", "scheduler")
    DENOISER = "transformer"
    OPTIONAL = ("text_encoder_3", "tokenizer_3")
    DROPPABLE = ("text_encoder_3", "tokenizer_3")

    def encode_prompt(self, prompt: str) -> Text:
        """Encode one prompt: CLIP's tokens (both encoders side by side), then T5's; pooled vectors joined."""
        length = self.parts["tokenizer"].model_max_length
        clip, pooled = [], []
        for suffix in ("", "_2"):
            ids, _ = tokens_of(self.parts[f"tokenizer{suffix}"], prompt, length, self.device)
            sequence, vector = clip_penultimate(self.parts[f"text_encoder{suffix}"], ids)
            clip.append(sequence)
            pooled.append(vector)
        joined = torch.cat(clip, dim=-1).to(self.dtype)
        t5 = self._t5(prompt)
        padded = functional.pad(joined, (0, t5.shape[-1] - joined.shape[-1]))
        return {
            "sequence": torch.cat([padded, t5], dim=1),
            "pooled": torch.cat(pooled, dim=-1).to(self.dtype),
        }

    def _t5(self, prompt: str) -> Tensor:
        tokenizer, encoder = self.parts.get("tokenizer_3"), self.parts.get("text_encoder_3")
        if tokenizer is None or encoder is None:
            channels = int(self.denoiser.config.joint_attention_dim)
            return torch.zeros(1, T5_TOKENS, channels, dtype=self.dtype, device=self.device)
        ids, _ = tokens_of(tokenizer, prompt, T5_TOKENS, self.device)
        sequence: Tensor = encoder(ids)[0]
        return sequence.to(self.dtype)

    def dummy_text(self, device: torch.device) -> Text:
        """Give text of the right shape for one picture, without running the text encoders."""
        config = self.denoiser.config
        return {
            "sequence": torch.zeros(1, 8, int(config.joint_attention_dim), device=device),
            "pooled": torch.zeros(1, int(config.pooled_projection_dim), device=device),
        }

    def predict(self, denoiser: nn.Module, noised: Tensor, level: NoiseLevel, text: Text) -> Tensor:
        """Run the transformer once; gives the velocity, of the latents' shape."""
        timesteps = torch.full((len(noised),), float(level.timestep), device=noised.device)
        prediction: Tensor = denoiser(
            hidden_states=noised,
            timestep=timesteps,
            encoder_hidden_states=text["sequence"],
            pooled_projections=text["pooled"],
            return_dict=False,
        )[0]
        return prediction
