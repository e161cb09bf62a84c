"""The family of Kandinsky 2.2: unCLIP, the design of DALL·E 2, over the latents of a MoVQ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from ldm_kit.errors import BadInputError, NonFiniteError
from ldm_kit.models.kandinsky_prior import find_prior
from ldm_kit.models.noise import NoiseLevel, clean_from_prediction
from ldm_kit.models.opened import OpenedModel, Text
from ldm_kit.models.parts import Place
from ldm_kit.models.raw import to_pictures, to_pixels


@dataclass(frozen=True, eq=False, repr=False)
class Kandinsky22(OpenedModel):
    """Kandinsky 2.2: its denoiser is told a CLIP *image* embedding, which a prior makes of the prompt.

    Notes
    -----
    The unconditional input is the embedding of an image of zeros, as in diffusers, and not what the prior makes of the
    empty prompt. `text_of_pictures` tells the denoiser the embedding of the stimulus itself: a control.

    The prior is looked for in the registry's `prior:`, in the model's folder (a combined pipeline's parts, or
    a subfolder ``prior``), and at the head of its README.md, as diffusers does.
    """

    NEEDED = ("unet", "scheduler", "movq")
    PICTURE_PARTS = ("movq",)

    @classmethod
    def more_parts(
        cls,
        index: Mapping[str, Any],
        place: Place,
        prior: str | None,
        dtype: torch.dtype,
        device: torch.device,
    ) -> dict[str, Any]:
        """Find the prior; its weights are loaded when they are first needed."""
        return {"prior": find_prior(index, place, prior, dtype, device)}

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Shape of one latent, (channels, height, width)."""
        config = self.denoiser.config
        channels, expected = int(config.in_channels), int(self._latent_channels)
        if channels != expected:
            raise BadInputError(
                f"The denoiser of {self.identity.source!r} takes {channels} channels where its MoVQ's latents have "
                f"{expected}: it also looks at a mask or a hint. Load the text-to-image model."
            )
        return channels, int(config.sample_size), int(config.sample_size)

    @property
    def _latent_channels(self) -> int:
        config = self.parts["movq"].config
        return int(config.vq_embed_dim or config.latent_channels)

    @property
    def picture_size(self) -> int:
        """Side of the square pictures that the model was made for, in pixels."""
        return self.latent_shape[1] * int(2 ** (len(self.parts["movq"].config.block_out_channels) - 1))

    @property
    def preprocessing(self) -> dict[str, Any]:
        """What is done to pictures, and which prior makes embeddings of words."""
        told = {**super().preprocessing, "posterior": "none"}
        # The latent alone (`latent:`) has no prior, and does not depend on one.
        return {**told, "prior": self.parts["prior"].state} if "prior" in self.parts else told

    def encode(self, pictures: Sequence[Image.Image], *, posterior: Tensor | None = None) -> Tensor:
        """Encode pictures to the MoVQ's latents, (n, channels, height, width), float32.

        They are not quantised, and not scaled: this is what the denoiser was trained on. A MoVQ has no
        posterior to sample from; `posterior` is ignored.

        Raises
        ------
        NonFiniteError
            If the MoVQ overflows.
        """
        movq = self.parts["movq"]
        pixels = to_pixels([self.preprocess(picture) for picture in pictures]).to(self.device, movq.dtype)
        with torch.inference_mode():
            latents: Tensor = movq.encode(pixels).latents.float()
        if not torch.isfinite(latents).all():
            raise NonFiniteError("The MoVQ's latents are NaN or infinite. Load the model in float32.")
        return latents

    def decode(self, latents: Tensor) -> list[Image.Image]:
        """Decode latents to pictures."""
        movq = self.parts["movq"]
        with torch.inference_mode():
            return to_pictures(movq.decode(latents.to(movq.dtype), force_not_quantize=True).sample)

    def encode_prompt(self, prompt: str) -> Text:
        """Give the image embedding that the prior makes of a prompt, (1, channels)."""
        prior = self.parts["prior"]
        embedding: Tensor = prior.of_prompt(prompt)
        return {"image_embedding": embedding.to(self.dtype)}

    @property
    def unconditional(self) -> str:
        """The embedding of an image of zeros."""
        return "(embedding of an image of zeros)"

    def encode_unconditional(self) -> Text:
        """Give the embedding that stands for no condition, (1, channels)."""
        return {"image_embedding": self.parts["prior"].of_nothing().to(self.dtype)}

    def text_of_pictures(self, pictures: Sequence[Image.Image]) -> Text:
        """Give the pictures' own image embeddings, (n, channels): the flagged control ``"image"``."""
        with torch.inference_mode():
            return {"image_embedding": self.parts["prior"].of_pictures(pictures).to(self.dtype)}

    def dummy_text(self, device: torch.device) -> Text:
        """Give an embedding of the right shape for one picture, without running the prior."""
        channels = int(self.denoiser.config.encoder_hid_dim)
        return {"image_embedding": torch.zeros(1, channels, device=device)}

    def predict(self, denoiser: nn.Module, noised: Tensor, level: NoiseLevel, text: Text) -> Tensor:
        """Run the U-Net once; gives the noise alone, where the network predicts a variance with it."""
        timesteps = torch.full((len(noised),), level.timestep, device=noised.device)
        prediction: Tensor = denoiser(
            noised,
            timesteps,
            encoder_hidden_states=None,
            added_cond_kwargs={"image_embeds": text["image_embedding"]},
            return_dict=False,
        )[0]
        return prediction[:, : noised.shape[1]]

    def clean_estimate(self, noised: Tensor, prediction: Tensor, level: NoiseLevel) -> Tensor:
        """Turn a prediction into the model's estimate of the clean latent."""
        kind = str(self.parts["scheduler"].config.prediction_type)
        return clean_from_prediction(kind, noised, prediction, level)
