"""Models without noise, for comparison: raw pixels, an autoencoder's latent, a text encoder alone."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from ldm_kit.errors import BadInputError
from ldm_kit.models.model import Identity, OpenedModel, Text
from ldm_kit.models.noise import NoiseLevel, check_level, check_timesteps

PIXELS = 64
LONGEST = 512  # tokens, for text encoders without a limit of their own


class MapReadout(nn.Identity):
    """Returns a map (n, channels, height, width) as it is, under a name that can be watched."""


class VectorReadout(nn.Identity):
    """Returns a vector (n, channels) as it is, under a name that can be watched."""


class Readouts(nn.Module):
    """A network that computes nothing: each tensor passes the readout of its name; dots in names separate parents."""

    def __init__(self, readouts: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.paths = tuple(readouts)
        for path, readout in readouts.items():
            parent: nn.Module = self
            *parents, last = path.split(".")
            for name in parents:
                if not hasattr(parent, name):
                    parent.add_module(name, nn.Module())
                parent = parent.get_submodule(name)
            parent.add_module(last, readout)

    def forward(self, tensors: Mapping[str, Tensor]) -> None:
        """Pass each tensor through its readout, in the order of the readouts."""
        for path in self.paths:
            self.get_submodule(path)(tensors[path])


class Encoder(OpenedModel):
    """A model without noise: its only noise level is 0, and `add_noise` returns the latents unchanged.

    Notes
    -----
    `denoiser` is the network whose blocks are watched, though it denoises nothing: what works on a diffusion
    model works on an encoder.
    """

    @property
    def takes_noise(self) -> bool:
        """False: images are not noised."""
        return False

    @property
    def reads_text(self) -> bool:
        """False, but for the text encoder: the only conditioning is ``"none"``."""
        return False

    @property
    def steps(self) -> int:
        """1: there is no schedule."""
        return 1

    @property
    def text_shapes(self) -> dict[str, tuple[int, ...]]:
        """Nothing: the network reads no text."""
        return {}

    def level(self, level: float, timesteps: str = "exact") -> NoiseLevel:
        """Return noise level 0, the only one there is; any other is a `BadInputError`."""
        check_timesteps(timesteps, False, type(self).__name__)
        check_level(level)
        if level != 0:
            raise BadInputError(
                f"Noise level {level:g}: {self.identity.model!r} takes no noise. Pass noise_levels=[0.0]."
            )
        return NoiseLevel(0.0, 0, 0.0, 1.0, 0.0)

    def noise(self, names: Sequence[str], seed: int = 0, draw: int = 0) -> Tensor:
        """Return zeros: there is no noise to sample."""
        return torch.zeros(len(names), *self.latent_shape, device=self.device)

    def add_noise(self, latents: Tensor, noise: Tensor, level: NoiseLevel) -> Tensor:
        """Return the latents as they are."""
        return latents

    def clean_estimate(self, noised: Tensor, prediction: Tensor, level: NoiseLevel) -> Tensor:
        """Return the input: nothing was added to it."""
        return noised

    def encode_prompt(self, prompt: str) -> Text:
        """Encode the empty prompt, to nothing; any other is a `BadInputError`."""
        if prompt:
            raise BadInputError(
                f"{self.identity.model!r} reads no text such as {prompt!r}; its only conditioning is 'none'."
            )
        return {}

    def predict(self, denoiser: nn.Module, noised: Tensor, level: NoiseLevel, text: Text) -> Tensor:
        """Run the network once: here pass the prompt's vectors or the image on, through the readouts."""
        denoiser(text or dict.fromkeys(self.denoiser.paths, noised))
        return noised

    def _weightless(self) -> nn.Module:
        """Copy the network onto the meta device, in float32."""
        # What deepcopy finds in its memo it does not copy: the weights are replaced, not doubled.
        memo: dict[int, Any] = {
            id(weight): nn.Parameter(weight.data.to("meta"), requires_grad=False)
            for weight in self.denoiser.parameters()
        }
        memo |= {id(buffer): buffer.to("meta") for buffer in self.denoiser.buffers()}
        twin: nn.Module = copy.deepcopy(self.denoiser, memo)
        return twin.float().eval()


