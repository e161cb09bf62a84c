"""Stable Diffusions with random weights: SD 1.5's real shape, and the same shape in small."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from ldm_kit.models.load import autoencoder_dtype
from ldm_kit.models.model import Identity
from ldm_kit.models.stable_diffusion import StableDiffusion
from tests.tiny_models import byte_tokenizer


def unet_of(width: int = 320, side: int = 64, cross: int = 768, heads: int = 8) -> Any:
    """SD 1.5's U-Net: four levels of 1, 2, 4 and 4 times `width` channels over `side` × `side` latents."""
    return UNet2DConditionModel(
        sample_size=side,
        block_out_channels=(width, 2 * width, 4 * width, 4 * width),
        cross_attention_dim=cross,
        attention_head_dim=heads,  # diffusers' name for the number of heads
        norm_num_groups=min(32, width // 5),
    )


def vae_of(width: int = 128, side: int = 512) -> Any:
    """SD 1.5's autoencoder: four levels of 1, 2, 4 and 4 times `width` channels."""
    return AutoencoderKL(
        block_out_channels=(width, 2 * width, 4 * width, 4 * width),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
        sample_size=side,
        norm_num_groups=min(32, width),
    )


def text_encoder_of(tokenizer: Any, channels: int = 768, layers: int = 12) -> Any:
    """A CLIP text encoder of 77 tokens."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=channels,
            intermediate_size=4 * channels,
            num_hidden_layers=layers,
            num_attention_heads=max(channels // 64, 1),
            max_position_embeddings=77,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


def scheduler() -> Any:
    """SD 1.5's schedule, as DDIM."""
    return DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        steps_offset=1,
        clip_sample=False,
        set_alpha_to_one=False,
    )


def save_small(folder: Path, share: int = 4) -> Path:
    """Save SD's shape with a quarter (or an eighth) of its channels and heads, for pictures of 256 (or 128) pixels.

    The heads are as wide as SD's, 40 to 160 channels; an image takes some 64 (or 1,024) times less work.
    """
    side = 1024 // share
    torch.manual_seed(0)
    tokenizer = byte_tokenizer(folder / "bytes", length=77)
    StableDiffusionPipeline(
        vae=vae_of(128 // share, side),
        text_encoder=text_encoder_of(tokenizer, 768 // share, 4),
        tokenizer=tokenizer,
        unet=unet_of(320 // share, side // 8, 768 // share, 8 // share),
        scheduler=scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder / "small")
    return folder / "small"


def real_shape(device: str, dtype: torch.dtype) -> StableDiffusion:
    """SD 1.5's real shape with random weights, opened, without a file in between."""
    tokenizer = byte_tokenizer(Path(tempfile.mkdtemp()) / "bytes", length=77)
    with torch.device(device):
        torch.manual_seed(0)
        unet = unet_of().to(dtype).eval().requires_grad_(False)
        text = text_encoder_of(tokenizer).to(dtype).eval().requires_grad_(False)
        vae = vae_of().to(autoencoder_dtype(dtype)).eval().requires_grad_(False)
    parts = {"vae": vae, "text_encoder": text, "tokenizer": tokenizer, "unet": unet, "scheduler": scheduler()}
    identity = Identity("sd1.5-shape", "random weights", "seed-0", str(dtype), "StableDiffusion")
    return StableDiffusion(identity, unet, parts, torch.device(device))
