"""The families of diffusion transformers: PixArt and Flux."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from ldm_kit.models.model import Text
from ldm_kit.models.noise import NoiseLevel
from ldm_kit.models.stable_diffusion import LatentDiffusion

# Flux.1 dev was distilled from a guided model and takes the strength as an input; diffusers' default. It is one
# pass all the same, and there is no value that means "not guided".
GUIDANCE = 3.5
PIXELS = 1024  # on a side, where Flux's autoencoder states no size (`AutoencoderTiny`): diffusers' default


class PixArt(LatentDiffusion):
    """PixArt-α: a transformer that attends to T5's encoding of the prompt.

    Notes
    -----
    Prompts are made lower-case and stripped of spaces at their ends: what diffusers' pipeline does unless
    `ftfy` and `beautifulsoup4` are installed, when it also cleans up web captions. Here the features must
    not depend on which packages are installed.
    """

    NEEDED = ("vae", "text_encoder", "tokenizer", "transformer", "scheduler")
    DENOISER = "transformer"
    # How many tokens of a prompt are read.
    TOKENS: ClassVar[int] = 120

    def encode_prompt(self, prompt: str) -> Text:
        """Encode one prompt: T5's sequence, and the mask that hides its padding."""
        ids, mask = self._tokens(prompt.lower().strip(), length=self.TOKENS)
        sequence = self.components["text_encoder"](ids, attention_mask=mask)[0]
        return {"sequence": sequence.to(self.dtype), "mask": mask}

    def denoiser_inputs(self, noised: Tensor, timesteps: Tensor, text: Text) -> dict[str, Any]:
        """Return the transformer's inputs."""
        size = torch.full((len(noised), 2), self.image_size, dtype=noised.dtype, device=noised.device)
        return {
            "hidden_states": noised,
            "timestep": timesteps,
            "encoder_hidden_states": text["sequence"],
            "encoder_attention_mask": text["mask"],
            # Read by the networks of 1,024 pixels, ignored by the others.
            "added_cond_kwargs": {"resolution": size, "aspect_ratio": torch.ones_like(size[:, :1])},
        }


class PixArtSigma(PixArt):
    """PixArt-Σ, which reads longer prompts."""

    TOKENS = 300


class Flux(LatentDiffusion):
    """Flux.1 schnell, dev, and everything of their shape: flow matching, CLIP's pooled vector and T5.

    Notes
    -----
    The transformer takes 2 × 2 latent cells as one token. Blocks come in two kinds: ``transformer_blocks``
    have separate weights for text and image (double-stream), ``single_transformer_blocks`` run over both
    together. Of either, the image's tokens alone are returned.
    """

    NEEDED = ("vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2", "transformer", "scheduler")
    DENOISER = "transformer"
    FLOW_MATCHING = True

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Shape of one latent, (channels, height, width), before it is packed; its size is the VAE's, if that has one."""
        side = int(getattr(self._vae.config, "sample_size", None) or PIXELS) // self._vae_factor
        return self._checked_channels(int(self.denoiser.config.in_channels) // 4), side, side

    @property
    def preprocessing(self) -> dict[str, Any]:
        """What `preprocess` and `encode` do and the guidance that the model is conditioned on, as data."""
        guidance = {"guidance": GUIDANCE} if self.denoiser.config.guidance_embeds else {}
        return {**super().preprocessing, **guidance}

    def encode_prompt(self, prompt: str) -> Text:
        """Encode one prompt: T5's sequence and CLIP's pooled vector."""
        clip_ids, _ = self._tokens(prompt)
        # schnell, which knows no guidance, was trained with half as many tokens as dev.
        t5_ids, _ = self._tokens(prompt, "tokenizer_2", 512 if self.denoiser.config.guidance_embeds else 256)
        return {
            "sequence": self.components["text_encoder_2"](t5_ids)[0].to(self.dtype),
            "pooled": self.components["text_encoder"](clip_ids).pooler_output.to(self.dtype),
        }

    def denoiser_inputs(self, noised: Tensor, timesteps: Tensor, text: Text) -> dict[str, Any]:
        """Return the transformer's inputs; the latents are packed."""
        n, _, height, width = noised.shape
        guided, sequence = self.denoiser.config.guidance_embeds, text["sequence"]
        return {
            "hidden_states": _pack(noised),
            "timestep": timesteps.to(noised.dtype) / 1000,  # the network multiplies it again
            "guidance": torch.full((n,), GUIDANCE, device=noised.device) if guided else None,
            "pooled_projections": text["pooled"],
            "encoder_hidden_states": sequence,
            "txt_ids": sequence.new_zeros(sequence.shape[1], 3),
            "img_ids": _positions(height // 2, width // 2, noised),
        }

    def predict(self, denoiser: nn.Module, noised: Tensor, level: NoiseLevel, text: Text) -> Tensor:
        """Run the transformer once; returns the velocity, unpacked to the latents' shape."""
        timesteps = torch.full((len(noised),), level.timestep, device=noised.device)
        inputs = self.denoiser_inputs(noised, timesteps, text)
        return _unpack(denoiser(**inputs, return_dict=False)[0], *noised.shape[2:])


def _pack(latents: Tensor) -> Tensor:
    """Make 2 × 2 cells one token: (n, channels, height, width) to (n, height * width / 4, channels * 4)."""
    return functional.pixel_unshuffle(latents, 2).flatten(2).transpose(1, 2)


def _unpack(tokens: Tensor, height: int, width: int) -> Tensor:
    """Undo `_pack`; `height` and `width` are the latents'."""
    return functional.pixel_shuffle(
        tokens.transpose(1, 2).reshape(len(tokens), -1, height // 2, width // 2), 2
    )


def _positions(rows: int, columns: int, like: Tensor) -> Tensor:
    """Positions of the image's tokens, (rows * columns, 3): 0, row, column."""
    positions = like.new_zeros(rows, columns, 3)
    positions[..., 1] += torch.arange(rows, device=like.device)[:, None]
    positions[..., 2] += torch.arange(columns, device=like.device)[None, :]
    return positions.reshape(rows * columns, 3)
