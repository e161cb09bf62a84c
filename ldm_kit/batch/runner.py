"""Run notebooks headless: a crash costs one of them, a kill nothing, and a rerun does what is missing."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import sys
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import ldm_kit
from ldm_kit.atomic import write_text
from ldm_kit.batch.kernel import (
    KERNEL_NAME,
    encrypted_kernel_manager,
    environment_set,
    kernel_environment,
    stall_proof_wait,
)
from ldm_kit.batch.parameters import check_parameters, read_parameters
from ldm_kit.batch.provenance import package_versions
from ldm_kit.batch.series import CELL_TIMEOUT, Run, Series, read_series

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
        The folder of the series; the run's own is ``out/name``, and is given to the notebook as its
        parameter `out`, if it has one that is not in `parameters`.
    parameters : mapping, optional
        In string values ``{out}`` stands for the series' folder.
    name : str, optional
        The run's name; the notebook's, if not given.
    timeout : int
        Seconds that one cell may take.
    force : bool
        Run even what is already done with the same notebook, parameters and code.

    Returns
    -------
    Outcome
        A notebook that fails is no exception: its status says so, and ``NAME.failed.ipynb`` and
        ``NAME.log`` show why.

    Raises
    ------
    UnknownNameError, BadInputError
        If a parameter is not one of the notebook's, or has another type; if `out` cannot be written to.

    Examples
    --------
    >>> run_notebook("notebooks/02_probing.ipynb", "outputs/mine", {"seed": 1})  # doctest: +SKIP
    Outcome(name='02_probing', status='done', seconds=31.2, ...)
    """
    path, out = Path(path), Path(out)
    known = read_parameters(path)
    given = dict(parameters or {})
    run = Run(name or path.stem, path, given, timeout)
    folder = out / run.name
    if "out" in known:
        given.setdefault("out", folder.as_posix())
    given = {key: _filled(value, out) for key, value in given.items()}
    check_parameters(given, known, path)

    state_file = folder / "run.json"
    fingerprint = _fingerprint(path, given)
    executed = folder / f"{run.name}.ipynb"
    state = _read_json(state_file)
    if (
        not force
        and executed.exists()
        and state.get("status") == "done"
        and state.get("fingerprint") == fingerprint
    ):
        return Outcome(run.name, "skipped", float(state["seconds"]), folder)

    _sweep(folder)
    started = datetime.now(UTC).isoformat(timespec="seconds")
    before = time.monotonic()
    error = _execute(run, given, out, folder)
    outcome = Outcome(run.name, "failed" if error else "done", time.monotonic() - before, folder, error)
    record = {
        "name": run.name,
        "notebook": path.name,
        "status": outcome.status,
        "error": error,
        "parameters": given,
        "seconds": round(outcome.seconds, 1),
        "started": started,
        "fingerprint": fingerprint,
        "versions": package_versions(),
    }
    write_text(state_file, json.dumps(record, indent=1, ensure_ascii=False))
    return outcome


