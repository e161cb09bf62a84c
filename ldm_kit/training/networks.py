"""The two networks of the images: an autoencoder from pixels to latents and back, and a denoiser.

**Autoencoder**: 64 x 64 pixels become 16 x 16 latents of four channels. The loss compares pixels, *differences of
neighbouring pixels* and *hues averaged over 4 x 4 pixels*. Drawings live by their outlines, and a plain pixel loss is
content with blurred ones; but outlines alone would fill the four channels with light and dark and leave no room for
colour. The posterior starts narrow: with the usual unit variance the faint first signals of colour drown in its noise
for hundreds of steps. Most steps see crops of half the side, a quarter of the work; the last ones see whole images.

**Denoiser**: which noise was added to this latent, conditioned on this caption? Every batch spreads its timesteps evenly
over the schedule, each step's loss is weighted by min-SNR (Hang et al. 2023: nearly clean latents, which teach little,
count less), and the weights are averaged. One caption in eight is left empty, so that the model also learns to predict
without a prompt: guidance needs that, and so does the conditioning ``none``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.training_utils import compute_snr
from torch.nn import functional
from transformers import CLIPTextModel, CLIPTokenizer

from ldm_kit.training.data import as_input, as_pixels
from ldm_kit.training.loop import pick_device, train
from ldm_kit.training.text import TEXT_WIDTH, encode_text

_KL_WEIGHT = 1e-4  # of the mean over latents: enough to keep the latent space smooth, too little to blur
_EDGE_WEIGHT = 0.5
_COLOUR_WEIGHT = 4.0
_FIRST_LOG_VARIANCE = -6.0
_WHOLE = 0.2  # share of the steps, at the end, that see whole images
_EMPTY = 0.12  # share of captions left empty
_MIN_SNR = 5.0


def build_autoencoder(channels: Sequence[int], seed: int = 0, size: int = 64) -> AutoencoderKL:
    """Return a fresh autoencoder; `channels` are multiples of 8, and each level but the last halves the image."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vae = AutoencoderKL(
            in_channels=3,
            out_channels=3,
            latent_channels=4,
            sample_size=size,
            layers_per_block=1,
            norm_num_groups=8,
            block_out_channels=tuple(channels),
            down_block_types=("DownEncoderBlock2D",) * len(channels),
            up_block_types=("UpDecoderBlock2D",) * len(channels),
        )
    with torch.no_grad():
        vae.quant_conv.weight[4:] = 0
        vae.quant_conv.bias[4:] = _FIRST_LOG_VARIANCE
    return vae


def _autoencoder_loss(vae: AutoencoderKL, images: torch.Tensor, torch_rng: torch.Generator) -> torch.Tensor:
    posterior = vae.encode(images).latent_dist
    noise = torch.randn(posterior.mean.shape, generator=torch_rng).to(images.device)
    out = vae.decode(posterior.mean + posterior.std * noise).sample
    error = out - images
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    colour = functional.avg_pool2d(error - error.mean(dim=1, keepdim=True), 4).abs().mean()
    kl = 0.5 * (posterior.mean**2 + posterior.var - 1 - posterior.logvar).mean()
    pixel = error.abs().mean() + error.square().mean()
    loss: torch.Tensor = pixel + _EDGE_WEIGHT * edges + _COLOUR_WEIGHT * colour + _KL_WEIGHT * kl
    return loss


