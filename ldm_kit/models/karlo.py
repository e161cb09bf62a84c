"""The family of Karlo: unCLIP as DALL·E 2 has it, a U-Net over pixels that is told words and an image embedding."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ldm_kit.errors import ModelNotFoundError
from ldm_kit.models.kandinsky_prior import STEPS, prompt_seed
from ldm_kit.models.noise import NoiseLevel
from ldm_kit.models.opened import Text
from ldm_kit.models.parts import Place, load_part
from ldm_kit.models.pixel_diffusion import PixelDiffusion
from ldm_kit.models.prompt_encoding import tokens_of


@dataclass(frozen=True, eq=False, repr=False)
class Karlo(PixelDiffusion):
    """Karlo's decoder of 64 × 64 pixels, without the networks that enlarge its pictures.

    Notes
    -----
    diffusers no longer opens Karlo's pipeline, since one of its parts has moved; the parts themselves still
    open. As with Kandinsky the prior's noise is seeded by the prompt alone, it takes 25 steps and no
    guidance. The unconditional input is the empty prompt beside the image embedding that Karlo learnt for no condition.
    """

    NEEDED = ("decoder", "text_encoder", "tokenizer", "prior", "prior_scheduler")
    DENOISER = "decoder"

    @classmethod
    def more_parts(
        cls,
        index: Mapping[str, Any],
        place: Place,
        prior: str | None,
        dtype: torch.dtype,
        device: torch.device,
    ) -> dict[str, Any]:
        """Load the part that has moved, and the decoder's scheduler under the name that all families have."""
        projection = _projection_class()
        text_proj = projection.from_pretrained(
            place.source, use_safetensors=True, dtype=dtype, **place.arguments("text_proj")
        )
        scheduler = load_part(index, "decoder_scheduler", place)
        return {"text_proj": text_proj, "scheduler": scheduler}

    def encode_prompt(self, prompt: str) -> Text:
        """Encode one prompt: words, and the image embedding that the prior makes of them."""
        words, mask = self._read(prompt)
        return self._told(words, mask, self._of_prompt(prompt, words, mask))

    @property
    def unconditional(self) -> str:
        """The empty prompt, beside what was learnt in place of an image embedding."""
        return "(empty prompt, learnt image embedding)"

    def encode_unconditional(self) -> Text:
        """Encode the empty prompt, beside the image embedding that stands for no condition."""
        learnt: Tensor = self.parts["text_proj"].learned_classifier_free_guidance_embeddings
        return self._told(*self._read(""), learnt[None])

    def _read(self, prompt: str) -> tuple[Any, Tensor]:
        """Run the text encoder; gives its output, and the mask that hides padding."""
        tokenizer = self.parts["tokenizer"]
        ids, mask = tokens_of(tokenizer, prompt, tokenizer.model_max_length, self.device)
        return self.parts["text_encoder"](ids), mask

    def _told(self, words: Any, mask: Tensor, embedding: Tensor) -> Text:
        """Project words and image embedding to what the decoder is told."""
        projection = self.parts["text_proj"]
        sequence, time = projection(
            image_embeddings=embedding,
            prompt_embeds=words.text_embeds,
            text_encoder_hidden_states=words.last_hidden_state,
            do_classifier_free_guidance=False,
        )
        extra = mask.new_ones(1, int(projection.clip_extra_context_tokens))
        return {
            "sequence": sequence.to(self.dtype),
            "time": time.to(self.dtype),
            "mask": torch.cat([extra, mask], dim=1),
        }

    def _of_prompt(self, prompt: str, words: Any, mask: Tensor) -> Tensor:
        """Sample the prior: Ramesh et al. 2022, as diffusers' UnCLIPPipeline without guidance."""
        prior, scheduler = self.parts["prior"], self.parts["prior_scheduler"]
        generator = torch.Generator().manual_seed(prompt_seed(prompt))
        embedding = torch.randn(1, int(prior.config.embedding_dim), generator=generator)
        embedding = embedding.to(self.device, self.dtype)
        scheduler.set_timesteps(STEPS, device=self.device)
        for step, timestep in enumerate(scheduler.timesteps):
            predicted = prior(
                embedding,
                timestep=timestep,
                proj_embedding=words.text_embeds,
                encoder_hidden_states=words.last_hidden_state,
                attention_mask=mask.bool(),
            ).predicted_image_embedding
            after = scheduler.timesteps[step + 1] if step + 1 < STEPS else None
            embedding = scheduler.step(
                predicted, timestep, embedding, prev_timestep=after, generator=generator
            ).prev_sample
        sampled: Tensor = prior.post_process_latents(embedding)
        return sampled

    def dummy_text(self, device: torch.device) -> Text:
        """Give text of the right shape for one picture, without running text encoder or prior."""
        config, projection = self.denoiser.config, self.parts["text_proj"].config
        return {
            "sequence": torch.zeros(1, 8, int(config.cross_attention_dim), device=device),
            "time": torch.zeros(1, int(projection.time_embed_dim), device=device),
            "mask": torch.ones(1, 8, dtype=torch.long, device=device),
        }

    def predict(self, denoiser: nn.Module, noised: Tensor, level: NoiseLevel, text: Text) -> Tensor:
        """Run the U-Net once; gives the noise alone, where the network predicts a variance with it."""
        timesteps = torch.full((len(noised),), level.timestep, device=noised.device)
        prediction: Tensor = denoiser(
            noised,
            timesteps,
            encoder_hidden_states=text["sequence"],
            class_labels=text["time"],
            attention_mask=text["mask"].bool(),
            return_dict=False,
        )[0]
        return prediction[:, : noised.shape[1]]


def _projection_class() -> Any:
    """Find the class of the part that has moved."""
    for module in ("diffusers.pipelines.deprecated.unclip", "diffusers.pipelines.unclip"):
        try:
            return importlib.import_module(f"{module}.text_proj").UnCLIPTextProjModel
        except ImportError:  # another version of diffusers
            continue
    raise ModelNotFoundError(
        "Karlo needs UnCLIPTextProjModel, which the installed diffusers no longer has. "
        "Take diffusers 0.42, or 'kandinsky-2.2', the open unCLIP model that is still maintained."
    )
