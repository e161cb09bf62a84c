"""Latent diffusion, and the families of Stable Diffusion: 1 and 2, XL, 3."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from ldm_kit.errors import BadInputError, NonFiniteError
from ldm_kit.models.hub import Request
from ldm_kit.models.model import OpenedModel, Text, to_images, to_pixels

CPU_PIXELS = 2**17  # as many as are encoded at once on a CPU: two images of 256 pixels on a side
T5_TOKENS = 256  # of SD3: diffusers' default; the models were trained with 77 and 256
AESTHETIC_SCORE = 6.0  # the refiner's aesthetic score: diffusers' default
# Autoencoders of diffusers that return the latent itself: the distilled one, and the MoVQ, which does so before it
# quantises, as its denoiser was trained.
WITHOUT_POSTERIOR = ("AutoencoderTiny", "VQModel")


class LatentDiffusion(OpenedModel):
    """A denoiser over an autoencoder's latents; a family adds its text encoders and how its denoiser is called."""

    AUTOENCODER = "vae"

    @property
    def _vae(self) -> Any:
        return self.components[str(self.AUTOENCODER)]

    @property
    def _vae_factor(self) -> int:
        """How many pixels a latent cell is wide."""
        return int(2 ** (len(self._vae.config.block_out_channels) - 1))

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Shape of one latent, (channels, height, width)."""
        size = self.denoiser.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return self._checked_channels(int(self.denoiser.config.in_channels)), int(height), int(width)

    @property
    def image_size(self) -> int:
        """Side of the square images that the model was trained on, in pixels."""
        return self.latent_shape[1] * self._vae_factor

    @property
    def _has_posterior(self) -> bool:
        """Whether the autoencoder returns a distribution, not the latent itself."""
        return type(self._vae).__name__ not in WITHOUT_POSTERIOR

    @property
    def preprocessing(self) -> dict[str, Any]:
        """What `preprocess` and `encode` do, as data."""
        return {**super().preprocessing, "posterior": "mean" if self._has_posterior else "none"}

    def encode(self, images: Sequence[Image.Image], *, posterior: Tensor | None = None) -> Tensor:
        """Encode images to latents: the posterior's mean, or a sample of it, in the denoiser's scale.

        An autoencoder without a posterior (diffusers' `AutoencoderTiny`, Kandinsky's MoVQ) makes one latent an image.

        Parameters
        ----------
        images : sequence of PIL.Image
            Of any size; see `preprocess`.
        posterior : Tensor, shape (n, channels, height, width), optional
            A standard normal sample; the latent is then ``mean + std * sample``.

        Returns
        -------
        Tensor, float32, shape (n, channels, height, width)

        Raises
        ------
        NonFiniteError
            If the autoencoder overflows.
        BadInputError
            If the sample is not of the latents' shape, or the autoencoder has no posterior to sample.

        Examples
        --------
        >>> import ldm_kit as lk
        >>> model = lk.load_model("tiny-ldm", device="cpu")
        >>> model.encode([Image.new("RGB", (300, 200))]).shape
        torch.Size([1, 4, 16, 16])
        """
        if posterior is not None and not self._has_posterior:
            raise BadInputError(
                f"A sample of the posterior was passed, but the autoencoder of {self.identity.model!r}, a "
                f"{type(self._vae).__name__}, has none: it makes one latent an image. Leave out `posterior`."
            )
        pixels = to_pixels([self.preprocess(image) for image in images], self.device)
        # On a CPU the full-size maps of many images fall out of the cache (a batch of 16 took a third longer an
        # image than one at a time), so few are encoded at once there.
        few = max(1, CPU_PIXELS // pixels[0, 0].numel()) if self.device.type == "cpu" else len(pixels)
        with torch.inference_mode():
            encoded = [self._posterior(chunk.to(self._vae.dtype)) for chunk in torch.split(pixels, few)]
        latents = torch.cat([mean.float() for mean, _ in encoded])
        if posterior is not None:
            if posterior.shape != latents.shape:
                raise BadInputError(
                    f"The posterior's sample has shape {tuple(posterior.shape)}, the latents have "
                    f"{tuple(latents.shape)}. Pass one standard normal number for each latent value."
                )
            latents = latents + torch.cat([std.float() for _, std in encoded]) * posterior.to(latents)
        if not torch.isfinite(latents).all():
            raise NonFiniteError("The autoencoder's latents are NaN or infinite. Load the model in float32.")
        shift, scale = self._scale(latents)
        scaled: Tensor = (latents - shift) * scale
        return scaled

    def _posterior(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the autoencoder's posterior; the latent and 0 if it has none."""
        encoded = self._vae.encode(pixels)
        if not self._has_posterior:
            return encoded.latents, torch.zeros_like(encoded.latents)
        return encoded.latent_dist.mean, encoded.latent_dist.std

    def decode(self, latents: Tensor) -> list[Image.Image]:
        """Decode latents to images."""
        shift, scale = self._scale(latents)
        with torch.inference_mode():
            return to_images(self._vae.decode((latents / scale + shift).to(self._vae.dtype)).sample)

    def _scale(self, latents: Tensor) -> tuple[Any, Any]:
        """Shift and scale of the autoencoder's latents: one number each, or one a channel where it has those."""
        config = self._vae.config
        mean, std = config.get("latents_mean"), config.get("latents_std")
        scale = float(config.scaling_factor)
        if mean is None or std is None:
            return float(config.get("shift_factor") or 0), scale
        return latents.new_tensor(mean).view(1, -1, 1, 1), scale / latents.new_tensor(std).view(1, -1, 1, 1)

    def _checked_channels(self, channels: int) -> int:
        """Return the denoiser's input channels, which must be those of the latents."""
        expected = int(self._vae.config.latent_channels)
        if channels != expected:
            raise BadInputError(
                f"The denoiser of {self.identity.source!r} takes {channels} channels where its autoencoder's latents "
                f"have {expected}: it also takes a mask or an image. Load the text-to-image model that it was made from."
            )
        return channels

    def _read_clip(self, prompt: str, suffix: str) -> tuple[Tensor, Tensor]:
        """Run a CLIP text encoder: the hidden states before its last layer, and its first output (the pooled vector)."""
        ids, _ = self._tokens(prompt, f"tokenizer{suffix}")
        output = self.components[f"text_encoder{suffix}"](ids, output_hidden_states=True)
        return output.hidden_states[-2], output[0]