class Pixels(Encoder):
    """Raw pixels in −1…1, one block ``pixels`` of 3 × 64 × 64 values by default.

    Pooled over space (the default of `extract`) only the mean colour is left; ``pooling="flat"`` returns all values.
    """

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(3, size, size)."""
        return 3, self.components["size"], self.components["size"]


def open_pixels(size: str, label: str, device: torch.device) -> Pixels:
    """Open raw pixels as a model; `size` is the number on a side, empty for 64."""
    if size and not (size.isascii() and size.isdigit() and 1 <= int(size) <= 1024):
        raise BadInputError(
            f"'pixels:{size}': write the number of pixels on a side, 1 to 1024, as in 'pixels:{PIXELS}'."
        )
    identity = Identity(label, "pixels", "1", "float32", Pixels.__name__)
    return Pixels(identity, Readouts({"pixels": MapReadout()}), {"size": int(size or PIXELS)}, device)


class Latent(Encoder):
    """A latent diffusion model's latent of an image, without noise: one block, ``latent``.

    It is in the denoiser's scale; only the autoencoder is loaded.
    """

    @property
    def _model(self) -> OpenedModel:
        """The diffusion model, whose denoiser has no weights."""
        model: OpenedModel = self.components["model"]
        return model

    @property
    def image_size(self) -> int:
        """Side of the square images that the diffusion model was trained on, in pixels."""
        return self._model.image_size

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Shape of one latent, (channels, height, width)."""
        return self._model.latent_shape

    @property
    def preprocessing(self) -> dict[str, Any]:
        """What the diffusion model does to images."""
        return self._model.preprocessing

    def encode(self, images: Sequence[Image.Image], *, posterior: Tensor | None = None) -> Tensor:
        """Encode as the diffusion model does, (n, channels, height, width), float32."""
        return self._model.encode(images, posterior=posterior)

    def decode(self, latents: Tensor) -> list[Image.Image]:
        """Decode as the diffusion model does."""
        return self._model.decode(latents)


class TextEncoder(Encoder):
    """A text encoder's representations of the prompt; images are not read.

    Blocks are ``last_token`` and ``mean`` of its output, and of each layer, ``layers.0.mean`` and so on.
    The last token is the one that ends the text, the mean is over all tokens of the text with the marks at
    its start and end; there is no padding. With the conditioning ``"none"`` all stimuli are alike. Of a model
    with several text encoders this is the first. Prompts are read as they are written, where DeepFloyd IF and
    PixArt make them lower-case first.
    """

    @property
    def reads_text(self) -> bool:
        """True: it reads nothing else."""
        return True

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(1, 1, 1): what stands for an image is one zero."""
        return 1, 1, 1

    @property
    def preprocessing(self) -> dict[str, Any]:
        """That images are not read, and that text is not padded."""
        return {"images": "not read", "padding": "none", "longest": self._longest}

    @property
    def _longest(self) -> int:
        tokenizer, config = self.components["tokenizer"], self.components["text_encoder"].config
        # Some tokenizers know no limit, some encoders none.
        limits = [tokenizer.model_max_length, getattr(config, "max_position_embeddings", None), LONGEST]
        return min(int(limit) for limit in limits if limit)

    def encode(self, images: Sequence[Image.Image], *, posterior: Tensor | None = None) -> Tensor:
        """Return a zero an image."""
        return torch.zeros(len(images), 1, 1, 1, device=self.device)

    def decode(self, latents: Tensor) -> list[Image.Image]:
        """Raise `BadInputError`, since there is no image."""
        raise BadInputError(f"{self.identity.model!r} reads text alone; there is no image to show.")

    def encode_prompt(self, prompt: str) -> Text:
        """Run the text encoder on one prompt, without padding; each block's vector is (1, channels)."""
        tokenizer, encoder = self.components["tokenizer"], self.components["text_encoder"]
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

    @property
    def text_shapes(self) -> dict[str, tuple[int, ...]]:
        """One vector a block."""
        return dict.fromkeys(self.denoiser.paths, (self.components["text_encoder"].config.hidden_size,))


def text_readouts(layers: int) -> Readouts:
    """Make the blocks of a text encoder with this many layers."""
    prefixes = [*(f"layers.{i}." for i in range(layers)), ""]
    return Readouts(
        {prefix + name: VectorReadout() for prefix in prefixes for name in ("last_token", "mean")}
    )
