"""Read a model's folder or hub repository, and say what to do when it cannot be read."""

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
from pathlib import Path
from typing import Any

from ldm_kit.errors import LdmKitError, ModelNotFoundError
from ldm_kit.files import write_text
from ldm_kit.offline import hub_shut

log = logging.getLogger(__name__)
# Weights, configurations, and the vocabularies of transformers' tokenizers; pickles are never loaded.
LOADABLE = {".safetensors", ".json", ".txt", ".model", ".spm", ".codes", ".tokenizer", ".tiktoken"}
SMALL = 16 << 20  # bytes that are hashed in no time
SETTLED = 2_000_000_000  # ns, the coarsest clock of a file system (FAT's)


def pipeline_index(source: str, revision: str | None, offline: bool) -> dict[str, Any]:
    """Read the model_index.json of a folder or hub repository.

    Raises
    ------
    ModelNotFoundError
        If there is none, or it is damaged.

    Examples
    --------
    >>> pipeline_index("stabilityai/sd-turbo", None, False)["_class_name"]  # doctest: +SKIP
    'StableDiffusionPipeline'
    """
    if Path(source).is_dir():
        path = Path(source) / "model_index.json"
        if not path.is_file():
            raise ModelNotFoundError(
                f"The folder {source!r} has no model_index.json: it is not a model in diffusers format. "
                f"It holds {sorted(p.name for p in Path(source).iterdir())[:10]}. Save one with "
                "`pipeline.save_pretrained(folder)`; single-file checkpoints must be converted first."
            )
    else:
        from huggingface_hub import hf_hub_download

        with explained(source, offline):
            path = Path(
                hf_hub_download(source, "model_index.json", revision=revision, local_files_only=offline)
            )
    try:
        index: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelNotFoundError(
            f"The model_index.json of {source!r} is damaged ({error}). Download or save it again."
        ) from error
    return index


def fingerprint(folder: Path) -> str:
    """Tell one folder of weights from another: a hash over the names and contents of all files that a loader may read.

    Large files are hashed once: their digests are cached in the user's cache folder
    (``pooch.os_cache("ldm_kit")/digests.json``), by path, size and times. A file that was changed since is hashed again.

    Raises
    ------
    ModelNotFoundError
        If a file cannot be read; it is named.

    Examples
    --------
    >>> fingerprint(packaged("tiny-ldm"))  # doctest: +SKIP
    'sha256:e11d…'
    """
    digest = hashlib.sha256()
    cache = _cached()
    found: dict[str, Any] = {}
    for path in _loadable(folder):
        try:
            content = _digest(path, cache, found)
        except OSError as error:
            raise ModelNotFoundError(
                f"The file {str(path)!r} of the model cannot be read ({error.strerror or error}), so that it cannot be "
                "told which model this is. Make it readable, or download or save the model again."
            ) from error
        digest.update(f"{path.relative_to(folder).as_posix()}\n{content}\n".encode(errors="surrogateescape"))
    if found:
        _cache({**cache, **found})
    return f"sha256:{digest.hexdigest()[:16]}"


