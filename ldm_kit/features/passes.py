"""The passes of an extraction: every image through the VAE once, every block of a pass at once, nothing twice."""

from __future__ import annotations

import itertools
import logging
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from tqdm.auto import tqdm

from ldm_kit.datasets.stimuli import unreadable
from ldm_kit.errors import NonFiniteError, UnreadableImageError
from ldm_kit.features.request import CHUNK, UNUSABLE, Request, refuse
from ldm_kit.features.store_files import NOT_FINITE, Array, CellKey, check_writable, missing_rows, read
from ldm_kit.models.blocks import pool
from ldm_kit.models.model import Text
from ldm_kit.models.noise import NoiseLevel

logger = logging.getLogger(__name__)

POSTERIOR_DRAW = -1  # the number of the draw that samples the posterior; noise samples count from 0

Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Values = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class _Batch:
    """Some rows of one chunk, with their images encoded and their noise drawn."""

    rows: Rows
    names: list[str]
    images: list[Image.Image]
    latents: torch.Tensor
    noise: list[torch.Tensor]
    chunk: int  # the chunk's first row
    ends_chunk: bool

    def part(self, places: Rows) -> _Batch:
        """Leave out all but the images at these places."""
        if len(places) == len(self.rows):
            return self
        return replace(
            self,
            rows=self.rows[places],
            names=[self.names[place] for place in places],
            images=[self.images[place] for place in places],
            latents=self.latents[places],
            noise=[sample[places] for sample in self.noise],
        )


@dataclass(frozen=True, eq=False)
class _Chunk:
    """The chunk that is being computed, of every array."""

    arrays: dict[CellKey, Array]
    held: dict[CellKey, tuple[int, Values]] = field(default_factory=dict)

    def put(self, key: CellKey, start: int, rows: Rows, values: Values) -> None:
        """Hold the values of some rows of the chunk that begins at `start`."""
        if key not in self.held:
            self.held[key] = start, read(self.arrays[key], slice(start, start + CHUNK)).astype(np.float32)
        self.held[key][1][rows - start] = values

    def close(self) -> None:
        """Write what is held, and hold nothing."""
        for key, (start, values) in self.held.items():
            self.arrays[key][start : start + CHUNK] = values
        self.held.clear()


def fill(request: Request, names: Sequence[str], arrays: dict[CellKey, Array]) -> dict[str, str]:
    """Compute what is missing, chunk by chunk; return the images that could not be used, and why.

    `names` are the store's, one a row of its `arrays`. Each chunk is written when it is finished; an error, or Ctrl-C,
    loses no batch that was finished before it.
    """
    wanted = np.array([name in request.stimuli for name in names])
    again = request.on_nonfinite == "raise"
    missing = {key: missing_rows(array, again=again) & wanted for key, array in arrays.items()}
    passes = {key[1:]: np.zeros(len(names), dtype=bool) for key in missing}  # all blocks are watched in one
    for key, rows in missing.items():
        passes[key[1:]] |= rows
    todo = sum(int(rows.sum()) for rows in passes.values())
    total = len(request.stimuli) * len(passes)
    logger.info("%s of %s passes are in the store, %s are missing.", total - todo, total, todo)
    check_writable(arrays.values() if todo else ())
    refused = dict(request.refused)
    chunk = _Chunk(arrays)
    bar = tqdm(
        total=total, initial=total - todo, unit="pass", desc="extracting", disable=not request.progress
    )
    with bar, closing(chunk):
        for batch in _batches(request, names, np.any(list(missing.values()), axis=0), refused):
            finished = []
            for part, cells, values in _passes(request, batch, missing):
                for key, new in zip(cells, values, strict=True):
                    checked = _checked(new, key, part.names, arrays[key].dtype, request.on_nonfinite)
                    lacking = missing[key][part.rows]  # what is in the store stays as it is, to the last bit
                    finished.append((key, part.rows[lacking], checked[lacking]))
                bar.update(len(part.rows))
            for key, rows, new in finished:
                chunk.put(key, batch.chunk, rows, new)
            if batch.ends_chunk:
                chunk.close()
    return refused


def _passes(
    request: Request, batch: _Batch, missing: dict[CellKey, Mask]
) -> Iterator[tuple[_Batch, list[CellKey], list[Values]]]:
    """Run the passes that a batch still needs, on the images that need them: yield these, the cells, their values."""
    if not len(batch.rows):
        return
    where = [request.stimuli.index(name) for name in batch.names]
    for conditioning in request.conditionings:
        text: Text = {}
        for level, draw in itertools.product(request.noise_levels, request.kept_draws):
            cells = [
                key
                for key, rows in missing.items()
                if key[1:] == (level.level, conditioning.name, draw) and rows[batch.rows].any()
            ]
            if cells:
                text = text or conditioning.text(request.model, where, batch.images)
                needed = np.flatnonzero(np.any([missing[key][batch.rows] for key in cells], axis=0))
                part = batch.part(needed)
                of_part = text if part is batch else {key: value[needed] for key, value in text.items()}
                samples = part.noise if draw is None else [part.noise[draw]]
                values = _values(request, part, level, of_part, [key.block for key in cells], samples)
                yield part, cells, values


