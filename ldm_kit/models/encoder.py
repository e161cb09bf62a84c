"""What models without noise share: pictures or words go in as they are, and one pass is watched."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from ldm_kit.errors import BadInputError
from ldm_kit.models.blocks import block_table
from ldm_kit.models.noise import NoiseLevel, check_level
from ldm_kit.models.opened import OpenedModel, Text
from ldm_kit.models.paper_timesteps import check_timesteps


class MapReadout(nn.Module):
    """Hands a map (n, channels, height, width) through, under a name that can be watched."""

    def forward(self, tensor: Tensor) -> Tensor:
        """Give what came."""
        return tensor


class VectorReadout(nn.Module):
    """Hands a vector (n, channels) through, under a name that can be watched."""

    def forward(self, tensor: Tensor) -> Tensor:
        """Give what came."""
        return tensor


class Readouts(nn.Module):
    """A network that computes nothing: each tensor that it is given passes the readout of its name.

    Parameters
    ----------
    readouts : mapping of str to torch.nn.Module
        By block name; dots make parents, as in any module path.

    Examples
    --------
    >>> [path for path, _ in Readouts({"layers.0.mean": VectorReadout()}).named_modules()][-1]
    'layers.0.mean'
    """

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


@dataclass(frozen=True, eq=False, repr=False)
class Encoder(OpenedModel):
    """A model without noise: its only noise level is 0, and `add_noise` gives the pictures back.

    Notes
    -----
    `denoiser` holds the network that is looked into, though it denoises nothing; so all that works on a
    diffusion model works on an encoder.
    """

    @property
    def takes_noise(self) -> bool:
        """False: pictures are seen as they are."""
        return False

    @property
    def reads_text(self) -> bool:
        """False, but for the text encoder: the only conditioning is ``"none"``."""
        return False

    @property
    def dtype(self) -> torch.dtype:
        """What the network computes in."""
        parameter = next(self.denoiser.parameters(), None)
        return torch.float32 if parameter is None else parameter.dtype

    @property
    def steps(self) -> int:
        """1: there is no schedule."""
        return 1

    def level(self, level: float, timesteps: str = "exact") -> NoiseLevel:
        """Give noise level 0, the only one there is.

        Raises
        ------
        BadInputError
            For any other level.
        """
        check_timesteps(timesteps, False, type(self).__name__)
        check_level(level)
        if level != 0:
            raise BadInputError(
                f"Noise level {level:g}: {self.identity.model!r} takes no noise, as it was not trained on any. "
                "Give noise_levels=[0.0]."
            )
        return NoiseLevel(0.0, 0, 0.0, 1.0, 0.0)

    def noise(self, names: Sequence[str], seed: int = 0, draw: int = 0) -> Tensor:
        """Give zeros: there is no noise to draw."""
        return torch.zeros(len(names), *self.latent_shape, device=self.device)

    def add_noise(self, latents: Tensor, noise: Tensor, level: NoiseLevel) -> Tensor:
        """Give the latents back as they are."""
        return latents

    def clean_estimate(self, noised: Tensor, prediction: Tensor, level: NoiseLevel) -> Tensor:
        """Give what went in: nothing was added to it."""
        return noised

    def encode_prompt(self, prompt: str) -> Text:
        """Encode the empty prompt, to nothing.

        Raises
        ------
        BadInputError
            For another prompt.
        """
        if prompt:
            raise BadInputError(
                f"{self.identity.model!r} reads no text, but was given {prompt!r}. "
                "Its only conditioning is 'none'."
            )
        return {}

    def dummy_text(self, device: torch.device) -> Text:
        """Give nothing: the network reads no text."""
        return {}

    @functools.cached_property
    def _table(self) -> pd.DataFrame:
        with torch.device("meta"):
            noised = torch.zeros(1, *self.latent_shape, dtype=self.dtype)
            text = self.dummy_text(torch.device("meta"))
        return block_table(
            weightless_twin(self.denoiser), lambda net: self.predict(net, noised, self.level(0), text)
        )


def weightless_twin(network: Any) -> nn.Module:
    """Copy a network onto the meta device: its shapes and order of blocks for nothing, at any size.

    Examples
    --------
    >>> weightless_twin(nn.Linear(2, 3)).weight.device.type
    'meta'
    """
    # What deepcopy finds in its memo it does not copy: the weights are replaced, not doubled.
    memo: dict[int, Any] = {}
    for parameter in network.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.data.to("meta"), requires_grad=False)
    for buffer in network.buffers():
        memo[id(buffer)] = buffer.to("meta")
    twin: nn.Module = copy.deepcopy(network, memo)
    return twin.eval()
