"""Tiny Kandinsky 2.2 and DeepFloyd IF with random weights, of the same classes as the real ones."""

from __future__ import annotations

from pathlib import Path

import torch
from tiny_encoders import livened
from tiny_models import byte_tokenizer

CHANNELS = 12  # of the space that images and text share


def save_tiny_kandinsky(folder: Path, *, seed: int = 0) -> Path:
    """Save a denoiser of 32 × 32 pixels, without a prior, loadable by KandinskyV22Pipeline."""
    from diffusers import DDPMScheduler, KandinskyV22Pipeline, UNet2DConditionModel, VQModel

    torch.manual_seed(seed)
    unet = UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=8,  # mean and variance
        addition_embed_type="image",
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=8,
        encoder_hid_dim=CHANNELS,
        encoder_hid_dim_type="image_proj",
        cross_attention_dim=16,
        attention_head_dim=4,
        resnet_time_scale_shift="scale_shift",
    )
    movq = VQModel(
        block_out_channels=(32, 64),  # MoVQ's spatial norm needs multiples of 32
        down_block_types=("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
        up_block_types=("AttnUpDecoderBlock2D", "UpDecoderBlock2D"),
        latent_channels=4,
        norm_num_groups=8,
        norm_type="spatial",
        num_vq_embeddings=12,
        vq_embed_dim=4,
    )
    scheduler = DDPMScheduler(
        beta_schedule="linear", beta_start=0.00085, beta_end=0.012, variance_type="learned_range"
    )
    livened(unet)
    KandinskyV22Pipeline(unet=unet, scheduler=scheduler, movq=movq).save_pretrained(folder / "model")
    return folder / "model"


def save_tiny_prior(folder: Path, *, seed: int = 1) -> Path:
    """Save a prior, loadable by KandinskyV22PriorPipeline."""
    from diffusers import KandinskyV22PriorPipeline, PriorTransformer, UnCLIPScheduler
    from transformers import (
        CLIPImageProcessorPil,
        CLIPTextConfig,
        CLIPTextModelWithProjection,
        CLIPVisionConfig,
        CLIPVisionModelWithProjection,
    )

    torch.manual_seed(seed)
    tokenizer = byte_tokenizer(folder.parent / "bytes")
    shared = {
        "hidden_size": CHANNELS,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    text = CLIPTextModelWithProjection(
        CLIPTextConfig(
            **shared,
            projection_dim=CHANNELS,
            vocab_size=len(tokenizer),
            max_position_embeddings=16,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    image = CLIPVisionModelWithProjection(
        CLIPVisionConfig(**shared, projection_dim=CHANNELS, image_size=24, patch_size=8)
    )
    prior = PriorTransformer(
        num_attention_heads=2,
        attention_head_dim=6,
        embedding_dim=CHANNELS,
        num_layers=1,
        num_embeddings=16,
    )
    with torch.no_grad():
        prior.clip_std.fill_(1)  # it starts at zero, which would hide the prompt
    pipeline = KandinskyV22PriorPipeline(
        prior=livened(prior),
        image_encoder=livened(image),
        text_encoder=livened(text),
        tokenizer=tokenizer,
        scheduler=UnCLIPScheduler(
            variance_type="fixed_small_log", prediction_type="sample", clip_sample_range=5.0
        ),
        image_processor=CLIPImageProcessorPil(
            size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24}
        ),
    )
    pipeline.save_pretrained(folder)
    return folder


def save_tiny_combined(folder: Path) -> Path:
    """Save denoiser and prior as one combined pipeline."""
    from diffusers import KandinskyV22CombinedPipeline, KandinskyV22Pipeline, KandinskyV22PriorPipeline

    decoder = KandinskyV22Pipeline.from_pretrained(save_tiny_kandinsky(folder / "a"))
    prior = KandinskyV22PriorPipeline.from_pretrained(save_tiny_prior(folder / "b" / "prior"))
    both = {f"prior_{name}": part for name, part in prior.components.items()}
    KandinskyV22CombinedPipeline(**decoder.components, **both).save_pretrained(folder / "model")
    return folder / "model"


def save_tiny_if(folder: Path, *, seed: int = 0, in_channels: int = 3) -> Path:
    """Save a DeepFloyd IF of 16 × 16 pixels, loadable by IFPipeline."""
    from diffusers import DDPMScheduler, IFPipeline, UNet2DConditionModel
    from transformers import T5Config, T5EncoderModel

    torch.manual_seed(seed)
    unet = UNet2DConditionModel(
        sample_size=16,
        in_channels=in_channels,
        out_channels=6,
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=8,
        cross_attention_dim=16,
        encoder_hid_dim=CHANNELS,
        attention_head_dim=4,
        addition_embed_type="text",
        addition_embed_type_num_heads=2,
        resnet_time_scale_shift="scale_shift",
        act_fn="gelu",
        class_embed_type=None,
    )
    tokenizer = t5_tokenizer()
    text = T5EncoderModel(
        T5Config(vocab_size=len(tokenizer), d_model=CHANNELS, d_kv=6, d_ff=24, num_layers=2, num_heads=2)
    )
    pipeline = IFPipeline(
        tokenizer=tokenizer,
        text_encoder=livened(text),
        unet=livened(unet),
        scheduler=DDPMScheduler(beta_schedule="squaredcos_cap_v2", variance_type="learned_range"),
        safety_checker=None,
        feature_extractor=None,
        watermarker=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder / "model")
    return folder / "model"


def t5_tokenizer():
    """A T5 tokenizer of letters, each a piece."""
    from transformers import T5Tokenizer

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,!?-'"
    pieces += [(letter, -3.0 - i / 100) for i, letter in enumerate(letters)]
    return T5Tokenizer(vocab=pieces, extra_ids=0)
