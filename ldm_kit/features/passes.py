"""The passes of an extraction: every image through the VAE once, every block of a pass at once, nothing twice."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from tqdm.auto import tqdm

from ldm_kit.datasets.stimuli import Stimuli, unreadable
from ldm_kit.errors import NonFiniteError, UnreadableImageError
from ldm_kit.features.conditioning import Conditioning
from ldm_kit.features.damage import read
from ldm_kit.features.store import CellKey
from ldm_kit.features.writing import NOT_FINITE, missing_rows, writable
from ldm_kit.models.blocks import pool
from ldm_kit.models.model import OpenedModel
from ldm_kit.models.noise import NoiseLevel

logger = logging.getLogger(__name__)

CHUNK = 32
# What opening an image may raise; UnreadableImageError is an OSError.
UNUSABLE = (OSError, MemoryError)
POSTERIOR_DRAW = -1  # the number of the draw that samples the posterior; noise draws count from 0

Rows = npt.NDArray[np.int64]
Values = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Plan:
    """What is to be computed, and how.

    Parameters
    ----------
    model : OpenedModel
    stimuli : Stimuli
        Those asked for.
    names : sequence of str
        The store's, one a row of every array.
    arrays : mapping of CellKey to zarr.Array
    levels : sequence of NoiseLevel
    conditionings : sequence of Conditioning
    pooling, seed, n_noise, posterior, nan, errors
        As for `extract`.
    batch : int
        Images a forward pass.
    """

    model: OpenedModel
    stimuli: Stimuli
    names: Sequence[str]
    arrays: dict[CellKey, Any]
    levels: Sequence[NoiseLevel]
    conditionings: Sequence[Conditioning]
    pooling: str
    seed: int
    n_noise: int
    posterior: str
    batch: int
    on_nonfinite: str
    on_error: str
    refused: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class _Batch:
    """Some rows of one chunk, with their pictures encoded and their noise drawn."""

    rows: Rows
    names: list[str]
    pictures: list[Image.Image]
    latents: torch.Tensor
    noise: list[torch.Tensor]
    chunk: int  # the chunk's first row
    ends_chunk: bool

    def part(self, places: Rows) -> _Batch:
        """Leave out all but the pictures at these places."""
        if len(places) == len(self.rows):
            return self
        return replace(
            self,
            rows=self.rows[places],
            names=[self.names[place] for place in places],
            pictures=[self.pictures[place] for place in places],
            latents=self.latents[places],
            noise=[draw[places] for draw in self.noise],
        )


def fill(plan: Plan, progress: bool) -> None:
    """Compute what is missing, chunk by chunk; each chunk is written when it is finished.

    An error, or Ctrl-C, loses no batch that was finished before it.

    Raises
    ------
    NonFiniteError
        For NaN or infinite activations, unless they are to be skipped.
    UnreadableImageError
        For a picture that cannot be opened, unless those are to be skipped (`plan.refused` lists them).
    """
    asked = np.array([name in plan.stimuli for name in plan.names])
    missing = {
        key: missing_rows(array, again=plan.on_nonfinite == "raise") & asked
        for key, array in plan.arrays.items()
    }
    passes = {(key.noise_level, key.conditioning): np.zeros(len(plan.names), dtype=bool) for key in missing}
    for key, rows in missing.items():
        passes[key.noise_level, key.conditioning] |= rows
    todo = sum(int(rows.sum()) for rows in passes.values())
    total = len(plan.stimuli) * len(passes)
    logger.info("%s of %s passes are in the store, %s are missing.", total - todo, total, todo)
    for array in plan.arrays.values() if todo else ():
        writable(array)
    chunk = _Chunk(plan.arrays)
    with (
        tqdm(total=total, initial=total - todo, unit="pass", desc="extracting", disable=not progress) as bar,
        closing(chunk),
    ):
        for batch in _batches(plan, np.any(list(missing.values()), axis=0)):
            finished = []
            for part, cells, values in _passes(plan, batch, missing):
                for key, new in zip(cells, values, strict=True):
                    # What another run wrote stays as it is, to the last bit.
                    lacking = missing[key][part.rows]
                    finished.append((key, part.rows[lacking], _checked(new, key, part.names, plan)[lacking]))
                bar.update(len(part.rows))
            for key, rows, new in finished:
                chunk.put(key, batch.chunk, rows, new)
            if batch.ends_chunk:
                chunk.close()


@dataclass(frozen=True, eq=False)
class _Chunk:
    """The chunk that is being computed, of every array."""

    arrays: dict[CellKey, Any]
    held: dict[CellKey, tuple[int, Values]] = field(default_factory=dict)

    def put(self, key: CellKey, start: int, rows: Rows, values: Values) -> None:
        if key not in self.held:
            self.held[key] = start, read(self.arrays[key], slice(start, start + CHUNK)).astype(np.float32)
        self.held[key][1][rows - start] = values

    def close(self) -> None:
        """Write what is held, and hold nothing."""
        for key, (start, values) in self.held.items():
            self.arrays[key][start : start + CHUNK] = values
        self.held.clear()


def _passes(
    plan: Plan, batch: _Batch, missing: dict[CellKey, npt.NDArray[np.bool_]]
) -> Iterator[tuple[_Batch, list[CellKey], list[Values]]]:
    """Run the passes that a batch still needs, on the pictures that need them: these, the cells, their values."""
    if not len(batch.rows):
        return
    where = [plan.stimuli.index(name) for name in batch.names]
    for conditioning in plan.conditionings:
        text = None
        for level in plan.levels:
            cells = [
                key
                for key in plan.arrays
                if (key.noise_level, key.conditioning) == (level.level, conditioning.name)
                and missing[key][batch.rows].any()
            ]
            if cells:
                text = text or conditioning.text(plan.model, where, batch.pictures)
                needed = np.flatnonzero(np.any([missing[key][batch.rows] for key in cells], axis=0))
                part = batch.part(needed)
                told = text if part is batch else {key: value[needed] for key, value in text.items()}
                yield part, cells, _values(plan, part, level, told, [key.block for key in cells])


def _values(plan: Plan, batch: _Batch, level: NoiseLevel, text: Any, blocks: Sequence[str]) -> list[Values]:
    """Pool each block's output, averaged over the draws of noise, and bring all to the CPU in one go."""
    sums: list[torch.Tensor] = []
    for noise in batch.noise:
        noised = plan.model.add_noise(batch.latents, noise, level)
        seen = plan.model.watch(
            noised, level, text, blocks, keep=lambda t, layout: pool(t, layout, plan.pooling)
        )
        found = [seen.seen[block] for block in blocks]
        sums = [total + new for total, new in zip(sums, found, strict=True)] if sums else found
    means = [total / len(batch.noise) for total in sums] if len(batch.noise) > 1 else sums
    together = torch.cat([mean.flatten(1) for mean in means], dim=1).cpu().numpy()
    cuts = np.cumsum([mean[0].numel() for mean in means])[:-1]
    return [
        part.reshape(mean.shape) for part, mean in zip(np.split(together, cuts, axis=1), means, strict=True)
    ]


