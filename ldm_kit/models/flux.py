"""The family of Flux.1: a transformer over packed latents, flow matching, CLIP's pooled vector and T5."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ldm_kit.models.flow_matching import FlowMatching
from ldm_kit.models.noise import NoiseLevel
from ldm_kit.models.opened import Text
from ldm_kit.models.prompt_encoding import tokens_of

# Flux.1 dev was distilled from a guided model and is told the strength; diffusers' default. It is one pass
# all the same, and there is no value that means "not guided".
GUIDANCE = 3.5


@dataclass(frozen=True, eq=False, repr=False)
class Flux(FlowMatching):
    """Flux.1 schnell, dev, and everything of their shape.

    Notes
    -----
    The transformer sees 2 × 2 latent cells as one token. Blocks come in two kinds: ``transformer_blocks``
    keep text and image apart (double-stream), ``single_transformer_blocks`` run over both together; of
    either the image's tokens are taken, text left out.
    """

    NEEDED = ("vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2", "transformer", "scheduler")
    DENOISER = "transformer"

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Shape of one latent, (channels, height, width), before it is packed.

        The transformer's config tells no size; the VAE's does.
        """
        side = int(self.parts["vae"].config.sample_size) // self.vae_factor
        return self._checked_channels(int(self.denoiser.config.in_channels) // 4), side, side

    @property
    def preprocessing(self) -> dict[str, Any]:
        """Say what `preprocess` and `encode` do and which guidance the model is told, as data."""
        told = {"guidance": GUIDANCE} if self.denoiser.config.guidance_embeds else {}
        return {**super().preprocessing, **told}

    def encode_prompt(self, prompt: str) -> Text:
        """Encode one prompt: T5's sequence and CLIP's pooled vector."""
        clip_tokenizer = self.parts["tokenizer"]
        clip_ids, _ = tokens_of(clip_tokenizer, prompt, clip_tokenizer.model_max_length, self.device)
        # schnell, which knows no guidance, was trained with half as many tokens as dev.
        length = 512 if self.denoiser.config.guidance_embeds else 256
        t5_ids, _ = tokens_of(self.parts["tokenizer_2"], prompt, length, self.device)
        return {
            "sequence": self.parts["text_encoder_2"](t5_ids)[0].to(self.dtype),
            "pooled": self.parts["text_encoder"](clip_ids).pooler_output.to(self.dtype),
        }

    def dummy_text(self, device: torch.device) -> Text:
        """Give text of the right shape for one picture, without running the text encoders."""
        config = self.denoiser.config
        return {
            "sequence": torch.zeros(1, 8, int(config.joint_attention_dim), device=device),
            "pooled": torch.zeros(1, int(config.pooled_projection_dim), device=device),
        }

    def predict(self, denoiser: nn.Module, noised: Tensor, level: NoiseLevel, text: Text) -> Tensor:
        """Run the transformer once; gives the velocity, of the latents' shape."""
        n, _, height, width = noised.shape
        sequence = text["sequence"]
        guidance = None
        if self.denoiser.config.guidance_embeds:
            guidance = torch.full((n,), GUIDANCE, dtype=torch.float32, device=noised.device)
        timesteps = torch.full((n,), float(level.timestep), dtype=noised.dtype, device=noised.device)
        prediction: Tensor = denoiser(
            hidden_states=pack(noised),
            timestep=timesteps / 1000,  # the network multiplies it again
            guidance=guidance,
            pooled_projections=text["pooled"],
            encoder_hidden_states=sequence,
            txt_ids=torch.zeros(sequence.shape[1], 3, dtype=sequence.dtype, device=noised.device),
            img_ids=positions(height // 2, width // 2, noised),
            return_dict=False,
        )[0]
        return unpack(prediction, height, width)


def pack(latents: Tensor) -> Tensor:
    """Make 2 × 2 cells one token: (n, channels, height, width) to (n, height * width / 4, channels * 4).

    Examples
    --------
    >>> pack(torch.zeros(1, 16, 8, 6)).shape
    torch.Size([1, 12, 64])
    """
    n, channels, height, width = latents.shape
    cells = latents.reshape(n, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return cells.reshape(n, (height // 2) * (width // 2), channels * 4)


def unpack(tokens: Tensor, height: int, width: int) -> Tensor:
    """Undo `pack`; `height` and `width` are the latents'.

    Examples
    --------
    >>> latents = torch.randn(1, 16, 8, 6)
    >>> torch.equal(unpack(pack(latents), 8, 6), latents)
    True
    """
    n, _, width_of_token = tokens.shape
    cells = tokens.reshape(n, height // 2, width // 2, width_of_token // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return cells.reshape(n, width_of_token // 4, height, width)


def positions(rows: int, columns: int, like: Tensor) -> Tensor:
    """Give each image token's place, (rows * columns, 3): 0, row, column.

    Examples
    --------
    >>> positions(2, 2, torch.zeros(1))[3].tolist()
    [0.0, 1.0, 1.0]
    """
    places = like.new_zeros(rows, columns, 3)
    places[..., 1] += torch.arange(rows, device=like.device)[:, None]
    places[..., 2] += torch.arange(columns, device=like.device)[None, :]
    return places.reshape(rows * columns, 3)
