"""Open a model by name, hub id or folder, through diffusers' own loading code."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ldm_kit.errors import BadInputError, ModelNotFoundError, unknown_name
from ldm_kit.models.deepfloyd import DeepFloydIF
from ldm_kit.models.flux import Flux
from ldm_kit.models.hub import commit, explained, fingerprint, pipeline_index, quiet
from ldm_kit.models.kandinsky import Kandinsky22
from ldm_kit.models.karlo import Karlo
from ldm_kit.models.opened import Identity, OpenedModel
from ldm_kit.models.parts import Place, made_ready, untrained_part
from ldm_kit.models.pixart import PixArt, PixArtSigma
from ldm_kit.models.registry import packaged, registered_models
from ldm_kit.models.sources import Source, parse_source
from ldm_kit.models.stable_diffusion import StableDiffusion
from ldm_kit.models.stable_diffusion_3 import StableDiffusion3
from ldm_kit.models.stable_diffusion_xl import StableDiffusionXL
from ldm_kit.offline import is_offline

# Which adapter opens a pipeline, by the class that its model_index.json names. Only these classes are
# ever loaded: a repository cannot bring code of its own.
FAMILIES: dict[str, type[OpenedModel]] = {
    "StableDiffusionPipeline": StableDiffusion,
    "StableDiffusionImg2ImgPipeline": StableDiffusion,
    "StableDiffusionInpaintPipeline": StableDiffusion,
    "StableDiffusionXLPipeline": StableDiffusionXL,
    "StableDiffusionXLImg2ImgPipeline": StableDiffusionXL,
    "StableDiffusionXLInpaintPipeline": StableDiffusionXL,
    "StableDiffusionXLPAGPipeline": StableDiffusionXL,
    "StableDiffusionXLPAGImg2ImgPipeline": StableDiffusionXL,
    "StableDiffusionXLPAGInpaintPipeline": StableDiffusionXL,
    "StableDiffusion3Pipeline": StableDiffusion3,
    "StableDiffusion3Img2ImgPipeline": StableDiffusion3,
    "StableDiffusion3InpaintPipeline": StableDiffusion3,
    "StableDiffusion3PAGPipeline": StableDiffusion3,
    "StableDiffusion3PAGImg2ImgPipeline": StableDiffusion3,
    "FluxPipeline": Flux,
    "FluxImg2ImgPipeline": Flux,
    "FluxInpaintPipeline": Flux,
    "FluxKontextPipeline": Flux,
    "FluxKontextInpaintPipeline": Flux,
    "PixArtAlphaPipeline": PixArt,
    "PixArtSigmaPipeline": PixArtSigma,
    "PixArtSigmaPAGPipeline": PixArtSigma,
    "KandinskyV22Pipeline": Kandinsky22,
    "KandinskyV22Img2ImgPipeline": Kandinsky22,
    "KandinskyV22CombinedPipeline": Kandinsky22,
    "KandinskyV22Img2ImgCombinedPipeline": Kandinsky22,
    "UnCLIPPipeline": Karlo,
    "IFPipeline": DeepFloydIF,
    "IFImg2ImgPipeline": DeepFloydIF,
}
# Pipelines of these families that cannot be looked into, and why.
WITHDRAWN = {
    "UnCLIPImageVariationPipeline": "it is told pictures alone; load the model that is told words, 'kakaobrain/karlo-v1-alpha'",
    "KandinskyV22PriorPipeline": "this is a prior alone, which knows no pictures; load the denoiser that it belongs "
    "to, 'kandinsky-2.2'",
    "IFSuperResolutionPipeline": "this is a later stage of DeepFloyd IF, which enlarges pictures; load the first, "
    "'deepfloyd-if'",
}
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


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
    """Open a diffusion model for looking inside.

    Parameters
    ----------
    name : str or path-like
        A name of `registered_models` (``"tiny-ldm"``, ``"sd1.5"``, ``"sdxl"``, ``"sd3-medium"``, ``"flux-dev"``, ``"dinov2-base"``, …), a
        hub id (``"owner/model"``) or a local folder in diffusers format. A prefix before it asks for a model
        without noise: ``"vision:"`` for a vision model of transformers, ``"latent:"`` for what the VAE makes of
        a picture, ``"text:"`` for the text encoder alone; ``"pixels"`` is the picture itself, ``"pixels:128"``
        with 128 of them on a side. ``"untrained:"`` before any of them is ``pretrained=False``.
    device : str, optional
        By default the first of CUDA, Apple's MPS and the CPU that is there.
    dtype : {"float32", "float16", "bfloat16"}, optional
        Of the denoiser and text encoders; by default float16 on CUDA and float32 elsewhere. Flux and SD3 were
        made for bfloat16. The VAE, which overflows in float16, then computes in float32; in bfloat16 it costs
        half a percent of precision, about what bfloat16 costs the denoiser.
    revision : str, optional
        Branch, tag or commit of a hub repository; an error for what is on this machine.
    pretrained : bool
        False gives the untrained control: the same network with random weights, seeded by `seed`. Of a
        diffusion model that is the denoiser; VAE and text encoder stay as they are. Its weights are not read.
    drop : sequence of str
        Components to leave out, of those that the family can do without: ``("text_encoder_3", "tokenizer_3")``
        opens Stable Diffusion 3 without T5. The model's name in tables then says so.
    seed : int
        Of the untrained control.
    offline : bool, optional
        True makes no network call at all; by default as `ldm_kit.offline.is_offline` says.

    Returns
    -------
    OpenedModel

    Raises
    ------
    UnknownNameError
        If `name` is no registered name, hub id or folder, or `drop` names what cannot be dropped.
    ModelNotFoundError
        If the model is missing, gated, incomplete, or not to be had offline; the message says what to do.
    BadInputError
        If its pipeline is of no known family, or device or dtype do not exist.

    Examples
    --------
    >>> model = lk.load_model("tiny-ldm")  # doctest: +SKIP
    >>> model.blocks().head()  # doctest: +SKIP
    """
    chosen_device = _device(device)
    chosen_dtype = _dtype(dtype, chosen_device)
    offline = is_offline() if offline is None else offline
    asked = parse_source(str(name))
    pretrained = pretrained and not asked.untrained
    _check_asked(asked, revision, drop)
    if asked.kind != "model":
        from ldm_kit.models.opening import open_encoder

        return open_encoder(asked, revision, pretrained, seed, offline, chosen_dtype, chosen_device)
    source, registered_revision, label = _resolve(asked.name)
    revision = revision or registered_revision
    local = Path(source).is_dir()
    index = pipeline_index(source, revision, offline)
    family = _family(index, source)
    missing = [part for part in family.NEEDED if part not in index]
    if missing:
        raise ModelNotFoundError(
            f"The model {source!r} lacks {', '.join(missing)}; its model_index.json names {sorted(index)}. "
            "Download or save it again, whole."
        )
    wanted = [*family.NEEDED, *(part for part in family.OPTIONAL if part in _components(index))]
    dropped = _dropped(drop, family)
    if dropped:
        wanted = [part for part in wanted if part not in dropped]
        label += f"-without-{dropped[0]}"
    place = Place(source, revision, offline or local, offline)
    with explained(source, offline), quiet(local):
        parts = _load_parts(index, family, place, wanted, None if pretrained else seed, chosen_dtype)
        row = registered_models().get(asked.name)
        parts |= family.more_parts(index, place, row.prior if row else None, chosen_dtype, chosen_device)
    denoiser = parts[family.DENOISER]
    revision = fingerprint(Path(source)) if local else commit(source, revision)
    if not pretrained:
        label += "-untrained"
        # The VAE, the text encoder and the configuration are still those of the folder or commit.
        revision += f", denoiser of seed {seed}"
    for module in parts.values():
        if isinstance(module, torch.nn.Module):
            made_ready(module, chosen_device)
    made_ready(denoiser, chosen_device)
    identity = Identity(
        label,
        Path(source).name if local else source,
        revision,
        str(chosen_dtype).removeprefix("torch."),
        family.__name__,
    )
    return family(identity, denoiser, parts, chosen_device, Path(source) if local else None)


def check_name(name: str) -> None:
    """Raise if a model's name cannot be one: neither a registered name, nor a hub id, nor a folder.

    Examples
    --------
    >>> check_name("text:tiny-ldm")
    """
    asked = parse_source(name)
    if asked.kind != "pixels":
        _resolve(asked.name)


def _load_parts(
    index: dict[str, Any],
    family: type[OpenedModel],
    place: Place,
    wanted: Sequence[str],
    seed: int | None,
    dtype: torch.dtype,
) -> dict[str, Any]:
    """Load the wanted parts of a pipeline; with a seed the denoiser is made anew."""
    # A part that is handed over is not loaded, nor downloaded.
    given: dict[str, Any] = dict.fromkeys({*_components(index), *family.OPTIONAL}.difference(wanted))
    if seed is not None:
        given[family.DENOISER] = untrained_part(index, family.DENOISER, place, dtype, seed)
    # The class is one of diffusers' own, named in FAMILIES; safetensors only.
    pipeline = _pipeline_class(index).from_pretrained(
        place.source,
        dtype={"default": dtype, **dict.fromkeys(family.PICTURE_PARTS, picture_dtype(dtype))},
        use_safetensors=True,
        **place.arguments(),
        **given,
    )
    return {part: getattr(pipeline, part) for part in wanted}


def picture_dtype(dtype: torch.dtype) -> torch.dtype:
    """What the VAE computes in beside a denoiser of `dtype`: float16 overflows there.

    Examples
    --------
    >>> picture_dtype(torch.float16), picture_dtype(torch.bfloat16)
    (torch.float32, torch.bfloat16)
    """
    return torch.bfloat16 if dtype == torch.bfloat16 else torch.float32


def _check_asked(asked: Source, revision: str | None, drop: Sequence[str]) -> None:
    """Raise for options that would be ignored."""
    if drop and asked.kind != "model":
        raise BadInputError(
            f"drop={drop!r}: {asked.label!r} is one part of a model, of which nothing can be left out. Leave out `drop`."
        )
    if revision is not None and (asked.kind == "pixels" or Path(_resolve(asked.name)[0]).is_dir()):
        raise BadInputError(
            f"revision={revision!r}: {asked.label!r} is on this machine, and only a repository of the model hub has "
            "revisions. Leave out `revision`."
        )


def _device(device: str | torch.device | None) -> torch.device:
    if device is None:
        found = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device(found)
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise BadInputError(
            f"Device {str(device)!r} cannot be used ({str(error).splitlines()[0]}). "
            "Leave `device` out to take the best there is, or give 'cpu'."
        ) from error
    return chosen


def _dtype(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    if dtype is None:
        return torch.float16 if device.type == "cuda" else torch.float32
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise unknown_name("dtype", name, DTYPES, "Choose one of these.")
    return DTYPES[name]


def _resolve(name: str) -> tuple[str, str | None, str]:
    """Return source, revision and the label that tables carry."""
    models = registered_models()
    if name in models:
        row = models[name]
        if row.source.startswith("package:"):
            return str(packaged(row.source.removeprefix("package:"))), None, row.name
        return row.source, row.revision, row.name
    if Path(name).expanduser().is_dir():
        return str(Path(name).expanduser()), None, Path(name).resolve().name
    looks_like_path = name.startswith((".", "/", "~")) or name.count("/") != 1
    if looks_like_path:
        raise unknown_name(
            "model",
            name,
            models,
            "Or give a hub id such as 'stabilityai/sd-turbo', or a folder that exists, in diffusers format.",
        )
    return name, None, name


def _family(index: dict[str, Any], source: str) -> type[OpenedModel]:
    name = index.get("_class_name")
    if name in WITHDRAWN:
        raise BadInputError(f"{source!r} is a {name}, which cannot be opened: {WITHDRAWN[name]}.")
    if not isinstance(name, str) or name not in FAMILIES:
        raise unknown_name(
            "pipeline class", name, FAMILIES, f"{source!r} is of a family that ldm_kit cannot open yet."
        )
    return FAMILIES[name]


def _dropped(drop: Sequence[str], family: type[OpenedModel]) -> list[str]:
    names = [drop] if isinstance(drop, str) else list(drop)
    for name in names:
        if name not in family.DROPPABLE:
            raise unknown_name(
                "component to drop", name, family.DROPPABLE, f"The family is {family.__name__}."
            )
    return sorted(names, key=family.DROPPABLE.index)


def _components(index: dict[str, Any]) -> list[str]:
    """Name the components that a pipeline's folder brings; a null one is absent."""
    return [name for name, entry in index.items() if isinstance(entry, list) and entry[0] is not None]


def _pipeline_class(index: dict[str, Any]) -> Any:
    import diffusers

    return getattr(diffusers, index["_class_name"])
