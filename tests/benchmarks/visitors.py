"""``python -m tests.benchmarks.visitors``: 30 visitors of the served game, and 60 kills while players answer.

`measure` starts the game as `make game` does and counts memory and the time to the first trial. `kills` kills a server
of a small game at random instants and looks whether an answer was lost of which its player had heard.
"""

from __future__ import annotations

import csv
import http.client
import json
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil

import ldm_kit as lk
from ldm_kit.game import Game
from tests.browser.servers import ROOT, free_port

FILES = ("/", "/page.js", "/board.js", "/board.css")


def ask(
    port: int,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    method: str = "",
) -> tuple[int, bytes]:
    """One request on a connection of its own, as a browser sends it; its status and content."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method or ("GET" if body is None else "POST"), path, body, dict(headers or {}))
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def say(port: int, **message: Any) -> dict[str, Any]:
    """What the page shows after a message."""
    headers = {"Content-Type": "application/json", "Origin": f"http://127.0.0.1:{port}"}
    status, content = ask(port, "/play", json.dumps(message).encode(), headers)
    if status != 200:
        raise OSError(f"{status}: {content!r}")
    view: dict[str, Any] = json.loads(content)
    return view


def visit(port: int, player: str) -> float:
    """Open the page and start; the seconds until the first three images are there."""
    began = time.perf_counter()
    for path in FILES:
        assert ask(port, path)[0] == 200
    assert say(port)["phase"] == "name"
    assert len(say(port, kind="start", player=player)["images"]) == 3
    return time.perf_counter() - began


def memory(process: psutil.Process) -> float:
    """MiB of a process and all its children; what they share is counted once."""
    every = [process, *process.children(recursive=True)]
    return sum(one.memory_full_info().pss for one in every) / 2**20


def measure(n: int = 30) -> dict[str, float]:
    """Serve the kit's own game to `n` visitors at once, each of whom plays five trials."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(ROOT / "notebooks" / "05_odd_one_out_game.ipynb", folder)
        notebook = Path(folder) / "05_odd_one_out_game.ipynb"
        options = ["--no-browser", f"--port={port}", f"--notebook={notebook}"]
        began = time.perf_counter()
        with started([sys.executable, "-m", "ldm_kit.game", *options], port) as process:
            ready = time.perf_counter() - began
            server = psutil.Process(process.pid)
            before, waits = memory(server), [0.0] * n

            def one(number: int) -> None:
                waits[number] = visit(port, f"visitor {number}")
                play(port, f"visitor {number}", 5)

            together([threading.Thread(target=one, args=(number,)) for number in range(n)])
            after = memory(server)
            children = len(server.children(recursive=True))
    return {
        "visitors": n,
        "seconds until the game is served": ready,
        "processes": 1 + children,
        "MiB before": before,
        "MiB with them": after,
        "MiB a visitor": (after - before) / n,
        "median seconds to the first trial": statistics.median(waits),
        "longest": max(waits),
    }


def play(port: int, player: str, n: int) -> list[tuple[int, int]]:
    """Answer up to `n` trials; the (trial, choice) of each of which the player heard what others said."""
    heard: list[tuple[int, int]] = []
    view = say(port, kind="start", player=player)
    while view["phase"] == "play" and len(heard) < n:
        trial, choice = view["trial"], view["trial"] % 3 + 1
        told = {"player": player, "game": view["game"], "phase": "play"}
        said = say(port, kind="answer", trial=trial, choice=choice, seconds=0.5, **told)
        assert (said["phase"], said["trial"], said["choice"]) == ("feedback", trial, choice)
        heard.append((trial, choice))
        view = say(port, kind="next", **{**told, "phase": "feedback"})
    return heard


