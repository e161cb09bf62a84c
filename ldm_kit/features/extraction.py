"""Extraction: a request becomes a store, and what is missing there is computed."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ldm_kit.datasets.stimuli import Stimuli
from ldm_kit.errors import BadInputError, MismatchError, unknown_name, whole_number
from ldm_kit.features.conditioning import conditionings_for
from ldm_kit.features.passes import CHUNK, UNUSABLE, Plan, fill, refuse
from ldm_kit.features.prompts import TEMPLATE, prompts_for
from ldm_kit.features.store import SAME_LEVEL, CellKey, FeatureStore
from ldm_kit.features.writing import (
    array_for,
    drop_bad_chunks,
    make_groups,
    note_refused,
    opened_for_writing,
    prepare,
)
from ldm_kit.models.blocks import POOLINGS, pooled_shape
from ldm_kit.models.model import OpenedModel
from ldm_kit.models.noise import NoiseLevel

logger = logging.getLogger(__name__)

NOISE_LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)
CHOICES = {
    "pooling": POOLINGS,
    "posterior": ("mean", "sample"),
    "store_dtype": ("float32", "float16"),
    "on_nonfinite": ("raise", "skip"),
    "on_error": ("raise", "skip"),
}


def extract(
    model: OpenedModel,
    stimuli: Stimuli,
    *,
    blocks: str | Sequence[str] | None = None,
    noise_levels: Sequence[float] | None = None,
    conditionings: str | Sequence[str] = "none",
    out: str | os.PathLike[str] | None = None,
    pooling: str = "mean",
    seed: int = 0,
    template: str = TEMPLATE,
    embedding: npt.ArrayLike | Mapping[str, npt.ArrayLike] | None = None,
    timesteps: str = "exact",
    n_noise: int = 1,
    posterior: str = "mean",
    store_dtype: str = "float32",
    on_nonfinite: str = "raise",
    on_error: str = "raise",
    repair: bool = False,
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
    noise_levels : sequence of float, optional
        Positions in the training schedule, 0–1 (sigma, for flow matching); by default 0.1, 0.3, … 0.9,
        and 0 for an encoder, which takes no noise. In a variance-preserving schedule 0 is timestep 0, not a clean
        image, and 1 may leave some signal: the tables' column ``signal_share`` tells how much.
    conditionings : str or sequence of str
        Among ``"none"`` (the family's own unconditional input, what its diffusers pipeline sets against the prompt
        for guidance: the encoded empty prompt, but zeros for SDXL if its configuration says so, and for unCLIP models
        no image's embedding; ``store.prompts("none")`` tells which), ``"empty"`` (the encoded empty prompt, for
        every family), ``"label"``, ``"caption"``, ``"shuffled"``, ``"embedding"`` (vectors given by
        `embedding`) and ``"image"`` (for models like DALL·E 2 only: the stimulus's own image embedding,
        a control, since it tells the model what it is to see).
    out : path-like, optional
        Folder of the store. What is there already is reused if the request is the same, and an error if
        it is not. None keeps the features in memory.
    pooling : {"mean", "max", "none", "tokens", "flat"}
        Over space (Linhardt et al. 2024 take the mean). ``"none"`` keeps maps; ``"tokens"`` keeps all
        positions as a sequence, (tokens, channels); ``"flat"`` keeps all numbers as one vector, for pixels
        and latents, whose mean over space says little.
    seed : int
        Of the noise (each stimulus's noise depends on this and its name alone) and of shuffled labels.
    template : str
        Prompt for ``"label"`` and ``"shuffled"``; holds ``{name}``.
    embedding : array-like (tokens, channels), or mapping of str to such, optional
        For the conditioning ``"embedding"``: in place of the text encoder's output, for example learnt
        vectors; one sequence for all stimuli, or one for each name or concept.
    timesteps : {"exact", "linhardt2024"}
        ``"linhardt2024"`` takes those that img2img rounds to, as in Linhardt et al. 2024.
    n_noise : int
        Draws of noise that features are averaged over (the paper's avg5: 5); each costs a pass.
    posterior : {"mean", "sample"}
        What is taken of the VAE's posterior; a sample depends on the seed and the stimulus's name alone.
    store_dtype : {"float32", "float16"}
        Of the arrays on disk.
    on_nonfinite : {"raise", "skip"}
        What to do about activations that are NaN or infinite: raise, or note them in the store
        (`store.table()` counts them, `store.finite()` shows the rest).
    on_error : {"raise", "skip"}
        What to do about an image that cannot be used: raise, or go on and list those at the end
        (`store.refused` keeps the list, and the store does not show them).
    repair : bool
        Whether to compute anew what is damaged in the store, for the stimuli and cells asked for (`store.verify()`
        lists damaged chunks). By default it is an error.
    batch_size : int or "auto"
        Images a forward pass. Speed only: the features are the same within 1e-5.
    progress : bool
        Whether to show a bar with rate and end time.

    Returns
    -------
    FeatureStore
        Showing what was asked for, even if the folder holds more; without pictures that were skipped.

    Raises
    ------
    UnknownNameError
        For an unknown block, conditioning, pooling or other choice.
    BadInputError
        For a noise level outside 0–1, two levels with the same timestep, no stimuli, a folder that cannot
        be written to, a store that is damaged.
    MismatchError
        If `out` holds a store of another request; the difference is named.
    NonFiniteError
        For NaN or infinite activations; block, noise level and image are named.
    UnreadableImageError
        For an image that cannot be used. The batches that were finished before it are kept.

    Examples
    --------
    >>> store = lk.extract(model, data.stimuli, blocks="up", noise_levels=[0.3])  # doctest: +SKIP

    Notes
    -----
    All parameters are checked before anything is computed or written. A store that has all that is asked for is
    not written to, so it may lie on a read-only disk.

    One pass a picture, noise level and conditioning: activations of a single forward pass, without
    classifier-free guidance. Chunks of 32 stimuli are written as they are finished; a run that was killed
    repeats at most the chunk it was in, in the same batches, so that the bytes come out the same. An error or
    Ctrl-C writes the batches that it finds finished.
    """
    given = {
        "pooling": pooling,
        "posterior": posterior,
        "store_dtype": store_dtype,
        "on_nonfinite": on_nonfinite,
        "on_error": on_error,
    }
    for name, value in given.items():
        if not isinstance(value, str) or value not in CHOICES[name]:
            raise unknown_name(name, value, CHOICES[name], "Choose one of these.")
    if not isinstance(model, OpenedModel):
        raise BadInputError(f"The model is a {type(model).__name__}. Open one with `lk.load_model`.")
    if not isinstance(stimuli, Stimuli):
        raise BadInputError(
            f"The stimuli are a {type(stimuli).__name__}. Give `data.stimuli`, or a part of it."
        )
    for name, flag in (("repair", repair), ("progress", progress)):
        if not isinstance(flag, bool):
            raise BadInputError(f"{name}={flag!r}: give True or False.")
    if out is not None and (not isinstance(out, (str, os.PathLike)) or not str(out)):
        raise BadInputError(
            f"out={out!r}: give the path of a folder, or None to keep the features in memory."
        )
    seed = whole_number("seed", seed, 0)
    batch = _batch_size(batch_size, model)
    _check_applies(model, n_noise, posterior)
    if not isinstance(template, str):
        raise BadInputError(f"template={template!r}: give a text that holds {{name}}, such as {TEMPLATE!r}.")
    prompts_for("label", stimuli[:0], template=template)
    paths = model.select_blocks(None if blocks is None else _named("blocks", blocks))
    levels = _distinct_levels(model, noise_levels, timesteps)
    asked_for = _named("conditionings", conditionings)
    if not asked_for:
        raise BadInputError("No conditioning was given. Name at least one, for example 'none'.")
    cells = _cells(model, paths, levels, asked_for, pooling)
    refused: dict[str, str] = {}
    fingerprints = _fingerprints(stimuli, on_error, refused)
    if refused and not fingerprints:
        name, reason = next(iter(refused.items()))
        raise BadInputError(f"None of the {len(refused)} images can be used; {name}: {reason}")
    if not fingerprints:
        raise BadInputError("There are no stimuli to extract. Check the dataset or the selection.")
    stimuli = stimuli.select(fingerprints) if refused else stimuli
    worded = conditionings_for(asked_for, model, stimuli, template=template, seed=seed, embedding=embedding)
    request = {
        **model.identity.as_dict(),
        "dataset": stimuli.dataset,
        "pooling": pooling,
        "preprocessing": {**model.preprocessing, **({"posterior": posterior} if posterior != "mean" else {})},
        "seed": seed,
        "template": template,
        "unconditional": model.unconditional,  # what the conditioning "none" stands for
        "timesteps": timesteps,
        "n_noise": int(n_noise),
        "store_dtype": store_dtype,
    }
    with opened_for_writing(out, request, repair) as (group, where):
        _check_timesteps_distinct(group, levels)
        prompts = {c.name: c.prompts for c in worded}
        names = prepare(group, where, request, stimuli, fingerprints, prompts)
        make_groups(group, [key for key, *_ in cells])
        arrays = {
            key: array_for(group, key, len(names), shape, CHUNK, about, store_dtype, repair)
            for key, shape, about in cells
        }
        for array in arrays.values() if repair else ():
            drop_bad_chunks(array)
        plan = Plan(
            model=model,
            stimuli=stimuli,
            names=names,
            arrays=arrays,
            levels=levels,
            conditionings=worded,
            pooling=pooling,
            seed=seed,
            n_noise=n_noise,
            posterior=posterior,
            batch=batch,
            on_nonfinite=on_nonfinite,
            on_error=on_error,
            refused=refused,
        )
        fill(plan, progress)
        note_refused(group, stimuli.names, refused)
        store = FeatureStore(group, where)  # before another process may add to it
    if refused:
        listed = "\n".join(f"- {name}: {reason}" for name, reason in sorted(refused.items()))
        logger.warning("Skipped %d images that could not be used:\n%s", len(refused), listed)
    shown = set(store.cells())
    lost = [key.path for key in arrays if key not in shown]
    if lost:
        raise MismatchError(
            f"{len(lost)} of the {len(arrays)} cells that were asked for are not in the store {where!r}, the first is "
            f"{lost[0]!r}. Something else changed its files meanwhile: run the same `lk.extract` again."
        )
    return store.select(
        blocks=paths,
        noise_levels=[level.level for level in levels],
        conditionings=asked_for,
        names=[name for name in stimuli.names if name not in refused],
    )


