"""Time extraction on a GPU: ``python -m tests.benchmarks.extraction_gpu [--batches 8 16 32 64]``.

SD 1.5's real shape with random weights in bfloat16 (speed does not ask what weights mean). Images × levels a second and
the share of the device's own measured matrix rate that they reach; hooks on and off, compiled and not.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image

import ldm_kit as lk
from ldm_kit.models.model import OpenedModel
from tests.benchmarks.sd_shape import real_shape

LEVELS = (0.1, 0.5, 0.9)
PASS_TF, ENCODE_TF = 0.803, 1.117  # counted by tests.benchmarks.extraction


def pictures(n: int) -> lk.Stimuli:
    """Noise pictures of 512 pixels, drawn when they are asked for."""
    pixels = np.random.default_rng(0).integers(0, 255, (512, 512, 3), dtype=np.uint8)
    return lk.Stimuli(
        tuple(f"p{i}" for i in range(n)),
        opener=lambda name: Image.fromarray(np.roll(pixels, int(name[1:]), axis=1)),
        fingerprinter=lambda name: name,
    )


def seconds(run: Callable[[], object], repeats: int = 3) -> float:
    """The least of some runs, after one that warms up."""
    run()
    torch.cuda.synchronize()
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        run()
        torch.cuda.synchronize()
        taken.append(time.perf_counter() - began)
    return min(taken)


def matrix_rate(n: int = 8192) -> float:
    """TFLOP/s of a bfloat16 matrix product of random numbers."""
    a, b = (torch.randn(n, n, device="cuda", dtype=torch.bfloat16) for _ in range(2))

    def products() -> None:
        for _ in range(10):
            torch.matmul(a, b)

    return 10 * 2 * n**3 / seconds(products) / 1e12


def compiled(model: OpenedModel, **options: Any) -> OpenedModel:
    """Compile the stages and the VAE's encoder in place; blocks are watched from outside of what is compiled.

    Compiled convolutions are fastest with channels last. Numbers differ within rounding, so the identity tells.
    """
    model.denoiser.to(memory_format=torch.channels_last)
    networks = [model.denoiser.get_submodule(block) for block in model.select_blocks()]
    for network in (*networks, model.components["vae"].encoder):
        network.forward = torch.compile(network.forward, **options)
    identity = dataclasses.replace(model.identity, dtype=f"{model.identity.dtype}, compiled")
    return dataclasses.replace(model, identity=identity)


def passes(model: OpenedModel, batch: int, hooks: bool) -> float:
    """Passes an image a second through the U-Net alone, with nine blocks watched and pooled, or none."""
    blocks = model.select_blocks()
    text = model.texts([""] * batch)
    noised = torch.randn(batch, *model.latent_shape, device="cuda")
    level = model.level(0.5)
    keep = lk.models.blocks.pool

    def run() -> None:
        for _ in range(4):
            if hooks:
                model.watch(noised, level, text, blocks, keep=lambda t, layout: keep(t, layout, "mean"))
            else:
                model.denoise(noised, level, text)

    return 4 * batch / seconds(run)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 16, 32, 64])
    parser.add_argument("--images", type=int, default=192)
    options = parser.parse_args()
    rate = matrix_rate()
    print(
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}; matrix product {rate:.0f} TFLOP/s in bfloat16"
    )
    model = real_shape("cuda", torch.bfloat16)
    print(
        "| network | batch | U-Net, passes/s | share of the matrix rate | hooks cost | extract, passes/s | share |"
    )
    print("|---|---|---|---|---|---|---|")
    for variant in ("as loaded", "compiled"):
        if variant == "compiled":
            model = compiled(model)
        for batch in options.batches:
            off, on = passes(model, batch, hooks=False), passes(model, batch, hooks=True)
            whole = seconds(
                lambda model=model, batch=batch: lk.extract(
                    model, pictures(options.images), noise_levels=LEVELS, batch_size=batch, progress=False
                ),
                repeats=1,
            )
            done = options.images * len(LEVELS)
            print(
                f"| {variant} | {batch} | {off:.0f} | {100 * on * PASS_TF / rate:.0f} % | "
                f"{100 * (off / on - 1):+.1f} % | {done / whole:.0f} | "
                f"{100 * (done * PASS_TF + options.images * ENCODE_TF) / whole / rate:.0f} % |",
                flush=True,
            )
    pictures_only = pictures(options.images)
    began = time.perf_counter()
    for name in pictures_only.names:
        model.preprocess(pictures_only.open(name))
    opening = (time.perf_counter() - began) / options.images
    encoding = seconds(lambda: model.encode([pictures_only.open(n) for n in pictures_only.names[:32]])) / 32
    print(
        f"an image: {1000 * opening:.1f} ms to draw and fit it, {1000 * encoding:.1f} ms through the VAE, as last shown"
    )


if __name__ == "__main__":
    main()
