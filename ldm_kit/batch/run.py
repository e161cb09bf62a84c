"""Run notebooks headless: a crash costs one of them, a kill nothing, and a rerun does what is missing."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import platform
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

import ldm_kit
from ldm_kit.batch.execution import execute
from ldm_kit.batch.protocol import code_digests, read_protocol
from ldm_kit.batch.series import (
    CELL_TIMEOUT,
    OF_THE_SERIES,
    Parameter,
    Run,
    Series,
    check_parameter_types,
    checked_name,
    read_parameters,
    read_series,
)
from ldm_kit.errors import BadInputError, LdmKitError, whole_number
from ldm_kit.files import writable, write_text
from ldm_kit.run_record import MANIFEST, SERIES_VARIABLE, write_plotly_library

# Those whose version can change a number or a figure.
PACKAGES = (
    "ldm-kit", "torch", "diffusers", "transformers", "tokenizers", "safetensors", "numpy", "scipy", "scikit-learn", "numba",
    "pandas", "zarr", "pillow", "resvg-py", "rsatoolbox", "plotly", "papermill",
)  # fmt: skip
# The environment variables that a result may depend on: these, and all that begin with LDM_KIT_.
ENVIRONMENT = ("HF_HOME", "HF_HUB_CACHE", "HF_ENDPOINT", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
# Parameters that name what a notebook writes. A feature store tells by itself whether it fits.
WRITTEN = ("out", "features")
SMALL = 1 << 16  # bytes; larger files within a folder are compared by size and time
STATE = "run.json"
PREVIOUS = ".previous"
RESULTS = (MANIFEST, STATE, PREVIOUS, "tables", "figures")  # in a run's folder, beside its notebook
DIFFERENCES_SHOWN = 6

Status = Literal["done", "skipped", "failed"]


@dataclass(frozen=True)
class Outcome:
    """How one run ended."""

    name: str
    status: Status
    seconds: float
    folder: Path
    error: str = ""


def run_notebook(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    parameters: Mapping[str, Any] | None = None,
    *,
    name: str | None = None,
    timeout: int = CELL_TIMEOUT,
    force: bool = False,
) -> Outcome:
    """Run one notebook through papermill and keep it, executed, in a folder of its own.

    Parameters
    ----------
    path : path-like
        The notebook.
    out : path-like
        The folder of the series; the run's own is ``out/name``, which the notebook gets as its parameter `out`, if it
        has one that is not in `parameters`.
    parameters : mapping, optional
        In string values ``{out}`` stands for the series' folder.
    name : str, optional
        The run's name; by default the notebook's.
    timeout : int
        Seconds that one cell may take.
    force : bool
        Run even what is already done with the same notebook, parameters, inputs, code and versions.

    Returns
    -------
    Outcome
        A notebook that fails is no exception: its status says so, and ``NAME.failed.ipynb`` and
        ``NAME.log`` show why.

    Raises
    ------
    UnknownNameError, BadInputError
        If a parameter is not one of the notebook's, or has another type; if `out` cannot be written to; if
        another process is running into the same folder.

    Examples
    --------
    >>> run_notebook("notebooks/02_probing.ipynb", "outputs/mine", {"seed": 1})  # doctest: +SKIP
    Outcome(name='02_probing', status='done', seconds=31.2, ...)
    """
    path = Path(path)
    whole_number("timeout (seconds a cell)", timeout, 1)
    run = Run(checked_name(path.stem if name is None else name), path, dict(parameters or {}), timeout)
    return _run(run, Path(out), force, lambda why: None)


def run_series(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    parameters: Mapping[str, Any] | None = None,
    only: str | None = None,
    force: bool = False,
    timeout: int | None = None,
    protocol: bool = False,
) -> list[Outcome]:
    """Run the notebooks of a series one after the other; one that fails does not stop the others.

    Parameters
    ----------
    path : path-like
        The series' YAML (see `read_series`), or one notebook.
    out : path-like
        Where it all goes: a folder a run, and ``series.json``, which the report is made from.
    parameters : mapping, optional
        They win over those of the YAML, for each notebook that has them.
    only : str, optional
        Run only those whose name matches this pattern.
    force : bool
        Run even what is done already.
    timeout : int, optional
        Seconds a cell, instead of the YAML's.
    protocol : bool
        Run it as a protocol that `freeze` froze; the report then names every deviation.

    Returns
    -------
    list of Outcome

    Raises
    ------
    UnknownNameError, BadInputError
        If anything in the YAML cannot be used, or the protocol is not frozen; then nothing has run.

    Examples
    --------
    >>> run_series("notebooks/demo.yaml", "outputs/demo", only="02*")  # doctest: +SKIP
    """
    out = Path(out)
    if timeout is not None:
        whole_number("timeout (seconds a cell)", timeout, 1)
    series = read_series(path, parameters=parameters, only=only)
    _refuse_shared_outs(series, out)
    about: dict[str, Any] = {name: getattr(series, name) for name in ("title", "question", "source")}
    if protocol:
        about["protocol"] = read_protocol(path) | {"command_line": list(parameters or {})}
    with locked(out):
        sweep(out)
        write_text(out / "series.json", json.dumps(about | {"runs": series.names}, indent=1))
        write_plotly_library(out)
    outcomes = []
    for number, run in enumerate(series.runs, start=1):
        head = f"[{number}/{len(series.runs)}] {run.name}"

        def begin(why: str, head: str = head) -> None:
            say(f"{head} … runs again: {why}" if why else f"{head} …")

        outcome = _run(Run(run.name, run.notebook, run.parameters, timeout or run.timeout), out, force, begin)
        ends = {
            "done": f"done in {outcome.seconds:.0f} s",
            "skipped": "is done already, with the same notebook, parameters, inputs, code and versions",
            "failed": f"failed after {outcome.seconds:.0f} s: {outcome.error} (see {outcome.folder / run.name}.log)",
        }
        say(f"{head} {ends[outcome.status]}")
        outcomes.append(outcome)
    return outcomes


def _refuse_shared_outs(series: Series, out: Path) -> None:
    """Raise if two runs would write to one folder, however it is spelt."""
    writers: dict[Path, str] = {}
    for run in series.runs:
        own = out / run.name
        chosen = Path(str(_filled(run.parameters.get("out") or str(own), out)))
        for place in {own.resolve(), chosen.resolve()}:
            if (other := writers.setdefault(place, run.name)) != run.name:
                raise BadInputError(
                    f"{series.source}: {other!r} and {run.name!r} write to the same folder, {str(place)!r}: the later would "
                    "destroy the results of the earlier. Leave `out` away, then each run gets a folder of its own."
                )


def _filled(value: Any, out: Path) -> Any:
    """Put the series' folder where ``{out}`` stands; other braces are the notebook's own."""
    if isinstance(value, str):
        return value.replace("{out}", out.as_posix())
    return [_filled(one, out) for one in value] if isinstance(value, list) else value


def _run(run: Run, out: Path, force: bool, begin: Callable[[str], None]) -> Outcome:
    """Run one notebook if need be; `begin` is called with the reason why what lies there does not do."""
    known, folder = read_parameters(run.notebook), out / run.name
    parameters = {key: _filled(value, out) for key, value in run.parameters.items()}
    if "out" in known:
        parameters.setdefault("out", folder.as_posix())
    check_parameter_types(parameters, known, run.notebook)
    with locked(out, run.name):
        inputs = result_inputs(run.notebook, parameters, known, folder)
        state = read_json(folder / STATE)
        why = "it is forced" if force else _why_again(state, inputs, folder / f"{run.name}.ipynb")
        if state and not why:
            shutil.rmtree(folder / PREVIOUS, ignore_errors=True)  # a kill may have come before that
            return Outcome(run.name, "skipped", float(state["seconds"]), folder)
        begin(why if state else "")
        with writable(folder):
            sweep(folder)
            _set_aside(folder, state)
        return _run_anew(run, parameters, inputs, folder)


def _why_again(state: Mapping[str, Any], inputs: Mapping[str, str], executed: Path) -> str:
    """Say why what lies there does not do; empty if it does."""
    status = state.get("status")
    if status != "done":
        return "it failed before" if status == "failed" else "it was not finished"
    if not executed.exists() or not isinstance(state.get("seconds"), int | float):
        return f"{executed.name} is gone"
    return _differences(state.get("inputs"), inputs)


def _run_anew(run: Run, parameters: dict[str, Any], inputs: dict[str, str], folder: Path) -> Outcome:
    record = {
        "name": run.name,
        "notebook": run.notebook.name,
        "status": "running",  # what a kill leaves: not done, so it runs again
        "error": "",
        "parameters": parameters,
        "given": run.parameters,  # as written: {out} not filled in
        "code": code_digests(run.notebook),
        "seconds": 0.0,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "process": f"process {os.getpid()} on {platform.node()}",
        "inputs": inputs,
        "versions": {key.partition(" ")[2]: inputs[key] for key in inputs if key.startswith("version ")},
    }
    _write_state(folder, record)
    before = time.monotonic()

    def ended(status: Literal["done", "failed", "interrupted"], error: str) -> None:
        seconds = round(time.monotonic() - before, 1)
        _write_state(folder, record | {"status": status, "error": error, "seconds": seconds})

    try:
        error = execute(run, parameters, folder.parent, folder)
        ended("failed" if error else "done", error)
    except KeyboardInterrupt:
        with suppress(OSError, BadInputError):
            ended("interrupted", "stopped by Ctrl-C")
        raise
    except (OSError, BadInputError) as problem:  # a notebook that, say, put a file where its folder was
        error = f"{type(problem).__name__}: {problem}"
        with suppress(OSError, BadInputError):
            ended("failed", error)
    if not error:
        shutil.rmtree(folder / PREVIOUS, ignore_errors=True)
    return Outcome(run.name, "failed" if error else "done", time.monotonic() - before, folder, error)


def exit_code(work: Callable[[], int]) -> int:
    """Do the work of a command line; print in a line what ended it early.

    Examples
    --------
    >>> exit_code(lambda: 0)
    0
    """
    try:
        return work()
    except LdmKitError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        advice = "the same command goes on from there."
        print(
            f"Interrupted. What is done stays, the running notebook as NAME.failed.ipynb; {advice}",
            file=sys.stderr,
        )
        return 130


def say(line: str) -> None:
    """Print a line of progress at once, also where the output goes to a file."""
    print(line, flush=True)


# --- What a result depends on


def result_inputs(
    notebook: Path, values: Mapping[str, Any], known: Mapping[str, Parameter], folder: Path
) -> dict[str, str]:
    """List what a result depends on here, kind and name to a value or a digest, so that a change can be named.

    That is the notebook, its parameters, the package with its data, versions, the environment, and the inputs:
    each file or folder that a parameter (by default as well) or a variable ``LDM_KIT_…`` names, and the folders of the
    models registered in ``LDM_KIT_MODELS``. A file counts with its content; a folder with the names and sizes of its
    files, the content of small ones and the time of large ones. What the hub serves under a model's name cannot
    be known before the run: it loads the newest it can get. Of what lies within the series' own folder, files count, and
    what another run made; any other folder there may be one that the run writes to.
    """
    variables = {
        name: value
        for name, value in sorted(os.environ.items())
        if name in ENVIRONMENT or (name.startswith("LDM_KIT_") and name != SERIES_VARIABLE)
    }
    read = {**_defaults(known), **values}
    named = list(_texts([value for name, value in read.items() if name not in WRITTEN]))
    named += [value for name, value in variables.items() if name.startswith("LDM_KIT_")]
    if "LDM_KIT_MODELS" in variables:
        from ldm_kit.models.registry import registered_models

        with suppress(Exception):  # what is wrong with the table, the notebook that needs it says
            named += [
                text for model in registered_models().values() for text in (model.source, model.prior or "")
            ]
    return {
        "file the notebook": _digest(notebook, folder),
        "file the code of ldm_kit": _digest(Path(ldm_kit.__path__[0]), folder),
        **{f"parameter {name}": json.dumps(value, sort_keys=True) for name, value in values.items()},
        **{f"file {text}": _digest(path, folder) for text in named if (path := _input(text, folder))},
        **{f"variable {name}": value for name, value in variables.items()},
        **{f"version {name}": value for name, value in versions().items()},
    }


def _differences(before: object, now: Mapping[str, str]) -> str:
    """Say what changed between two results of `result_inputs`; empty if nothing did."""
    if not isinstance(before, dict):
        return "it was made by an older ldm_kit"
    changes = []
    for key in dict.fromkeys([*before, *now]):
        old, new = before.get(key), now.get(key)
        kind, _, name = key.partition(" ")
        if old == new:
            continue
        if kind == "file":
            changes.append(f"{name} {'is gone' if new is None else 'changed'}")
        else:
            changes.append(
                f"{name} {'not set' if old is None else old} → {'not set' if new is None else new}"
            )
    more = [f"and {len(changes) - DIFFERENCES_SHOWN} more"] if len(changes) > DIFFERENCES_SHOWN else []
    return "; ".join(changes[:DIFFERENCES_SHOWN] + more)


def versions() -> dict[str, str]:
    """List the versions of Python, the system and the installed packages that results depend on."""
    found = {"python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}"}
    for name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _defaults(known: Mapping[str, Parameter]) -> dict[str, Any]:
    defaults = {}
    for name, parameter in known.items():
        with suppress(ValueError, SyntaxError):
            defaults[name] = ast.literal_eval(parameter.default)
    return defaults


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _texts(one)


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
    if parts[0] == folder.name:
        own = parts[1:2] == () or parts[1] in RESULTS or parts[1].startswith(f"{folder.name}.")
        return path.is_file() and not own
    # A folder may be one that this run writes to, such as that of a game's answers.
    return (path.is_file() and parts[0] not in OF_THE_SERIES) or (folder.parent / parts[0] / STATE).exists()


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
    """All files below a folder but caches of code, in order; links are followed, each folder is entered once."""
    entered = {os.path.realpath(without)}
    for place, folders, files in os.walk(top, followlinks=True):
        entered.add(os.path.realpath(place))
        folders[:] = [
            name
            for name in sorted(folders)
            if name != "__pycache__" and os.path.realpath(Path(place, name)) not in entered
        ]
        for name in sorted(files):
            with suppress(OSError):
                if stat.S_ISREG(Path(place, name).stat().st_mode):
                    yield Path(place, name)


# --- What a run's folder holds


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; one that is missing or cannot be read counts as empty."""
    with suppress(OSError, ValueError, RecursionError):
        read = json.loads(path.read_text(encoding="utf-8"))
        return read if isinstance(read, dict) else {}
    return {}