def _cells(
    model: OpenedModel,
    paths: Sequence[str],
    levels: Sequence[NoiseLevel],
    conditionings: Sequence[str],
    pooling: str,
) -> list[tuple[CellKey, tuple[int, ...], dict[str, Any]]]:
    """Key, shape and attributes of every array of the grid."""
    table: Any = model.blocks().set_index("block")
    return [
        (
            CellKey(block, level.level, conditioning),
            pooled_shape(table.loc[block, "shape"], pooling),
            {
                "block": block,
                "depth": int(table.loc[block, "depth"]),
                "noise_level": level.level,
                "timestep": level.timestep,
                "sigma": level.sigma,
                "signal_share": level.signal_share,
                "conditioning": conditioning,
                "pooling": pooling,
            },
        )
        for block in paths
        for level in levels
        for conditioning in conditionings
    ]


def _fingerprints(stimuli: Stimuli, on_error: str, refused: dict[str, str]) -> dict[str, str]:
    """Fingerprint the images, leaving out those that are not even there, if they may be skipped."""
    found = {}
    for name in stimuli.names:
        try:
            found[name] = stimuli.fingerprint(name)
        except UNUSABLE as error:
            refuse(name, error, on_error, refused)
    return found


def _distinct_levels(
    model: OpenedModel, noise_levels: Sequence[float] | None, timesteps: str
) -> list[NoiseLevel]:
    if noise_levels is None:
        noise_levels = NOISE_LEVELS if model.takes_noise else (0.0,)
    given = np.atleast_1d(np.asarray(noise_levels, dtype=object))
    # Six digits are what a store's paths name.
    levels = [
        replace(found, level=float(f"{found.level:.6g}"))
        for found in (model.level(x, timesteps) for x in given)
    ]
    if not levels:
        raise BadInputError(
            "No noise level was given. Give numbers from 0 to 1, positions in the training schedule."
        )
    seen: dict[float, float] = {}
    for level in levels:
        if level.timestep in seen:
            raise BadInputError(
                f"Noise levels {seen[level.timestep]:g} and {level.level:g} both fall on timestep {level.timestep} of "
                f"{model.steps}. Drop one of them."
            )
        seen[level.timestep] = level.level
    return sorted(levels, key=lambda level: level.level)


