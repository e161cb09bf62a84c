"""The same stimuli through several models, one store each, for comparing them."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ldm_kit.datasets.stimuli import Stimuli
from ldm_kit.errors import BadInputError, ModelNotFoundError, unknown_name
from ldm_kit.features.extraction import extract
from ldm_kit.features.store import FeatureStore
from ldm_kit.models.loading import check_name, load_model
from ldm_kit.models.noise import check_level
from ldm_kit.models.prompts import CONDITIONINGS

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
    missing: str = "error",
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
    missing : {"error", "skip"}
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
        If `missing`, `conditioning` or a model's name is unknown: before any model is opened.
    ModelNotFoundError
        If a model is not to be had and is not skipped, or none is.

    Examples
    --------
    >>> stores = lk.extract_models(["tiny-ldm", "pixels"], data.stimuli, out="outputs/models")  # doctest: +SKIP
    """
    if missing not in ("error", "skip"):
        raise unknown_name("missing", missing, ("error", "skip"), "Choose one of these.")
    if len(set(models)) < len(models) or not models:
        raise BadInputError(f"The models {list(models)} must be one or more, each named once.")
    # All of it now, not when the models before have been through.
    for name in models:
        check_name(name)
    for level in () if noise_levels is None else np.atleast_1d(np.asarray(noise_levels, dtype=object)):
        check_level(level)
    if conditioning not in CONDITIONINGS:
        raise unknown_name("conditioning", conditioning, CONDITIONINGS, "Choose one of these.")
    stores = {}
    for name in models:
        try:
            model = load_model(name, device=device, dtype=dtype)
        except ModelNotFoundError as error:
            if missing == "error":
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
            conditioning=_conditioning(model, conditioning),
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


def alignment_of_models(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Put the tables of several models under each other, with each block's relative depth.

    Parameters
    ----------
    tables : mapping of str to DataFrame
        The tidy table of each model.

    Returns
    -------
    pandas.DataFrame
        With `model` as asked for, and the column `relative_depth`: 0 for a model's first block, 1 for its
        last, evenly spaced between; 1 where there is but one.

    Examples
    --------
    >>> table = pd.DataFrame({"model": "m", "block": ["a", "b"], "depth": [3, 9]})
    >>> alignment_of_models({"mine": table})[["model", "relative_depth"]].values.tolist()
    [['mine', 0.0], ['mine', 1.0]]
    """
    parts = []
    for name, table in tables.items():
        order = {depth: rank for rank, depth in enumerate(sorted(table["depth"].unique()))}
        rank = table["depth"].map(order)
        parts.append(
            table.assign(model=name, relative_depth=rank / (len(order) - 1) if len(order) > 1 else 1.0)
        )
    return pd.concat(parts, ignore_index=True)