def _batches(plan: Plan, wanted: npt.NDArray[np.bool_]) -> Iterator[_Batch]:
    """Cut the wanted rows into batches, none spanning two chunks, and make each ready.

    On an accelerator the next batch is made ready while this one is computed. On a CPU that would only make two
    thread pools contend for the same cores.
    """
    cut = _cut(wanted, plan.batch)
    if plan.model.device.type == "cpu":
        for part in cut:
            yield _made_ready(plan, *part)
        return
    waiting: deque[Future[_Batch]] = deque()
    with ThreadPoolExecutor(1) as worker:
        for part in cut:
            waiting.append(worker.submit(_made_ready, plan, *part))
            if len(waiting) > 1:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _cut(wanted: npt.NDArray[np.bool_], batch: int) -> Iterator[tuple[Rows, int, bool]]:
    """Rows of each batch, the first row of its chunk, and whether it is the chunk's last batch."""
    for start in range(0, len(wanted), CHUNK):
        rows = start + np.flatnonzero(wanted[start : start + CHUNK])
        for first in range(0, len(rows), batch):
            yield rows[first : first + batch], start, first + batch >= len(rows)


def _made_ready(plan: Plan, rows: Rows, chunk: int, ends_chunk: bool) -> _Batch:
    """Open the pictures of some rows, encode them and draw their noise."""
    opened: dict[int, Image.Image] = {}
    for row in rows:
        try:
            opened[row] = plan.stimuli.open(plan.names[row])
        except UNUSABLE as error:
            refuse(plan.names[row], error, plan.on_error, plan.refused)
    try:
        latents = _latents(plan, opened)
    except (UnreadableImageError, MemoryError):
        together = len(opened)
        for row in list(opened):  # alone, each shows whether it was the one
            try:
                _latents(plan, {row: opened[row]})
            except UnreadableImageError as error:
                refuse(plan.names[row], unreadable(plan.names[row], str(error)), plan.on_error, plan.refused)
                del opened[row]
            except MemoryError as error:
                refuse(plan.names[row], error, plan.on_error, plan.refused)
                del opened[row]
        if len(opened) == together:
            raise
        latents = _latents(plan, opened)
    names = [plan.names[row] for row in opened]
    noise = [plan.model.noise(names, plan.seed, number) for number in range(plan.n_noise)] if names else []
    return _Batch(
        np.array(list(opened), np.int64), names, list(opened.values()), latents, noise, chunk, ends_chunk
    )


