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

from ldm_kit.batch.parameters import read_parameters
from ldm_kit.checkout import find_notebook
from ldm_kit.datasets import load_dataset
from ldm_kit.errors import BadInputError, LdmKitError, unknown_name
from ldm_kit.game.server import listen, serve
from ldm_kit.game.session import Game, new_game
from ldm_kit.models.load import load_model

GIVEN = (
    "blocks",
    "noise_level",
    "metric",
    "n_trials",
    "n_catch",
    "n_candidates",
    "seed",
)  # to `new_game` as they are
NOTEBOOK = "05_odd_one_out_game.ipynb"
EVERYWHERE = ("0.0.0.0", "::", "")  # listened at, but no browser opens them


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve the game until it is stopped with Ctrl-C, or by SIGTERM.

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
    parser.add_argument(
        "--notebook", type=Path, help="a copy of the game's notebook with other values in its parameters cell"
    )
    parser.add_argument("--no-browser", action="store_true", help="open no browser")
    given = parser.parse_args(arguments)
    try:
        notebook = (
            given.notebook
            or find_notebook(NOTEBOOK, "Run this from a clone of it, or name one with --notebook.")
        ).resolve()
        asked = game_parameters(notebook)
        sockets = listen(given.ip, given.port)
        port = sockets[0].getsockname()[1]
        with chdir(notebook.parent):  # where its relative paths begin, as in JupyterLab
            print("Preparing the game; its address follows.", flush=True)
            game = prepared(asked)
            print(f"The game is at {where(given.ip, port)} until you stop it with Ctrl-C.", flush=True)
            if not given.no_browser:
                page = where("127.0.0.1" if given.ip in EVERYWHERE else given.ip, port)
                threading.Thread(target=webbrowser.open, args=(page,), daemon=True).start()
            serve(game, asked["answers"] or "outputs/game", sockets, given.ip)
    except LdmKitError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # while it is prepared
        pass
    return 0


def game_parameters(notebook: Path) -> dict[str, Any]:
    """What the parameters cell of the game's notebook, or of a copy, says.

    Raises
    ------
    BadInputError, UnknownNameError
        If there is no such notebook, it is another one, or it says who plays.

    Examples
    --------
    >>> game_parameters(Path("notebooks/05_odd_one_out_game.ipynb"))["n_trials"]  # doctest: +SKIP
    10
    """
    found = {name: ast.literal_eval(one.default) for name, one in read_parameters(notebook).items()}
    needed = (
        "player",
        "autoplay",
        "model",
        "dataset",
        "dataset_root",
        "answers",
        "features",
        "out",
        "trials",
    )
    for name in (*needed, *GIVEN):
        if name not in found:
            advice = f"{notebook.name!r} is no copy of {NOTEBOOK}: add what is missing, or copy it anew."
            raise unknown_name("parameter", name, found, advice)
    for name in ("player", "autoplay"):
        if found[name] is not None:
            raise BadInputError(
                f"{notebook.name!r} sets {name}={found[name]!r}, but a served game asks every visitor for a name. "
                f"Set `{name}` to None, or play in JupyterLab."
            )
    return found


def prepared(asked: dict[str, Any]) -> Game:
    """Open the model and the data and ask the blocks, as the notebook does.

    Examples
    --------
    >>> prepared(game_parameters(notebook)).n_trials  # doctest: +SKIP
    10
    """
    options = {name: asked[name] for name in GIVEN}
    return new_game(
        load_model(asked["model"]),
        load_dataset(asked["dataset"], asked["dataset_root"]),
        asked["features"] or f"{asked['out']}/features",
        how=asked["trials"],
        **options,
    )


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


if __name__ == "__main__":
    sys.exit(main())
