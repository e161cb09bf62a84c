"""What a run's folder remembers: whether it is done, and with what; and what earlier and killed runs left there."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import platform
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

import ldm_kit
from ldm_kit.batch.parameters import Parameter
from ldm_kit.batch.provenance import package_versions
from ldm_kit.errors import BadInputError
from ldm_kit.files import CANNOT_WRITE, cannot_write, write_text
from ldm_kit.run_record import MANIFEST, SERIES_VARIABLE

# The environment variables that a result may depend on: these, and all that begin with LDM_KIT_.
ENVIRONMENT = ("HF_HOME", "HF_HUB_CACHE", "HF_ENDPOINT", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
# Parameters that name what a notebook writes. A feature store tells by itself whether it fits.
WRITTEN = ("out", "features")
SMALL = 1 << 16  # bytes; larger files within a folder are told apart by size and time
STATE = "run.json"
PREVIOUS = ".previous"
RESULTS = (MANIFEST, STATE, PREVIOUS, "tables", "figures")  # in a run's folder, beside its notebook
OF_THE_SERIES = ("index.html", "series.json", "plotly.min.js")  # files that lie beside the runs' folders
LOCKS = ".locks"
DIFFERENCES_TOLD = 6


def fingerprint(
    notebook: Path, given: Mapping[str, Any], known: Mapping[str, Parameter], folder: Path
) -> dict[str, str]:
    """List what a result depends on here, so that a change can be named.

    That is the notebook, its parameters, the package with its data, versions, the environment, and the inputs:
    each file or folder that a parameter or a variable ``LDM_KIT_…`` names, and the folders of the models
    registered in ``LDM_KIT_MODELS``. A file counts with its content; a folder with the names and sizes of its
    files, the content of small ones and the time of large ones. What the hub serves under a model's name cannot
    be known before the run: it loads the newest it can get. Of what lies within the series' own folder, files count, and
    what another run made; any other folder there may be one that the run writes to.

    Parameters
    ----------
    notebook : pathlib.Path
    given : mapping
        Parameters, for JSON.
    known : mapping of str to Parameter
        The notebook's own, whose defaults may name files as well.
    folder : pathlib.Path
        The run's.

    Returns
    -------
    dict of str to str
        Kind and name, such as ``"version torch"``, to a value or a digest.

    Examples
    --------
    >>> made_from = fingerprint(Path("notebooks/02_probing.ipynb"), {"seed": 1}, {}, folder)  # doctest: +SKIP
    >>> made_from["parameter seed"]  # doctest: +SKIP
    '1'
    """
    variables = _environment()
    named = [*_texts({**_defaults(known), **given}), *_inputs_of(variables)]
    return {
        "file the notebook": _digest(notebook, folder),
        "file the code of ldm_kit": _package_digest(),
        **{f"parameter {name}": json.dumps(value, sort_keys=True) for name, value in given.items()},
        **{f"file {text}": _digest(path, folder) for text in named if (path := _input(text, folder))},
        **{f"variable {name}": value for name, value in variables.items()},
        **{f"version {name}": value for name, value in package_versions().items()},
    }


def differences(before: object, now: Mapping[str, str]) -> str:
    """Say what changed between two fingerprints; empty if nothing did.

    Examples
    --------
    >>> before = {"file triplets.txt": "sha256:0", "version torch": "2.12"}
    >>> differences(before, {"file triplets.txt": "sha256:1", "version torch": "2.13", "parameter seed": "1"})
    'triplets.txt changed; torch 2.12 → 2.13; seed not given → 1'
    """
    if not isinstance(before, dict):
        return "it was made by an older ldm_kit"
    told = []
    for key in [*before, *(key for key in now if key not in before)]:
        old, new = before.get(key), now.get(key)
        kind, _, name = key.partition(" ")
        if old == new:
            continue
        if kind == "file":
            told.append(f"{name} {'is gone' if new is None else 'is new' if old is None else 'changed'}")
        else:
            absent = "not given" if kind == "parameter" else "not set"
            told.append(f"{name} {absent if old is None else old} → {absent if new is None else new}")
    more = len(told) - DIFFERENCES_TOLD
    return "; ".join(told[:DIFFERENCES_TOLD] + ([f"and {more} more"] if more > 0 else []))


def _environment() -> dict[str, str]:
    return {
        name: value
        for name, value in sorted(os.environ.items())
        if name in ENVIRONMENT or (name.startswith("LDM_KIT_") and name != SERIES_VARIABLE)
    }


def _inputs_of(variables: Mapping[str, str]) -> Iterator[str]:
    """What our own variables name, and the models registered in a table of the user's."""
    yield from (value for name, value in variables.items() if name.startswith("LDM_KIT_"))
    if "LDM_KIT_MODELS" in variables:
        from ldm_kit.models.registry import registered_models

        with suppress(Exception):  # what is wrong with the table, the notebook that needs it says
            for model in registered_models().values():
                yield from (model.source, model.prior or "")