def _write_state(folder: Path, state: Mapping[str, Any]) -> None:
    write_text(folder / STATE, json.dumps(state, indent=1))


@contextmanager
def locked(out: Path, name: str = "") -> Iterator[None]:
    """Keep other processes from a run's folder, or (without a name) from the files of the series itself.

    A lock ends with its process, however that ends; it lies in the series' folder, as a notebook may delete its own.
    For those of the series this waits; a run's folder that another process holds is an error.
    """
    with writable(out):
        path = out / ".locks" / f"{name or '.report'}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        try:
            lock.acquire(timeout=1 if name else -1)  # a report that sweeps may hold a run's for a moment
        except Timeout as error:
            holder = read_json(out / name / STATE).get("process", "another process")
            raise BadInputError(
                f"{str(out / name)!r} is in use by {holder}. Two runs would destroy each other's results: wait for its "
                "end, or choose another `out`."
            ) from error
    try:
        yield
    finally:
        lock.release()


def _set_aside(folder: Path, state: Mapping[str, Any]) -> None:
    """Move the results of the last finished run out of the way of a new one, which may fail.

    They wait in ``.previous`` until the new one is done. What a failed run left is deleted. All else that lies in
    the folder, such as features and checkpoints, stays.
    """
    # The manifest goes first: without it the report shows nothing of the rest.
    ends = (".ipynb", ".html", ".log", ".failed.ipynb", ".failed.html")
    names = [MANIFEST, "tables", "figures", *(f"{folder.name}{end}" for end in ends)]
    old = [path for name in names if os.path.lexists(path := folder / name)]
    if state.get("status") in ("failed", "interrupted", "running"):
        for path in old:
            _delete(path)
    elif old:
        # A kill may come between any two of these: until the last has moved, run.json says what they are of.
        if state.get("status") != "superseded":
            _delete(folder / PREVIOUS)
            _write_state(folder / PREVIOUS, state)
            _write_state(folder, {**state, "status": "superseded"})
        for path in old:
            path.replace(folder / PREVIOUS / path.name)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Delete what a killed run left half-written."""
    for place in (folder, folder / "tables", folder / "figures"):
        for orphan in place.glob(".*.partial*"):
            with suppress(OSError):
                orphan.unlink()
