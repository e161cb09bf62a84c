"""Open what is asked for by a prefix: a vision model, a VAE's latent, a text encoder, raw pixels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ldm_kit.errors import BadInputError
from ldm_kit.models import loading
from ldm_kit.models.encoder import Encoder, MapReadout, Readouts
from ldm_kit.models.hub import commit, explained, fingerprint, pipeline_index, quiet
from ldm_kit.models.image_settings import find_processor, image_settings
from ldm_kit.models.opened import Identity
from ldm_kit.models.parts import Place, load_part, made_ready, untrained_part, weightless_part
from ldm_kit.models.raw import Latent, open_pixels
from ldm_kit.models.sources import Source
from ldm_kit.models.text_alone import TextEncoder, text_readouts
from ldm_kit.models.vision import VisionEncoder, load_vision_network


@dataclass(frozen=True)
class Request:
    """What `load_model` was asked for, with all defaults decided.

    Parameters
    ----------
    asked : Source
    place : Place
    label : str
        What tables call the model.
    pretrained : bool
    seed : int
    dtype : torch.dtype
    device : torch.device
    """

    asked: Source
    place: Place
    label: str
    pretrained: bool
    seed: int
    dtype: torch.dtype
    device: torch.device

    def network(self, index: dict[str, Any], part: str, dtype: torch.dtype) -> Any:
        """Load the part that is looked into, or make it anew."""
        if self.pretrained:
            return load_part(index, part, self.place, dtype)
        return untrained_part(index, part, self.place, dtype, self.seed)


# What an opener gives: the adapter, the network to look into, what else it needs, its dtype.
Opened = tuple[type[Encoder], torch.nn.Module, dict[str, Any], torch.dtype]


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
    source, registered_revision, _ = loading._resolve(asked.name)
    local = Path(source).is_dir()
    place = Place(source, revision or asked.revision or registered_revision, offline or local, offline)
    request = Request(asked, place, label, pretrained, seed, dtype, device)
    opener = {"vision": _open_vision, "latent": _open_latent, "text": _open_text}[asked.kind]
    index = {} if asked.kind == "vision" else pipeline_index(source, place.revision, offline)
    with explained(source, offline), quiet(local):
        family, network, parts, used = opener(request, index)
    for module in (network, *parts.values()):
        if isinstance(module, torch.nn.Module):
            made_ready(module, device)
    if local:
        state = fingerprint(Path(source))
    else:
        state = commit(
            source, place.revision, "config.json" if asked.kind == "vision" else "model_index.json"
        )
    if not pretrained:
        state += f", weights of seed {seed}"
    shown = Path(source).resolve().name if local else source
    identity = Identity(label, shown, state, str(used).removeprefix("torch."), family.__name__)
    return family(identity, network, parts, device, Path(source) if local else None)


def _open_vision(request: Request, index: dict[str, Any]) -> Opened:
    network: Any = load_vision_network(request.place, request.pretrained, request.seed).to(request.dtype)
    settings = image_settings(find_processor(request.place), getattr(network.config, "image_size", None))
    return VisionEncoder, network, {"settings": settings}, request.dtype


def _open_latent(request: Request, index: dict[str, Any]) -> Opened:
    family = loading._family(index, request.place.source)
    names = [part for part in family.PICTURE_PARTS if part in index]
    if not names:
        raise BadInputError(
            f"{request.asked.name!r} works on pixels: there is no latent to look at. Ask for 'pixels'."
        )
    # The VAE computes in float32, at whatever precision a denoiser would run.
    parts = {part: request.network(index, part, torch.float32).to(request.device) for part in names}
    # The denoiser says only which size latents are; its weights stay where they are.
    denoiser = weightless_part(index, family.DENOISER, request.place)
    identity = Identity(request.label, request.place.source, "", "float32", family.__name__)
    model = family(identity, denoiser, parts, request.device)
    return Latent, Readouts({"latent": MapReadout()}), {"model": model, **parts}, torch.float32


def _open_text(request: Request, index: dict[str, Any]) -> Opened:
    encoder = request.network(index, "text_encoder", request.dtype)
    tokenizer = load_part(index, "tokenizer", request.place)
    network = text_readouts(int(encoder.config.num_hidden_layers))
    return TextEncoder, network, {"text_encoder": encoder, "tokenizer": tokenizer}, request.dtype
