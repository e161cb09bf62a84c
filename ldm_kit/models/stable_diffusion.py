"""The family of Stable Diffusion 1 and 2: a U-Net over a VAE's latents, a CLIP text encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ldm_kit.errors import BadInputError, NonFiniteError
from ldm_kit.models.noise import NoiseLevel
from ldm_kit.models.opened import OpenedModel, Text


@dataclass(frozen=True, eq=False)
class StableDiffusion(OpenedModel):
    """Stable Diffusion 1.x, 2.x, Turbo, and everything of their shape.

    Examples
    --------
    >>> model = lk.load_model("tiny-ldm")  # doctest: +SKIP
    >>> model.encode([picture]).shape  # doctest: +SKIP
    torch.Size([1, 4, 16, 16])
    """

    NEEDED = ("vae", "text_encoder", "tokenizer", "unet", "scheduler")

    @property
    def vae_factor(self) -> int:
        """How many pixels a latent cell is wide."""
        return int(2 ** (len(self.parts["vae"].config.block_out_channels) - 1))

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Shape of one latent, (channels, height, width)."""
        config = self.denoiser.config
        size = config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return int(config.in_channels), int(height), int(width)

    @property
    def picture_size(self) -> int:
        """Side of the square pictures that the model was made for, in pixels."""
        return self.latent_shape[1] * self.vae_factor

    def encode(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Encode pictures to latents: the posterior's mean times the scaling factor.

        Parameters
        ----------
        pictures : sequence of PIL.Image
            Of any size; see `preprocess`.

        Returns
        -------
        Tensor, float32, shape (n, channels, height, width)

        Raises
        ------
        NonFiniteError
            If the VAE overflows.
        """
        vae = self.parts["vae"]
        pixels = np.stack([np.asarray(self.preprocess(picture)) for picture in pictures])
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(self.device, torch.float32) / 127.5 - 1
        with torch.inference_mode():
            latents = vae.encode(images.to(vae.dtype)).latent_dist.mode().float()
        if not torch.isfinite(latents).all():
            raise NonFiniteError("The VAE's latents are NaN or infinite. Load the model in float32.")
        scaled: Tensor = latents * float(vae.config.scaling_factor)
        return scaled

    def decode(self, latents: Tensor) -> list[Image.Image]:
        """Decode latents to pictures."""
        vae = self.parts["vae"]
        with torch.inference_mode():
            images = vae.decode((latents / float(vae.config.scaling_factor)).to(vae.dtype)).sample
        pixels = ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        return [Image.fromarray(array) for array in pixels.permute(0, 2, 3, 1).cpu().numpy()]

    def encode_prompt(self, prompt: str) -> Text:
        """Encode one prompt to the sequence that the U-Net attends to, (1, tokens, channels)."""
        tokenizer, encoder = self.parts["tokenizer"], self.parts["text_encoder"]
        tokens = tokenizer(
            prompt,
            padding="max_length",
            max_length=tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        # Stable Diffusion reads the padding too, unless its text encoder says otherwise.
        mask = None
        if getattr(encoder.config, "use_attention_mask", False):
            mask = tokens.attention_mask.to(self.device)
        sequence = encoder(tokens.input_ids.to(self.device), attention_mask=mask)[0]
        return {"sequence": sequence.to(self.dtype)}

    def dummy_text(self, device: torch.device) -> Text:
        """Give text of the right shape for one picture, without running the text encoder."""
        channels = int(self.denoiser.config.cross_attention_dim)
        return {"sequence": torch.zeros(1, 8, channels, device=device)}

    def predict(self, denoiser: nn.Module, noised: Tensor, level: NoiseLevel, text: Text) -> Tensor:
        """Run the U-Net once."""
        timesteps = torch.full((len(noised),), level.timestep, device=noised.device)
        prediction: Tensor = denoiser(
            noised, timesteps, encoder_hidden_states=text["sequence"], return_dict=False
        )[0]
        return prediction

    def clean_estimate(self, noised: Tensor, prediction: Tensor, level: NoiseLevel) -> Tensor:
        """Turn a prediction into the model's estimate of the clean latent."""
        kind = self.parts["scheduler"].config.prediction_type
        if kind == "epsilon":
            return (noised - level.noise * prediction) / level.signal
        if kind == "v_prediction":  # Salimans & Ho 2022, appendix D
            return level.signal * noised - level.noise * prediction
        if kind == "sample":
            return prediction
        raise BadInputError(f"The scheduler predicts {kind!r}; known are epsilon, v_prediction and sample.")
