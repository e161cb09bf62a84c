"""Open a model by name, hub id or folder, through diffusers' and transformers' own loading code."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ldm_kit.errors import BadInputError, ModelNotFoundError, one_of
from ldm_kit.models.controls import Latent, MapReadout, Readouts, TextEncoder, open_pixels, text_readouts
from ldm_kit.models.dit import Flux, PixArt, PixArtSigma
from ldm_kit.models.hub import Place, Request, explained, made_from_config, made_ready, pipeline_index, seeded
from ldm_kit.models.model import Identity, OpenedModel
from ldm_kit.models.pixel import DeepFloydIF
from ldm_kit.models.registry import find_model
from ldm_kit.models.stable_diffusion import StableDiffusion, StableDiffusion3, StableDiffusionXL
from ldm_kit.models.unclip import Kandinsky22
from ldm_kit.models.vision import VisionEncoder, load_processor, load_vision_network
from ldm_kit.offline import is_offline

# Which adapter opens a pipeline, by the class that its model_index.json names. Only these classes are
# ever loaded: a repository cannot bring code of its own.
_VARIANTS: dict[type[OpenedModel], tuple[str, tuple[str, ...]]] = {
    StableDiffusion: ("StableDiffusion", ("", "Img2Img", "Inpaint")),
    StableDiffusionXL: ("StableDiffusionXL", ("", "Img2Img", "Inpaint", "PAG", "PAGImg2Img", "PAGInpaint")),
    StableDiffusion3: ("StableDiffusion3", ("", "Img2Img", "Inpaint", "PAG", "PAGImg2Img")),
    Flux: ("Flux", ("", "Img2Img", "Inpaint", "Kontext", "KontextInpaint")),
    PixArt: ("PixArtAlpha", ("",)),
    PixArtSigma: ("PixArtSigma", ("", "PAG")),
    Kandinsky22: ("KandinskyV22", ("", "Img2Img", "Combined", "Img2ImgCombined")),
    DeepFloydIF: ("IF", ("", "Img2Img")),
}
FAMILIES: dict[str, type[OpenedModel]] = {
    f"{name}{variant}Pipeline": family
    for family, (name, variants) in _VARIANTS.items()
    for variant in variants
}
# Pipelines of these families that cannot be opened, and why.
UNSUPPORTED = {
    "KandinskyV22PriorPipeline": "it is a prior alone; load its denoiser, 'kandinsky-2.2'",
    "IFSuperResolutionPipeline": "it is a later stage, which enlarges images; load the first, 'deepfloyd-if'",
}
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
# What an opener returns: the adapter, the network whose blocks are watched, its other components, its dtype.
_Opened = tuple[type[OpenedModel], torch.nn.Module, dict[str, Any], torch.dtype]


def load_model(
    name: str | os.PathLike[str] = "tiny-ldm",
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    revision: str | None = None,
    pretrained: bool = True,
    drop: Sequence[str] = (),
    seed: int = 0,
    offline: bool | None = None,
) -> OpenedModel:
    """Open a diffusion model, to compute the representations of its blocks.

    Parameters
    ----------
    name : str or path-like
        A name of `registered_models` (``"tiny-ldm"``, ``"sd1.5"``, ``"sdxl"``, ``"flux-dev"``, ``"dinov2-base"``, …), a
        hub id (``"owner/model"``) or a local folder in diffusers format. A prefix before it opens a control
        without noise: ``"vision:"`` a vision model of transformers, ``"latent:"`` the latent that the
        autoencoder makes of an image, ``"text:"`` the text encoder alone; ``"pixels"`` is the image itself,
        ``"pixels:128"`` with 128 of them on a side. ``"untrained:"`` before any of them is ``pretrained=False``.
    device : str, optional
        By default the first available of CUDA, Apple's MPS and the CPU.
    dtype : {"float32", "float16", "bfloat16"}, optional
        Of the denoiser and text encoders; by default float16 on CUDA and float32 elsewhere. Flux and SD3 were
        made for bfloat16. The autoencoder, which overflows in float16, then computes in float32; in bfloat16 it costs
        half a percent of precision, about what bfloat16 costs the denoiser.
    revision : str, optional
        Branch, tag or commit of a hub repository; an error for what is on this machine.
    pretrained : bool
        False opens the untrained control: the same network with random weights, seeded by `seed`. Of a
        diffusion model that is the denoiser; autoencoder and text encoder stay as they are. Its weights are not read.
    drop : sequence of str
        Components to leave out, of those that the family can do without: ``("text_encoder_3", "tokenizer_3")``
        opens Stable Diffusion 3 without T5. The model's name in tables then shows it.
    seed : int
        Of the untrained control.
    offline : bool, optional
        True makes no network call at all; by default as `ldm_kit.offline.is_offline`.

    Returns
    -------
    OpenedModel

    Raises
    ------
    UnknownNameError
        If `name` is no registered name, hub id or folder, or a component of `drop` cannot be left out.
    ModelNotFoundError
        If the model is missing, gated, incomplete, or not available offline; the message advises what to do.
    BadInputError
        If its pipeline is of no known family, or device or dtype do not exist.

    Examples
    --------
    >>> import ldm_kit as lk
    >>> lk.load_model("tiny-ldm", device="cpu").latent_shape
    (4, 16, 16)
    """
    request = Request(
        found := find_model(str(name)),
        Place(found.source, revision or found.revision, is_offline() if offline is None else offline),
        (drop,) if isinstance(drop, str) else tuple(drop),
        seed if found.untrained or not pretrained else None,
        *_device_and_dtype(device, dtype),
    )
    _check_options(request, revision)
    if found.kind == "pixels":
        return open_pixels(found.source, found.label, request.device)
    place = request.place
    with explained(place):
        family, network, components, used = _OPENERS[found.kind](request)
    for module in (network, *components.values()):
        made_ready(module, request.device)
    state = place.state("config.json" if found.kind == "vision" else "model_index.json")
    label = found.label + (f"-without-{min(request.drop)}" if request.drop else "")
    if request.seed is not None:
        label += "-untrained"
        # Autoencoder, text encoder and configuration are still those of the folder or commit.
        state += f", {'denoiser' if found.kind == 'model' else 'weights'} of seed {request.seed}"
    folder = Path(place.source) if place.local else None
    source = place.source if folder is None else folder.resolve().name
    identity = Identity(label, source, state, str(used).removeprefix("torch."), family.__name__)
    return family(identity, network, components, request.device, folder)


def _check_options(request: Request, revision: str | None) -> None:
    """Raise for options that would be ignored."""
    found = request.found
    if request.drop and found.kind != "model":
        raise BadInputError(
            f"drop={request.drop!r}: {found.label!r} is one component of a model. Leave out `drop`."
        )
    if revision is not None and (found.kind == "pixels" or request.place.local):
        raise BadInputError(
            f"revision={revision!r}: {found.label!r} is on this machine, not on the hub. Leave out `revision`."
        )


def _device_and_dtype(device: Any, dtype: Any) -> tuple[torch.device, torch.dtype]:
    """Check device and dtype, or choose the best available."""
    if device is None:
        mps = torch.backends.mps.is_available()
        device = "cuda" if torch.cuda.is_available() else "mps" if mps else "cpu"
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise BadInputError(
            f"Device {str(device)!r} cannot be used ({str(error).splitlines()[0]}). Leave it out, or pass 'cpu'."
        ) from error
    if dtype is None:
        dtype = "float16" if chosen.type == "cuda" else "float32"
    return chosen, DTYPES[one_of("dtype", str(dtype).removeprefix("torch."), DTYPES)]


def autoencoder_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return what the autoencoder computes in beside a denoiser of `dtype`: float16 overflows there."""
    return torch.bfloat16 if dtype == torch.bfloat16 else torch.float32


