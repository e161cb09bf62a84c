"""Extraction in a process of its own, which a test may kill.

The processes are made by multiprocessing's fork server. A plain `os.fork` of the test process would copy the
locks that its other threads (zarr's, a kernel's, a browser's) hold at that instant, and a child that waits for
one of them waits for ever.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import signal
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline  # noqa: F401 - for the fork server, which imports what children need

import ldm_kit as lk

PATIENCE = 120  # seconds; a child that takes longer prints what it was at and fails

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([__name__])


@dataclass
class Child:
    """An extraction that goes on beside the test; `began` is when its model was loaded."""

    process: ForkServerProcess
    began: float

    def kill(self, after: float) -> bool:
        """Kill it so many seconds after it began; true if it was still at work."""
        self.process.join(max(0.0, self.began + after - time.monotonic()))
        self.process.kill()
        self.process.join(PATIENCE)
        assert self.process.exitcode in (0, -signal.SIGKILL), f"the child ended with {self.process.exitcode}"
        return self.process.exitcode != 0

    def finish(self) -> float:
        """Wait for its end; the seconds since it began."""
        self.process.join(PATIENCE)
        assert self.process.exitcode == 0, f"the child ended with {self.process.exitcode}"
        return time.monotonic() - self.began


def extract_in_child(model: Path, stimuli: lk.Stimuli, out: Path, **options: Any) -> Child:
    """Begin `lk.extract` in a child that loads the model from its folder."""
    ours, theirs = _context.Pipe()
    process = _context.Process(target=_extract, args=(model, stimuli, out, options, theirs), daemon=True)
    process.start()
    theirs.close()
    if not ours.poll(PATIENCE):
        process.kill()
        raise TimeoutError(f"the child had not loaded {model} after {PATIENCE} s")
    ours.recv()  # EOFError if it ended before
    return Child(process, time.monotonic())


def _extract(model: Path, stimuli: lk.Stimuli, out: Path, options: dict[str, Any], ready: Connection) -> None:
    faulthandler.dump_traceback_later(PATIENCE, exit=True)
    torch.set_num_threads(1)
    opened = lk.load_model(model, device="cpu")
    ready.send("ready")
    lk.extract(opened, stimuli, out=out, progress=False, **options)
