"""Serve a game to a class: one process and no kernels. A visitor is a page, and the answers on disk.

The server stores nothing of a visitor between two requests: each message names its player, and the answers on disk are
the rest. So no number of visits fills the memory, and a server that was killed and started anew goes on where it was.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import re
import signal
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib import resources
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream
from tornado.netutil import bind_sockets
from tornado.web import Application, HTTPError, RequestHandler

from ldm_kit.errors import BadInputError
from ldm_kit.game.game import Game
from ldm_kit.game.page import reply, shown_image

MOST = 128  # connections at once, each for one short request; those beyond learn that the game is full
PATIENCE = 30  # seconds that a connection may last
LONGEST = 4096  # bytes of a message
FILES = {
    "": ("page.html", "text/html"),
    "page.js": ("page.js", "text/javascript"),
    "board.js": ("board.js", "text/javascript"),
    "board.css": ("board.css", "text/css"),
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-cache",
    "Server": "ldm_kit",
}
ERRORS = {
    400: "This message was not understood. Reload the page and enter your name again.",
    403: "This message came from another page. Open the game's own address.",
    404: "There is only the game here. It is at the address without anything behind the slash.",
    421: "The game is not served under this name. Open it by the address that was printed when it started.",
    500: "Your answer was not written: something went wrong in the game's server; its log has the error.",
    503: "The game is full: too many pages are being served at this moment. Written answers are safe.",
}


def listen(ip: str, port: int) -> list[socket.socket]:
    """Take the port, before the game is prepared, so that a taken one is an error at once.

    Raises
    ------
    BadInputError
        If it is taken, or this machine has no such address.

    Examples
    --------
    >>> [one.close() for one in listen("127.0.0.1", 0)]
    [None]
    """
    try:
        return bind_sockets(port, ip)
    except (OSError, OverflowError) as error:
        raise BadInputError(
            f"Cannot listen at {ip!r}, port {port}: {error}. Free the port, or choose another by --port (8866, say), "
            "and an address of this machine, or 0.0.0.0 for all of them, by --ip."
        ) from error


def serve(game: Game, folder: Any, sockets: Sequence[socket.socket], ip: str = "127.0.0.1") -> None:
    """Serve a game until SIGTERM or SIGINT (Ctrl-C). There is one process, so nothing is left behind.

    Parameters
    ----------
    game : Game
    folder : path-like
        Where the answers go.
    sockets : sequence of socket
        From `listen`.
    ip : str
        A name that may stand in the address beside numbers, ``localhost`` and this machine's own name.

    Examples
    --------
    >>> serve(game, "outputs/game", listen("127.0.0.1", 8866))  # doctest: +SKIP
    """

    async def until_stopped() -> None:
        task = asyncio.current_task()
        assert task is not None
        with suppress(NotImplementedError):  # Windows has no such handler; there Ctrl-C alone ends it
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        await _serve(game, folder, sockets, ip)

    with suppress(KeyboardInterrupt, asyncio.CancelledError):
        asyncio.run(until_stopped())


async def _serve(game: Game, folder: Any, sockets: Sequence[socket.socket], ip: str) -> None:
    """Serve until the task is cancelled."""
    for index in game.chosen:
        for member in game.sets.members[index]:
            shown_image(game, game.sets.names[int(member)])  # raises now for an image that cannot be opened
    files = {path: (_data(name), kind) for path, (name, kind) in FILES.items()}
    own = {"localhost", ip.lower(), socket.gethostname().lower()}
    since: dict[IOStream, float] = {}
    server = _Server(
        Application(
            [(f"/({'|'.join(map(re.escape, files))})", _File), ("/play", _Play)],
            default_handler_class=_Guarded,
            log_function=lambda handler: None,
            game=game,
            folder=folder,
            files=files,
            names=own | {f"{name}.local" for name in own},
            open=since,
            working=set(),
        ),
        no_keep_alive=True,
        idle_connection_timeout=PATIENCE,
        body_timeout=PATIENCE,
        max_header_size=4 * LONGEST,
        max_body_size=LONGEST,
        max_buffer_size=16 * LONGEST,
    )
    server.since = since
    server.add_sockets(sockets)
    try:
        await asyncio.Event().wait()
    finally:
        server.stop()
        await server.close_all_connections()


class _Server(HTTPServer):
    """A server of so many connections, each of which lasts so long."""

    since: dict[IOStream, float]  # when each connection was made

    def handle_stream(self, stream: IOStream, address: tuple[Any, ...]) -> None:
        now = time.monotonic()
        for one, since in list(self.since.items()):
            if now - since > PATIENCE:
                one.close()
            if one.closed():
                del self.since[one]
        if len(self.since) >= 2 * MOST:  # too many to answer each of them
            stream.close()
            return
        self.since[stream] = now
        super().handle_stream(stream, address)


class _Guarded(RequestHandler):
    """What holds for every request; by itself it is the page that does not exist."""

    def set_default_headers(self) -> None:
        for name, value in HEADERS.items():
            self.set_header(name, value)

    def prepare(self) -> None:
        if len(self.settings["open"]) > MOST:
            raise HTTPError(503)
        # A page elsewhere whose name is made to point here may not answer for a player: names are few.
        if not _is_address(self.request.host_name) and self.request.host_name not in self.settings["names"]:
            raise HTTPError(421)
        if type(self) is _Guarded:
            raise HTTPError(404)

    def write_error(self, status_code: int, **_: Any) -> None:
        text = ERRORS.get(status_code, ERRORS[400 if status_code < 500 else 500])
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        if status_code == 503:
            self.set_header("Retry-After", "5")
            if self.request.method == "GET":
                self.set_header("Refresh", "5")
                text += " This page tries again every five seconds."
        self.finish(text)


class _File(_Guarded):
    """The page and what draws it; nothing else can be fetched."""

    def get(self, path: str) -> None:
        content, kind = self.settings["files"][path]
        self.set_header("Content-Type", f"{kind}; charset=utf-8")
        self.finish(content)


class _Play(_Guarded):
    """A message of the page, and what it shows next."""

    async def post(self) -> None:
        if self.request.headers.get("Content-Type", "").split(";")[0] != "application/json":
            raise HTTPError(400)  # a form of another page cannot send this kind
        origin, site = (self.request.headers.get(name) for name in ("Origin", "Sec-Fetch-Site"))
        own = [f"{kind}://{self.request.host}".lower() for kind in ("http", "https")]
        if (origin or own[0]).lower() not in own or site not in (None, "same-origin", "none"):
            raise HTTPError(403)
        try:
            message = _understood(json.loads(self.request.body))
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise HTTPError(400) from error
        working = self.settings["working"]
        if len(working) >= MOST:  # its visitor may be gone already, the work is not
            raise HTTPError(503)
        arguments = (self.settings["game"], self.settings["folder"], message)
        job = asyncio.get_running_loop().run_in_executor(None, reply, *arguments)
        working.add(job)
        job.add_done_callback(working.discard)
        self.finish(await job)


def _understood(message: Any) -> dict[str, Any]:
    """A message with its numbers as numbers; an error if it is none."""
    if not isinstance(message, dict):
        raise TypeError
    known = {name: str(message.get(name, "")) for name in ("kind", "player", "game", "phase")}
    if known["kind"] != "answer":
        return known
    trial, choice = message["trial"], message["choice"]
    if type(trial) is not int or type(choice) is not int:
        raise TypeError
    return {**known, "trial": trial, "choice": choice, "seconds": float(message.get("seconds") or 0)}


def _data(name: str) -> bytes:
    return (resources.files("ldm_kit") / "data" / "game" / name).read_bytes()


def _is_address(name: str) -> bool:
    """Whether a host is named by numbers, which no other page's name can be."""
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
