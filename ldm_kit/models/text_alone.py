"""A diffusion model's text encoder alone: the paper's text-only baselines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from ldm_kit.errors import BadInputError
from ldm_kit.models.encoder import Encoder, Readouts, VectorReadout
from ldm_kit.models.noise import NoiseLevel
from ldm_kit.models.opened import Text

LONGEST = 512


@dataclass(frozen=True, eq=False, repr=False)
class TextEncoder(Encoder):
    """What a text encoder makes of the prompt; pictures are not looked at.

    Blocks are ``last_token`` and ``mean`` of its output, and of each layer, ``layers.0.mean`` and so on.
    The last token is the one that ends the text, the mean is over all tokens of the text with the marks at
    its start and end; there is no padding. With the conditioning ``"none"`` all stimuli are alike. Of a model
    with several text encoders this is the first. Words are read as they are written, where DeepFloyd IF and
    PixArt make them lower-case first.
    """

    @property
    def reads_text(self) -> bool:
        """True: it reads nothing else."""
        return True

    @property
    def picture_size(self) -> int:
        """1: pictures are not looked at."""
        return 1

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(1, 1, 1): what stands for a picture is one zero."""
        return 1, 1, 1

    @property
    def preprocessing(self) -> dict[str, Any]:
        """Say that pictures are not looked at, and that text is not padded."""
        return {"pictures": "not read", "padding": "none", "longest": self._longest}

    @property
    def _longest(self) -> int:
        tokenizer, config = self.parts["tokenizer"], self.parts["text_encoder"].config
        # Some tokenizers know no limit, some encoders none.
        limits = [tokenizer.model_max_length, getattr(config, "max_position_embeddings", None), LONGEST]
        return min(int(limit) for limit in limits if limit)

    def encode(self, pictures: Sequence[Image.Image], *, posterior: Tensor | None = None) -> Tensor:
        """Give a zero a picture."""
        return torch.zeros(len(pictures), 1, 1, 1, device=self.device)

    def decode(self, latents: Tensor) -> list[Image.Image]:
        """Raise, since there is no picture.

        Raises
        ------
        BadInputError
        """
        raise BadInputError(f"{self.identity.model!r} reads words alone; there is no picture to show.")

    def encode_prompt(self, prompt: str) -> Text:
        """Run the text encoder on one prompt, without padding; each block's vector is (1, channels)."""
        tokenizer, encoder = self.parts["tokenizer"], self.parts["text_encoder"]
        tokens = tokenizer(prompt, truncation=True, max_length=self._longest, return_tensors="pt")
        output = encoder(
            tokens.input_ids.to(self.device),
            attention_mask=tokens.attention_mask.to(self.device),
            output_hidden_states=True,
        )
        states = {f"layers.{i}.": state for i, state in enumerate(output.hidden_states[1:])}
        return {
            prefix + name: vector
            for prefix, state in {**states, "": output.last_hidden_state}.items()
            for name, vector in (("last_token", state[:, -1]), ("mean", state.float().mean(dim=1)))
        }

    def dummy_text(self, device: torch.device) -> Text:
        """Give vectors of the right shapes, without running the text encoder."""
        return {
            path: torch.zeros(1, self.parts["text_encoder"].config.hidden_size, device=device)
            for path in self.denoiser.paths
        }

    def predict(self, denoiser: nn.Module, noised: Tensor, level: NoiseLevel, text: Text) -> Tensor:
        """Hand the prompt's vectors on."""
        denoiser(text)
        return noised


def text_readouts(layers: int) -> Readouts:
    """Make the blocks of a text encoder with this many layers.

    Examples
    --------
    >>> text_readouts(1).paths
    ('layers.0.last_token', 'layers.0.mean', 'last_token', 'mean')
    """
    prefixes = [*(f"layers.{i}." for i in range(layers)), ""]
    return Readouts(
        {prefix + name: VectorReadout() for prefix in prefixes for name in ("last_token", "mean")}
    )