def kills(n: int = 60, players: int = 6, seed: int = 0, folder: Path | None = None) -> dict[str, int]:
    """Kill a server at `n` random instants while simulated players answer, and start it anew each time.

    Players do what the page does: a message that got no reply is sent again until it gets one.
    """
    if folder is None:
        with tempfile.TemporaryDirectory() as made:
            return kills(n, players, seed, Path(made))
    port, rng, over = free_port(), random.Random(seed), threading.Event()
    heard: dict[str, dict[int, int]] = {}
    wrong: list[str] = []

    def persist(**message: Any) -> dict[str, Any] | None:
        while not over.is_set():
            try:
                return say(port, **message)
            except (OSError, http.client.HTTPException):
                time.sleep(0.02)
        return None

    def one(number: int) -> None:
        own = random.Random(1000 * seed + number)
        for game in range(10_000):  # when one is played to its end, another begins
            name = f"p{number} {game}"
            view = persist(kind="start", player=name)
            while view and view["phase"] == "play":
                choice, trial = own.randint(1, 3), view["trial"]
                told = {"player": name, "game": view["game"]}
                said = persist(kind="answer", trial=trial, choice=choice, **told)
                if said is None:
                    return
                if said["phase"] != "feedback":
                    wrong.append(f"{name}, trial {trial}: {said.get('error')}")
                heard.setdefault(name, {})[trial] = choice
                view = persist(kind="next", phase="feedback", **told)
            if view is None:
                return

    threads = [threading.Thread(target=one, args=(number,)) for number in range(players)]
    command = [sys.executable, "-m", __name__ if __name__ != "__main__" else "tests.benchmarks.visitors"]
    command += ["serve", str(folder), str(port)]
    for number in range(n):
        with started(command, port) as process:
            if not number:
                for thread in threads:
                    thread.start()
            time.sleep(rng.uniform(0.02, 0.8))
            process.kill()
    with started(command, port):
        time.sleep(0.5)
        over.set()
        for thread in threads:
            thread.join()
    lost = 0
    for name, answers in heard.items():
        with (folder / f"{name}.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        assert [int(row["trial"]) for row in rows] == list(range(1, len(rows) + 1))
        written = {int(row["trial"]): int(row["choice"]) for row in rows}
        lost += sum(written.get(trial) != choice for trial, choice in answers.items())
    answers = sum(map(len, heard.values()))
    return {"kills": n, "answers": answers, "lost": lost, "refused": len(wrong)}


def together(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@contextmanager
def started(command: list[str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A server in a process of its own, once it answers; ended with SIGTERM."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
        try:
            for _ in range(1200):
                if process.poll() is not None:
                    log.seek(0)
                    raise RuntimeError(f"it ended with {process.returncode}: {log.read()[-2000:].decode()}")
                try:
                    ask(port, "/")
                    break
                except OSError:
                    time.sleep(0.1)
            yield process
        finally:
            process.terminate()
            process.wait(60)


def small_game(
    stimuli: lk.Stimuli | None = None, blocks: tuple[str, ...] = ("mid_block", "up_blocks.1")
) -> Game:
    """A game whose blocks answer at random: no model is needed."""
    data = lk.load_dataset("emoji") if stimuli is None else lk.Dataset("hostile", stimuli)
    sets = lk.game.candidate_sets(data, 120)
    rng = np.random.default_rng(0)
    answers = {name: rng.integers(0, 3, len(sets)).astype(np.int8) for name in blocks}
    n = min(100, len(sets))
    return Game(data.stimuli, sets, answers, n_trials=n, n_catch=min(20, n - 3))


def main(arguments: list[str]) -> None:
    from ldm_kit.game.server import listen, serve

    if arguments[:1] == ["serve"]:
        # A shell starts what it puts into the background with SIGINT ignored, and that is handed on.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        folder, port, *images = arguments[1:]
        stimuli = lk.load_dataset("folder", images[0]).stimuli if images else None
        blocks = ("<b>mid</b>", "up") if images else ("mid_block", "up_blocks.1")
        game = small_game(stimuli, blocks)
        serve(game, folder, listen("127.0.0.1", int(port)))
        return
    for found in (measure(), kills()):
        print("\n".join(f"{name}: {value:.4g}" for name, value in found.items()), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
