"""Run notebooks headless: a crash costs one of them, a kill nothing, and a rerun does what is missing."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from ldm_kit.atomic import write_text
from ldm_kit.batch.execution import execute
from ldm_kit.batch.parameters import check_parameters, read_parameters
from ldm_kit.batch.provenance import package_versions
from ldm_kit.batch.series import CELL_TIMEOUT, Run, Series, read_series
from ldm_kit.batch.state import fingerprint, read_json, sweep

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
    print_now = fingerprint(path, given)
    state = read_json(state_file)
    done = state.get("status") == "done" and state.get("fingerprint") == print_now
    if done and not force and (folder / f"{run.name}.ipynb").exists():
        return Outcome(run.name, "skipped", float(state["seconds"]), folder)

    sweep(folder)
    record = {
        "name": run.name,
        "notebook": path.name,
        "status": "running",  # what a kill leaves: not done, so it runs again
        "error": "",
        "parameters": given,
        "seconds": 0.0,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "fingerprint": print_now,
        "versions": package_versions(),
    }
    write_text(state_file, json.dumps(record, indent=1, ensure_ascii=False))
    before = time.monotonic()
    error = execute(run, given, out, folder)
    outcome = Outcome(run.name, "failed" if error else "done", time.monotonic() - before, folder, error)
    record |= {"status": outcome.status, "error": error, "seconds": round(outcome.seconds, 1)}
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


def _filled(value: Any, out: Path) -> Any:
    """Put the series' folder where ``{out}`` stands; other braces are the notebook's own."""
    if isinstance(value, str):
        return value.replace("{out}", out.as_posix())
    if isinstance(value, list):
        return [_filled(one, out) for one in value]
    return value


def _write_series(series: Series, out: Path) -> None:
    content = {
        "title": series.title,
        "question": series.question,
        "source": series.source,
        "runs": series.names,
    }
    write_text(out / "series.json", json.dumps(content, indent=1, ensure_ascii=False))
