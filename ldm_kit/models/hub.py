"""Read a model's folder or hub repository, and say what to do when it cannot be read."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ldm_kit.errors import LdmKitError, ModelNotFoundError
from ldm_kit.offline import hub_shut


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
    """Tell one folder of weights from another: a hash over names, sizes and both ends of each file.

    Examples
    --------
    >>> fingerprint(packaged("tiny-ldm"))  # doctest: +SKIP
    'sha256:0c5b…'
    """
    digest = hashlib.sha256()
    ends = 1 << 20
    for path in sorted(folder.rglob("*")):
        if path.suffix not in (".safetensors", ".json", ".txt", ".model") or not path.is_file():
            continue
        size = path.stat().st_size
        digest.update(f"{path.relative_to(folder).as_posix()}\n{size}\n".encode())
        with path.open("rb") as file:
            digest.update(file.read(ends))
            if size > 2 * ends:
                file.seek(-ends, os.SEEK_END)
            digest.update(file.read(ends))
    return f"sha256:{digest.hexdigest()[:16]}"


def commit(source: str, revision: str | None, file: str = "model_index.json") -> str:
    """Find the commit that was loaded: a branch moves on, a store must not mix its states."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(source, file, revision=revision)
    return Path(found).parent.name if isinstance(found, str) else str(revision)


@contextmanager
def quiet(local: bool) -> Iterator[None]:
    """Keep the libraries' remarks on missing torchvision and deprecated settings off the notebook's page.

    Bars stay for what is downloaded, and are dropped for a folder that loads in a second.
    """
    import diffusers.utils.logging
    import transformers.utils.logging

    of_diffusers: Any = diffusers.utils.logging
    of_transformers: Any = transformers.utils.logging
    verbosity = of_diffusers.get_verbosity(), of_transformers.get_verbosity()
    of_diffusers.set_verbosity_error()
    of_transformers.set_verbosity_error()
    if local:
        of_diffusers.disable_progress_bar()
        of_transformers.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        of_diffusers.set_verbosity(verbosity[0])
        of_transformers.set_verbosity(verbosity[1])
        of_diffusers.enable_progress_bar()
        of_transformers.enable_progress_bar()


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