class StableDiffusion(LatentDiffusion):
    """Stable Diffusion 1.x, 2.x, Turbo, and everything of their shape."""

    NEEDED = ("vae", "text_encoder", "tokenizer", "unet", "scheduler")
    IMG2IMG = True

    def encode_prompt(self, prompt: str) -> Text:
        """Encode one prompt to the sequence that the U-Net attends to, (1, tokens, channels)."""
        encoder = self.components["text_encoder"]
        ids, mask = self._tokens(prompt)
        # Stable Diffusion reads the padding too, unless its text encoder is configured otherwise.
        masked = getattr(encoder.config, "use_attention_mask", False)
        return {"sequence": encoder(ids, attention_mask=mask if masked else None)[0].to(self.dtype)}

    def denoiser_inputs(self, noised: Tensor, timesteps: Tensor, text: Text) -> dict[str, Any]:
        """Return the U-Net's inputs."""
        return {"sample": noised, "timestep": timesteps, "encoder_hidden_states": text["sequence"]}


class StableDiffusionXL(LatentDiffusion):
    """Stable Diffusion XL, its Turbo, and its refiner, which has the second text encoder alone.

    Notes
    -----
    The size conditions are constant: original and target size are the model's own, nothing is cropped. So is the
    refiner's aesthetic score, under ``"none"`` as well, where diffusers' guidance would pass a lower one.

    The unconditional input is zeros in place of the encoded prompt where the model's configuration has
    ``force_zeros_for_empty_prompt`` (SDXL and its Turbo do), and the encoded empty prompt where it has not.
    """

    NEEDED = ("vae", "text_encoder_2", "tokenizer_2", "unet", "scheduler")
    OPTIONAL = ("text_encoder", "tokenizer")
    IMG2IMG = True

    @classmethod
    def more_components(cls, pipeline: Any, request: Request) -> dict[str, Any]:
        """Read from the pipeline's configuration what stands for no prompt."""
        return {"zeros_for_none": bool(pipeline.config.force_zeros_for_empty_prompt)}

    @property
    def unconditional(self) -> str:
        """Zeros, or the empty prompt."""
        return "(zeros)" if self.components["zeros_for_none"] else ""

    def encode_unconditional(self) -> Text:
        """Return zeros in the shape of an encoded prompt, or the encoded empty prompt."""
        text = self.encode_prompt("")
        if not self.unconditional:
            return text
        return {key: torch.zeros_like(vectors) for key, vectors in text.items()}

    def encode_prompt(self, prompt: str) -> Text:
        """Encode one prompt: both encoders' penultimate states side by side, and the second's pooled vector."""
        suffixes = [
            suffix for suffix in ("", "_2") if self.components.get(f"text_encoder{suffix}") is not None
        ]
        encoded = [self._read_clip(prompt, suffix) for suffix in suffixes]
        joined = torch.cat([sequence for sequence, _ in encoded], dim=-1)
        expected = int(self.denoiser.config.cross_attention_dim)
        if joined.shape[-1] != expected:
            raise BadInputError(
                f"The text encoders of {self.identity.source!r} give {joined.shape[-1]} channels, its U-Net takes "
                f"{expected}: one of text_encoder and text_encoder_2 is missing."
            )
        return {"sequence": joined.to(self.dtype), "pooled": encoded[-1][1].to(self.dtype)}

    @property
    def text_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of one encoded prompt; the pooled vector is the second text encoder's."""
        pooled = int(self.components["text_encoder_2"].config.projection_dim)
        return {**super().text_shapes, "pooled": (pooled,)}

    def denoiser_inputs(self, noised: Tensor, timesteps: Tensor, text: Text) -> dict[str, Any]:
        """Return the U-Net's inputs, with the size conditions: original size, crop, and target size.

        The refiner takes the aesthetic score in place of the target size.
        """
        config, side, pooled = self.denoiser.config, self.image_size, text["pooled"]
        room = int(config.projection_class_embeddings_input_dim) - pooled.shape[-1]
        last = [side, side] if room // int(config.addition_time_embed_dim) == 6 else [AESTHETIC_SCORE]
        ids = torch.tensor([side, side, 0, 0, *last], dtype=pooled.dtype, device=pooled.device)
        return {
            "sample": noised,
            "timestep": timesteps,
            "encoder_hidden_states": text["sequence"],
            "added_cond_kwargs": {"text_embeds": pooled, "time_ids": ids.repeat(len(pooled), 1)},
        }


