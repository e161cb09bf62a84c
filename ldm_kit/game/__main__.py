"""``python -m ldm_kit.game``: serve the odd-one-out game to a class."""

from __future__ import annotations

import argparse
import ast
import socket
import sys
import threading
import webbrowser
from collections.abc import Sequence
from contextlib import chdir
from pathlib import Path
from typing import Any

from ldm_kit.batch.series import read_parameters
from ldm_kit.datasets import load_dataset
from ldm_kit.errors import BadInputError, LdmKitError, one_of
from ldm_kit.files import find_notebook
from ldm_kit.game.game import new_game
from ldm_kit.game.server import listen, serve
from ldm_kit.models.load import load_model

NOTEBOOK = "05_odd_one_out_game.ipynb"
# Parameters that `new_game` takes under their own names, and the others that the game needs.
OPTIONS = ("blocks", "noise_level", "metric", "n_trials", "n_catch", "n_candidates", "seed")
NEEDED = ("model", "dataset", "dataset_root", "answers", "features", "out", "trials", "player", "autoplay")
EVERYWHERE = ("0.0.0.0", "::", "")  # listened at, but no browser opens them


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve the game until it is stopped with Ctrl-C, or by SIGTERM; 0, or 2 if it cannot start."""
    parser = argparse.ArgumentParser(prog="python -m ldm_kit.game", description=__doc__)
    add = parser.add_argument
    add("--port", type=int, default=8866, help="where to listen (default: %(default)s)")
    add("--ip", default="127.0.0.1", help="0.0.0.0 lets other machines in (default: this one alone)")
    add(
        "--notebook", type=Path, help="a copy of the game's notebook with other values in its parameters cell"
    )
    add("--no-browser", action="store_true", help="open no browser")
    options = parser.parse_args(arguments)
    try:
        advice = "Run this from a clone of it, or name one with --notebook."
        notebook = (options.notebook or find_notebook(NOTEBOOK, advice)).resolve()
        values = game_parameters(notebook)
        sockets = listen(options.ip, options.port)
        port = sockets[0].getsockname()[1]
        with chdir(notebook.parent):  # where its relative paths begin, as in JupyterLab
            print("Preparing the game; its address follows.", flush=True)
            game = new_game(
                load_model(values["model"]),
                load_dataset(values["dataset"], values["dataset_root"]),
                values["features"] or f"{values['out']}/features",
                how=values["trials"],
                **{name: values[name] for name in OPTIONS},
            )
            print(f"The game is at {address(options.ip, port)} until you stop it with Ctrl-C.", flush=True)
            if not options.no_browser:
                page = address("127.0.0.1" if options.ip in EVERYWHERE else options.ip, port)
                threading.Thread(target=webbrowser.open, args=(page,), daemon=True).start()
            serve(game, values["answers"] or "outputs/game", sockets, options.ip)
    except LdmKitError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # while it is prepared
        pass
    return 0


def game_parameters(notebook: Path) -> dict[str, Any]:
    """Read the parameters cell of the game's notebook, or of a copy; an error if it is another one or names a player."""
    values = {name: ast.literal_eval(one.default) for name, one in read_parameters(notebook).items()}
    for name in (*NEEDED, *OPTIONS):
        advice = f"{notebook.name!r} is no copy of {NOTEBOOK}: add what is missing, or copy it anew."
        one_of("parameter", name, values, advice)
    for name in ("player", "autoplay"):
        if values[name] is not None:
            raise BadInputError(
                f"{notebook.name!r} sets {name}={values[name]!r}, but a served game requests a name from every visitor. "
                f"Set `{name}` to None, or play in JupyterLab."
            )
    return values


def address(ip: str, port: int) -> str:
    """Return the address that a browser opens; of a game that listens everywhere, the one for other machines."""
    if ip not in EVERYWHERE:
        return f"http://{f'[{ip}]' if ':' in ip else ip}:{port}/"
    own = own_address() or socket.gethostname()
    return f"http://{own}:{port}/ (on this machine also http://127.0.0.1:{port}/)"


def own_address() -> str:
    """Return the address by which other machines reach this one, or nothing where there is no network.

    Nothing is sent: connecting a datagram socket only asks the system from which address it would send.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # a network that is reserved for documentation
        except OSError:
            return ""
        return str(probe.getsockname()[0])


if __name__ == "__main__":
    sys.exit(main())
