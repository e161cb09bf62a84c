"""The denoiser, trained together with its text encoder: which noise was added to this latent, given this caption?

Three things make a short training go further: every batch spreads its timesteps evenly over the schedule, each step's loss
is weighted by min-SNR (nearly clean latents, which teach little, count less), and the weights are averaged. One caption in
eight is left empty, so that the model also knows how to go on without words: guidance needs that, and so does the
conditioning ``none``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from ldm_kit.training.loop import pick_device, step_generators, train
from ldm_kit.training.words import build_text_encoder, tokenize

__all__ = ["build", "noise_schedule", "train_denoiser"]

EMPTY = 0.12  # share of captions left empty
MIN_SNR = 5.0


def noise_schedule() -> DDIMScheduler:
    """Stable Diffusion 1.5's schedule of 1,000 timesteps.

    Examples
    --------
    >>> noise_schedule().config.prediction_type
    'epsilon'
    """
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="epsilon",
    )


def build(
    channels: Sequence[int] = (32, 64, 96, 128), *, sample_size: int = 16, width: int = 96, seed: int = 0
) -> UNet2DConditionModel:
    """A fresh U-Net of four levels, cross-attention in the first three: Stable Diffusion's shape in small.

    Parameters
    ----------
    channels : sequence of int, length 4
        Channels of the levels, each a multiple of 32 (attention heads have size 32).
    sample_size : int, default 16
        Side of the latents.
    width : int, default 96
        Width of the text encoder.
    seed : int, default 0
        Of the initial weights.

    Returns
    -------
    diffusers.UNet2DConditionModel

    Examples
    --------
    >>> len(build().down_blocks)
    4
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return UNet2DConditionModel(
            sample_size=sample_size,
            in_channels=4,
            out_channels=4,
            layers_per_block=1,
            norm_num_groups=16,
            block_out_channels=tuple(channels),
            cross_attention_dim=width,
            # diffusers reads this as the *number* of heads of each level
            attention_head_dim=tuple(c // 32 for c in channels),
            down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
            up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        )


def _loss_weights(scheduler: DDIMScheduler) -> torch.Tensor:
    """min(SNR, 5) / SNR of every timestep, for noise prediction."""
    signal = scheduler.alphas_cumprod
    snr = signal / (1 - signal)
    weights: torch.Tensor = snr.clamp(max=MIN_SNR) / snr
    return weights


def train_denoiser(
    latents: torch.Tensor,
    captions: Sequence[Sequence[str]],
    tokenizer: CLIPTokenizer,
    *,
    out: Path,
    steps: int,
    batch_size: int = 32,
    learning_rate: float = 6e-4,
    channels: Sequence[int] = (32, 64, 96, 128),
    seed: int = 0,
    save_every: int = 250,
    device: str = "cpu",
    on_checkpoint: Callable[[Mapping[str, torch.nn.Module]], None] | None = None,
) -> tuple[UNet2DConditionModel, CLIPTextModel, pd.DataFrame]:
    """Train (or go on training) the U-Net and the text encoder together.

    Parameters
    ----------
    latents : torch.Tensor of float32, shape (n, 4, h, w)
        Scaled latents of the training pictures.
    captions : sequence of sequence of str, length n
        Captions of each picture; every step draws one anew.
    tokenizer : transformers.CLIPTokenizer
        Of `build_tokenizer`.
    out : pathlib.Path
        Folder of the checkpoint ``denoiser.safetensors``.
    steps, batch_size, learning_rate, channels, seed, save_every, device, on_checkpoint
        The recipe; `train` says more.

    Returns
    -------
    unet : diffusers.UNet2DConditionModel
    text_encoder : transformers.CLIPTextModel
        Both with averaged weights.
    losses : pandas.DataFrame
        Columns ``step`` and ``loss`` (weighted by min-SNR).

    Examples
    --------
    >>> unet, text_encoder, losses = train_denoiser(latents, captions, tokenizer, out=Path("outputs/run"),
    ...                                             steps=100)  # doctest: +SKIP
    """
    place = pick_device(device)
    text_encoder = build_text_encoder(tokenizer, seed=seed).to(place)
    width = text_encoder.config.hidden_size
    unet = build(channels, sample_size=latents.shape[-1], width=width, seed=seed).to(place)
    scheduler = noise_schedule()
    weights = _loss_weights(scheduler)
    wordings = ["", *sorted({text for several in captions for text in several})]
    number = {text: index for index, text in enumerate(wordings)}
    tokens = tokenize(tokenizer, wordings)
    which = np.array([[number[text] for text in several] for several in captions])

    def loss_of_step(step: int) -> torch.Tensor:
        rng, torch_rng = step_generators(seed, "denoiser", step)
        rows = rng.integers(len(latents), size=batch_size)
        texts = which[rows, rng.integers(which.shape[1], size=batch_size)]
        texts[rng.random(batch_size) < EMPTY] = 0
        spread = (np.arange(batch_size) + rng.random(batch_size)) / batch_size
        timesteps = torch.from_numpy((spread * scheduler.config.num_train_timesteps).astype(np.int64))
        noise = torch.randn(latents[rows].shape, generator=torch_rng)
        noisy = scheduler.add_noise(latents[rows], noise, timesteps)
        # captions recur within a batch: encode each once
        distinct, back = np.unique(texts, return_inverse=True)
        words = text_encoder(tokens[distinct].to(place)).last_hidden_state[torch.from_numpy(back).to(place)]
        predicted = unet(noisy.to(place), timesteps.to(place), words).sample
        error = (predicted - noise.to(place)).square().mean(dim=(1, 2, 3))
        loss: torch.Tensor = (weights[timesteps].to(place) * error).mean()
        return loss

    identity = {
        "stage": "denoiser",
        "seed": seed,
        "batch_size": batch_size,
        "channels": list(channels),
        "latents": list(latents.shape),
        "captions": len(wordings),
        "empty": EMPTY,
        "min_snr": MIN_SNR,
    }
    averages, losses = train(
        {"unet": unet, "text_encoder": text_encoder},
        loss_of_step,
        steps=steps,
        learning_rate=learning_rate,
        path=out / "denoiser.safetensors",
        identity=identity,
        save_every=save_every,
        name="denoiser",
        on_checkpoint=on_checkpoint,
    )
    denoiser, encoder = averages["unet"], averages["text_encoder"]
    assert isinstance(denoiser, UNet2DConditionModel) and isinstance(encoder, CLIPTextModel)
    return denoiser, encoder, losses