# Openers, one a kind ------------------------------------------------------------------------------------


def _open_pipeline(request: Request) -> _Opened:
    index, family = _index_and_family(request.place)
    for name in request.drop:
        one_of("component to drop", name, family.DROPPABLE, f"The family is {family.__name__}.")
    wanted = [*family.NEEDED, *(name for name in family.OPTIONAL if name in _components(index))]
    wanted = [name for name in wanted if name not in request.drop]
    pipeline = _load_pipeline(request, index, family, wanted, family.DENOISER)
    components = {name: getattr(pipeline, name) for name in wanted}
    components |= family.more_components(pipeline, request)
    return family, components[family.DENOISER], components, request.dtype


def _open_vision(request: Request) -> _Opened:
    network: Any = load_vision_network(request.place, request.seed).to(request.dtype)
    components = {"processor": load_processor(request.place, network.config)}
    return VisionEncoder, network, components, request.dtype


def _open_latent(request: Request) -> _Opened:
    index, family = _index_and_family(request.place)
    name = family.AUTOENCODER
    if name is None:
        raise BadInputError(f"{request.found.label!r}: the model works on pixels. Use 'pixels'.")
    # The autoencoder computes in float32, at whatever precision a denoiser would run.
    request = replace(request, dtype=torch.float32)
    vae = getattr(_load_pipeline(request, index, family, [name], name), name).to(request.device)
    # Of the denoiser the config alone is needed, for the latents' size.
    denoiser = made_from_config(index, family.DENOISER, request.place, torch.device("meta"))
    identity = Identity(request.found.label, request.place.source, "", "float32", family.__name__)
    model = family(identity, denoiser, {name: vae}, request.device)
    return Latent, Readouts({"latent": MapReadout()}), {"model": model, name: vae}, request.dtype


