"""One tiny model a family, random weights in the real classes, saved by the real pipelines."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import torch
from tiny_models import byte_tokenizer


def tiny_vae(*, channels: int = 4, shift: float | None = None):
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 8, 16),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        norm_num_groups=4,
        latent_channels=channels,
        sample_size=32,
        scaling_factor=0.7,
        shift_factor=shift,
    )


def tiny_clip(tokenizer, *, projected: bool = True, hidden: int = 16):
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=16,
        projection_dim=hidden - 4,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config)


def tiny_t5(channels: int = 32):
    """T5 of one layer, and a tokenizer that knows the letters."""
    from transformers import T5Config, T5EncoderModel, T5TokenizerFast

    letters = [(letter, -3.0) for letter in string.ascii_letters]
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *letters]
    tokenizer = T5TokenizerFast(vocab=vocabulary, extra_ids=0)
    config = T5Config(
        vocab_size=len(vocabulary), d_model=channels, d_kv=8, d_ff=32, num_layers=1, num_heads=2
    )
    return tokenizer, T5EncoderModel(config)


def save_tiny_sdxl(folder: Path, *, refiner: bool = False, channels: int = 4) -> Path:
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel

    torch.manual_seed(0)
    tokenizer = byte_tokenizer(folder / "bytes")
    texts = (20, 16 - 4) if refiner else (16 + 16, 16 - 4)
    first = None if refiner else tiny_clip(tokenizer, projected=False)
    second = tiny_clip(tokenizer, hidden=20 if refiner else 16)
    pooled = second.config.projection_dim
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=channels,
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=8,
        cross_attention_dim=texts[0],
        attention_head_dim=2,
        transformer_layers_per_block=(1, 2),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=(5 if refiner else 6) * 8 + pooled,
    )
    StableDiffusionXLPipeline(
        vae=tiny_vae(),
        text_encoder=first,
        text_encoder_2=second,
        tokenizer=None if refiner else tokenizer,
        tokenizer_2=tokenizer,
        unet=unet,
        scheduler=EulerDiscreteScheduler(
            beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, steps_offset=1
        ),
        add_watermarker=False,
    ).save_pretrained(folder / "model")
    return folder / "model"


def save_tiny_sd3(folder: Path, *, t5: bool = True) -> Path:
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline

    torch.manual_seed(0)
    tokenizer = byte_tokenizer(folder / "bytes")
    tokenizer_3, encoder_3 = tiny_t5(channels=40) if t5 else (None, None)
    transformer = SD3Transformer2DModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        num_layers=3,
        attention_head_dim=8,
        num_attention_heads=3,
        joint_attention_dim=40,  # wider than both CLIPs together, as in the real one
        caption_projection_dim=24,
        pooled_projection_dim=2 * 12,
        pos_embed_max_size=12,
        qk_norm="rms_norm",
        dual_attention_layers=(0,),
    )
    StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=tiny_vae(shift=0.3),
        text_encoder=tiny_clip(tokenizer),
        tokenizer=tokenizer,
        text_encoder_2=tiny_clip(tokenizer),
        tokenizer_2=tokenizer,
        text_encoder_3=encoder_3,
        tokenizer_3=tokenizer_3,
    ).save_pretrained(folder / "model")
    return folder / "model"


def save_tiny_flux(folder: Path, *, guidance: bool = True, vae: Any = None) -> Path:
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

    torch.manual_seed(0)
    tokenizer = byte_tokenizer(folder / "bytes")
    tokenizer_2, encoder_2 = tiny_t5()
    transformer = FluxTransformer2DModel(
        in_channels=16,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=8,
        num_attention_heads=3,
        joint_attention_dim=32,
        pooled_projection_dim=16,
        axes_dims_rope=(2, 2, 4),
        guidance_embeds=guidance,
    )
    FluxPipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=vae or tiny_vae(shift=0.3),
        text_encoder=tiny_clip(tokenizer, projected=False),
        tokenizer=tokenizer,
        text_encoder_2=encoder_2,
        tokenizer_2=tokenizer_2,
    ).save_pretrained(folder / "model")
    return folder / "model"


def save_tiny_pixart(folder: Path, *, sigma: bool = False) -> Path:
    """PixArt-α is conditioned on the image's size, as at 1,024 pixels; PixArt-Σ is not."""
    from diffusers import (
        DPMSolverMultistepScheduler,
        PixArtAlphaPipeline,
        PixArtSigmaPipeline,
        PixArtTransformer2DModel,
    )

    torch.manual_seed(0)
    tokenizer, encoder = tiny_t5()
    transformer = PixArtTransformer2DModel(
        sample_size=8,
        num_layers=3,
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=8,
        cross_attention_dim=24,
        caption_channels=32,
        use_additional_conditions=not sigma,
    )
    (PixArtSigmaPipeline if sigma else PixArtAlphaPipeline)(
        tokenizer=tokenizer,
        text_encoder=encoder,
        vae=tiny_vae(),
        transformer=transformer,
        scheduler=DPMSolverMultistepScheduler(),
    ).save_pretrained(folder / "model")
    return folder / "model"
