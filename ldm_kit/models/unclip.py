"""The family of Kandinsky 2.2: unCLIP, the design of DALL·E 2; a prior turns the prompt into an image embedding."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from huggingface_hub import metadata_load
from PIL import Image
from torch import Tensor

from ldm_kit.errors import ModelNotFoundError
from ldm_kit.models.hub import Place, Request, explained, find_file, made_ready, pipeline_index
from ldm_kit.models.model import Text, to_images
from ldm_kit.models.stable_diffusion import LatentDiffusion
from ldm_kit.models.vision import load_processor

STEPS = 25  # of the prior's sampling, diffusers' default


class Kandinsky22(LatentDiffusion):
    """Kandinsky 2.2: its denoiser is conditioned on a CLIP *image* embedding, which a prior samples from the prompt.

    Notes
    -----
    The unconditional input is the embedding of an image of zeros, as in diffusers, and not what the prior samples from
    the empty prompt. `text_of_pictures` conditions the denoiser on the embedding of the stimulus itself: a control.

    The prior is looked for in the registry's `prior:`, in the model's folder (a combined pipeline's components, or
    a subfolder ``prior``), and at the head of its README.md, as diffusers does.
    """

    NEEDED = ("unet", "scheduler", "movq")
    AUTOENCODER = "movq"

    @classmethod
    def more_components(cls, pipeline: Any, request: Request) -> dict[str, Any]:
        """Find the prior; its weights are loaded when they are first needed."""
        return {"prior": find_prior(pipeline, request)}

    @property
    def preprocessing(self) -> dict[str, Any]:
        """What is done to images, and which prior makes embeddings of prompts."""
        prior = self.components.get("prior")  # the latent alone (`latent:`) does not depend on one
        return {**super().preprocessing, **({} if prior is None else {"prior": prior.state})}

    def decode(self, latents: Tensor) -> list[Image.Image]:
        """Decode latents to images."""
        with torch.inference_mode():
            return to_images(self._vae.decode(latents.to(self._vae.dtype), force_not_quantize=True).sample)

    def _scale(self, latents: Tensor) -> tuple[Any, Any]:
        """Nothing: a MoVQ's latents are not scaled."""
        return 0.0, 1.0

    @property
    def prior(self) -> Prior:
        """The prior; `ModelNotFoundError` if the denoiser came without one."""
        prior: Prior | None = self.components["prior"]
        if prior is None:
            raise ModelNotFoundError(
                f"{self.identity.source!r} came without a prior, such as 'kandinsky-community/kandinsky-2-2-prior'. Name it "
                "as `prior:` at the head of its README.md or in a table of models (LDM_KIT_MODELS), or add a folder 'prior'."
            )
        return prior

    def encode_prompt(self, prompt: str) -> Text:
        """Sample the prior's image embedding of a prompt, (1, channels)."""
        generator = torch.Generator().manual_seed(prompt_seed(prompt))
        sampled = self.prior.pipeline(
            prompt, num_inference_steps=STEPS, guidance_scale=1.0, generator=generator
        )
        return {"image_embedding": sampled.image_embeds.to(self.dtype)}

    @property
    def unconditional(self) -> str:
        """The embedding of an image of zeros."""
        return "(embedding of an image of zeros)"

    def encode_unconditional(self) -> Text:
        """Return the embedding that stands for no condition, (1, channels)."""
        zeros = self.prior.images_only.get_zero_embed(device=self.device)
        return {"image_embedding": zeros.to(self.dtype)}

    def text_of_pictures(self, images: Sequence[Image.Image]) -> Text:
        """Return the images' own embeddings, (n, channels): the control ``"image"``."""
        pipeline = self.prior.images_only
        values = pipeline.image_processor(list(images), return_tensors="pt")["pixel_values"]
        with torch.inference_mode():
            embeddings = pipeline.image_encoder(values.to(self.device, self.dtype)).image_embeds
        return {"image_embedding": embeddings.to(self.dtype)}

    @property
    def text_shapes(self) -> dict[str, tuple[int, ...]]:
        """The image embedding."""
        return {"image_embedding": (int(self.denoiser.config.encoder_hid_dim),)}

    def denoiser_inputs(self, noised: Tensor, timesteps: Tensor, text: Text) -> dict[str, Any]:
        """Return the U-Net's inputs."""
        return {
            "sample": noised,
            "timestep": timesteps,
            "encoder_hidden_states": None,
            "added_cond_kwargs": {"image_embeds": text["image_embedding"]},
        }


