"""Compile a model's stages by `torch.compile`, beside the model as it is."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from ldm_kit.models.opened import OpenedModel


def compiled(model: OpenedModel, **options: Any) -> OpenedModel:
    """Give a model whose stages and VAE encoder are compiled: faster on a GPU, after minutes of work.

    Blocks are watched from outside of what is compiled, so only stages can be watched at full speed; hooks on
    their inner modules would have to be compiled along. Numbers differ within rounding, so a store tells a compiled
    model from another (its dtype says so).

    Parameters
    ----------
    model : OpenedModel
        Stays as it is, but that its denoiser's weights, which are shared, are laid out with channels last.
    **options
        For `torch.compile`.

    Returns
    -------
    OpenedModel
        Over modules of its own, which share the weights of `model`.

    Examples
    --------
    >>> model = lk.models.compiled(lk.load_model("sd1.5", dtype="bfloat16"))  # doctest: +SKIP
    """
    # Compiled convolutions are fastest with channels last (48 against 39 % of an H100's matrix rate for SD 1.5).
    denoiser = _twin(model.denoiser).to(memory_format=torch.channels_last)
    parts = {name: model.parts[name] for name in model.parts}
    for block in model.select_blocks():
        _compile(denoiser.get_submodule(block), options)
    for name in model.PICTURE_PARTS:
        if isinstance(getattr(parts.get(name), "encoder", None), nn.Module):
            parts[name] = _twin(parts[name])
            _compile(parts[name].encoder, options)
    if model.DENOISER in parts:
        parts[model.DENOISER] = denoiser
    identity = replace(model.identity, dtype=model.identity.dtype + ", compiled")
    return replace(model, identity=identity, denoiser=denoiser, parts=parts)


def _twin(module: Any) -> Any:
    """Copy the modules, not the weights."""
    shared = {id(tensor): tensor for tensor in itertools.chain(module.parameters(), module.buffers())}
    return copy.deepcopy(module, shared)


def _compile(module: nn.Module, options: dict[str, Any]) -> None:
    module.forward = torch.compile(module.forward, **options)
