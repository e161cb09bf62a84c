"""``python -m ldm_kit.game``: serve the odd-one-out game to a class, by Voilà."""

from __future__ import annotations

import argparse
import importlib.util
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import ldm_kit
from ldm_kit.checkout import find_notebook
from ldm_kit.errors import BadInputError, LdmKitError

NOTEBOOK = "05_odd_one_out_game.ipynb"
# Of the JupyterLab extensions that happen to be installed, those that draw the page.
EXTENSIONS = (
    "@voila-dashboards/widgets-manager8",
    "@jupyter-widgets/jupyterlab-manager",
    "anywidget",
    "jupyterlab-plotly",
)
EVERYWHERE = ("0.0.0.0", "::", "")  # listened at, but no browser opens them
TEMPLATE = "ldm_kit"  # Voilà's page without its CDN, in the package's data/jupyter


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve the game until it is stopped with Ctrl-C.

    Parameters
    ----------
    arguments : sequence of str, optional
        Instead of the command line's.

    Returns
    -------
    int
        0, or 2 if it cannot start.

    Examples
    --------
    >>> main(["--ip", "0.0.0.0"])  # doctest: +SKIP
    0
    """
    parser = argparse.ArgumentParser(
        prog="python -m ldm_kit.game", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--port", type=int, default=8866, help="where to listen (default: %(default)s)")
    parser.add_argument(
        "--ip",
        default="127.0.0.1",
        help="0.0.0.0 lets other machines in (default: %(default)s, this one alone)",
    )
    parser.add_argument("--notebook", type=Path, help="instead of the kit's own")
    parser.add_argument("--no-browser", action="store_true", help="open no browser")
    given = parser.parse_args(arguments)
    try:
        command = voila_command(
            given.notebook
            or find_notebook(NOTEBOOK, "Run this from a clone of it, or name one with --notebook."),
            given.ip,
            given.port,
            given.no_browser,
        )
    except LdmKitError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    print(f"The game is at {where(given.ip, given.port)} until you stop it with Ctrl-C.", flush=True)
    try:
        return subprocess.run(command, env={**os.environ, **voila_environment()}, check=False).returncode
    except KeyboardInterrupt:
        return 0


def where(ip: str, port: int) -> str:
    """The address that a browser opens; of a game that listens everywhere, this machine's own for the others.

    Examples
    --------
    >>> where("127.0.0.1", 8866)
    'http://127.0.0.1:8866/'
    """
    if ip not in EVERYWHERE:
        return f"http://{f'[{ip}]' if ':' in ip else ip}:{port}/"
    own = own_address() or socket.gethostname()
    return f"http://{own}:{port}/ (on this machine also http://127.0.0.1:{port}/)"


def own_address() -> str:
    """The address by which other machines reach this one, or nothing where there is no network.

    Nothing is sent: connecting a datagram socket only asks the system from which address it would send.

    Examples
    --------
    >>> own_address()  # doctest: +SKIP
    '192.168.1.20'
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        try:
            asked.connect(("192.0.2.1", 9))  # a network that is set aside for documentation
        except OSError:
            return ""
        return str(asked.getsockname()[0])


def voila_command(notebook: Path, ip: str, port: int, no_browser: bool) -> list[str]:
    """The command that serves one notebook, each visitor with a kernel of his own.

    Raises
    ------
    BadInputError
        If Voilà is not installed, or there is no such notebook.

    Examples
    --------
    >>> voila_command(Path("05.ipynb"), "127.0.0.1", 8866, True)[1:3]  # doctest: +SKIP
    ['-m', 'voila']
    """
    if importlib.util.find_spec("voila") is None:
        raise BadInputError("Voilà is not installed. Install it (pip install voila), or play in JupyterLab.")
    if not notebook.is_file():
        raise BadInputError(f"There is no notebook at {str(notebook)!r}. Name the game's notebook.")
    command = [sys.executable, "-m", "voila", str(notebook), f"--Voila.ip={ip}", f"--port={port}"]
    command += [f"--template={TEMPLATE}", "--MappingKernelManager.cull_idle_timeout=3600"]
    command += [f"--VoilaConfiguration.extension_allowlist={name}" for name in EXTENSIONS]
    return [*command, *(["--no-browser"] if no_browser else [])]


def voila_environment() -> dict[str, str]:
    """What Voilà needs to find the page's template and this very Python, and nothing on the network.

    Examples
    --------
    >>> "JUPYTER_PATH" in voila_environment()
    True
    """
    package = Path(ldm_kit.__path__[0])
    paths = {"JUPYTER_PATH": package / "data" / "jupyter", "PYTHONPATH": package.parent}
    joined = {
        name: os.pathsep.join([str(path), *filter(None, [os.environ.get(name)])])
        for name, path in paths.items()
    }
    return {**joined, "JUPYTER_PREFER_ENV_PATH": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}


if __name__ == "__main__":
    sys.exit(main())