class StableDiffusion3(LatentDiffusion):
    """Stable Diffusion 3 and 3.5: a transformer (MMDiT), flow matching, three text encoders.

    Notes
    -----
    T5, the third text encoder and two thirds of the model's size, can be left out:
    ``load_model("sd3-medium", drop=("text_encoder_3", "tokenizer_3"))``. Zeros then take its place, as
    in diffusers and in some of the training.
    """

    NEEDED = ("vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2", "transformer", "scheduler")
    DENOISER = "transformer"
    OPTIONAL = ("text_encoder_3", "tokenizer_3")
    DROPPABLE = ("text_encoder_3", "tokenizer_3")
    FLOW_MATCHING = True

    def encode_prompt(self, prompt: str) -> Text:
        """Encode one prompt: CLIP's tokens (both encoders side by side), then T5's; pooled vectors joined."""
        encoded = [self._read_clip(prompt, suffix) for suffix in ("", "_2")]
        joined = torch.cat([sequence for sequence, _ in encoded], dim=-1).to(self.dtype)
        t5 = self._read_t5(prompt)
        padded = functional.pad(joined, (0, t5.shape[-1] - joined.shape[-1]))
        return {
            "sequence": torch.cat([padded, t5], dim=1),
            "pooled": torch.cat([pooled for _, pooled in encoded], dim=-1).to(self.dtype),
        }

    def _read_t5(self, prompt: str) -> Tensor:
        """Run T5, (1, 256, channels); zeros without it."""
        encoder = self.components.get("text_encoder_3")
        if encoder is None:
            channels = int(self.denoiser.config.joint_attention_dim)
            return torch.zeros(1, T5_TOKENS, channels, dtype=self.dtype, device=self.device)
        ids, _ = self._tokens(prompt, "tokenizer_3", T5_TOKENS)
        sequence: Tensor = encoder(ids)[0]
        return sequence.to(self.dtype)

    def denoiser_inputs(self, noised: Tensor, timesteps: Tensor, text: Text) -> dict[str, Any]:
        """Return the transformer's inputs; it predicts the velocity."""
        return {
            "hidden_states": noised,
            "timestep": timesteps,
            "encoder_hidden_states": text["sequence"],
            "pooled_projections": text["pooled"],
        }
