"""What a kernel needs to run headless: an environment of its own, and a wait that cannot stall."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from queue import Empty
from typing import Any

import ldm_kit
from ldm_kit.run_record import SERIES_VARIABLE

# The kernel's name in every notebook; with the environment below it is this very Python.
KERNEL_NAME = "python3"
SLICE_SECONDS = 0.5


def kernel_environment(series_out: str | os.PathLike[str]) -> dict[str, str]:
    """Say which environment variables the kernels of a series get.

    Parameters
    ----------
    series_out : path-like
        The folder of the series.

    Returns
    -------
    dict of str to str

    Examples
    --------
    >>> kernel_environment("outputs/demo")["PLOTLY_RENDERER"]
    'plotly_mimetype'
    """
    environment = {
        SERIES_VARIABLE: str(Path(series_out).resolve()),
        # Figures stay data in the executed notebook; its HTML draws them from the series' own plotly.js.
        "PLOTLY_RENDERER": "plotly_mimetype",
        # The kernelspec of this environment, not one that another project left in the home folder.
        "JUPYTER_PREFER_ENV_PATH": "1",
        "MPLBACKEND": "agg",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }
    root = Path(ldm_kit.__path__[0]).parent
    if (root / "pyproject.toml").is_file():  # a checkout: kernels find it from any folder, installed or not
        before = os.environ.get("PYTHONPATH")
        environment["PYTHONPATH"] = os.pathsep.join([str(root), *([before] if before else [])])
    return environment


@contextmanager
def environment_set(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for the length of a block; children started in it inherit them.

    Examples
    --------
    >>> with environment_set({"LDM_KIT_EXAMPLE": "1"}):
    ...     os.environ["LDM_KIT_EXAMPLE"]
    '1'
    >>> "LDM_KIT_EXAMPLE" in os.environ
    False
    """
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def stall_proof_wait() -> Iterator[None]:
    """Wait for kernel messages in short slices, for the length of a block.

    A message that arrives between a look and the wait for the next can wake nobody, and nbclient then
    waits for ever (jupyter/nbclient#312). A wait that looks again twice a second costs nothing and cannot
    miss it.

    Examples
    --------
    >>> with stall_proof_wait():  # doctest: +SKIP
    ...     papermill.execute_notebook(source, target)
    """
    from jupyter_client.channels import AsyncZMQSocketChannel as Channel

    original = Channel.get_msg

    async def sliced(self: Any, timeout: float | None = None) -> dict[str, Any]:
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            left = SLICE_SECONDS if end is None else max(0.0, min(SLICE_SECONDS, end - time.monotonic()))
            try:
                message: dict[str, Any] = await original(self, left)
                return message
            except Empty:
                if end is not None and time.monotonic() >= end:
                    raise

    Channel.get_msg = sliced  # type: ignore[method-assign]
    try:
        yield
    finally:
        Channel.get_msg = original  # type: ignore[method-assign]


def encrypted_kernel_manager() -> type[Any]:
    """Return the class of kernel managers that encrypt what passes between runner and kernel, where both can.

    Others on the machine can reach a kernel's ports, on a cluster's shared node as well.

    Examples
    --------
    >>> encrypted_kernel_manager().__name__
    'EncryptedKernelManager'
    """
    from jupyter_client.manager import AsyncKernelManager
    from traitlets import default

    class EncryptedKernelManager(AsyncKernelManager):
        @default("transport_encryption")
        def _encrypt(self) -> str:
            return "auto"

        async def shutdown_kernel(  # type: ignore[override]
            self, now: bool = False, restart: bool = False
        ) -> None:
            # Asked kindly in the middle of a cell, it would print that it could not answer.
            stopped = isinstance(sys.exc_info()[1], KeyboardInterrupt)
            await super().shutdown_kernel(now=now or stopped, restart=restart)

    return EncryptedKernelManager