def run_series(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    parameters: Mapping[str, Any] | None = None,
    only: str | None = None,
    force: bool = False,
    timeout: int | None = None,
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

    Returns
    -------
    list of Outcome

    Raises
    ------
    UnknownNameError, BadInputError
        If anything in the YAML cannot be used; then nothing has run.

    Examples
    --------
    >>> run_series("notebooks/demo.yaml", "outputs/demo", only="02*")  # doctest: +SKIP
    """
    out = Path(out)
    series = read_series(path, parameters=parameters, only=only)
    _write_series(series, out)
    outcomes = []
    for number, run in enumerate(series.runs, start=1):
        say(f"[{number}/{len(series.runs)}] {run.name} …")
        outcome = run_notebook(
            run.notebook, out, run.parameters, name=run.name, timeout=timeout or run.timeout, force=force
        )
        say(f"[{number}/{len(series.runs)}] {run.name} {_told(outcome)}")
        outcomes.append(outcome)
    return outcomes


def say(line: str) -> None:
    """Print a line of progress at once, also where the output goes to a file.

    Examples
    --------
    >>> say("[1/5] 00_start_here …")
    [1/5] 00_start_here …
    """
    print(line, flush=True)


def _told(outcome: Outcome) -> str:
    if outcome.status == "failed":
        return (
            f"failed after {outcome.seconds:.0f} s: {outcome.error} (see {outcome.folder / outcome.name}.log)"
        )
    if outcome.status == "skipped":
        return "is done already, with the same notebook, parameters and code"
    return f"done in {outcome.seconds:.0f} s"


def _execute(run: Run, parameters: dict[str, Any], out: Path, folder: Path) -> str:
    """Run the notebook into its folder; return the error in one line, empty if there was none."""
    import papermill

    aside = folder / f".{run.name}.running.partial.ipynb"
    executed, failed, log = (folder / f"{run.name}{suffix}" for suffix in (".ipynb", ".failed.ipynb", ".log"))
    write_text(aside, "")  # an unwritable folder is found before the kernel starts
    error = ""
    try:
        with environment_set(kernel_environment(out)), stall_proof_wait():
            papermill.execute_notebook(
                str(run.notebook),
                str(aside),
                parameters=parameters,
                kernel_name=KERNEL_NAME,
                kernel_manager_class=encrypted_kernel_manager(),
                execution_timeout=run.timeout,
                progress_bar=sys.stderr.isatty(),
            )
    except Exception as problem:  # whatever a notebook does, the others go on
        error = _in_one_line(problem)
        write_text(log, _log_text(run, problem, aside))
        if aside.stat().st_size:  # it is empty if not even a kernel was started
            aside.replace(failed)
    else:
        aside.replace(executed)
        failed.unlink(missing_ok=True)
        log.unlink(missing_ok=True)
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
    return error


def _in_one_line(problem: Exception) -> str:
    name, value = getattr(problem, "ename", ""), getattr(problem, "evalue", "")
    if name:  # raised in a cell
        first = str(value).strip().splitlines()
        return f"{name}: {first[0]}" if first else str(name)
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
    return f"{type(problem).__name__}: {lines[0]}" if lines else type(problem).__name__


def _log_text(run: Run, problem: Exception, aside: Path) -> str:
    """Tell what a reader at nine in the morning needs: the traceback, then the last that went to stderr."""
    told = "".join(traceback.format_exception(problem))
    parts = [f"{run.notebook.name} as {run.name} failed.", f"Cell timeout: {run.timeout} s.", "", told]
    with suppress(Exception):
        cells = json.loads(aside.read_text(encoding="utf-8"))["cells"]
        outputs = [output for cell in cells for output in cell.get("outputs", [])]
        stderr = "".join("".join(output["text"]) for output in outputs if output.get("name") == "stderr")
        parts += ["Last of stderr:", "", *stderr.splitlines()[-50:]]
    return re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(parts)) + "\n"


def _filled(value: Any, out: Path) -> Any:
    """Put the series' folder where ``{out}`` stands; other braces are the notebook's own."""
    if isinstance(value, str):
        return value.replace("{out}", out.as_posix())
    if isinstance(value, list):
        return [_filled(one, out) for one in value]
    return value


def _fingerprint(notebook: Path, parameters: dict[str, Any]) -> str:
    """Digest what a result depends on here: the notebook, its parameters, the package with its data."""
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


def _read_json(path: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        read = json.loads(path.read_text(encoding="utf-8"))
        return read if isinstance(read, dict) else {}
    return {}


def _sweep(folder: Path) -> None:
    """Delete what a killed run left half-written."""
    for place in (folder, folder / "tables", folder / "figures"):
        for orphan in place.glob(".*.partial*"):
            with suppress(OSError):
                orphan.unlink()


def _write_series(series: Series, out: Path) -> None:
    content = {
        "title": series.title,
        "question": series.question,
        "source": series.source,
        "runs": series.names,
    }
    write_text(out / "series.json", json.dumps(content, indent=1, ensure_ascii=False))