def _defaults(known: Mapping[str, Parameter]) -> dict[str, Any]:
    defaults = {}
    for name, parameter in known.items():
        with suppress(ValueError, SyntaxError):
            defaults[name] = ast.literal_eval(parameter.default)
    return defaults


def _texts(values: Mapping[str, Any]) -> Iterator[str]:
    """All texts in the values of parameters, save of those that the notebook writes to."""
    waiting = [value for name, value in values.items() if name not in WRITTEN]
    while waiting:
        match waiting.pop(0):
            case str(text):
                yield text
            case list(items):
                waiting = [*items, *waiting]
            case dict(items):
                waiting = [*items.values(), *waiting]


def _input(text: str, folder: Path) -> Path | None:
    """The file or folder that a text names, if it is one that this run only reads."""
    while text:
        with suppress(OSError, ValueError, RuntimeError):  # too long for a name, a NUL, no home folder
            path = Path(text).expanduser().resolve()
            if path.is_file() or path.is_dir():
                return path if _is_only_read(path, folder.resolve()) else None
        text = text.partition(":")[2]  # "untrained:…", "vision:…"
    return None


def _is_only_read(path: Path, folder: Path) -> bool:
    """Whether it lies outside the series' folder, is another run's, or a file that no run makes."""
    if path == path.parent or folder.parent == path:
        return False
    if not path.is_relative_to(folder.parent):
        return True
    parts = path.relative_to(folder.parent).parts
    run = folder.parent / parts[0]
    if run == folder:
        own = parts[1:2] == () or parts[1] in RESULTS or parts[1].startswith(f"{folder.name}.")
        return path.is_file() and not own
    # A folder may be one that this run writes to, such as that of a game's answers.
    return (path.is_file() and parts[0] not in OF_THE_SERIES) or (run / STATE).exists()


def _digest(path: Path, folder: Path) -> str:
    """Digest a file by its content; a folder by names, sizes, the content of small files, the time of others."""
    digest = hashlib.sha256()
    for file in [path] if path.is_file() else _files(path, folder.resolve().parent):
        digest.update(os.fsencode(os.path.relpath(file, path)))
        try:
            about = file.stat()
            digest.update(f"\0{about.st_size}\0".encode())
            if file is path or about.st_size <= SMALL:
                with file.open("rb") as opened:
                    digest.update(hashlib.file_digest(opened, "sha256").digest())
            else:
                digest.update(str(about.st_mtime_ns).encode())
        except OSError as error:
            digest.update(f"\0{error.errno}\0".encode())
    return f"sha256:{digest.hexdigest()[:32]}"


def _files(top: Path, without: Path) -> Iterator[Path]:
    """All files below a folder, in order; links are followed, and each folder is entered once."""
    entered = {os.path.realpath(without)}
    for place, folders, files in os.walk(top, followlinks=True):
        entered.add(os.path.realpath(place))
        folders[:] = [name for name in sorted(folders) if os.path.realpath(Path(place, name)) not in entered]
        for name in sorted(files):
            file = Path(place, name)
            with suppress(OSError):
                if not stat.S_ISREG(file.stat().st_mode):
                    continue
            yield file


