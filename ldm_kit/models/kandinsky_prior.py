"""The prior of an unCLIP model: from a prompt, or a picture, to the image embedding that its denoiser is told."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ldm_kit.errors import ModelNotFoundError
from ldm_kit.models.hub import commit, explained, fingerprint, pipeline_index, quiet
from ldm_kit.models.image_settings import find_processor, image_settings
from ldm_kit.models.parts import Place, find_file, load_part, made_ready

STEPS = 25
PARTS = ("prior", "image_encoder", "text_encoder", "tokenizer", "scheduler")


@dataclass(frozen=True, eq=False)
class Prior:
    """A prior that loads each of its parts when it is first needed: without words, the image encoder alone.

    Parameters
    ----------
    index : mapping
        The model_index.json that names the parts.
    place : Place
    prefix : str
        ``"prior_"`` if the parts lie in the denoiser's own folder, as those of a combined pipeline do.
    state : str
        Commit, or fingerprint, of the weights.
    dtype : torch.dtype
    device : torch.device

    Notes
    -----
    The prior is a diffusion model of its own: it samples. Its noise is seeded by the prompt alone, so that
    the same words give the same embedding in any batch, order and process. It takes 25 steps, the default
    of diffusers, and no guidance (scale 1, as Kandinsky's own examples): see `OpenedModel` for why.
    """

    index: Mapping[str, Any]
    place: Place
    prefix: str
    state: str
    dtype: torch.dtype
    device: torch.device
    _loaded: dict[str, Any] = field(default_factory=dict, repr=False)

    def of_prompt(self, prompt: str) -> Tensor:
        """Sample the image embedding of a prompt, (1, channels)."""
        generator = torch.Generator().manual_seed(prompt_seed(prompt))
        embedding: Tensor = self._pipeline(
            prompt, num_inference_steps=STEPS, guidance_scale=1.0, generator=generator, negative_prompt=None
        ).image_embeds
        return embedding

    def of_nothing(self) -> Tensor:
        """Give the embedding that stands for no condition, (1, channels).

        It is that of zeros in the image encoder's own range, a flat grey, as diffusers' `get_zero_embed`.
        """
        encoder = self._part("image_encoder")
        size = int(encoder.config.image_size)
        embedding: Tensor = encoder(
            torch.zeros(1, 3, size, size, device=self.device, dtype=self.dtype)
        ).image_embeds
        return embedding

    def of_pictures(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Give the image embeddings of pictures themselves, (n, channels)."""
        encoder = self._part("image_encoder")
        config = find_processor(self.place, f"{self.prefix}image_processor")
        settings = image_settings(config, encoder.config.image_size)
        values = settings.to_values([settings.apply(picture) for picture in pictures])
        embeddings: Tensor = encoder(values.to(self.device, self.dtype)).image_embeds
        return embeddings

    def _part(self, name: str) -> Any:
        if name not in self._loaded:
            computes = name not in ("tokenizer", "scheduler")
            source = self.place.source
            with explained(source, self.place.offline), quiet(Path(source).is_dir()):
                dtype = self.dtype if computes else None
                part = load_part(self.index, self.prefix + name, self.place, dtype)
            if computes:
                made_ready(part, self.device)
            self._loaded[name] = part
        return self._loaded[name]

    @functools.cached_property
    def _pipeline(self) -> Any:
        from diffusers import KandinskyV22PriorPipeline

        pipeline = KandinskyV22PriorPipeline(
            image_processor=None, **{name: self._part(name) for name in PARTS}
        )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline


@dataclass(frozen=True)
class NoPrior:
    """Stands where a prior would, for a denoiser that came without one.

    Parameters
    ----------
    source : str
        Hub id or name of the denoiser's folder.
    """

    source: str
    state: str = "none"

    def of_prompt(self, prompt: str) -> Tensor:
        """Raise, saying where a prior would be looked for."""
        raise ModelNotFoundError(
            f"{self.source!r} came without a prior, which turns words and pictures into the image embedding that "
            "its denoiser is told. Put the prior's folder into the model's folder as 'prior', or name it there as "
            "`prior:` at the head of README.md, or in a table of models of your own (environment variable "
            "LDM_KIT_MODELS). Kandinsky 2.2's is 'kandinsky-community/kandinsky-2-2-prior'."
        )

    def of_nothing(self) -> Tensor:
        """Raise: even "no condition" is an embedding that the prior's image encoder makes."""
        return self.of_prompt("")

    def of_pictures(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Raise."""
        return self.of_prompt("")


def prompt_seed(prompt: str) -> int:
    """Give the seed of the prior's noise for a prompt: a hash of its words.

    Examples
    --------
    >>> prompt_seed("a cat") == prompt_seed("a cat"), prompt_seed("a cat") == prompt_seed("a dog")
    (True, False)
    """
    return int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:7], "little")


def find_prior(
    index: Mapping[str, Any], place: Place, named: str | None, dtype: torch.dtype, device: torch.device
) -> Prior | NoPrior:
    """Find the prior of a denoiser.

    Parameters
    ----------
    index : mapping
        The denoiser's model_index.json.
    place : Place
        Where the denoiser is.
    named : str, optional
        Hub id or folder of the prior, from the registry. Without it the prior is looked for among the
        denoiser's own parts (a combined pipeline), in its subfolder ``prior``, and at the head of its
        README.md, which may name a hub id or a folder, also relative to the denoiser's.
    dtype, device
        Where it computes.

    Returns
    -------
    Prior or NoPrior

    Raises
    ------
    ModelNotFoundError
        If one is named that cannot be read.

    Examples
    --------
    >>> find_prior({}, Place(".", None, True), None, torch.float32, torch.device("cpu")).state
    'none'
    """
    if named is None and "prior_prior" in index:
        return Prior(index, place, "prior_", "its own", dtype, device)
    folder = Path(place.source)
    if named is None and (folder / "prior" / "model_index.json").is_file():
        named = str(folder / "prior")
    if named is None:
        card = find_file(place, "README.md")
        named = None if card is None else named_in_card(card)
        if named is not None and (folder / named).is_dir():
            named = str(folder / named)
    if named is None:
        return NoPrior(folder.name if folder.is_dir() else place.source)
    local = Path(named).expanduser().is_dir()
    source = str(Path(named).expanduser()) if local else named
    found = pipeline_index(source, None, place.offline)
    # All parts come from the state that the index had: they are loaded later, one by one.
    state = fingerprint(Path(source)) if local else commit(source, None)
    return Prior(
        found,
        Place(source, None if local else state, local or place.offline, place.offline),
        "",
        state,
        dtype,
        device,
    )


def named_in_card(card: Path) -> str | None:
    """Read `prior:` at the head of a model's README.md, where Kandinsky's repositories name theirs.

    Examples
    --------
    >>> named_in_card(Path("no such file")) is None
    True
    """
    import yaml

    if not card.is_file():
        return None
    text = card.read_text(encoding="utf-8", errors="replace")
    head = text.split("---", 2)[1] if text.startswith("---") and text.count("---") > 1 else ""
    try:
        told = yaml.safe_load(head) or {}
    except yaml.YAMLError:
        return None
    named = told.get("prior") if isinstance(told, dict) else None
    if isinstance(named, list):
        named = named[0] if named else None
    return None if named is None else str(named)
