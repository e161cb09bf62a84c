"""Run one notebook through papermill: its kernel, and what it leaves when it fails."""

from __future__ import annotations

import json
import os
import re
import sys
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from queue import Empty
from typing import Any

import ldm_kit
from ldm_kit.batch.series import Run
from ldm_kit.errors import BadInputError
from ldm_kit.files import write_text
from ldm_kit.run_record import SERIES_VARIABLE

STDERR_LINES = 50
SLICE_SECONDS = 0.5


def execute(run: Run, parameters: dict[str, Any], out: Path, folder: Path) -> str:
    """Run a notebook into its folder, as ``NAME.ipynb``, or as ``NAME.failed.ipynb`` beside ``NAME.log``.

    Returns the error in one line, empty if there was none. On Ctrl-C the kernel is shut down, and what there is of
    the notebook stored as failed.
    """
    import papermill

    aside = folder / f".{run.name}.running.partial.ipynb"
    write_text(aside, "")  # an unwritable folder is found before the kernel starts
    try:
        papermill.execute_notebook(
            str(run.notebook),
            str(aside),
            parameters=parameters,
            kernel_name="python3",
            language="python",
            kernel_manager_class=_kernel_manager(_kernel_environment(out)),
            execution_timeout=run.timeout,
            iopub_timeout=60,  # the default, 4 s, is too short for a machine under load
            progress_bar=sys.stderr.isatty(),
        )
        aside.replace(folder / f"{run.name}.ipynb")
    except Exception as problem:  # whatever a notebook does, the others go on
        error = _in_one_line(problem)
        if not aside.exists():
            error = f"the notebook deleted its own folder, {str(folder)!r}, or moved it ({error})"
        _keep_failed(run, problem, aside, folder)
        return error
    except KeyboardInterrupt as problem:
        with suppress(OSError, BadInputError):  # it stops in any case
            _keep_failed(run, problem, aside, folder)
        raise
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
    return ""


def _kernel_environment(out: Path) -> dict[str, str]:
    """Add what the kernels of a series need to the environment variables of this process."""
    environment = os.environ | {
        SERIES_VARIABLE: str(out.resolve()),
        # Figures stay data in the executed notebook; its HTML draws them from the series' own plotly.js.
        "PLOTLY_RENDERER": "plotly_mimetype",
        "MPLBACKEND": "agg",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }
    root = Path(ldm_kit.__path__[0]).parent
    if (root / "pyproject.toml").is_file():  # a checkout: kernels find it from any folder, installed or not
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    return environment


def _kernel_manager(environment: Mapping[str, str]) -> type[Any]:
    """Make the class of the managers of our kernels; jupyter-client takes its time to import."""
    from jupyter_client.asynchronous.client import AsyncKernelClient
    from jupyter_client.channels import AsyncZMQSocketChannel
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager

    class Channel(AsyncZMQSocketChannel):
        """A channel that looks for messages twice a second.

        One that arrives between a look and the wait for the next can wake nobody, and nbclient then waits for ever
        (jupyter/nbclient#312).
        """

        async def get_msg(self, timeout: float | None = None) -> dict[str, Any]:  # type: ignore[override]
            end = float("inf") if timeout is None else time.monotonic() + timeout
            while True:
                try:
                    left = max(0.0, min(SLICE_SECONDS, end - time.monotonic()))
                    message: dict[str, Any] = await super().get_msg(left)
                    return message
                except Empty:
                    if time.monotonic() >= end:
                        raise

    class Client(AsyncKernelClient):
        shell_channel_class = iopub_channel_class = control_channel_class = Channel

    class Manager(AsyncKernelManager):
        def __init__(self, **options: Any) -> None:
            # Others on the machine can reach a kernel's ports, on a cluster's shared node as well.
            options |= {"transport_encryption": "auto", "client_factory": Client}
            # This very Python, not what another project left in the home folder under the kernel's name.
            super().__init__(kernel_spec_manager=KernelSpecManager(kernel_dirs=[]), **options)

        async def start_kernel(self, **options: Any) -> None:  # type: ignore[override]
            await super().start_kernel(env=dict(environment), **options)

        async def shutdown_kernel(self, now: bool = False, restart: bool = False) -> None:  # type: ignore[override]
            # A request in the middle of a cell would be answered by a message that it could not be.
            stopped = isinstance(sys.exc_info()[1], KeyboardInterrupt)
            await super().shutdown_kernel(now=now or stopped, restart=restart)

    return Manager


def _keep_failed(run: Run, problem: BaseException, aside: Path, folder: Path) -> None:
    """Keep what there is of a notebook, and a log: the traceback, then the last that went to stderr."""
    parts = [
        f"{run.notebook.name} as {run.name} did not end well.",
        f"Cell timeout: {run.timeout} s.",
        "",
        "".join(traceback.format_exception(problem)),
    ]
    with suppress(Exception):
        cells = json.loads(aside.read_text(encoding="utf-8"))["cells"]
        outputs = [output for cell in cells for output in cell.get("outputs", [])]
        stderr = "".join("".join(output["text"]) for output in outputs if output.get("name") == "stderr")
        parts += ["Last of stderr:", "", *stderr.splitlines()[-STDERR_LINES:]]
    write_text(folder / f"{run.name}.log", re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(parts)) + "\n")
    if aside.exists() and aside.stat().st_size:  # it is empty if not even a kernel was started
        aside.replace(folder / f"{run.name}.failed.ipynb")


def _in_one_line(problem: BaseException) -> str:
    """Name the error that a cell raised, or the runner, with the first line of what it says."""
    name = getattr(problem, "ename", "") or type(problem).__name__
    lines = [line.strip() for line in str(getattr(problem, "evalue", problem)).splitlines() if line.strip()]
    return f"{name}: {lines[0]}" if lines else name