def train_autoencoder(
    pixels: npt.NDArray[np.uint8],
    *,
    out: Path,
    steps: int,
    batch_size: int = 16,
    learning_rate: float = 2e-3,
    channels: Sequence[int] = (24, 48, 64),
    seed: int = 0,
    save_every: int = 200,
    device: str = "cpu",
) -> tuple[AutoencoderKL, pd.DataFrame]:
    """Train (or go on training) the autoencoder, then set its scaling factor.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (n, size, size, 3)
        Training images.
    out : pathlib.Path
        Folder of the checkpoint ``autoencoder.safetensors``.
    steps, batch_size, learning_rate, channels, seed, save_every, device
        The recipe: AdamW at `learning_rate`, a checkpoint every `save_every` steps; `device` as for `pick_device`.

    Returns
    -------
    vae : diffusers.AutoencoderKL
        Averaged weights; ``config.scaling_factor`` is 1 / std of the latents, so that the denoiser sees unit variance.
    losses : pandas.DataFrame
        Columns ``step`` and ``loss``.

    Examples
    --------
    >>> pixels = np.zeros((2, 32, 32, 3), np.uint8)
    >>> vae, losses = train_autoencoder(pixels, out=Path("run"), steps=2, batch_size=2, channels=(16, 24, 32))
    >>> list(losses.columns)
    ['step', 'loss']
    """
    place = pick_device(device)
    vae = build_autoencoder(channels, seed, pixels.shape[1]).to(place, memory_format=torch.channels_last)

    def loss_of_step(step: int, rng: np.random.Generator, torch_rng: torch.Generator) -> torch.Tensor:
        batch = pixels[rng.integers(len(pixels), size=batch_size)]
        if step < (1 - _WHOLE) * steps:
            half = pixels.shape[1] // 2
            y, x = rng.integers(half + 1, size=2)
            batch = batch[:, y : y + half, x : x + half]
        return _autoencoder_loss(vae, as_input(batch).to(place), torch_rng)

    averages, losses = train(
        "autoencoder",
        {"vae": vae},
        loss_of_step,
        out=out,
        steps=steps,
        learning_rate=learning_rate,
        seed=seed,
        identity={"batch_size": batch_size, "channels": list(channels), "images": list(pixels.shape)},
        save_every=save_every,
        warm_up=50,
    )
    level_channels(averages["vae"], pixels[:: max(1, len(pixels) // 1000)])
    return averages["vae"], losses


@torch.no_grad()
def level_channels(vae: AutoencoderKL, pixels: npt.NDArray[np.uint8]) -> None:
    """Scale the latent channels to one spread and mean zero, in place; decoded images stay as they are.

    An autoencoder is free to put ten times as much variance into one channel as into another; the denoiser's noise would
    then drown the quiet one first. The change of scale is folded into the 1 x 1 convolutions on either side, and the
    overall one into ``config.scaling_factor``.
    """
    latents = encode(vae, pixels, scaled=False)
    mean, overall = latents.mean(dim=(0, 2, 3)), float(latents.std())
    ratio = latents.std(dim=(0, 2, 3)) / overall
    into, out_of, n = vae.quant_conv, vae.post_quant_conv, len(ratio)
    into.weight[:n] /= ratio[:, None, None, None]
    into.bias[:n] = (into.bias[:n] - mean) / ratio
    into.bias[n:] -= 2 * ratio.log()  # the posterior's log variance shrinks alike
    out_of.bias += out_of.weight[:, :, 0, 0] @ mean
    out_of.weight *= ratio[None, :, None, None]
    vae.register_to_config(scaling_factor=round(1 / overall, 5))


@torch.no_grad()
def encode(
    vae: AutoencoderKL, pixels: npt.NDArray[np.uint8], *, scaled: bool = True, batch_size: int = 64
) -> torch.Tensor:
    """Return the latents of images: the posterior's mean, times the scaling factor.

    Parameters
    ----------
    vae : diffusers.AutoencoderKL
    pixels : ndarray of uint8, shape (n, size, size, 3)
    scaled : bool, default True
        Whether to multiply by the scaling factor.
    batch_size : int, default 64

    Returns
    -------
    torch.Tensor of float32, shape (n, 4, size / 4, size / 4)

    Examples
    --------
    >>> encode(build_autoencoder((8, 16)), np.zeros((2, 16, 16, 3), np.uint8)).shape
    torch.Size([2, 4, 8, 8])
    """
    batches = [
        vae.encode(as_input(pixels[i : i + batch_size])).latent_dist.mean
        for i in range(0, len(pixels), batch_size)
    ]
    return torch.cat(batches) * (vae.config.scaling_factor if scaled else 1.0)


@torch.no_grad()
def reconstruct(vae: AutoencoderKL, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return images sent through the autoencoder and back.

    Parameters
    ----------
    vae : diffusers.AutoencoderKL
    pixels : ndarray of uint8, shape (n, size, size, 3)

    Returns
    -------
    ndarray of uint8, shape (n, size, size, 3)

    Examples
    --------
    >>> reconstruct(build_autoencoder((8, 16)), np.zeros((2, 16, 16, 3), np.uint8)).shape
    (2, 16, 16, 3)
    """
    return as_pixels(vae.decode(encode(vae, pixels, scaled=False)).sample)


def noise_schedule() -> DDIMScheduler:
    """Return Stable Diffusion 1.5's schedule of 1,000 timesteps."""
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


def build_unet(channels: Sequence[int], sample_size: int = 16, seed: int = 0) -> UNet2DConditionModel:
    """Return a fresh U-Net of four levels, cross-attention in the two middle ones: Stable Diffusion's shape in small.

    Stable Diffusion attends at its widest level too. Here that would take 40 % of the time of a step.
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
            cross_attention_dim=TEXT_WIDTH,
            # diffusers reads this as the *number* of heads of each level
            attention_head_dim=tuple(c // 32 for c in channels),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        )


def train_denoiser(
    latents: torch.Tensor,
    captions: Sequence[Sequence[str]],
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    *,
    out: Path,
    steps: int,
    batch_size: int = 32,
    learning_rate: float = 7e-4,
    channels: Sequence[int] = (32, 64, 96, 128),
    seed: int = 0,
    save_every: int = 250,
    device: str = "cpu",
) -> tuple[UNet2DConditionModel, pd.DataFrame]:
    """Train (or go on training) the U-Net; the text encoder stays as it is, as Stable Diffusion's did.

    Parameters
    ----------
    latents : torch.Tensor of float32, shape (n, 4, h, w)
        Scaled latents of the training images.
    captions : sequence of sequence of str, length n
        Captions of each image; every step draws one anew.
    text_encoder : transformers.CLIPTextModel
        Of `train_text_encoder`.
    tokenizer : transformers.CLIPTokenizer
        Of `build_tokenizer`.
    out : pathlib.Path
        Folder of the checkpoint ``denoiser.safetensors``.
    steps, batch_size, learning_rate, channels, seed, save_every, device
        The recipe, as for `train_autoencoder`.

    Returns
    -------
    unet : diffusers.UNet2DConditionModel
        Averaged weights.
    losses : pandas.DataFrame
        Columns ``step`` and ``loss`` (weighted by min-SNR).

    Examples
    --------
    >>> from ldm_kit.training.text import build_text_encoder, build_tokenizer
    >>> tokenizer = build_tokenizer(["a cat", "a bus"])
    >>> unet, losses = train_denoiser(
    ...     torch.zeros(2, 4, 8, 8), [["a cat"], ["a bus"]], build_text_encoder(tokenizer), tokenizer,
    ...     out=Path("run"), steps=2, batch_size=2, channels=(32, 32, 64, 64))
    >>> len(losses)
    2
    """
    place = pick_device(device)
    unet = build_unet(channels, latents.shape[-1], seed).to(place, memory_format=torch.channels_last)
    scheduler = noise_schedule()
    snr = compute_snr(scheduler, torch.arange(scheduler.config.num_train_timesteps))
    weights = (snr.clamp(max=_MIN_SNR) / snr).to(place)
    prompts = ["", *sorted({text for several in captions for text in several})]
    encoded = encode_text(text_encoder, tokenizer, prompts).to(place)
    number = {text: index for index, text in enumerate(prompts)}
    which = np.array([[number[text] for text in several] for several in captions])

    def loss_of_step(_: int, rng: np.random.Generator, torch_rng: torch.Generator) -> torch.Tensor:
        rows = rng.integers(len(latents), size=batch_size)
        texts = which[rows, rng.integers(which.shape[1], size=batch_size)]
        texts[rng.random(batch_size) < _EMPTY] = 0
        spread = (np.arange(batch_size) + rng.random(batch_size)) / batch_size
        timesteps = torch.from_numpy((spread * scheduler.config.num_train_timesteps).astype(np.int64))
        noise = torch.randn(latents[rows].shape, generator=torch_rng)
        noisy = scheduler.add_noise(latents[rows], noise, timesteps)
        noisy = noisy.to(place, memory_format=torch.channels_last)
        predicted = unet(noisy, timesteps.to(place), encoded[torch.from_numpy(texts)]).sample
        error = (predicted - noise.to(place)).square().mean(dim=(1, 2, 3))
        loss: torch.Tensor = (weights[timesteps.to(place)] * error).mean()
        return loss

    averages, losses = train(
        "denoiser",
        {"unet": unet},
        loss_of_step,
        out=out,
        steps=steps,
        learning_rate=learning_rate,
        seed=seed,
        identity={
            "batch_size": batch_size,
            "channels": list(channels),
            "latents": list(latents.shape),
            "captions": len(prompts),
        },
        save_every=save_every,
    )
    return averages["unet"], losses