def _open_text(request: Request) -> _Opened:
    index, family = _index_and_family(request.place)
    wanted = ["text_encoder", "tokenizer"]
    pipeline = _load_pipeline(request, index, family, wanted, "text_encoder")
    components = {name: getattr(pipeline, name) for name in wanted}
    layers = int(pipeline.text_encoder.config.num_hidden_layers)
    return TextEncoder, text_readouts(layers), components, request.dtype


_OPENERS = {"model": _open_pipeline, "vision": _open_vision, "latent": _open_latent, "text": _open_text}


def _index_and_family(place: Place) -> tuple[dict[str, Any], type[OpenedModel]]:
    """Read a pipeline's index, and find the adapter of its class."""
    index = pipeline_index(place)
    name = index.get("_class_name")
    if name in UNSUPPORTED:
        raise BadInputError(f"{place.source!r} is a {name}, which cannot be opened: {UNSUPPORTED[name]}.")
    advice = f"{place.source!r} is of a family that ldm_kit cannot open yet."
    return index, FAMILIES[one_of("pipeline class", str(name), FAMILIES, advice)]


def _load_pipeline(
    request: Request, index: dict[str, Any], family: type[OpenedModel], wanted: Sequence[str], network: str
) -> Any:
    """Load the wanted components of a pipeline; for the untrained control `network` is made from its config."""
    present = _components(index)
    if missing := [name for name in wanted if name not in present]:
        raise ModelNotFoundError(
            f"The model {request.place.source!r} lacks {', '.join(missing)}; its model_index.json names {present}."
        )
    import diffusers

    # A component that is passed, if only as None, is neither loaded nor downloaded.
    passed: dict[str, Any] = dict.fromkeys({*present, *family.OPTIONAL}.difference(wanted))
    if request.seed is not None:
        made = made_from_config(index, network, request.place, seeded(request.seed))
        passed[network] = made.to(request.dtype)
    own = {} if family.AUTOENCODER is None else {family.AUTOENCODER: autoencoder_dtype(request.dtype)}
    # The class is one of diffusers' own, named in FAMILIES; safetensors only.
    return getattr(diffusers, index["_class_name"]).from_pretrained(
        request.place.source,
        dtype={"default": request.dtype, **own},
        use_safetensors=True,
        **request.place.arguments,
        **passed,
    )


def _components(index: dict[str, Any]) -> list[str]:
    """Name the components that a pipeline's folder contains; a null one is absent."""
    return [name for name, entry in index.items() if isinstance(entry, list) and entry and entry[0]]
