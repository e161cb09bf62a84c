"""Run notebooks headless: a crash costs one of them, a kill nothing, and a rerun does what is missing."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from ldm_kit.batch.execution import execute
from ldm_kit.batch.parameters import check_parameters, read_parameters
from ldm_kit.batch.provenance import package_versions
from ldm_kit.batch.series import CELL_TIMEOUT, Run, Series, checked_name, read_series
from ldm_kit.batch.state import (
    STATE,
    differences,
    fingerprint,
    forget_previous,
    locked,
    read_json,
    report_locked,
    set_aside,
    sweep,
    this_process,
    write_state,
)
from ldm_kit.errors import BadInputError, LdmKitError, whole_number
from ldm_kit.files import write_text
from ldm_kit.run_record import write_plotly_library

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
    return _run(path, out, parameters, name, timeout, force, say_why=lambda why: None)


def _run(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    parameters: Mapping[str, Any] | None,
    name: str | None,
    timeout: int,
    force: bool,
    say_why: Callable[[str], None],
) -> Outcome:
    path, out = Path(path), Path(out)
    known = read_parameters(path)
    given = dict(parameters or {})
    whole_number("timeout (seconds a cell)", timeout, 1)
    run = Run(checked_name(path.stem if name is None else name), path, given, timeout)
    folder = out / run.name
    if "out" in known:
        given.setdefault("out", folder.as_posix())
    given = {key: _filled(value, out) for key, value in given.items()}
    check_parameters(given, known, path)
    with locked(out, run.name):
        made_from = fingerprint(path, given, known, folder)
        state = read_json(folder / STATE)
        why = "asked to" if force else _why_again(state, made_from, folder / f"{run.name}.ipynb")
        if state and not why:
            forget_previous(folder)  # a kill may have come before that
            return Outcome(run.name, "skipped", float(state["seconds"]), folder)
        say_why(why if state else "")
        return _run_anew(run, given, made_from, folder, state)


def _why_again(state: Mapping[str, Any], made_from: Mapping[str, str], executed: Path) -> str:
    """Say why what lies there does not do; empty if it does."""
    status = state.get("status")
    if status != "done":
        return "it failed before" if status == "failed" else "it was not finished"
    if not executed.exists() or not isinstance(state.get("seconds"), int | float):
        return f"{executed.name} is gone"
    return differences(state.get("fingerprint"), made_from)


def _run_anew(
    run: Run, given: dict[str, Any], made_from: dict[str, str], folder: Path, state: Mapping[str, Any]
) -> Outcome:
    try:
        sweep(folder)
        set_aside(folder, state)
    except OSError as error:
        raise BadInputError(
            f"What an earlier run left in {str(folder)!r} cannot be moved aside ({error}). Move it yourself, or "
            "choose another `out`."
        ) from error
    record = {
        "name": run.name,
        "notebook": run.notebook.name,
        "status": "running",  # what a kill leaves: not done, so it runs again
        "error": "",
        "parameters": given,
        "seconds": 0.0,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "process": this_process(),
        "fingerprint": made_from,
        "versions": package_versions(),
    }
    write_state(folder, record)
    before = time.monotonic()

    def ended(status: Literal["done", "failed", "interrupted"], error: str) -> float:
        seconds = time.monotonic() - before
        write_state(folder, record | {"status": status, "error": error, "seconds": round(seconds, 1)})
        return seconds

    try:
        told = execute(run, given, folder.parent, folder)
        seconds = ended("failed" if told else "done", told)
    except KeyboardInterrupt:
        with suppress(OSError, BadInputError):
            ended("interrupted", "stopped by Ctrl-C")
        raise
    except (OSError, BadInputError) as problem:  # a notebook that, say, put a file where its folder was
        told, seconds = f"{type(problem).__name__}: {problem}", time.monotonic() - before
        with suppress(OSError, BadInputError):
            ended("failed", told)
    if not told:
        forget_previous(folder)
    return Outcome(run.name, "failed" if told else "done", seconds, folder, told)


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
    if timeout is not None:
        whole_number("timeout (seconds a cell)", timeout, 1)
    series = read_series(path, parameters=parameters, only=only)
    _refuse_shared_outs(series, out)
    with report_locked(out):
        _write_series(series, out)
        write_plotly_library(out)
    outcomes = []
    for number, run in enumerate(series.runs, start=1):
        head = f"[{number}/{len(series.runs)}] {run.name}"

        def begin(why: str, head: str = head) -> None:
            say(f"{head} … runs again: {why}" if why else f"{head} …")

        outcome = _run(run.notebook, out, run.parameters, run.name, timeout or run.timeout, force, begin)
        say(f"{head} {_told(outcome)}")
        outcomes.append(outcome)
    return outcomes


def _refuse_shared_outs(series: Series, out: Path) -> None:
    """Raise if two runs would write to one folder, however it is spelt."""
    writers: dict[Path, str] = {}
    for run in series.runs:
        own, told = out / run.name, _filled(run.parameters.get("out"), out)
        for place in {own.resolve(), Path(told).resolve() if isinstance(told, str) else own.resolve()}:
            if (other := writers.setdefault(place, run.name)) != run.name:
                raise BadInputError(
                    f"{series.source}: {other!r} and {run.name!r} write to the same folder, {str(place)!r}: the later would "
                    "destroy the results of the earlier. Leave `out` away, then each run gets a folder of its own."
                )


def exit_code(work: Callable[[], int]) -> int:
    """Do the work of a command line, and tell in a line what ended it early.

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
        print(
            "Interrupted. What is done is kept, and what the notebook at work had as NAME.failed.ipynb; "
            "the same command goes on from there.",
            file=sys.stderr,
        )
        return 130


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
        return "is done already, with the same notebook, parameters, inputs, code and versions"
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
