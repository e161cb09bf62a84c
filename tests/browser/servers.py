"""JupyterLab, the game and Voilà as servers of one test: own settings, own folder, and no way out to the network."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Of the JupyterLab extensions that happen to be installed, those that draw Voilà's page.
EXTENSIONS = (
    "@voila-dashboards/widgets-manager8",
    "@jupyter-widgets/jupyterlab-manager",
    "anywidget",
    "jupyterlab-plotly",
)
MAKEFILE = (ROOT / "Makefile").read_text().replace("\\\n", " ")
LAB_FLAGS = re.findall(r"^LAB_FLAGS := (.*)$", MAKEFILE, re.MULTILINE)[0].split()
# What a Python does that was started with it: asks for no name and no place but its own machine's. Each attempt
# is written down and refused, in C as well: what `socket` can do raises audit events.
WATCH = """
import os, sys
def watch(event, given):
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        host = given[0]
    elif event in ("socket.connect", "socket.sendto", "socket.getnameinfo"):
        address = given[-1] if event != "socket.getnameinfo" else given[0]
        host = address[0] if isinstance(address, tuple) else None  # a path is on this machine
    else:
        return
    host = host.decode() if isinstance(host, bytes) else host
    if host and host not in ("localhost", "::1", "::", "0.0.0.0", "*") and not str(host).startswith("127."):
        with open(os.environ["NETWORK_LOG"], "a") as log:
            log.write(f"{event.removeprefix('socket.')} {host}\\n")
        raise OSError(f"{event} {host}: nobody is asked here")
sys.addaudithook(watch)
"""
NO_NEWS = '{"fetchNews":"false"}'  # the answer to a question that would lie over the page
EVERY_CELL = '{"windowingMode":"none"}'  # render every cell, also off screen


@dataclass
class Server:
    """A running server. `gate` counts what it, or its kernels, asked of the network."""

    base: str
    token: str
    folder: Path
    log: Path
    gate: Gate


@dataclass
class Gate:
    """A proxy that lets nobody through, and a watch in every Python: who asks is written down and turned away."""

    knocked: list[str] = field(default_factory=list)

    @property
    def asked(self) -> list[str]:
        log = self._watch / "log"
        return [*self.knocked, *(log.read_text().splitlines() if log.exists() else [])]

    def __post_init__(self) -> None:
        self._watch = Path(tempfile.mkdtemp())
        (self._watch / "sitecustomize.py").write_text(WATCH)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        threading.Thread(target=self._turn_away, daemon=True).start()

    def _turn_away(self) -> None:
        while True:
            try:
                caller, _ = self._socket.accept()
            except OSError:
                return  # closed
            with caller, suppress(OSError):
                caller.settimeout(2)
                first = caller.recv(300).split(b"\r\n")[0].decode(errors="replace")
                self.knocked.append(first)
                caller.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

    def close(self) -> None:
        self._socket.close()
        shutil.rmtree(self._watch, ignore_errors=True)

    def variables(self) -> dict[str, str]:
        """Environment variables that send every polite library to this proxy, and set the watch on every Python."""
        here = f"http://127.0.0.1:{self.port}"
        names = ("http_proxy", "https_proxy", "all_proxy")
        both = dict.fromkeys(names, here) | {name.upper(): here for name in names}
        paths = [str(self._watch), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        watch = {"PYTHONPATH": os.pathsep.join(paths), "NETWORK_LOG": str(self._watch / "log")}
        return both | watch | {"no_proxy": "127.0.0.1,localhost", "NO_PROXY": "127.0.0.1,localhost"}


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@contextmanager
def lab_server(folder: Path, state: Path, environment: Mapping[str, str] | None = None) -> Iterator[Server]:
    """Start JupyterLab on `folder`; its settings, runtime files and log go to `state`."""
    settings = state / "settings" / "@jupyterlab"
    for name, text in {
        "apputils-extension/notification": NO_NEWS,
        "notebook-extension/tracker": EVERY_CELL,
    }.items():
        file = settings / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    port, token = free_port(), secrets.token_hex(16)
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"),
        *("--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0"),
        *(f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder}"),
        *("--LabApp.expose_app_in_browser=True", "--ServerApp.terminals_enabled=False"),
        *LAB_FLAGS,
    ]
    address = f"http://127.0.0.1:{port}"
    with _serving(command, f"{address}/api?token={token}", folder, state, environment) as (log, gate):
        yield Server(address, token, folder, log, gate)


@contextmanager
def game_server(
    notebook: Path, state: Path, environment: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Serve the game as `make game` does."""
    port = free_port()
    command = [sys.executable, "-m", "ldm_kit.game", "--no-browser"]
    command += [f"--port={port}", f"--notebook={notebook}"]
    address = f"http://127.0.0.1:{port}"
    with _serving(command, address, notebook.parent, state, environment) as (log, gate):
        yield Server(address, "", notebook.parent, log, gate)


@contextmanager
def voila_server(
    notebook: Path, state: Path, environment: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Serve one notebook by Voilà, with the kit's template, each visitor with a kernel of his own."""
    port = free_port()
    command = [sys.executable, "-m", "voila", str(notebook), "--no-browser", "--template=ldm_kit"]
    command += ["--Voila.ip=127.0.0.1", f"--port={port}"]
    command += [f"--VoilaConfiguration.extension_allowlist={name}" for name in EXTENSIONS]
    template = {"JUPYTER_PATH": str(ROOT / "ldm_kit" / "data" / "jupyter")}
    address = f"http://127.0.0.1:{port}"
    ready = f"{address}/voila/static/voila.js"
    with _serving(command, ready, notebook.parent, state, {**template, **(environment or {})}) as (log, gate):
        yield Server(address, "", notebook.parent, log, gate)


@contextmanager
def _serving(
    command: Sequence[str], ready: str, folder: Path, state: Path, environment: Mapping[str, str] | None
) -> Iterator[tuple[Path, Gate]]:
    state.mkdir(parents=True, exist_ok=True)
    log, gate = state / "server.log", Gate()
    variables = {
        **os.environ,
        "JUPYTER_CONFIG_DIR": str(state / "config"),
        "JUPYTER_DATA_DIR": str(state / "data"),
        "JUPYTER_RUNTIME_DIR": str(state / "runtime"),
        "JUPYTERLAB_WORKSPACES_DIR": str(state / "workspaces"),
        "JUPYTERLAB_SETTINGS_DIR": str(state / "settings"),
        "IPYTHONDIR": str(state / "ipython"),
        "JUPYTER_PREFER_ENV_PATH": "1",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        "OMP_NUM_THREADS": "1",
        **gate.variables(),
        **(environment or {}),
    }
    with log.open("w") as file:
        process = subprocess.Popen(
            command, cwd=folder, env=variables, stdout=file, stderr=file, start_new_session=True
        )
    try:
        _wait_for(ready, process, log)
        yield log, gate
    finally:
        _stop(process)
        gate.close()


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Stop a server with its children."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
            return


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path, timeout: float = 120) -> None:
    """Wait until the server answers, be it with an error page: then it is there."""
    end = time.monotonic() + timeout
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode}:\n{log.read_text()[-3000:]}")
        try:
            direct.open(url, timeout=5)
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.2)
    raise TimeoutError(f"no answer from {url} in {timeout:.0f} s:\n{log.read_text()[-3000:]}")
