"""Extraction: a request becomes a store, and what is missing there is computed, for one model or several."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ldm_kit.datasets.stimuli import Stimuli
from ldm_kit.errors import BadInputError, MismatchError, ModelNotFoundError, one_of, whole_number
from ldm_kit.features.conditioning import CONDITIONINGS, TEMPLATE
from ldm_kit.features.passes import fill
from ldm_kit.features.request import CHOICES, Request
from ldm_kit.features.store import FeatureStore
from ldm_kit.features.store_files import note_refused, opened_for_writing, prepare
from ldm_kit.models.load import load_model
from ldm_kit.models.model import OpenedModel
from ldm_kit.models.noise import check_level
from ldm_kit.models.registry import find_model

logger = logging.getLogger(__name__)

# Blocks that are whole images: their mean over space is a colour, so all their numbers are stored.
WHOLE = {"pixels", "latent"}


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
    draws: str = "mean",
    posterior: str = "mean",
    store_dtype: str = "float32",
    on_nonfinite: str = "raise",
    on_error: str = "raise",
    repair: bool = False,
    batch_size: int | str = "auto",
    progress: bool = True,
) -> FeatureStore:
    """Extract features: add noise to each image, run the denoiser once, pool the chosen blocks.

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
        image, and 1 may leave some signal: the tables' column ``signal_share`` is the signal's share of the variance.
    conditionings : str or sequence of str
        Among ``"none"`` (the family's own unconditional input, what its diffusers pipeline contrasts with the prompt
        for guidance: the encoded empty prompt, but zeros for SDXL if its configuration says so, and for unCLIP models
        no image's embedding; ``store.prompts("none")`` tells which), ``"empty"`` (the encoded empty prompt, for
        every family), ``"label"``, ``"caption"``, ``"shuffled"``, ``"embedding"`` (the vectors of
        `embedding`) and ``"image"`` (for models like DALL·E 2 only: the stimulus's own image embedding,
        a control).
    out : path-like, optional
        Folder of the store. What it has is reused if the request is the same, and an error if
        it is not. None: the features stay in memory.
    pooling : {"mean", "max", "none", "tokens", "flat"}
        Over space (Linhardt et al. 2024 take the mean). ``"none"`` stores maps; ``"tokens"`` all
        positions as a sequence, (tokens, channels); ``"flat"`` all numbers as one vector, for pixels
        and latents, whose mean over space is little more than a colour.
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
        Noise samples an image (the paper's avg5: 5); each costs a pass.
    draws : {"mean", "apart"}
        Whether features are averaged over the noise samples or each sample's are kept, in cells of their own (see
        `FeatureStore`). Apart, they show how far a result depends on the noise that happened to be drawn, and a larger
        `n_noise` computes only the new ones: sample k is the same in every store, and sample 0 is what ``n_noise=1`` gives.
    posterior : {"mean", "sample"}
        What is taken of the VAE's posterior; a sample depends on the seed and the stimulus's name alone.
    store_dtype : {"float32", "float16"}
        Of the arrays on disk.
    on_nonfinite : {"raise", "skip"}
        What to do about activations that are NaN or infinite: raise, or note them in the store
        (`store.table()` counts them, `store.finite()` shows the rest).
    on_error : {"raise", "skip"}
        What to do about an image that cannot be used: raise, or go on and list those at the end
        (`store.refused` lists them, and the store does not show them).
    repair : bool
        Whether to compute anew what is damaged in the store, for the requested stimuli and cells (`store.verify()`
        lists damaged chunks). By default it is an error.
    batch_size : int or "auto"
        Images a forward pass. Speed only: the features are the same within 1e-5.
    progress : bool
        Whether to show a bar with rate and end time.

    Returns
    -------
    FeatureStore
        Showing what was requested, even if the folder has more; without images that were skipped.

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
        For an image that cannot be used. The batches finished before it stay in the store.

    Examples
    --------
    >>> store = lk.extract(model, data.stimuli[:4], blocks="up", noise_levels=[0.3], progress=False)
    >>> store.conditionings, len(store)
    (('none',), 4)

    Notes
    -----
    All parameters are checked before anything is computed or written. A store that has all that is requested is
    not written to, so it may lie on a read-only disk.

    One pass an image, noise level and conditioning: activations of a single forward pass, without
    classifier-free guidance. Chunks of 32 stimuli are written as they are finished; a run that was killed
    repeats at most the chunk it was in, in the same batches, so that the bytes come out the same. An error or
    Ctrl-C writes the batches that it finds finished.
    """
    request = Request.checked(locals())
    with opened_for_writing(request) as (group, where):
        names, arrays = prepare(group, where, request)
        refused = fill(request, names, arrays)
        note_refused(group, request.stimuli.names, refused)
        store = FeatureStore(group, where)  # before another process may add to it
    if refused:
        lines = "\n".join(f"- {name}: {reason}" for name, reason in sorted(refused.items()))
        logger.warning("Skipped %d images that could not be used:\n%s", len(refused), lines)
    there = set(store.cells())
    lost = [key.path for key in arrays if key not in there]
    if lost:
        raise MismatchError(
            f"{len(lost)} of the {len(arrays)} cells that were requested are not in the store {where!r}, the first is "
            f"{lost[0]!r}. Something else changed its files meanwhile: run the same `lk.extract` again."
        )
    return store.select(
        blocks=request.blocks,
        noise_levels=[level.level for level in request.noise_levels],
        conditionings=[conditioning.name for conditioning in request.conditionings],
        names=[name for name in request.stimuli.names if name not in refused],
        draws=range(request.n_noise) if request.draws == "apart" else None,
    )


def extract_models(
    models: Sequence[str],
    stimuli: Stimuli,
    *,
    out: str | os.PathLike[str],
    noise_levels: Sequence[float] | None = None,
    conditioning: str = "none",
    on_error: str = "raise",
    device: str | None = None,
    dtype: str | None = None,
    n_noise: int = 1,
    draws: str = "mean",
    **options: Any,
) -> dict[str, FeatureStore]:
    """Extract the default blocks of several models, one after the other, each into a store of its own.

    Parameters
    ----------
    models : sequence of str
        As for `load_model`: ``"tiny-ldm"``, ``"untrained:tiny-ldm"``, ``"latent:tiny-ldm"``, ``"pixels"``,
        ``"text:tiny-ldm"``, ``"vision:facebook/dinov2-base"``, …
    stimuli : Stimuli
    out : path-like
        A folder; each model's store lies in it under the model's name.
    noise_levels : sequence of float, optional
        For models that take noise; the others get the clean image.
    conditioning : str
        For models that read text. For ``"none"`` and ``"empty"`` a text encoder, which has no image, gets the label.
    on_error : {"raise", "skip"}
        What to do about a model that is not available (gated, not downloaded) and, as in `extract`, about an image that
        cannot be used: raise, or log it and continue.
    device, dtype
        As for `load_model`.
    n_noise, draws
        As for `extract`, for models that take noise.
    **options
        More for `extract`.

    Returns
    -------
    dict of str to FeatureStore
        By the models' names, in their order. Pixels and latents are stored whole, all else is pooled; of a text
        encoder there is the last token alone.

    Raises
    ------
    UnknownNameError
        If `on_error`, `conditioning` or a model's name is unknown: before any model is opened.
    ModelNotFoundError
        If a model is not available and not skipped, or none is.

    Examples
    --------
    >>> stores = lk.extract_models(["pixels", "latent:tiny-ldm"], data.stimuli[:4], out="models", progress=False)
    >>> [len(store) for store in stores.values()]
    [4, 4]
    """
    one_of("on_error", on_error, ("raise", "skip"))
    if len(set(models)) < len(models) or not models:
        raise BadInputError(f"The models {list(models)} must be one or more, each named once.")
    # All is checked before the first model is opened.
    for name in models:
        find_model(name)  # an error for a name that cannot be one
    for level in () if noise_levels is None else np.atleast_1d(np.asarray(noise_levels, dtype=object)):
        check_level(level)
    one_of("conditioning", conditioning, CONDITIONINGS)
    one_of("draws", draws, CHOICES["draws"])
    whole_number("n_noise", n_noise, 1)
    stores = {}
    for name in models:
        try:
            model = load_model(name, device=device, dtype=dtype)
        except ModelNotFoundError as error:
            if on_error == "raise":
                raise
            logger.warning("Skipped %s: %s", name, error)
            continue
        text_alone = model.reads_text and not model.takes_noise
        own = "label" if text_alone and conditioning in ("none", "empty") else conditioning
        stores[name] = extract(
            model,
            stimuli,
            blocks="last_token" if text_alone else None,
            out=Path(out) / re.sub(r"[^\w.-]+", "-", name).strip("-"),
            noise_levels=noise_levels if model.takes_noise else None,
            n_noise=n_noise if model.takes_noise else 1,
            draws=draws if model.takes_noise else "mean",
            conditionings=own if model.reads_text else "none",
            pooling="flat" if set(model.select_blocks()) <= WHOLE else "mean",
            on_error=on_error,
            **options,
        )
        del model  # frees its memory for the next
    if not stores:
        raise ModelNotFoundError(
            f"None of the models {list(models)} is available. Download one, or try 'tiny-ldm'."
        )
    return stores
