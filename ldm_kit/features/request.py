"""A request is data: all that `extract` was called with, checked in one place; its identity is what a store records."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from typing import Any

import numpy as np

from ldm_kit.datasets.stimuli import Stimuli, unreadable
from ldm_kit.errors import BadInputError, MismatchError, UnreadableImageError, one_of, whole_number
from ldm_kit.features.conditioning import CONDITIONINGS, Conditioning, check_template, conditionings_for
from ldm_kit.models.blocks import POOLINGS
from ldm_kit.models.model import OpenedModel
from ldm_kit.models.noise import NoiseLevel

PACKAGES = ("ldm_kit", "torch", "diffusers", "transformers", "numpy", "zarr")
CHUNK = 32  # stimuli in a chunk of a store's arrays
NOISE_LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)
CHOICES = {
    "pooling": POOLINGS,
    "draws": ("mean", "apart"),
    "posterior": ("mean", "sample"),
    "store_dtype": ("float32", "float16"),
    "on_nonfinite": ("raise", "skip"),
    "on_error": ("raise", "skip"),
}
# What opening an image may raise; UnreadableImageError is an OSError.
UNUSABLE = (OSError, MemoryError)


@dataclass(frozen=True, eq=False)
class Request:
    """The parameters of `extract`, checked, and what they stand for.

    Parameters
    ----------
    stimuli : Stimuli
        Those that can be read.
    blocks : tuple of str
        Module paths.
    noise_levels : tuple of NoiseLevel
        Ascending.
    conditionings : tuple of Conditioning
    batch_size : int
    fingerprints, refused : dict of str to str
        Of the stimuli; why others cannot be read.
    model, out, pooling, seed, template, timesteps, n_noise, draws, posterior, store_dtype, on_nonfinite, on_error, repair, progress
        As for `extract`.
    """

    model: OpenedModel
    stimuli: Stimuli
    blocks: tuple[str, ...]
    noise_levels: tuple[NoiseLevel, ...]
    conditionings: tuple[Conditioning, ...]
    out: str | os.PathLike[str] | None
    pooling: str
    seed: int
    template: str
    timesteps: str
    n_noise: int
    draws: str
    posterior: str
    store_dtype: str
    on_nonfinite: str
    on_error: str
    repair: bool
    batch_size: int
    progress: bool
    fingerprints: dict[str, str]
    refused: dict[str, str]

    @classmethod
    def checked(cls, parameters: Mapping[str, Any]) -> Request:
        """Check all parameters of `extract`, by their names, before anything is computed or written."""
        given = dict(parameters)
        embedding = given.pop("embedding")
        model, stimuli, out = given["model"], given["stimuli"], given["out"]
        for name, allowed in CHOICES.items():
            one_of(name, given[name], allowed)
        if not isinstance(model, OpenedModel):
            raise BadInputError(f"The model is a {type(model).__name__}. Open one with `lk.load_model`.")
        if not isinstance(stimuli, Stimuli):
            raise BadInputError(
                f"The stimuli are a {type(stimuli).__name__}. Give `data.stimuli`, or a part of it."
            )
        for name in ("repair", "progress"):
            if not isinstance(given[name], bool):
                raise BadInputError(f"{name}={given[name]!r}: give True or False.")
        if out is not None and (not isinstance(out, (str, os.PathLike)) or not str(out)):
            raise BadInputError(
                f"out={out!r}: give the path of a folder, or None to keep the features in memory."
            )
        check_template(given["template"])
        given["seed"] = whole_number("seed", given["seed"], 0)
        given["n_noise"] = _checked_n_noise(given["n_noise"], given["draws"], model)
        given["batch_size"] = _checked_batch_size(given["batch_size"], model)
        if given["posterior"] == "sample" and model.preprocessing.get("posterior", "none") == "none":
            raise BadInputError(
                f"posterior='sample': {model.identity.model!r} has no autoencoder with a posterior to sample. "
                "Leave it at 'mean'."
            )
        blocks = None if given["blocks"] is None else _names("blocks", given["blocks"])
        given["blocks"] = tuple(model.select_blocks(blocks))
        given["noise_levels"] = _distinct_levels(model, given["noise_levels"], given["timesteps"])
        conditionings = _names("conditionings", given["conditionings"])
        if not conditionings:
            raise BadInputError("No conditioning was given. Name at least one, for example 'none'.")
        for name in conditionings:
            one_of("conditioning", name, CONDITIONINGS)
        fingerprints, refused = _fingerprints(stimuli, given["on_error"])
        stimuli = stimuli.select(fingerprints) if refused else stimuli
        given["stimuli"], given["fingerprints"], given["refused"] = stimuli, fingerprints, refused
        of_text = {"template": given["template"], "seed": given["seed"], "embedding": embedding}
        given["conditionings"] = tuple(conditionings_for(conditionings, model, stimuli, **of_text))
        return cls(**given)

    @property
    def kept_draws(self) -> tuple[int | None, ...]:
        """The noise samples that have cells of their own; None stands for the mean over all."""
        return tuple(range(self.n_noise)) if self.draws == "apart" else (None,)

    def as_dict(self) -> dict[str, Any]:
        """Return the identity of a store as plain data; what is not in it is the store's grid, or changes no number."""
        sampled = {"posterior": self.posterior} if self.posterior != "mean" else {}
        # Noise samples that are kept apart are part of the grid.
        noise = {"draws": "apart"} if self.draws == "apart" else {"n_noise": self.n_noise}
        return {
            **self.model.identity.as_dict(),
            "dataset": self.stimuli.dataset,
            "pooling": self.pooling,
            "preprocessing": {**self.model.preprocessing, **sampled},
            "seed": self.seed,
            "template": self.template,
            "unconditional": self.model.unconditional,  # what the conditioning "none" stands for
            "timesteps": self.timesteps,
            **noise,
            "store_dtype": self.store_dtype,
        }

    def check_same(self, stored: Mapping[str, Any], where: str) -> None:
        """Raise if the store at `where` was made by another request; name every field that differs."""
        here = self.as_dict()
        there = stored.get("draws", "mean")
        if there != self.draws:
            raise MismatchError(
                f"The store {where!r} was made with draws={there!r}, and draws={self.draws!r} is asked for here "
                "(`store.draws` lists noise samples that are kept apart, and is empty where features are their mean). Choose "
                f"another `out`, or ask for draws={there!r}{'; its `mean_of_draws()` averages them' * (there == 'apart')}."
            )
        differences = [
            f"{name} is {stored.get(name)!r} there and {here.get(name)!r} here"
            for name in {**stored, **here}
            if stored.get(name) != here.get(name)
        ]
        if differences:
            raise MismatchError(
                f"The store {where!r} was made by another request: {'; '.join(differences)}. "
                "Choose another `out`, or ask for what is there; nothing was changed."
            )


