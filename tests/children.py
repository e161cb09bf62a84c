"""Extraction in a process of its own, which a test may kill, and disks that fail at a file move of one's choice.

The processes are made by multiprocessing's fork server. A plain `os.fork` of the test process would copy the
locks that its other threads (zarr's, a kernel's, a browser's) hold at that instant, and a child that waits for
one of them waits for ever.
"""

from __future__ import annotations

import faulthandler
import functools
import hashlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from diffusers import StableDiffusionPipeline  # noqa: F401 - for the fork server, which imports what children need
from PIL import Image

import ldm_kit as lk
import ldm_kit.features  # for the fork server, too: `lk` imports it when it is first used
from ldm_kit.models.blocks import Watch
from ldm_kit.models.model import Identity, OpenedModel
from ldm_kit.models.noise import NoiseLevel, check_timesteps, variance_preserving_level

PATIENCE = 120  # seconds; a child that takes longer prints what it was at and fails

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([__name__])


@dataclass
class Moves:
    """How many files were moved into place."""

    count: int = 0


@contextmanager
def moves_counted(at: int | None = None, fault: int | None = None) -> Iterator[Moves]:
    """Count the files that this process moves into place, and fail before the move number `at` (from 1).

    `fault` None kills the process as the system would, without any clean-up; an errno, say ENOSPC, is what that move
    and all later ones raise: the disk stays full.
    """
    moves, lock = Moves(), threading.Lock()
    real = {name: getattr(os, name) for name in ("replace", "rename", "link")}

    def counted(name: str, *args: Any, **options: Any) -> Any:
        with lock:
            moves.count += 1
            if at is not None and moves.count >= at:
                if fault is None:
                    os.kill(os.getpid(), signal.SIGKILL)
                raise OSError(fault, os.strerror(fault or 0), str(args[0]))
        return real[name](*args, **options)

    for name in real:
        setattr(os, name, functools.partial(counted, name))
    try:
        yield moves
    finally:
        for name, function in real.items():
            setattr(os, name, function)


@dataclass(frozen=True, eq=False)
class Sums(OpenedModel):
    """A model without a network: its blocks `a`, `b`, `c` are sums of the noised latent, which cost nothing."""

    @classmethod
    def opened(cls) -> Sums:
        return cls(Identity("sums", "sums", "0", "float32", "sums"), None, {}, torch.device("cpu"))

    image_size = 4  # type: ignore[assignment]
    latent_shape = (1, 4, 4)  # type: ignore[assignment]
    steps = 1000  # type: ignore[assignment]

    @property
    def _table(self) -> pd.DataFrame:  # type: ignore[override]
        blocks = {
            "block": list("abc"),
            "kind": "sum",
            "depth": range(3),
            "shape": [(2, 4, 4)] * 3,
            "stage": True,
        }
        return pd.DataFrame(blocks)

    def level(self, level: float, timesteps: str = "exact") -> NoiseLevel:
        check_timesteps(timesteps, False, "Sums")
        return variance_preserving_level(level, np.linspace(1, 0.01, self.steps))

    def encode(self, pictures: Sequence[Image.Image], *, posterior: Any = None) -> torch.Tensor:
        grey = np.stack([np.asarray(self.preprocess(picture).convert("L")) for picture in pictures])
        return torch.from_numpy(grey / np.float32(255))[:, None]

    def text(self, prompt: str | None) -> Mapping[str, torch.Tensor]:
        return {"sequence": torch.tensor([[float(len(prompt or ""))]])}

    def watch(self, noised: Any, level: Any, text: Any, blocks: Sequence[str], keep: Any = None) -> Watch:
        watch = Watch()
        for block in blocks:
            part = noised * ord(block) + text["sequence"][:, :, None, None]
            watch.seen[block] = keep(torch.cat([part, part**2], dim=1), "map")
        return watch


def drawn(name: str) -> Image.Image:
    """A picture of a few pixels that depends on its name."""
    return Image.fromarray(np.full((4, 4, 3), int(name[1:]) % 256, dtype=np.uint8))


def drawn_stimuli(n: int) -> lk.Stimuli:
    return lk.Stimuli(tuple(f"p{i}" for i in range(n)), opener=drawn, fingerprinter=str, dataset="drawn")


def digest(folder: Path) -> dict[str, str]:
    """A hash of each file below a folder, by its path."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@dataclass
class Child:
    """An extraction that goes on beside the test; `began` is when its model was loaded."""

    process: ForkServerProcess
    began: float

    def kill(self, after: float) -> bool:
        """Kill it so many seconds after it began; true if it was still at work."""
        self.process.join(max(0.0, self.began + after - time.monotonic()))
        self.process.kill()
        return self.was_killed()

    def was_killed(self) -> bool:
        """Wait for its end; true if it was killed, by itself or by others."""
        self.process.join(PATIENCE)
        assert self.process.exitcode in (0, -signal.SIGKILL), f"the child ended with {self.process.exitcode}"
        return self.process.exitcode != 0

    def finish(self) -> float:
        """Wait for its end; the seconds since it began."""
        self.process.join(PATIENCE)
        assert self.process.exitcode == 0, f"the child ended with {self.process.exitcode}"
        return time.monotonic() - self.began


def extract_in_child(
    model: Path | None, stimuli: lk.Stimuli, out: Path, *, kill_at_move: int | None = None, **options: Any
) -> Child:
    """Begin `lk.extract` in a child that loads the model from its folder (None: `Sums`).

    With `kill_at_move` it is killed just before it moves a file into place for the so-manieth time.
    """
    ours, theirs = _context.Pipe()
    arguments = (model, stimuli, out, kill_at_move, options, theirs)
    process = _context.Process(target=_extract, args=arguments, daemon=True)
    process.start()
    theirs.close()
    if not ours.poll(PATIENCE):
        process.kill()
        raise TimeoutError(f"the child had not loaded {model} after {PATIENCE} s")
    ours.recv()  # EOFError if it ended before
    return Child(process, time.monotonic())


def _extract(
    model: Path | None,
    stimuli: lk.Stimuli,
    out: Path,
    kill_at_move: int | None,
    options: dict[str, Any],
    ready: Connection,
) -> None:
    faulthandler.dump_traceback_later(PATIENCE, exit=True)
    torch.set_num_threads(1)
    opened = Sums.opened() if model is None else lk.load_model(model, device="cpu")
    ready.send("ready")
    with moves_counted(kill_at_move):
        lk.extract(opened, stimuli, out=out, progress=False, **options)
