"""Load one part of a pipeline, without the others: its weights, or the same network made anew."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ldm_kit.errors import ModelNotFoundError, unknown_name

LIBRARIES = ("diffusers", "transformers")


@dataclass(frozen=True)
class Place:
    """Where a model is, and how it may be reached.

    Parameters
    ----------
    source : str
        Hub id or folder.
    revision : str, optional
        Of the hub repository.
    local_only : bool
        Whether only files on this machine may be used, as it is a folder or the hub may not be asked.
    offline : bool
        Whether the hub may not be asked, for anything.
    """

    source: str
    revision: str | None
    local_only: bool
    offline: bool = False

    def arguments(self, part: str | None = None) -> dict[str, Any]:
        """Give what every `from_pretrained` of the two libraries understands."""
        arguments = {"revision": self.revision, "local_files_only": self.local_only}
        return arguments if part is None else {**arguments, "subfolder": part}


def part_class(index: Mapping[str, Any], part: str, source: str) -> Any:
    """Find the class of a part that a model_index.json names, among diffusers' and transformers' own.

    Raises
    ------
    ModelNotFoundError
        If the model has no such part.
    UnknownNameError
        If the class belongs to another library: a repository cannot bring code of its own.

    Examples
    --------
    >>> part_class({"vae": ["diffusers", "AutoencoderKL"]}, "vae", "x").__name__
    'AutoencoderKL'
    """
    entry = index.get(part)
    if not isinstance(entry, list) or len(entry) != 2 or entry[0] is None:
        raise ModelNotFoundError(
            f"The model {source!r} has no {part}; its model_index.json names {sorted(index)}."
        )
    library, name = entry
    if library not in LIBRARIES:
        raise unknown_name(
            "library",
            library,
            LIBRARIES,
            f"The {part} of {source!r} is a {name} from elsewhere; it is not run.",
        )
    found = getattr(importlib.import_module(library), str(name), None)
    if found is None:
        raise ModelNotFoundError(
            f"The {part} of {source!r} is a {name}, which the installed {library} does not have. "
            f"Upgrade {library}, or take another model."
        )
    return found


def load_part(index: Mapping[str, Any], part: str, place: Place, dtype: torch.dtype | None = None) -> Any:
    """Load one part; nothing else of the pipeline is read or downloaded.

    Parameters
    ----------
    index : mapping
        The pipeline's model_index.json.
    part : str
        A name in it, which is also the name of a subfolder.
    place : Place
    dtype : torch.dtype, optional
        Of a network's weights; None for what has none, such as a tokenizer.

    Examples
    --------
    >>> load_part(index, "vae", place, torch.float32)  # doctest: +SKIP
    """
    kind = part_class(index, part, place.source)
    if dtype is None:
        return kind.from_pretrained(place.source, **place.arguments(part))
    # Told beforehand, the libraries keep in float32 what must stay there (some of T5's weights).
    return kind.from_pretrained(place.source, use_safetensors=True, dtype=dtype, **place.arguments(part))


def untrained_part(index: Mapping[str, Any], part: str, place: Place, dtype: torch.dtype, seed: int) -> Any:
    """Make a part anew from its config, with random weights; its weights are not even downloaded.

    Examples
    --------
    >>> untrained_part(index, "unet", place, torch.float32, seed=0)  # doctest: +SKIP
    """
    kind = part_class(index, part, place.source)
    if hasattr(kind, "load_config"):  # diffusers
        config = kind.load_config(place.source, **place.arguments(part))
        with seeded(seed):
            return kind.from_config(config).to(dtype)
    config = kind.config_class.from_pretrained(place.source, **place.arguments(part))
    with seeded(seed):
        return kind(config).to(dtype)


def weightless_part(index: Mapping[str, Any], part: str, place: Place) -> Any:
    """Make a part of diffusers on the meta device: all that its config says, and no weights."""
    kind = part_class(index, part, place.source)
    config = kind.load_config(place.source, **place.arguments(part))
    with torch.device("meta"):
        return kind.from_config(config)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch for what is made inside, and leave its generator as it was.

    Examples
    --------
    >>> with seeded(0):
    ...     a = torch.rand(1)
    >>> with seeded(0):
    ...     b = torch.rand(1)
    >>> bool(a == b)
    True
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def made_ready(module: torch.nn.Module, device: torch.device) -> None:
    """Put a module to use: without dropout or gradients, on its device.

    On a CPU its weights are laid out with channels last, where convolutions take a fifth less time.

    Examples
    --------
    >>> made_ready(torch.nn.Linear(2, 2), torch.device("cpu"))
    """
    module.eval().requires_grad_(False).to(device)
    if device.type == "cpu":
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def find_file(place: Place, name: str) -> Path | None:
    """Find a file of a model, fetched if need be; None if the model does not have it.

    Raises
    ------
    huggingface_hub.errors.LocalEntryNotFoundError
        If nobody can tell, because the hub may not be asked.

    Examples
    --------
    >>> find_file(Place(".", None, True), "no such file") is None
    True
    """
    if Path(place.source).is_dir():
        path = Path(place.source) / name
        return path if path.is_file() else None
    from huggingface_hub import errors, hf_hub_download, try_to_load_from_cache

    try:
        return Path(hf_hub_download(place.source, name, **place.arguments()))
    except errors.LocalEntryNotFoundError:
        # Offline: absent from the model, or only from this machine? The cache remembers what it was told.
        if isinstance(try_to_load_from_cache(place.source, name, revision=place.revision), (str, type(None))):
            raise
        return None
    except errors.EntryNotFoundError:
        return None