def _latents(plan: Plan, opened: dict[int, Image.Image]) -> torch.Tensor:
    """Encode the pictures of some rows."""
    if not opened:
        return torch.empty(0)
    draw = None
    if plan.posterior == "sample":
        draw = plan.model.noise([plan.names[row] for row in opened], plan.seed, POSTERIOR_DRAW)
    return plan.model.encode(list(opened.values()), posterior=draw)


def refuse(name: str, error: Exception, errors: str, refused: dict[str, str]) -> None:
    """Note an image that cannot be used among the `refused`, or raise, whichever `on_error` says.

    Raises
    ------
    UnreadableImageError
        If `on_error` is ``"raise"``; it names the image.

    Examples
    --------
    >>> refused = {}
    >>> refuse("a.png", MemoryError(), "skip", refused)
    >>> list(refused)
    ['a.png']
    """
    if isinstance(error, MemoryError):
        error = unreadable(name, "it takes more memory than there is")
    elif not isinstance(error, UnreadableImageError):
        error = unreadable(name, f"the system refuses it ({getattr(error, 'strerror', None) or error})")
    if errors == "raise":
        raise error
    refused[name] = str(error)


def _checked(values: Values, key: CellKey, names: Sequence[str], plan: Plan) -> Values:
    """Raise for values that are not finite, or mark their rows."""
    most = float(np.finfo(plan.arrays[key].dtype).max)
    bad = ~(np.abs(values.reshape(len(values), -1)) <= most).all(axis=1)
    if not bad.any():
        return values
    if plan.on_nonfinite == "raise":
        raise NonFiniteError(
            f"Block {key.block!r} gave NaN, infinity or more than {most:.4g} at noise level {key.noise_level:g} "
            f"({key.conditioning}) for {names[int(np.flatnonzero(bad)[0])]!r}. Half precision may have overflowed: "
            "load the model with dtype='float32' (and keep store_dtype='float32'), or skip such images with "
            "on_nonfinite='skip'. The batches that were finished before are kept in the store."
        )
    values = values.copy()
    values[bad] = NOT_FINITE
    return values
