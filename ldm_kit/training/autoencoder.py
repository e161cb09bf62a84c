"""The autoencoder: 64 x 64 pixels to 16 x 16 latents of four channels, and back.

The loss compares pixels, *differences of neighbouring pixels* and *hues averaged over 4 x 4 pixels*. Drawings live by their
outlines, and a plain pixel loss is content with blurred ones; but outlines alone would fill the four channels with light and
dark and leave no room for colour. The posterior starts narrow: with the usual unit variance the faint first signals of colour
drown in its noise for hundreds of steps. Most steps see crops of half the side, a quarter of the work; the last ones see whole
pictures, as the model will.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from diffusers import AutoencoderKL
from torch.nn import functional

from ldm_kit.training.loop import pick_device, step_generators, train
from ldm_kit.training.pictures import as_input, as_pictures

__all__ = ["build", "encode", "reconstruct", "train_autoencoder"]

KL_WEIGHT = 1e-4  # of the mean over latents: enough to keep the latent space smooth, too little to blur
EDGE_WEIGHT = 0.5
COLOUR_WEIGHT = 4.0
FIRST_LOG_VARIANCE = -6.0
WHOLE = 0.2  # share of the steps, at the end, that see whole pictures


def build(channels: Sequence[int] = (24, 48, 64), *, seed: int = 0, size: int = 64) -> AutoencoderKL:
    """A fresh autoencoder; each level but the last halves the picture.

    Parameters
    ----------
    channels : sequence of int
        Channels of the levels, each a multiple of 8.
    seed : int, default 0
        Of the initial weights.
    size : int, default 64
        Side of the pictures, for the config.

    Returns
    -------
    diffusers.AutoencoderKL

    Examples
    --------
    >>> build((8, 16)).config.latent_channels
    4
    """
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
        vae.quant_conv.bias[4:] = FIRST_LOG_VARIANCE
    return vae


def _loss(vae: AutoencoderKL, pictures: torch.Tensor, torch_rng: torch.Generator) -> torch.Tensor:
    posterior = vae.encode(pictures).latent_dist
    noise = torch.randn(posterior.mean.shape, generator=torch_rng).to(pictures.device)
    out = vae.decode(posterior.mean + posterior.std * noise).sample
    error = out - pictures
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    colour = functional.avg_pool2d(error - error.mean(dim=1, keepdim=True), 4).abs().mean()
    kl = 0.5 * (posterior.mean**2 + posterior.var - 1 - posterior.logvar).mean()
    pixel = error.abs().mean() + error.square().mean()
    loss: torch.Tensor = pixel + EDGE_WEIGHT * edges + COLOUR_WEIGHT * colour + KL_WEIGHT * kl
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
        Training pictures.
    out : pathlib.Path
        Folder of the checkpoint ``autoencoder.safetensors``.
    steps, batch_size, learning_rate, channels, seed, save_every, device
        The recipe; `train` says more.

    Returns
    -------
    vae : diffusers.AutoencoderKL
        Averaged weights; ``config.scaling_factor`` is 1 / std of the latents, so that the denoiser sees unit variance.
    losses : pandas.DataFrame
        Columns ``step`` and ``loss``.

    Examples
    --------
    >>> vae, losses = train_autoencoder(pixels, out=Path("outputs/run"), steps=100)  # doctest: +SKIP
    """
    place = pick_device(device)
    vae = build(channels, seed=seed, size=pixels.shape[1]).to(place)

    def loss_of_step(step: int) -> torch.Tensor:
        rng, torch_rng = step_generators(seed, "autoencoder", step)
        some = pixels[rng.integers(len(pixels), size=batch_size)]
        if step < (1 - WHOLE) * steps:
            half = pixels.shape[1] // 2
            y, x = rng.integers(half + 1, size=2)
            some = some[:, y : y + half, x : x + half]
        return _loss(vae, as_input(some).to(place), torch_rng)

    identity = {
        "stage": "autoencoder",
        "seed": seed,
        "batch_size": batch_size,
        "channels": list(channels),
        "pictures": list(pixels.shape),
        "kl_weight": KL_WEIGHT,
        "edge_weight": EDGE_WEIGHT,
        "colour_weight": COLOUR_WEIGHT,
        "whole": WHOLE,
    }
    averages, losses = train(
        {"vae": vae},
        loss_of_step,
        steps=steps,
        learning_rate=learning_rate,
        name="autoencoder",
        path=out / "autoencoder.safetensors",
        identity=identity,
        save_every=save_every,
        warm_up=50,
    )
    trained = averages["vae"]
    assert isinstance(trained, AutoencoderKL)
    level_channels(trained, pixels[:: max(1, len(pixels) // 1000)])
    return trained, losses


@torch.no_grad()
def level_channels(vae: AutoencoderKL, pixels: npt.NDArray[np.uint8]) -> None:
    """Give the latent channels one spread and mean zero, and set the scaling factor; pictures come out unchanged.

    An autoencoder is free to put ten times as much variance into one channel as into another; the denoiser's noise would
    then drown the quiet one first. The change of scale is folded into the 1 x 1 convolutions on either side.

    Parameters
    ----------
    vae : diffusers.AutoencoderKL
        Changed in place; ``config.scaling_factor`` becomes 1 / std of its latents.
    pixels : ndarray of uint8, shape (n, size, size, 3)
        Pictures to measure on.

    Examples
    --------
    >>> vae = build((8, 16))
    >>> pixels = np.random.default_rng(0).integers(256, size=(8, 16, 16, 3), dtype=np.uint8)
    >>> level_channels(vae, pixels)
    >>> encode(vae, pixels).std(dim=(0, 2, 3)).numpy().round(2)
    array([1., 1., 1., 1.], dtype=float32)
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
    """Latents of pictures: the posterior's mean, times the scaling factor.

    Returns
    -------
    torch.Tensor of float32, shape (n, 4, size / 4, size / 4)

    Examples
    --------
    >>> encode(build((8, 16)), np.zeros((2, 16, 16, 3), np.uint8)).shape
    torch.Size([2, 4, 8, 8])
    """
    parts = [
        vae.encode(as_input(pixels[i : i + batch_size])).latent_dist.mean
        for i in range(0, len(pixels), batch_size)
    ]
    return torch.cat(parts) * (vae.config.scaling_factor if scaled else 1.0)


@torch.no_grad()
def reconstruct(vae: AutoencoderKL, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Pictures sent through the autoencoder and back.

    Examples
    --------
    >>> reconstruct(build((8, 16)), np.zeros((2, 16, 16, 3), np.uint8)).shape
    (2, 16, 16, 3)
    """
    return as_pictures(vae.decode(encode(vae, pixels, scaled=False)).sample)
