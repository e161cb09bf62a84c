"""Extraction: every image through the VAE once, every block of a pass at once, nothing twice."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tqdm.auto import tqdm

from ldm_kit.datasets.stimuli import Stimuli
from ldm_kit.errors import BadInputError, NonFiniteError, unknown_name
from ldm_kit.features.store import CellKey, FeatureStore
from ldm_kit.features.writing import array_for, missing_rows, opened_for_writing, prepare
from ldm_kit.models.noise import NoiseLevel
from ldm_kit.models.opened import OpenedModel
from ldm_kit.models.outputs import POOLINGS, pool
from ldm_kit.models.prompts import TEMPLATE, prompts_for

CHUNK = 32
Missing = dict[CellKey, npt.NDArray[np.bool_]]


def extract(
    model: OpenedModel,
    stimuli: Stimuli,
    *,
    blocks: str | Sequence[str] | None = None,
    noise_levels: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.9),
    conditioning: str | Sequence[str] = "none",
    out: str | os.PathLike[str] | None = None,
    pooling: str = "mean",
    seed: int = 0,
    template: str = TEMPLATE,
    batch_size: int | str = "auto",
    progress: bool = True,
) -> FeatureStore:
    """Extract features: noise each image, run the denoiser once, pool the blocks that were asked for.

    Parameters
    ----------
    model : OpenedModel
        From `load_model`.
    stimuli : Stimuli
        For example ``data.stimuli``, or a part of it.
    blocks : str or sequence of str, optional
        Paths, patterns or kinds; see `model.blocks()`. By default the stages (down, mid, up).
    noise_levels : sequence of float
        Positions in the training schedule, 0–1.
    conditioning : str or sequence of str
        Among ``"none"``, ``"label"``, ``"caption"``, ``"shuffled"``.
    out : path-like, optional
        Folder of the store. What is there already is reused if the request is the same, and an error if
        it is not. None keeps the features in memory.
    pooling : {"mean", "max", "none"}
        Over space (Linhardt et al. 2024 take the mean).
    seed : int
        Of the noise (each stimulus's noise depends on this and its name alone) and of shuffled labels.
    template : str
        Prompt for ``"label"`` and ``"shuffled"``; holds ``{name}``.
    batch_size : int or "auto"
        Images a forward pass. Speed only: the features are the same within 1e-5.
    progress : bool
        Whether to show a bar with rate and end time.

    Returns
    -------
    FeatureStore
        Showing what was asked for, even if the folder holds more.

    Raises
    ------
    UnknownNameError
        For an unknown block, conditioning or pooling.
    BadInputError
        For a noise level outside 0–1, two levels with the same timestep, no stimuli, a folder that cannot
        be written to.
    MismatchError
        If `out` holds a store of another request; the difference is named.
    NonFiniteError
        For NaN or infinite activations; block, noise level and image are named.
    UnreadableImageError
        For a picture that cannot be opened. What was computed before it is kept.

    Examples
    --------
    >>> store = lk.extract(model, data.stimuli, blocks="up", noise_levels=[0.3])  # doctest: +SKIP

    Notes
    -----
    One pass a picture, noise level and conditioning: activations of a single forward pass, without
    classifier-free guidance. Chunks of 32 stimuli are written as they are finished; a run that was killed
    repeats at most the chunk it was in, in the same batches, so that the bytes come out the same.
    """
    if not len(stimuli):
        raise BadInputError("There are no stimuli to extract. Check the dataset or the selection.")
    if pooling not in POOLINGS:
        raise unknown_name("pooling", pooling, POOLINGS, "Choose one of these.")
    batch = _batch_size(batch_size, model)
    paths = model.select_blocks(blocks)
    levels = _distinct_levels(model, noise_levels)
    conditionings = [conditioning] if isinstance(conditioning, str) else list(conditioning)
    prompts = {name: prompts_for(name, stimuli, template=template, seed=seed) for name in conditionings}
    request = {
        **model.identity.as_dict(),
        "dataset": stimuli.dataset,
        "pooling": pooling,
        "preprocessing": model.preprocessing,
        "seed": seed,
        "template": template,
    }
    table: Any = model.blocks().set_index("block")
    with opened_for_writing(out) as (group, where):
        names = prepare(group, where, request, stimuli, prompts)
        arrays = {}
        for block in paths:
            shape = (int(table.loc[block, "channels"]),) if pooling != "none" else table.loc[block, "shape"]
            for level in levels:
                for name in conditionings:
                    key = CellKey(block, level.level, name)
                    about = {
                        "block": block,
                        "depth": int(table.loc[block, "depth"]),
                        "noise_level": level.level,
                        "timestep": level.timestep,
                        "sigma": level.sigma,
                        "conditioning": name,
                        "pooling": pooling,
                    }
                    arrays[key] = array_for(group, key, len(names), shape, CHUNK, about)
        _fill(model, stimuli, names, arrays, levels, prompts, pooling, seed, batch, progress)
    store = FeatureStore(group, where)
    return store.select(
        blocks=paths,
        noise_levels=[level.level for level in levels],
        conditioning=conditionings,
        names=stimuli.names,
    )


def _fill(
    model: OpenedModel,
    stimuli: Stimuli,
    names: Sequence[str],
    arrays: dict[CellKey, Any],
    levels: Sequence[NoiseLevel],
    prompts: dict[str, list[str]],
    pooling: str,
    seed: int,
    batch: int,
    progress: bool,
) -> None:
    """Compute what is missing, chunk by chunk."""
    asked = np.array([name in stimuli for name in names])
    missing = {key: missing_rows(array) & asked for key, array in arrays.items()}
    passes = {(key.noise_level, key.conditioning): np.zeros(len(names), dtype=bool) for key in arrays}
    for key, rows in missing.items():
        passes[key.noise_level, key.conditioning] |= rows
    todo = sum(int(rows.sum()) for rows in passes.values())
    total = len(stimuli) * len(passes)
    if 0 < todo < total:
        print(f"Resuming: {total - todo:,} of {total:,} passes are in the store, {todo:,} are missing.")
    with tqdm(total=todo, unit="pass", desc="extracting", disable=not progress or not todo) as bar:
        for start in range(0, len(names), CHUNK):
            rows = np.arange(start, min(start + CHUNK, len(names)))
            if not any(wanted[rows].any() for wanted in missing.values()):
                continue
            fresh: dict[CellKey, npt.NDArray[np.float32]] = {}
            for batch_rows in _batches(rows, missing, batch):
                batch_names = [names[row] for row in batch_rows]
                latents = model.encode([stimuli.open(name) for name in batch_names])
                noise = model.noise(batch_names, seed)
                where = [stimuli.index(name) for name in batch_names]
                for level in levels:
                    noised = model.add_noise(latents, noise, level)
                    for conditioning, given in prompts.items():
                        wanted = [
                            key
                            for key in arrays
                            if (key.noise_level, key.conditioning) == (level.level, conditioning)
                            and missing[key][batch_rows].any()
                        ]
                        if not wanted:
                            continue
                        text = model.texts([given[row] for row in where])
                        seen = model.watch(
                            noised,
                            level,
                            text,
                            [key.block for key in wanted],
                            keep=lambda tensor, layout: pool(tensor, layout, pooling),
                        ).seen
                        for key in wanted:
                            values = _checked(seen[key.block], key, batch_names)
                            if key not in fresh:
                                fresh[key] = np.asarray(arrays[key][rows[0] : rows[-1] + 1])
                            fresh[key][batch_rows - start] = values
                        bar.update(int(passes[level.level, conditioning][batch_rows].sum()))
            for key, chunk in fresh.items():
                arrays[key][rows[0] : rows[-1] + 1] = chunk


def _batches(rows: npt.NDArray[np.int64], missing: Missing, batch: int) -> Iterator[npt.NDArray[np.int64]]:
    """Cut the rows of a chunk that miss anything into batches; no batch spans two chunks."""
    open_rows = rows[np.any([wanted[rows] for wanted in missing.values()], axis=0)]
    for start in range(0, len(open_rows), batch):
        yield open_rows[start : start + batch]


def _checked(tensor: torch.Tensor, key: CellKey, names: Sequence[str]) -> npt.NDArray[np.float32]:
    values: npt.NDArray[np.float32] = tensor.cpu().numpy()
    bad = ~np.isfinite(values.reshape(len(values), -1)).all(axis=1)
    if bad.any():
        raise NonFiniteError(
            f"Block {key.block!r} gave NaN or infinity at noise level {key.noise_level:g} "
            f"({key.conditioning}) for {names[int(np.flatnonzero(bad)[0])]!r}. Half precision may have overflowed: "
            "load the model with dtype='float32'. What was finished before is kept in the store."
        )
    return values


def _distinct_levels(model: OpenedModel, noise_levels: Sequence[float]) -> list[NoiseLevel]:
    levels = [model.level(level) for level in np.atleast_1d(np.asarray(noise_levels, dtype=object))]
    if not levels:
        raise BadInputError("No noise level was given. Give numbers from 0 (clean) to 1 (noise).")
    seen: dict[int, float] = {}
    for level in levels:
        if level.timestep in seen:
            raise BadInputError(
                f"Noise levels {seen[level.timestep]:g} and {level.level:g} both fall on timestep {level.timestep} of "
                f"{model.steps}. Drop one of them."
            )
        seen[level.timestep] = level.level
    return sorted(levels, key=lambda level: level.level)


def _batch_size(batch_size: int | str, model: OpenedModel) -> int:
    if batch_size == "auto":
        return 16 if model.device.type == "cpu" else CHUNK
    if isinstance(batch_size, bool) or not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
        raise BadInputError(f"Batch size {batch_size!r}: give a whole number from 1, or 'auto'.")
    return int(batch_size)
