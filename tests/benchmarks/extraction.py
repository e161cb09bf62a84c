"""Time extraction on a CPU: ``python -m tests.benchmarks.extraction [--images N] [--repeats N] [--share 4]``.

Everything is measured in one process, on a network of SD's shape with a quarter (`--share 8`: an eighth) of its channels
and heads, against loops that are written out here; FLOPs are counted on SD 1.5's real shape, on tensors without data.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

import ldm_kit as lk
from ldm_kit.models.model import OpenedModel
from tests.benchmarks.sd_shape import save_small, unet_of, vae_of

LEVELS = (0.1, 0.5, 0.9)


def pictures(n: int, side: int = 256) -> lk.Stimuli:
    """Noise pictures, drawn when they are asked for."""
    pixels = np.random.default_rng(0).integers(0, 255, (side, side, 3), dtype=np.uint8)
    return lk.Stimuli(
        tuple(f"p{i}" for i in range(n)),
        opener=lambda name: Image.fromarray(np.roll(pixels, int(name[1:]), axis=1)),
        fingerprinter=lambda name: name,
    )


def best(functions: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Least seconds of each function, their runs taking turns so that a busy minute hits all of them."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            began = time.perf_counter()
            function()
            times[name].append(time.perf_counter() - began)
    return {name: min(taken) for name, taken in times.items()}


def bare_loop(model: OpenedModel, stimuli: lk.Stimuli, batch: int) -> None:
    """Encode each batch once and call the U-Net at each level: no hooks, nothing kept."""
    text = model.texts([""])["sequence"]
    with torch.inference_mode():
        for start in range(0, len(stimuli), batch):
            names = stimuli.names[start : start + batch]
            latents = model.encode([stimuli.open(name) for name in names])
            noise = torch.randn_like(latents)
            for level in map(model.level, LEVELS):
                noised = level.signal * latents + level.noise * noise
                steps = torch.full((len(names),), int(level.timestep))
                model.denoiser(noised, steps, encoder_hidden_states=text.expand(len(names), -1, -1))


class Captured(Exception):
    """The block that was wanted has run."""


def papers_way(
    pipeline: Any, stimuli: lk.Stimuli, block: str, level: float, guidance: float
) -> list[np.ndarray]:
    """One image, one block and one level a call of img2img, left when the block has run."""
    features: list[np.ndarray] = []

    def hook(_module: Any, _inputs: Any, output: Any) -> None:
        held = output[0] if isinstance(output, tuple) else output
        features.append(held[-1].float().mean(dim=(1, 2)).numpy())
        raise Captured

    handle = pipeline.unet.get_submodule(block).register_forward_hook(hook)
    for name in stimuli.names:
        try:
            pipeline(
                "",
                image=stimuli.open(name),
                strength=level,
                num_inference_steps=100,
                guidance_scale=guidance,
                output_type="latent",
            )
        except Captured:
            continue
    handle.remove()
    return features


def sdhelpers_way(sd: Any, stimuli: lk.Stimuli, positions: list[str], batch: int) -> None:
    """Nine positions a pass, one level a call."""
    images = [stimuli.open(name) for name in stimuli.names]
    for level in LEVELS:
        # Its own spatial_avg=True cannot run (it indexes the pooled features as maps), so the mean is taken here.
        for held in sd.img2repr(images, positions, int(level * 1000), batch_size=batch, seed=0):
            for position in positions:
                held[position].float().mean(dim=(2, 3))


def time_small(images: int, batch: int, repeats: int, share: int) -> None:
    """Print the ratios measured on SD's shape in small."""
    from diffusers import StableDiffusionImg2ImgPipeline

    with tempfile.TemporaryDirectory() as scratch:
        folder = save_small(Path(scratch), share)
        model = lk.load_model(folder, device="cpu")
        stimuli = pictures(images, side=1024 // share)
        runs = iter(range(10_000))
        functions: dict[str, Callable[[], object]] = {
            "bare loop": lambda: bare_loop(model, stimuli, batch),
            "extract": lambda: lk.extract(
                model,
                stimuli,
                noise_levels=LEVELS,
                out=Path(scratch) / f"features{next(runs)}",
                batch_size=batch,
                progress=False,
            ),
        }
        sd = _sdhelper(folder)
        if sd is not None:
            positions = [f"down_blocks[{i}]" for i in range(4)] + ["mid_block"]
            positions += [f"up_blocks[{i}]" for i in range(4)]
            functions["sdhelper"] = lambda: sdhelpers_way(sd, stimuli, positions, batch)
        took = best(functions, repeats)
        pipeline = StableDiffusionImg2ImgPipeline.from_pretrained(folder, safety_checker=None)
        pipeline.set_progress_bar_config(disable=True)
        few, blocks = stimuli[:2], model.select_blocks()
        papers_way(pipeline, few, "mid_block", 0.5, 1)  # warms up
        papers = {}
        for told, guidance in (("without guidance", 1.0), ("with img2img's default guidance", 7.5)):
            began = time.perf_counter()
            for block in blocks:
                for level in LEVELS:
                    papers_way(pipeline, few, block, level, guidance)
            papers[told] = (time.perf_counter() - began) * images / len(few)
    ours, passes = took["extract"], images * len(LEVELS)
    print(
        f"SD / {share}: {images} images × {len(LEVELS)} levels × {len(blocks)} blocks, batch {batch}: {ours:.1f} s, "
        f"{passes / ours:.1f} passes a second"
    )
    print(
        f"against the bare loop ({took['bare loop']:.1f} s): {100 * (ours / took['bare loop'] - 1):+.1f} % "
        "(must +10, stretch +5)"
    )
    for told, paper in papers.items():
        print(
            f"against the paper's way, {told} (extrapolated from {len(few)} images: {paper:.0f} s): "
            f"{paper / ours:.1f} × (must 15, stretch 19)"
        )
    if "sdhelper" in took:
        print(f"against sdhelper ({took['sdhelper']:.1f} s): {took['sdhelper'] / ours:.2f} × (must 1.3)")
    else:
        print("against sdhelper: not installed (pip install --no-deps sdhelper)")


def _sdhelper(folder: Path) -> Any:
    try:
        from sdhelper import SD
    except ImportError:
        return None
    return SD(str(folder), device="cpu", disable_progress_bar=True, config={"name": str(folder)})


def tera_flops(run: Callable[[], object]) -> float:
    """Count a run's floating-point operations."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops() / 1e12


def count_flops() -> None:
    """Print the work an image at SD 1.5's real shape, counted on tensors without data."""
    with torch.device("meta"), torch.inference_mode():
        unet, vae = unet_of().eval(), vae_of().eval()
        image, latent, text = torch.zeros(1, 3, 512, 512), torch.zeros(1, 4, 64, 64), torch.zeros(1, 77, 768)
        encode = tera_flops(lambda: vae.encode(image))
        whole = tera_flops(lambda: unet(latent, torch.zeros(1), encoder_hidden_states=text))
        depths = []
        for block in [*unet.down_blocks, unet.mid_block, *unet.up_blocks]:
            depths.append(_up_to(block, lambda: unet(latent, torch.zeros(1), encoder_hidden_states=text)))
    levels = len(LEVELS)
    paper = levels * (len(depths) * encode + sum(depths))
    print(f"VAE encoder {encode:.2f} TF, U-Net {whole:.2f} TF an image (a multiply-add counts two)")
    print(
        f"{len(depths)} blocks × {levels} levels: ours {encode + levels * depths[-1]:.2f} TF (must 3.6), "
        f"paper's way {paper:.1f}, sdhelper {levels * (encode + whole):.1f}"
    )


def _up_to(block: torch.nn.Module, run: Callable[[], object]) -> float:
    """FLOPs of a pass that is left when `block` has run."""

    def leave(*_: Any) -> None:
        raise Captured

    handle = block.register_forward_hook(leave)

    def left() -> None:
        with contextlib.suppress(Captured):
            run()

    try:
        return tera_flops(left)
    finally:
        handle.remove()


def time_import() -> None:
    """Print what ``import ldm_kit`` takes in a fresh interpreter, and whether it brings torch along."""
    code = "import time; t = time.perf_counter(); import ldm_kit, sys; print(time.perf_counter() - t, 'torch' in sys.modules)"
    env = {**os.environ, "PYTHONPATH": str(Path(lk.__file__).parents[1])}
    taken = []
    for _ in range(5):
        done = subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True, env=env
        )
        seconds, torch_too = done.stdout.split()
        taken.append(float(seconds))
    print(f"import ldm_kit: {1000 * min(taken):.0f} ms, torch imported: {torch_too} (must 300 ms, False)")


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--share", type=int, default=4, choices=(4, 8), help="of SD's channels: one in …")
    options = parser.parse_args()
    print(
        f"{len(os.sched_getaffinity(0))} cores, {torch.get_num_threads()} threads, torch {torch.__version__}"
    )
    time_import()
    count_flops()
    time_small(options.images, options.batch, options.repeats, options.share)


if __name__ == "__main__":
    main()
