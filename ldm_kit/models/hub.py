"""Read a model's folder or hub repository: its index, its components, its digest; and explain what goes wrong."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ldm_kit.errors import LdmKitError, ModelNotFoundError
from ldm_kit.files import write_text
from ldm_kit.models.registry import FoundModel
from ldm_kit.offline import hub_shut

log = logging.getLogger(__name__)
# Weights, configurations, and the vocabularies of transformers' tokenizers; pickles are never loaded.
LOADABLE = {".safetensors", ".json", ".txt", ".model", ".spm", ".codes", ".tokenizer", ".tiktoken"}
SMALL = 16 << 20  # bytes that are hashed at once
SETTLED = 2_000_000_000  # ns, the coarsest clock of a file system (FAT's)


@dataclass(frozen=True)
class Place:
    """Where a model is: a hub id or folder, its revision, and whether the hub must not be contacted."""

    source: str
    revision: str | None = None
    offline: bool = False

    @property
    def local(self) -> bool:
        """Whether it is a folder."""
        return Path(self.source).is_dir()

    @property
    def arguments(self) -> dict[str, Any]:
        """What every `from_pretrained` of diffusers and transformers understands."""
        return {"revision": self.revision, "local_files_only": self.local or self.offline}

    def state(self, file: str = "model_index.json") -> str:
        """Return what was loaded: a folder's digest, or the commit, since a branch moves on."""
        if self.local:
            return folder_digest(Path(self.source))
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(self.source, file, revision=self.revision)
        return Path(found).parent.name if isinstance(found, str) else str(self.revision)


@dataclass(frozen=True)
class Request:
    """What `load_model` was called with, all defaults decided; a `seed` stands for the untrained control."""

    found: FoundModel
    place: Place
    drop: tuple[str, ...]
    seed: int | None
    device: torch.device
    dtype: torch.dtype


def find_file(place: Place, name: str) -> Path | None:
    """Find a file of a model, downloaded if need be; None if the model does not have it."""
    if place.local:
        path = Path(place.source) / name
        return path if path.is_file() else None
    from huggingface_hub import errors, hf_hub_download, try_to_load_from_cache

    try:
        return Path(hf_hub_download(place.source, name, **place.arguments))
    except errors.LocalEntryNotFoundError:
        # Offline: absent from the model, or only from this machine? The cache remembers what the hub answered.
        if isinstance(try_to_load_from_cache(place.source, name, revision=place.revision), (str, type(None))):
            raise
        return None
    except errors.EntryNotFoundError:
        return None


def pipeline_index(place: Place) -> dict[str, Any]:
    """Read the model_index.json of a folder or hub repository."""
    path = find_file(place, "model_index.json")
    if path is None:
        raise ModelNotFoundError(
            f"{place.source!r} has no model_index.json: it is not a model in diffusers format. Save one with "
            "`pipeline.save_pretrained(folder)`; single-file checkpoints must be converted first."
        )
    index: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return index


# Components made from their configuration -----------------------------------------------------------------


def made_from_config(index: dict[str, Any], component: str, place: Place, where: Any) -> Any:
    """Make a component from its config alone, within the context `where`: `seeded`, or the meta device (no weights).

    Its class must be one of diffusers' or transformers' own: a repository cannot bring code.
    """
    import diffusers
    import transformers

    name = str(index[component][1])
    kind: Any = getattr(diffusers, name, None) or getattr(transformers, name, None)
    if kind is None:
        raise ModelNotFoundError(
            f"The installed diffusers and transformers have no {name}, the {component} of {place.source!r}. Upgrade them."
        )
    arguments = {**place.arguments, "subfolder": component}
    if hasattr(kind, "load_config"):  # diffusers
        config = kind.load_config(place.source, **arguments)
        with where:
            return kind.from_config(config)
    config = kind.config_class.from_pretrained(place.source, **arguments)
    with where:
        return kind(config)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch for what is made inside, and leave its generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def made_ready(module: Any, device: torch.device) -> None:
    """Put a network to use: without dropout or gradients, on its device; anything else is left as it is.

    On a CPU its weights are laid out with channels last, where convolutions take a fifth less time.
    """
    if isinstance(module, torch.nn.Module):
        module.eval().requires_grad_(False).to(device)
        if device.type == "cpu":
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


# The digest of a folder ---------------------------------------------------------------------------------


def folder_digest(folder: Path) -> str:
    """Hash the names and contents of all files of a folder that a loader may read.

    Large files are hashed once: their digests are cached in the user's cache folder
    (``pooch.os_cache("ldm_kit")/digests.json``), by path, size and times. A file that was changed since is hashed again.
    """
    digest = hashlib.sha256()
    cache = _cached()
    found: dict[str, Any] = {}
    for path in _loadable(folder):
        try:
            content = _file_digest(path, cache, found)
        except OSError as error:
            raise ModelNotFoundError(
                f"The file {str(path)!r} of the model cannot be read ({error.strerror or error}). Make it readable."
            ) from error
        digest.update(f"{path.relative_to(folder).as_posix()}\n{content}\n".encode(errors="surrogateescape"))
    if found:
        _write_cache({**cache, **found})
    return f"sha256:{digest.hexdigest()[:16]}"