def _loadable(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """List the files that a loader may read, links followed, in one order."""
    here = folder.resolve()
    if here in above:  # a link to where we came from
        return
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from _loadable(path, (*above, here))
        elif path.suffix in LOADABLE and path.is_file():
            yield path


def _digest(path: Path, cache: dict[str, Any], found: dict[str, Any]) -> str:
    """Hash a file, or give its hash from the cache; what shall be cached is put into `found`."""
    with path.open("rb") as file:
        about = os.fstat(file.fileno())
        # A tool that keeps size and time of what it replaces (`cp -p`) does not keep the other two.
        stamp = [about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino]
        key = str(path.resolve())
        held = cache.get(key)
        if isinstance(held, list) and held[:-1] == stamp and re.fullmatch("[0-9a-f]{64}", str(held[-1])):
            return str(held[-1])
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        after = os.fstat(file.fileno())
    # What was written a moment ago may be written again before the file system's clock has moved on.
    settled = time.time_ns() - about.st_mtime_ns > SETTLED and after.st_mtime_ns == about.st_mtime_ns
    if about.st_size > SMALL and settled:
        found[key] = [*stamp, digest]
    return digest


def _cached() -> dict[str, Any]:
    """Read the digests of large files; a cache that is damaged holds none."""
    try:
        held = json.loads(_cache_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return held if isinstance(held, dict) else {}


def _cache(digests: dict[str, Any]) -> None:
    """Write the digests of the files that are still there; where that is impossible they are hashed again."""
    kept = {path: digest for path, digest in digests.items() if Path(path).exists()}
    try:
        write_text(_cache_file(), json.dumps(kept, indent=1))
    except (OSError, LdmKitError) as error:
        log.info("The digests of the model's files were not cached: %s", error)


def _cache_file() -> Path:
    import pooch

    return Path(pooch.os_cache("ldm_kit")) / "digests.json"


def commit(source: str, revision: str | None, file: str = "model_index.json") -> str:
    """Find the commit that was loaded: a branch moves on, a store must not mix its states."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(source, file, revision=revision)
    return Path(found).parent.name if isinstance(found, str) else str(revision)


@contextmanager
def quiet(local: bool) -> Iterator[None]:
    """Keep the libraries' remarks on missing torchvision and deprecated settings off the notebook's page.

    Bars stay for what is downloaded, and are dropped for a folder that loads in a second. Afterwards all is as it was found.
    """
    import diffusers.utils.logging
    import huggingface_hub.utils
    import transformers.utils.logging

    of_the_hub: Any = huggingface_hub.utils
    of_diffusers: Any = diffusers.utils.logging
    of_transformers: Any = transformers.utils.logging
    verbosity = of_diffusers.get_verbosity(), of_transformers.get_verbosity()
    of_diffusers.set_verbosity_error()
    of_transformers.set_verbosity_error()
    dropped = [one for one in (of_diffusers, of_transformers) if local and one.is_progress_bar_enabled()]
    no_downloads = of_the_hub.are_progress_bars_disabled()
    for one in dropped:
        one.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        of_diffusers.set_verbosity(verbosity[0])
        of_transformers.set_verbosity(verbosity[1])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # where the environment decides about the hub's bars
            for one in dropped:
                one.enable_progress_bar()
            if no_downloads and dropped:  # transformers' switch turns those of the hub's client as well
                of_the_hub.disable_progress_bars()


@contextmanager
def explained(source: str, offline: bool) -> Iterator[None]:
    """Turn what the hub's client raises into errors that say what to do; offline, keep it from the network."""
    from huggingface_hub import errors

    try:
        with hub_shut(offline):
            yield
    except LdmKitError:
        raise
    except errors.GatedRepoError as error:
        raise ModelNotFoundError(
            f"The model {source!r} is gated: accept its licence on its hub page while logged in, then run "
            "`hf auth login` here (or set HF_TOKEN) and try again."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ModelNotFoundError(
            f"The hub has no model {source!r}, or it is private. Check the spelling; if it moved, name its new "
            "place in a file of your own (environment variable LDM_KIT_MODELS), or give a local folder."
        ) from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        shut = offline or isinstance(error, errors.OfflineModeIsEnabled)
        why = "the offline switch is on" if shut else "the hub could not be reached"
        raise ModelNotFoundError(
            f"The model {source!r} is not in this machine's cache and {why}. Download it where there is a "
            f"network with `hf download {source}`, or give a local folder. 'tiny-ldm' needs no download."
        ) from error
    except (errors.HfHubHTTPError, ImportError, OSError, ValueError, KeyError) as error:
        # transformers asks for tiktoken where what it lacks is sentencepiece.
        if isinstance(error, ImportError) or "tiktoken" in str(error):
            raise ModelNotFoundError(
                f"The model {source!r} needs a package that is not installed; a T5 tokenizer that comes as "
                "spiece.model needs `pip install sentencepiece protobuf`. What was said: "
                f"{str(error).strip().splitlines()[0]}"
            ) from error
        raise ModelNotFoundError(
            f"The model {source!r} could not be loaded: {str(error).strip().splitlines()[0]} "
            "If a file is missing or damaged, download or save it again; weights must be safetensors."
        ) from error