def _package_digest() -> str:
    digest = hashlib.sha256()
    root = Path(ldm_kit.__path__[0])
    for file in sorted(root.rglob("*")):
        # __pycache__ holds numba's caches as well, which a first run writes
        if file.is_file() and "__pycache__" not in file.parts and not file.name.startswith("."):
            digest.update(file.relative_to(root).as_posix().encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return f"sha256:{digest.hexdigest()[:32]}"


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; one that is missing or cannot be read counts as empty.

    Examples
    --------
    >>> read_json(Path("no/such/run.json"))
    {}
    """
    with suppress(OSError, ValueError, RecursionError):
        read = json.loads(path.read_text(encoding="utf-8"))
        return read if isinstance(read, dict) else {}
    return {}


def write_state(folder: Path, state: Mapping[str, Any]) -> None:
    """Write what a run's folder remembers.

    Examples
    --------
    >>> write_state(Path("outputs/demo/02_probing"), {"status": "done"})  # doctest: +SKIP
    """
    write_text(folder / STATE, json.dumps(state, indent=1))


@contextmanager
def locked(out: Path, name: str) -> Iterator[None]:
    """Keep other processes from a run's folder; a lock ends with its process, however that ends.

    Parameters
    ----------
    out : pathlib.Path
        The folder of the series, where the lock lies: a notebook may delete its own.
    name : str
        Of the run.

    Raises
    ------
    BadInputError
        If another process holds it, or `out` cannot be written to.

    Examples
    --------
    >>> with locked(Path("outputs/demo"), "02_probing"):  # doctest: +SKIP
    ...     ...
    """
    try:
        (out / LOCKS).mkdir(parents=True, exist_ok=True)
        lock = FileLock(out / LOCKS / f"{name}.lock")
        lock.acquire(timeout=1)  # as long as a report may hold it, which sweeps
    except Timeout as error:
        raise BadInputError(
            f"{str(out / name)!r} is in use by {read_json(out / name / STATE).get('process', 'another process')}. "
            "Two runs would destroy each other's results: wait for its end, or choose another `out`."
        ) from error
    except OSError as error:
        if error.errno not in CANNOT_WRITE:
            raise
        raise cannot_write(out, error) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def report_locked(out: Path) -> Iterator[None]:
    """Wait until no other process writes the files of the series itself, then keep others from them.

    Examples
    --------
    >>> with report_locked(Path("outputs/demo")):  # doctest: +SKIP
    ...     ...
    """
    try:
        (out / LOCKS).mkdir(parents=True, exist_ok=True)
        lock = FileLock(out / LOCKS / ".report.lock")  # no run is called so
        lock.acquire()
    except OSError as error:
        if error.errno not in CANNOT_WRITE:
            raise
        raise cannot_write(out, error) from error
    try:
        sweep(out)
        yield
    finally:
        lock.release()


def this_process() -> str:
    """Name this process, for others on the machine or the cluster.

    Examples
    --------
    >>> this_process()  # doctest: +SKIP
    'process 4711 on node7'
    """
    return f"process {os.getpid()} on {platform.node()}"


def set_aside(folder: Path, state: Mapping[str, Any]) -> None:
    """Move the results of the last finished run out of the way of a new one, which may fail.

    They wait in ``.previous`` until the new one is done. What a failed run left is deleted. All else that lies in
    the folder, such as features and checkpoints, stays.

    Parameters
    ----------
    folder : pathlib.Path
        The run's.
    state : mapping
        What its ``run.json`` holds.

    Examples
    --------
    >>> set_aside(Path("outputs/demo/02_probing"), {"status": "done"})  # doctest: +SKIP
    """
    # The manifest goes first: without it the report shows nothing of the rest.
    stem = folder.name
    names = [MANIFEST, "tables", "figures", *(f"{stem}{end}" for end in (".ipynb", ".html", ".log"))]
    names += [f"{stem}.failed.ipynb", f"{stem}.failed.html"]
    old = [path for name in names if os.path.lexists(path := folder / name)]
    if state.get("status") in ("failed", "interrupted", "running"):
        for path in old:
            _delete(path)
    elif old:
        # A kill may come between any two of these: until the last has moved, run.json says what they are of.
        if state.get("status") != "superseded":
            _delete(folder / PREVIOUS)
            write_state(folder / PREVIOUS, state)
            write_state(folder, {**state, "status": "superseded"})
        for path in old:
            path.replace(folder / PREVIOUS / path.name)


def forget_previous(folder: Path) -> None:
    """Delete what `set_aside` kept, once the new run is done.

    Examples
    --------
    >>> forget_previous(Path("outputs/demo/02_probing"))  # doctest: +SKIP
    """
    with suppress(OSError):
        _delete(folder / PREVIOUS)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


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
