"""What all latent diffusion models share: a VAE between pictures and latents, in the denoiser's scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ldm_kit.errors import BadInputError, NonFiniteError
from ldm_kit.models.noise import NoiseLevel, clean_from_prediction
from ldm_kit.models.opened import OpenedModel

CPU_PIXELS = 2**17  # as many as are encoded at once on a CPU: two pictures of 256 pixels on a side


@dataclass(frozen=True, eq=False, repr=False)
class LatentDiffusion(OpenedModel):
    """A denoiser over a VAE's latents; a family adds its text encoders and how its denoiser is called.

    Examples
    --------
    >>> model = lk.load_model("tiny-ldm")  # doctest: +SKIP
    >>> model.encode([picture]).shape  # doctest: +SKIP
    torch.Size([1, 4, 16, 16])
    """

    @property
    def vae_factor(self) -> int:
        """How many pixels a latent cell is wide."""
        return int(2 ** (len(self.parts["vae"].config.block_out_channels) - 1))

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Shape of one latent, (channels, height, width)."""
        size = self.denoiser.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return self._checked_channels(int(self.denoiser.config.in_channels)), int(height), int(width)

    @property
    def picture_size(self) -> int:
        """Side of the square pictures that the model was made for, in pixels."""
        return self.latent_shape[1] * self.vae_factor

    def encode(self, pictures: Sequence[Image.Image], *, posterior: Tensor | None = None) -> Tensor:
        """Encode pictures to latents: the posterior's mean, or a sample of it, in the denoiser's scale.

        Parameters
        ----------
        pictures : sequence of PIL.Image
            Of any size; see `preprocess`.
        posterior : Tensor, shape (n, channels, height, width), optional
            A standard normal draw a picture; the latent is then ``mean + std * draw``.

        Returns
        -------
        Tensor, float32, shape (n, channels, height, width)

        Raises
        ------
        NonFiniteError
            If the VAE overflows.
        BadInputError
            If the draw is not of the latents' shape.
        """
        pixels = np.stack([np.asarray(self.preprocess(picture)) for picture in pictures])
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(self.device, torch.float32) / 127.5 - 1
        latents, spread = self._posterior(images)
        if posterior is not None:
            if posterior.shape != latents.shape:
                raise BadInputError(
                    f"The posterior's draw has shape {tuple(posterior.shape)}, the latents have "
                    f"{tuple(latents.shape)}. Give one standard normal number a latent value."
                )
            latents = latents + spread * posterior.to(latents)
        if not torch.isfinite(latents).all():
            raise NonFiniteError("The VAE's latents are NaN or infinite. Load the model in float32.")
        shift, scale = self._scale(latents)
        scaled: Tensor = (latents - shift) * scale
        return scaled

    def _posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the VAE's posterior, float32.

        On a CPU the full-size maps of many pictures fall out of the cache (a batch of 16 took a third longer an
        image than one at a time), so few are encoded at once there.
        """
        vae = self.parts["vae"]
        few = max(1, CPU_PIXELS // images[0, 0].numel()) if self.device.type == "cpu" else len(images)
        means, spreads = [], []
        with torch.inference_mode():
            for part in torch.split(images, few):
                distribution = vae.encode(part.to(vae.dtype)).latent_dist
                means.append(distribution.mean.float())
                spreads.append(distribution.std.float())
        return torch.cat(means), torch.cat(spreads)

    def decode(self, latents: Tensor) -> list[Image.Image]:
        """Decode latents to pictures."""
        vae = self.parts["vae"]
        shift, scale = self._scale(latents)
        with torch.inference_mode():
            images = vae.decode((latents / scale + shift).to(vae.dtype)).sample
        pixels = ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        return [Image.fromarray(array) for array in pixels.permute(0, 2, 3, 1).cpu().numpy()]

    def clean_estimate(self, noised: Tensor, prediction: Tensor, level: NoiseLevel) -> Tensor:
        """Turn a prediction into the model's estimate of the clean latent."""
        kind = str(self.parts["scheduler"].config.prediction_type)
        return clean_from_prediction(kind, noised, prediction, level)

    def _scale(self, latents: Tensor) -> tuple[Any, Any]:
        """Give shift and scale of the VAE's latents: one number each, or one a channel where it has those."""
        config = self.parts["vae"].config
        mean, std = config.get("latents_mean"), config.get("latents_std")
        scale = float(config.scaling_factor)
        if mean is None or std is None:
            return float(config.get("shift_factor") or 0), scale
        return latents.new_tensor(mean).view(1, -1, 1, 1), scale / latents.new_tensor(std).view(1, -1, 1, 1)

    def _checked_channels(self, channels: int) -> int:
        expected = int(self.parts["vae"].config.latent_channels)
        if channels != expected:
            raise BadInputError(
                f"The denoiser of {self.identity.source!r} takes {channels} channels where its VAE's latents have "
                f"{expected}: it also looks at a mask, a depth map or another picture, and is not supported. "
                "Load the text-to-image model that it was made from."
            )
        return channels