def _loadable(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """List the files that a loader may read, links followed, in one order."""
    here = folder.resolve()
    if here in above:  # a link to a folder above
        return
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from _loadable(path, (*above, here))
        elif path.suffix in LOADABLE and path.is_file():
            yield path


def _file_digest(path: Path, cache: dict[str, Any], found: dict[str, Any]) -> str:
    """Hash a file, or take its hash from the cache; what is to be cached is put into `found`."""
    with path.open("rb") as file:
        about = os.fstat(file.fileno())
        # A tool that preserves size and time of what it replaces (`cp -p`) does not preserve the other two.
        stamp = [about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino]
        key = str(path.resolve())
        cached = cache.get(key)
        if (
            isinstance(cached, list)
            and cached[:-1] == stamp
            and re.fullmatch("[0-9a-f]{64}", str(cached[-1]))
        ):
            return str(cached[-1])
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        after = os.fstat(file.fileno())
    # What was written a moment ago may be written again before the file system's clock has moved on.
    settled = time.time_ns() - about.st_mtime_ns > SETTLED and after.st_mtime_ns == about.st_mtime_ns
    if about.st_size > SMALL and settled:
        found[key] = [*stamp, digest]
    return digest


def _cached() -> dict[str, Any]:
    """Read the digests of large files; a damaged cache is empty."""
    try:
        cached = json.loads(_cache_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return cached if isinstance(cached, dict) else {}


def _write_cache(digests: dict[str, Any]) -> None:
    """Write the digests of the files that still exist; where that is impossible they are hashed again."""
    existing = {path: digest for path, digest in digests.items() if Path(path).exists()}
    try:
        write_text(_cache_file(), json.dumps(existing, indent=1))
    except (OSError, LdmKitError) as error:
        log.info("The digests of the model's files were not cached: %s", error)


def _cache_file() -> Path:
    import pooch

    return Path(pooch.os_cache("ldm_kit")) / "digests.json"


# Around loading -----------------------------------------------------------------------------------------


@contextmanager
def quiet(local: bool) -> Iterator[None]:
    """Silence the libraries' remarks on missing torchvision and deprecated settings.

    Progress bars stay for downloads, and are off for a folder that loads in a second. Afterwards all settings are as before.
    """
    import diffusers.utils.logging
    import huggingface_hub.utils
    import transformers.utils.logging

    of_the_hub: Any = huggingface_hub.utils
    libraries: tuple[Any, ...] = (diffusers.utils.logging, transformers.utils.logging)
    verbosities = [library.get_verbosity() for library in libraries]
    dropped = [library for library in libraries if local and library.is_progress_bar_enabled()]
    no_downloads = of_the_hub.are_progress_bars_disabled()
    for library in libraries:
        library.set_verbosity_error()
    for library in dropped:
        library.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        for library, verbosity in zip(libraries, verbosities, strict=True):
            library.set_verbosity(verbosity)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # where the environment decides about the hub's bars
            for library in dropped:
                library.enable_progress_bar()
            if no_downloads and dropped:  # transformers' switch turns those of the hub's client as well
                of_the_hub.disable_progress_bars()


@contextmanager
def explained(place: Place) -> Iterator[None]:
    """Load within: quietly, offline if need be, and with errors that advise what to do."""
    from huggingface_hub import errors

    source = place.source
    try:
        with hub_shut(place.offline), quiet(place.local):
            yield
    except LdmKitError:
        raise
    except errors.GatedRepoError as error:
        raise ModelNotFoundError(
            f"The model {source!r} is gated: accept its licence on its hub page, then run `hf auth login` (or set HF_TOKEN)."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ModelNotFoundError(
            f"The hub has no model {source!r}, or it is private. Check the spelling; if it moved, use its new name."
        ) from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        shut = place.offline or isinstance(error, errors.OfflineModeIsEnabled)
        why = "the offline switch is on" if shut else "the hub could not be reached"
        raise ModelNotFoundError(
            f"The model {source!r} is not in this machine's cache and {why}. Download it where there is a "
            f"network with `hf download {source}`, or name a local folder. 'tiny-ldm' needs no download."
        ) from error
    except (errors.HfHubHTTPError, ImportError, OSError, ValueError, KeyError) as error:
        advice = "If a file is missing or damaged, download or save it again; weights must be safetensors."
        # transformers names tiktoken where what it lacks is sentencepiece.
        if isinstance(error, ImportError) or "tiktoken" in str(error):
            advice = "It needs a package; for T5's tokenizer `pip install sentencepiece protobuf`."
        raise ModelNotFoundError(
            f"The model {source!r} could not be loaded: {str(error).strip().splitlines()[0]} {advice}"
        ) from error
