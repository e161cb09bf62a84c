"""Run one notebook through papermill, so that it is kept whole when it ends and tells why when it fails."""

from __future__ import annotations

import json
import re
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

from ldm_kit.batch.kernel import (
    KERNEL_NAME,
    encrypted_kernel_manager,
    environment_set,
    kernel_environment,
    stall_proof_wait,
)
from ldm_kit.batch.series import Run
from ldm_kit.errors import BadInputError
from ldm_kit.files import write_text

STDERR_LINES = 50


def execute(run: Run, parameters: dict[str, Any], out: Path, folder: Path) -> str:
    """Run a notebook into its folder.

    Parameters
    ----------
    run : Run
    parameters : dict
        All that the notebook is given.
    out, folder : pathlib.Path
        The series' folder, and the run's own within it.

    Returns
    -------
    str
        The error in one line, empty if there was none. The notebook lies in `folder` as ``NAME.ipynb``, or as
        ``NAME.failed.ipynb`` beside ``NAME.log``.

    Raises
    ------
    KeyboardInterrupt
        If the user stops it. The kernel is shut down, and what there is of the notebook kept as failed.

    Examples
    --------
    >>> execute(run, {"seed": 1}, Path("outputs/mine"), Path("outputs/mine/02_probing"))  # doctest: +SKIP
    ''
    """
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
                language="python",
                kernel_manager_class=encrypted_kernel_manager(),
                execution_timeout=run.timeout,
                iopub_timeout=60,  # the default, 4 s, is too short for a machine under load
                progress_bar=sys.stderr.isatty(),
            )
        aside.replace(executed)
    except Exception as problem:  # whatever a notebook does, the others go on
        error = _in_one_line(problem)
        if not aside.exists():
            error = f"the notebook deleted its own folder, {str(folder)!r}, or moved it ({error})"
        _keep_failed(run, problem, aside, failed, log)
    except KeyboardInterrupt as problem:
        with suppress(OSError, BadInputError):  # it stops in any case
            _keep_failed(run, problem, aside, failed, log)
        raise
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
    return error


def _keep_failed(run: Run, problem: BaseException, aside: Path, failed: Path, log: Path) -> None:
    write_text(log, _log_text(run, problem, aside))
    if aside.exists() and aside.stat().st_size:  # it is empty if not even a kernel was started
        aside.replace(failed)


def _in_one_line(problem: BaseException) -> str:
    name, value = getattr(problem, "ename", ""), getattr(problem, "evalue", "")
    if name:  # raised in a cell
        first = str(value).strip().splitlines()
        return f"{name}: {first[0]}" if first else str(name)
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
    return f"{type(problem).__name__}: {lines[0]}" if lines else type(problem).__name__


def _log_text(run: Run, problem: BaseException, aside: Path) -> str:
    """Tell what a reader at nine in the morning needs: the traceback, then the last that went to stderr."""
    told = "".join(traceback.format_exception(problem))
    parts = [
        f"{run.notebook.name} as {run.name} did not end well.",
        f"Cell timeout: {run.timeout} s.",
        "",
        told,
    ]
    with suppress(Exception):
        cells = json.loads(aside.read_text(encoding="utf-8"))["cells"]
        outputs = [output for cell in cells for output in cell.get("outputs", [])]
        stderr = "".join("".join(output["text"]) for output in outputs if output.get("name") == "stderr")
        parts += ["Last of stderr:", "", *stderr.splitlines()[-STDERR_LINES:]]
    return re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(parts)) + "\n"