@dataclass(frozen=True, eq=False)
class Prior:
    """diffusers' prior pipeline, loaded when it is first needed: without a prompt, the image encoder alone.

    Parameters
    ----------
    place : Place
    state : str
        Commit, or digest, of its files.
    dtype : torch.dtype
    device : torch.device
    decoder : mapping, optional
        Components of the denoiser, where both make up one combined pipeline.

    Notes
    -----
    The prior is a diffusion model of its own: it samples. Its noise is seeded by the prompt alone, so that
    the same prompt gives the same embedding in any batch, order and process. It takes 25 steps, the default
    of diffusers, and no guidance (scale 1, as Kandinsky's own examples): see `OpenedModel` for why.
    """

    place: Place
    state: str
    dtype: torch.dtype
    device: torch.device
    decoder: dict[str, Any] | None = None

    @functools.cached_property
    def images_only(self) -> Any:
        """The pipeline with its image encoder alone."""
        return self._load(prior=None, text_encoder=None, tokenizer=None, scheduler=None, image_processor=None)

    @functools.cached_property
    def pipeline(self) -> Any:
        """The whole pipeline, for prompts."""
        return self._load(image_encoder=self.images_only.image_encoder, image_processor=None)

    def _load(self, **passed: Any) -> Any:
        """Load the components that are not passed, and the image processor over PIL."""
        from diffusers import KandinskyV22CombinedPipeline, KandinskyV22PriorPipeline

        loader = KandinskyV22PriorPipeline if self.decoder is None else KandinskyV22CombinedPipeline
        prefix = "" if self.decoder is None else "prior_"
        passed = {**(self.decoder or {}), **{prefix + name: passed[name] for name in passed}}
        with explained(self.place):
            passed |= {"dtype": self.dtype, "use_safetensors": True, **self.place.arguments}
            pipeline: Any = loader.from_pretrained(self.place.source, **passed)
            pipeline = getattr(pipeline, "prior_pipe", pipeline)
            config = pipeline.image_encoder.config
            processor = load_processor(self.place, config, f"{prefix}image_processor")
        pipeline.register_modules(image_processor=processor)
        for component in pipeline.components.values():
            made_ready(component, self.device)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline


def prompt_seed(prompt: str) -> int:
    """Return the seed of the prior's noise for a prompt: a hash of it."""
    return int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:7], "little")


def find_prior(pipeline: Any, request: Request) -> Prior | None:
    """Find the prior of a denoiser in the places that `Kandinsky22` lists; None if it has none."""
    place = request.place
    named = request.found.prior
    if named is None and "prior_prior" in pipeline.config:
        decoder = {"unet": None, "scheduler": None, "movq": pipeline.movq}
        return Prior(place, "its own", request.dtype, request.device, decoder)
    folder = Path(place.source)
    if named is None:
        beside = (folder / "prior" / "model_index.json").is_file()
        named = "prior" if beside else named_in_card(find_file(place, "README.md"))
    if named is None:
        return None
    path = folder / Path(named).expanduser()
    found = Place(str(path) if path.is_dir() else named, None, place.offline)
    with explained(found):
        pipeline_index(found)
    # All components come from the state that the index had: they are loaded later, one by one.
    state = found.state()
    pinned = found if found.local else replace(found, revision=state)
    return Prior(pinned, state, request.dtype, request.device)


def named_in_card(card: Path | None) -> str | None:
    """Read `prior:` at the head of a model's README.md, where Kandinsky's repositories name theirs."""
    try:
        named = None if card is None else (metadata_load(card) or {}).get("prior")
    except (yaml.YAMLError, ValueError):  # a head that is no YAML mapping names none
        return None
    if isinstance(named, list):
        named = named[0] if named else None
    return None if named is None else str(named)