def _values(
    request: Request,
    batch: _Batch,
    level: NoiseLevel,
    text: Text,
    blocks: Sequence[str],
    samples: Sequence[torch.Tensor],
) -> list[Values]:
    """Pool each block's output, averaged over these noise samples, and bring all to the CPU in one go."""
    sums: list[torch.Tensor] = []
    for noise in samples:
        noised = request.model.add_noise(batch.latents, noise, level)
        seen = request.model.watch(
            noised, level, text, blocks, keep=lambda t, layout: pool(t, layout, request.pooling)
        )
        found = [seen.seen[block] for block in blocks]
        sums = [total + new for total, new in zip(sums, found, strict=True)] if sums else found
    means = [total / len(samples) for total in sums] if len(samples) > 1 else sums
    together = torch.cat([mean.flatten(1) for mean in means], dim=1).cpu().numpy()
    cuts = np.cumsum([mean[0].numel() for mean in means])[:-1]
    return [
        part.reshape(mean.shape) for part, mean in zip(np.split(together, cuts, axis=1), means, strict=True)
    ]


def _batches(
    request: Request, names: Sequence[str], wanted: Mask, refused: dict[str, str]
) -> Iterator[_Batch]:
    """Cut the wanted rows into batches, none spanning two chunks, and make each ready.

    On an accelerator the next batch is made ready while this one is computed. On a CPU that would only make two
    thread pools contend for the same cores.
    """
    cut = _cut(wanted, request.batch_size)
    if request.model.device.type == "cpu":
        for rows in cut:
            yield _made_ready(request, names, refused, *rows)
        return
    waiting: deque[Future[_Batch]] = deque()
    with ThreadPoolExecutor(1) as worker:
        for rows in cut:
            waiting.append(worker.submit(_made_ready, request, names, refused, *rows))
            if len(waiting) > 1:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _cut(wanted: Mask, batch_size: int) -> Iterator[tuple[Rows, int, bool]]:
    """Rows of each batch, the first row of its chunk, and whether it is the chunk's last batch."""
    for start in range(0, len(wanted), CHUNK):
        rows = start + np.flatnonzero(wanted[start : start + CHUNK])
        for first in range(0, len(rows), batch_size):
            yield rows[first : first + batch_size], start, first + batch_size >= len(rows)


def _made_ready(
    request: Request,
    names: Sequence[str],
    refused: dict[str, str],
    rows: Rows,
    chunk: int,
    ends_chunk: bool,
) -> _Batch:
    """Open the images of some rows, encode them and draw their noise."""
    opened: dict[int, Image.Image] = {}
    for row in rows:
        try:
            opened[row] = request.stimuli.open(names[row])
        except UNUSABLE as error:
            refuse(names[row], error, request.on_error, refused)
    try:
        latents = _latents(request, names, opened)
    except (UnreadableImageError, MemoryError):
        together = len(opened)
        for row in list(opened):  # alone, each shows whether it was the one
            try:
                _latents(request, names, {row: opened[row]})
            except (UnreadableImageError, MemoryError) as error:
                by_name = error if isinstance(error, MemoryError) else unreadable(names[row], str(error))
                refuse(names[row], by_name, request.on_error, refused)
                del opened[row]
        if len(opened) == together:
            raise
        latents = _latents(request, names, opened)
    usable = [names[row] for row in opened]
    samples = range(request.n_noise if usable else 0)
    noise = [request.model.noise(usable, request.seed, sample) for sample in samples]
    numbers = np.array(list(opened), np.int64)
    return _Batch(numbers, usable, list(opened.values()), latents, noise, chunk, ends_chunk)


def _latents(request: Request, names: Sequence[str], opened: dict[int, Image.Image]) -> torch.Tensor:
    """Encode the images of some rows."""
    if not opened:
        return torch.empty(0)
    sample = None
    if request.posterior == "sample":
        sample = request.model.noise([names[row] for row in opened], request.seed, POSTERIOR_DRAW)
    return request.model.encode(list(opened.values()), posterior=sample)


def _checked(
    values: Values, key: CellKey, names: Sequence[str], dtype: npt.DTypeLike, on_nonfinite: str
) -> Values:
    """Raise for values that are not finite, or mark their rows."""
    most = float(np.finfo(np.dtype(dtype)).max)
    bad = ~(np.abs(values.reshape(len(values), -1)) <= most).all(axis=1)
    if not bad.any():
        return values
    if on_nonfinite == "raise":
        raise NonFiniteError(
            f"Block {key.block!r} gave NaN, infinity or more than {most:.4g} at noise level {key.noise_level:g} "
            f"({key.conditioning}) for {names[int(np.flatnonzero(bad)[0])]!r}. Half precision may have overflowed: "
            "load the model with dtype='float32' (and keep store_dtype='float32'), or skip such images with "
            "on_nonfinite='skip'. The batches that were finished before are in the store."
        )
    values = values.copy()
    values[bad] = NOT_FINITE
    return values
