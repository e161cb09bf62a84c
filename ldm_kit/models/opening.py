"""Open what is asked for by a prefix: a vision model, a VAE's latent, a text encoder, raw pixels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from ldm_kit.errors import BadInputError, ModelNotFoundError
from ldm_kit.models import loading
from ldm_kit.models.encoder import Encoder, MapReadout, Readouts
from ldm_kit.models.image_settings import image_settings
from ldm_kit.models.opened import Identity
from ldm_kit.models.parts import Place, load_part, untrained_part, weightless_part
from ldm_kit.models.raw import Latent, open_pixels
from ldm_kit.models.sources import Source
from ldm_kit.models.text_alone import TextEncoder, text_readouts
from ldm_kit.models.vision import VisionEncoder, load_vision_network


def open_encoder(
    asked: Source,
    revision: str | None,
    pretrained: bool,
    seed: int,
    offline: bool,
    dtype: torch.dtype,
    device: torch.device,
) -> Encoder:
    """Open a model without noise.

    Parameters
    ----------
    asked : Source
        Its kind is not ``"model"``.
    revision, pretrained, seed, offline, dtype, device
        As for `load_model`, decided.

    Returns
    -------
    Encoder

    Raises
    ------
    UnknownNameError, ModelNotFoundError, BadInputError
        As `load_model`.

    Examples
    --------
    >>> lk.load_model("vision:facebook/dinov2-base").blocks()  # doctest: +SKIP
    """
    label = asked.label if pretrained else f"{asked.label}-untrained"
    if asked.kind == "pixels":
        return open_pixels(asked.name, label, device)
    source, registered_revision, _ = loading.resolve(asked.name)
    local = Path(source).is_dir()
    place = Place(source, revision or asked.revision or registered_revision, offline or local)
    opener = {"vision": _open_vision, "latent": _open_latent, "text": _open_text}[asked.kind]
    with loading.explained(source, offline), loading.quiet(local):
        model, marker = opener(place, label, pretrained, seed, offline, dtype, device)
    if not pretrained:
        state = f"seed-{seed}"
    else:
        state = loading.fingerprint(Path(source)) if local else loading.commit(source, place.revision, marker)
    # What tells one state of the weights from another is known only when they are here.
    identity = Identity(
        label,
        Path(source).resolve().name if local else source,
        state,
        model.identity.dtype,
        type(model).__name__,
    )
    parts = {key: _settled(part, device) for key, part in model.parts.items()}
    return type(model)(identity, _settled(model.denoiser, device), parts, device, Path(source) if local else None)


def _settled(part: Any, device: torch.device) -> Any:
    if isinstance(part, torch.nn.Module):
        part.eval().requires_grad_(False).to(device)
    return part


def _unnamed(dtype: torch.dtype) -> Identity:
    return Identity("", "", "", str(dtype).removeprefix("torch."), "")


def _open_vision(
    place: Place, label: str, pretrained: bool, seed: int, offline: bool, dtype: torch.dtype, device: torch.device
) -> tuple[Encoder, str]:
    network: Any = load_vision_network(place, pretrained, seed).to(dtype)
    settings = image_settings(_image_processor(place), getattr(network.config, "image_size", None))
    return VisionEncoder(_unnamed(dtype), network, {"settings": settings}, device), "config.json"