def _check_timesteps_distinct(group: Any, levels: Sequence[NoiseLevel]) -> None:
    """Raise if the store holds one of the timesteps under another noise level."""
    held = {
        float(array.attrs["timestep"]): float(array.attrs["noise_level"])
        for _, array in group.members(max_depth=None)
        if "timestep" in array.attrs
    }
    for level in levels:
        there = held.get(float(level.timestep), level.level)
        if abs(there - level.level) >= SAME_LEVEL:
            raise BadInputError(
                f"Noise level {level.level:g} falls on timestep {level.timestep:g}, which the store holds as "
                f"{there:g}. Ask for {there:g}."
            )


def _check_applies(model: OpenedModel, n_noise: Any, posterior: str) -> None:
    """Raise for options that would change nothing but the bill."""
    whole_number("n_noise", n_noise, 1)
    if n_noise > 1 and not model.takes_noise:
        raise BadInputError(f"n_noise={n_noise}: {model.identity.model!r} takes no noise. Leave it at 1.")
    if posterior == "sample" and model.preprocessing.get("posterior", "none") == "none":
        raise BadInputError(
            f"posterior='sample': {model.identity.model!r} has no autoencoder with a posterior to sample. "
            "Leave it at 'mean'."
        )


def _named(parameter: str, given: str | Sequence[str]) -> list[str]:
    """Give the names in a parameter that takes one or several, each once."""
    names = [given] if isinstance(given, str) or not isinstance(given, Iterable) else list(given)
    if not all(isinstance(name, str) for name in names):
        raise BadInputError(f"{parameter}={given!r}: give a name, or a list of names.")
    return list(dict.fromkeys(names))


def _batch_size(batch_size: int | str, model: OpenedModel) -> int:
    if batch_size == "auto":
        return 16 if model.device.type == "cpu" else CHUNK
    if isinstance(batch_size, str):
        raise BadInputError(f"Batch size {batch_size!r}: give a whole number from 1, or 'auto'.")
    return whole_number("batch_size", batch_size, 1)
