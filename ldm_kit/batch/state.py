"""What a run's folder remembers: whether it is done, and with what; and what a killed run left there."""

from __future__ import annotations

import functools
import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import ldm_kit


def fingerprint(notebook: Path, parameters: dict[str, Any]) -> str:
    """Digest what a result depends on here: the notebook, its parameters, the package with its data.

    Parameters
    ----------
    notebook : pathlib.Path
    parameters : dict
        For JSON.

    Returns
    -------
    str

    Examples
    --------
    >>> fingerprint(Path("notebooks/02_probing.ipynb"), {"seed": 1})  # doctest: +SKIP
    '1f7c…'
    """
    digest = hashlib.sha256(notebook.read_bytes())
    digest.update(json.dumps(parameters, sort_keys=True).encode())
    digest.update(_package_digest())
    return digest.hexdigest()


@functools.cache
def _package_digest() -> bytes:
    digest = hashlib.sha256()
    root = Path(ldm_kit.__path__[0])
    for file in sorted(root.rglob("*")):
        if file.is_file() and file.suffix != ".pyc" and not file.name.startswith("."):
            digest.update(file.relative_to(root).as_posix().encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.digest()


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; one that is missing or cannot be read counts as empty.

    Examples
    --------
    >>> read_json(Path("no/such/run.json"))
    {}
    """
    with suppress(OSError, ValueError):
        read = json.loads(path.read_text(encoding="utf-8"))
        return read if isinstance(read, dict) else {}
    return {}


def sweep(folder: Path) -> None:
    """Delete what a killed run left half-written.

    Examples
    --------
    >>> sweep(Path("outputs/demo/02_probing"))  # doctest: +SKIP
    """
    for place in (folder, folder / "tables", folder / "figures"):
        for orphan in place.glob(".*.partial*"):
            with suppress(OSError):
                orphan.unlink()