def as_list(values: Any) -> list[Any]:
    """List what a parameter holds that takes one value or several."""
    return [values] if isinstance(values, str) or not isinstance(values, Iterable) else list(values)


def _names(parameter: str, given: str | Sequence[str]) -> list[str]:
    """List the names in a parameter that takes one or several, each once."""
    names = as_list(given)
    if not all(isinstance(name, str) for name in names):
        raise BadInputError(f"{parameter}={given!r}: give a name, or a list of names.")
    return list(dict.fromkeys(names))


def _checked_n_noise(n_noise: Any, draws: str, model: OpenedModel) -> int:
    """Check the number of noise samples; several would change nothing but the bill for a model that takes no noise."""
    if whole_number("n_noise", n_noise, 1) > 1 and not model.takes_noise:
        raise BadInputError(f"n_noise={n_noise}: {model.identity.model!r} takes no noise. Leave it at 1.")
    if draws == "apart" and not model.takes_noise:
        raise BadInputError(
            f"draws='apart': {model.identity.model!r} takes no noise, so it has no noise samples. Leave it at 'mean'."
        )
    return int(n_noise)


def _checked_batch_size(batch_size: Any, model: OpenedModel) -> int:
    """Check the number of images a forward pass, or choose it."""
    if isinstance(batch_size, str) and batch_size == "auto":
        return 16 if model.device.type == "cpu" else CHUNK
    return whole_number("batch_size", batch_size, 1)


def _distinct_levels(
    model: OpenedModel, noise_levels: Sequence[float] | None, timesteps: str
) -> tuple[NoiseLevel, ...]:
    """Place noise levels in the model's schedule, ascending, each on a timestep of its own."""
    if noise_levels is None:
        noise_levels = NOISE_LEVELS if model.takes_noise else (0.0,)
    placed = [
        model.level(level, timesteps) for level in np.atleast_1d(np.asarray(noise_levels, dtype=object))
    ]
    if not placed:
        raise BadInputError(
            "No noise level was given. Give numbers from 0 to 1, positions in the training schedule."
        )
    found: dict[float, NoiseLevel] = {}
    for one in placed:
        level = replace(one, level=float(f"{one.level:.6g}"))  # six digits are what a store's paths name
        if level.timestep in found:
            raise BadInputError(
                f"Noise levels {found[level.timestep].level:g} and {level.level:g} both fall on timestep "
                f"{level.timestep} of {model.steps}. Drop one of them."
            )
        found[level.timestep] = level
    return tuple(sorted(found.values(), key=lambda level: level.level))


def _fingerprints(stimuli: Stimuli, on_error: str) -> tuple[dict[str, str], dict[str, str]]:
    """Fingerprint the images that can be read; of the others return why they cannot."""
    found: dict[str, str] = {}
    refused: dict[str, str] = {}
    for name in stimuli.names:
        try:
            found[name] = stimuli.fingerprint(name)
        except UNUSABLE as error:
            refuse(name, error, on_error, refused)
    if refused and not found:
        name, reason = next(iter(refused.items()))
        raise BadInputError(f"None of the {len(refused)} images can be used; {name}: {reason}")
    if not found:
        raise BadInputError("There are no stimuli to extract. Check the dataset or the selection.")
    return found, refused


def refuse(name: str, error: Exception, on_error: str, refused: dict[str, str]) -> None:
    """Note an image that cannot be used among the `refused`, or raise an error that names it, as `on_error` says."""
    if isinstance(error, MemoryError):
        error = unreadable(name, "it takes more memory than there is")
    elif not isinstance(error, UnreadableImageError):
        error = unreadable(name, f"the system refuses it ({getattr(error, 'strerror', None) or error})")
    if on_error == "raise":
        raise error
    refused[name] = str(error)


def package_versions() -> dict[str, str]:
    """Return the versions of the packages that features depend on.

    Examples
    --------
    >>> sorted(package_versions())[:2]
    ['diffusers', 'ldm_kit']
    """
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # a checkout on the path, not installed
            versions[name] = "unknown"
    return versions


def warn_of_other_versions(stored: Mapping[str, str], where: str) -> None:
    """Warn if the store at `where` was begun with other package versions."""
    now = package_versions()
    changed = [
        f"{name} {version} there, {now[name]} here"
        for name, version in stored.items()
        if now.get(name, version) != version
    ]
    if changed:
        warnings.warn(
            f"The store {where!r} was begun with other package versions: {'; '.join(changed)}. "
            "Numbers may differ in the last digits; for one set of versions use a new `out`.",
            stacklevel=3,
        )
