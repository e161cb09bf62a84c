"""The family of Stable Diffusion XL: a U-Net with two text encoders, told the picture's size as well."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ldm_kit.errors import BadInputError
from ldm_kit.models.latent_diffusion import LatentDiffusion
from ldm_kit.models.noise import NoiseLevel
from ldm_kit.models.opened import Text
from ldm_kit.models.parts import Place
from ldm_kit.models.prompt_encoding import clip_penultimate, tokens_of

# What the refiner is told of a picture's beauty; diffusers' default.
AESTHETIC_SCORE = 6.0


@dataclass(frozen=True, eq=False, repr=False)
class StableDiffusionXL(LatentDiffusion):
    """Stable Diffusion XL, its Turbo, and its refiner, which has the second text encoder alone.

    Notes
    -----
    The size conditions are constant: original and target size are the model's own, nothing is cropped. So is the
    refiner's score, under ``"none"`` as well, where diffusers' guidance would give a lower one.

    The unconditional input is zeros in place of the encoded prompt where the model's configuration has
    ``force_zeros_for_empty_prompt`` (SDXL and its Turbo do), and the encoded empty prompt where it has not.
    """

    NEEDED = ("vae", "text_encoder_2", "tokenizer_2", "unet", "scheduler")
    OPTIONAL = ("text_encoder", "tokenizer")
    IMG2IMG = True

    @classmethod
    def more_parts(
        cls,
        index: Mapping[str, Any],
        place: Place,
        prior: str | None,
        dtype: torch.dtype,
        device: torch.device,
    ) -> dict[str, Any]:
        """Read what stands for no prompt; the default is that of diffusers' pipelines."""
        name = "force_zeros_for_empty_prompt"
        return {name: bool(index.get(name, True))}

    @property
    def unconditional(self) -> str:
        """Zeros, or the empty prompt."""
        return "(zeros)" if self.parts["force_zeros_for_empty_prompt"] else ""

    def encode_unconditional(self) -> Text:
        """Give zeros in the shape of an encoded prompt, or the encoded empty prompt."""
        text = self.encode_prompt("")
        if not self.unconditional:
            return text
        return {key: torch.zeros_like(vectors) for key, vectors in text.items()}

    def encode_prompt(self, prompt: str) -> Text:
        """Encode one prompt: both encoders' penultimate states side by side, and the second's pooled vector."""
        sequences: list[Tensor] = []
        for suffix in ("", "_2"):
            tokenizer = self.parts.get(f"tokenizer{suffix}")
            encoder = self.parts.get(f"text_encoder{suffix}")
            if tokenizer is not None and encoder is not None:
                ids, _ = tokens_of(tokenizer, prompt, tokenizer.model_max_length, self.device)
                sequence, pooled = clip_penultimate(encoder, ids)
                sequences.append(sequence)
        joined = torch.cat(sequences, dim=-1)
        expected = int(self.denoiser.config.cross_attention_dim)
        if joined.shape[-1] != expected:
            raise BadInputError(
                f"The text encoders of {self.identity.source!r} give {joined.shape[-1]} channels, its U-Net takes "
                f"{expected}: one of text_encoder and text_encoder_2 is missing. Download or save the model whole."
            )
        return {"sequence": joined.to(self.dtype), "pooled": pooled.to(self.dtype)}

    def dummy_text(self, device: torch.device) -> Text:
        """Give text of the right shape for one picture, without running the text encoders."""
        channels = int(self.denoiser.config.cross_attention_dim)
        pooled = int(self.parts["text_encoder_2"].config.projection_dim)
        return {
            "sequence": torch.zeros(1, 8, channels, device=device),
            "pooled": torch.zeros(1, pooled, device=device),
        }

    def predict(self, denoiser: nn.Module, noised: Tensor, level: NoiseLevel, text: Text) -> Tensor:
        """Run the U-Net once."""
        timesteps = torch.full((len(noised),), level.timestep, device=noised.device)
        pooled = text["pooled"]
        prediction: Tensor = denoiser(
            noised,
            timesteps,
            encoder_hidden_states=text["sequence"],
            added_cond_kwargs={"text_embeds": pooled, "time_ids": self._time_ids(pooled)},
            return_dict=False,
        )[0]
        return prediction

    def _time_ids(self, pooled: Tensor) -> Tensor:
        """Original size, crop and target size; the refiner, which takes five numbers, has a score for a target."""
        config, side = self.denoiser.config, self.picture_size
        room = int(config.projection_class_embeddings_input_dim) - pooled.shape[-1]
        target = [side, side] if room // int(config.addition_time_embed_dim) == 6 else [AESTHETIC_SCORE]
        ids = torch.tensor([side, side, 0, 0, *target], dtype=pooled.dtype, device=pooled.device)
        return ids.repeat(len(pooled), 1)
