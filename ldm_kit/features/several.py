"""The same stimuli through several models, one store each, for comparing them."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ldm_kit.datasets.stimuli import Stimuli
from ldm_kit.errors import BadInputError, ModelNotFoundError, unknown_name
from ldm_kit.features.extraction import extract
from ldm_kit.features.prompts import CONDITIONINGS
from ldm_kit.features.store import FeatureStore
from ldm_kit.models.load import load_model
from ldm_kit.models.noise import check_level
from ldm_kit.models.registry import find_model

logger = logging.getLogger(__name__)

# Blocks that are whole pictures: their mean over space is a colour, so all their numbers are kept.
WHOLE = ("pixels", "latent")


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
        For models that take noise; the others are given the clean picture.
    conditioning : str
        For models that read text. For ``"none"`` and ``"empty"`` a text encoder, which sees nothing else, is given the
        label.
    on_error : {"raise", "skip"}
        What to do about a model that is not to be had (gated, not downloaded): raise, or say so and go on.
    device, dtype
        As for `load_model`.
    **options
        More for `extract`.

    Returns
    -------
    dict of str to FeatureStore
        By the names asked for, in their order. Pixels and latents are kept whole, all else is pooled; of a text
        encoder there is the last token alone.

    Raises
    ------
    UnknownNameError
        If `on_error`, `conditioning` or a model's name is unknown: before any model is opened.
    ModelNotFoundError
        If a model is not to be had and is not skipped, or none is.

    Examples
    --------
    >>> stores = lk.extract_models(["tiny-ldm", "pixels"], data.stimuli, out="outputs/models")  # doctest: +SKIP
    """
    if on_error not in ("raise", "skip"):
        raise unknown_name("on_error", on_error, ("raise", "skip"), "Choose one of these.")
    if len(set(models)) < len(models) or not models:
        raise BadInputError(f"The models {list(models)} must be one or more, each named once.")
    # All of it now, not when the models before have been through.
    for name in models:
        find_model(name)  # an error for a name that cannot be one
    for level in () if noise_levels is None else np.atleast_1d(np.asarray(noise_levels, dtype=object)):
        check_level(level)
    if conditioning not in CONDITIONINGS:
        raise unknown_name("conditioning", conditioning, CONDITIONINGS, "Choose one of these.")
    stores = {}
    for name in models:
        try:
            model = load_model(name, device=device, dtype=dtype)
        except ModelNotFoundError as error:
            if on_error == "raise":
                raise
            logger.warning("Skipped %s: %s", name, error)
            continue
        whole = set(model.select_blocks()) <= set(WHOLE)
        stores[name] = extract(
            model,
            stimuli,
            blocks="last_token" if model.reads_text and not model.takes_noise else None,
            out=Path(out) / re.sub(r"[^\w.-]+", "-", name).strip("-"),
            noise_levels=noise_levels if model.takes_noise else None,
            conditionings=_conditioning(model, conditioning),
            pooling="flat" if whole else "mean",
            **options,
        )
        del model  # its memory is wanted for the next
    if not stores:
        raise ModelNotFoundError(
            f"None of the models {list(models)} is to be had. Download one, or try 'tiny-ldm'."
        )
    return stores


def _conditioning(model: Any, wanted: str) -> str:
    if not model.reads_text:
        return "none"
    return "label" if not model.takes_noise and wanted in ("none", "empty") else wanted
