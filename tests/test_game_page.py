"""The game's page and its server: what is shown after which message, and what is refused, without a browser."""

from __future__ import annotations

import ast
import asyncio
import gc
import io
import json
import os
import re
import signal
import socket
import sys
import threading
import time
from base64 import b64decode
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image
from tornado.iostream import IOStream

import ldm_kit as lk
from ldm_kit.datasets.triplet_files import read_rows
from ldm_kit.errors import BadInputError
from ldm_kit.files import find_notebook
from ldm_kit.game import Session, server
from ldm_kit.game.__main__ import NOTEBOOK, OPTIONS, game_parameters, main
from ldm_kit.game.page import SIDE, data_uri
from tests.benchmarks import visitors
from tests.browser.servers import free_port


@pytest.fixture(scope="module")
def game():
    data = lk.load_dataset("emoji")
    sets = lk.game.candidate_sets(data, 30)
    rng = np.random.default_rng(0)
    answers = {name: rng.integers(-1, 3, 30).astype(np.int8) for name in ("mid_block", "up_blocks.1")}
    return lk.game.Game(data.stimuli, sets, answers, n_trials=5, n_catch=2)


def send(page, **message):
    """What the browser sends, by the way that it takes: what the page shows goes along."""
    shown = {name: page.view.get(name) for name in ("player", "game", "phase")}
    page._handle_custom_msg({**shown, **message}, [])


def view(page):
    return json.loads(json.dumps(page.view))  # it must fit into JSON


def play(page, *choices):
    for choice in choices:
        send(page, kind="answer", trial=view(page)["trial"], choice=choice, seconds=0.5)
        send(page, kind="next")


def test_a_visitor_gives_a_name_plays_and_sees_who_agreed(game, tmp_path):
    page = lk.widgets.OddOneOut(game, folder=tmp_path)
    assert view(page)["phase"] == "name"
    send(page, kind="start", player="ann")
    seen = view(page)
    assert seen["phase"] == "play" and (seen["trial"], seen["done"], seen["total"]) == (1, 0, 7)
    labels = [game.stimuli[game.stimuli.index(name)].label for name in page.session.images]
    assert [one["alt"] for one in seen["images"]] == labels
    assert not any("who" in one for one in seen["images"])  # nothing is shown beforehand
    send(page, kind="answer", trial=1, choice=2, seconds=0.75)
    seen = view(page)
    assert seen["phase"] == "feedback" and seen["choice"] == 2 and seen["done"] == 1
    assert seen["status"].startswith(f"You: {labels[1]}. Simulated observers: ")
    votes = [
        entry["text"] for one in seen["images"] for entry in one["who"] if entry["kind"] == "participants"
    ]
    assert sum(int(text.split()[0]) for text in votes) == sum(page.session.feedback(1).votes)
    assert read_rows(tmp_path / "ann.csv")[0]["seconds"] == "0.750"
    send(page, kind="next")
    play(page, 1, 2, 3, 1, 2, 3)
    seen = view(page)
    assert seen["phase"] == "end"
    assert "prove little" in " ".join(seen["lines"]) and "√c" in " ".join(seen["lines"])
    scores = page.scores().set_index("other")
    drawn = {row["name"]: (row["share"], row["low"], row["high"]) for row in seen["agreement"]["rows"]}
    expected = {other: tuple(row) for other, row in scores[["accuracy", "ci_low", "ci_high"]].iterrows()}
    assert {name: pytest.approx(row) for name, row in expected.items()} == drawn
    assert seen["agreement"]["ceiling"] == list(page.consistency().ceiling)
    send(page, kind="next")
    assert view(page)["phase"] == "name" and "agreement" not in view(page)
    send(page, kind="start", player="ben")
    assert view(page)["phase"] == "play" and view(page)["done"] == 0


def test_what_the_page_does_not_show_cannot_be_answered(game, tmp_path):
    page = lk.widgets.OddOneOut(game, "ann", tmp_path)
    for _ in range(3):  # a triple click
        send(page, kind="answer", trial=1, choice=1, seconds=0.1)
    assert page.session.choices == [1]
    send(page, kind="answer", trial=2, choice=3, seconds=0.1)  # the feedback is still shown
    assert page.session.choices == [1]
    send(page, kind="next")
    send(page, kind="next")  # nothing to go on from
    send(page, kind="answer", trial=7, choice=3, seconds=0.1)
    assert page.session.choices == [1] and view(page)["phase"] == "play"
    send(page, kind="nonsense")
    send(page, kind="answer", trial=2, choice=3, seconds=None)
    assert page.session.choices == [1, 3]


def test_a_page_opened_again_goes_on(game, tmp_path):
    first = lk.widgets.OddOneOut(game, "ann", tmp_path)
    play(first, 1, 2, 3)
    again = lk.widgets.OddOneOut(game, "ann", tmp_path)
    assert view(again)["trial"] == 4
    assert [one["alt"] for one in view(again)["images"]] == [one["alt"] for one in view(first)["images"]]
    play(again, 1, 1, 1, 1)
    finished = lk.widgets.OddOneOut(game, "ann", tmp_path)
    assert view(finished)["phase"] == "end" and view(finished)["agreement"]["rows"]
    assert view(finished)["go"] == ""  # the name was the notebook's: there is no form to go back to
    send(finished, kind="next")
    assert view(finished)["phase"] == "end"


def test_what_goes_wrong_is_said_on_the_page_and_costs_no_answer(game, tmp_path):
    page = lk.widgets.OddOneOut(game, folder=tmp_path)
    send(page, kind="start", player="../ann")
    assert view(page)["phase"] == "name" and "cannot name a file" in view(page)["error"]
    send(page, kind="start", player="ann")
    other = lk.widgets.OddOneOut(game, "ann", tmp_path)
    play(other, 1)
    send(page, kind="answer", trial=1, choice=3, seconds=1)
    assert "another window" in view(page)["error"]
    assert view(page)["phase"] == "play" and view(page)["trial"] == 2  # it has caught up with the file
    assert len(read_rows(tmp_path / "ann.csv")) == 1


def test_nobody_has_played_yet(game, tmp_path):
    page = lk.widgets.OddOneOut(game, folder=tmp_path)
    assert page.scores().empty and page.consistency().n == 0
    assert lk.game.choices_so_far(tmp_path) is None
    with pytest.raises(BadInputError, match="no answer to compare yet"):
        lk.plots.agreement_dots(page.scores())


def test_images_are_sent_small_and_whole():
    large = Image.effect_noise((900, 600), 60).convert("RGB")
    for image, kind in ((large, "JPEG"), (large.resize((64, 64)), "PNG")):
        uri = data_uri(image, small=kind == "PNG")
        sent = Image.open(io.BytesIO(b64decode(uri.split(",")[1])))
        assert sent.format == kind and max(sent.size) <= SIDE
    assert large.size == (900, 600)  # left as it was


def test_the_page_loads_nothing_from_anywhere():
    folder = Path(lk.__file__).parent / "data" / "game"
    for name in sorted(path.name for path in folder.iterdir()):
        text = (folder / name).read_text().replace("http://www.w3.org/2000/svg", "")  # a name, not fetched
        assert not re.search(
            r"https?:|//cdn|import\s*\(|@import|^\s*import (?!board from \"./board.js\")", text, re.MULTILINE
        ), name
        assert "innerHTML" not in text  # a name or label is text, never markup
    page = Path(lk.__file__).parent / "data" / "jupyter" / "voila" / "templates" / "ldm_kit" / "index.html.j2"
    assert "https:" not in page.read_text()


@pytest.fixture
def port(game, tmp_path, monkeypatch):
    """A server of the game in a thread, for few connections at once."""
    monkeypatch.setattr(server, "MOST", 4)
    sockets = server.listen("127.0.0.1", 0)
    loop = asyncio.new_event_loop()
    task = loop.create_task(server._serve(game, tmp_path, sockets, "classroom"))
    thread = threading.Thread(target=lambda: loop.run_until_complete(asyncio.wait([task])))
    thread.start()
    yield sockets[0].getsockname()[1]
    loop.call_soon_threadsafe(task.cancel)
    thread.join()
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


def raw(port, text):
    """What comes back for bytes that no polite client would send; nothing if the connection was cut."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as one:
        try:
            one.sendall(text)
            return b"".join(iter(lambda: one.recv(65536), b""))
        except ConnectionError:
            return b""


def test_a_served_player_plays_goes_on_and_ends_where_a_notebook_would(game, port, tmp_path):
    assert visitors.visit(port, "ann") > 0
    assert visitors.play(port, "ann", 3) == [(1, 2), (2, 3), (3, 1)]
    here = lk.widgets.OddOneOut(game, "ann", tmp_path)
    assert view(here)["trial"] == 4
    seen = visitors.say(port, kind="start", player="ann")  # the page was reloaded
    assert seen["images"] == view(here)["images"] and seen["trial"] == 4
    assert visitors.play(port, "ann", 9) == [(4, 2), (5, 3), (6, 1), (7, 2)]
    ended = visitors.say(port, kind="next", phase="feedback", player="ann")
    here = lk.widgets.OddOneOut(game, "ann", tmp_path)
    assert ended["agreement"] == view(here)["agreement"] and ended["lines"] == view(here)["lines"]
    assert visitors.say(port, kind="next", phase="end", player="ann")["phase"] == "name"
    assert "cannot name a file" in visitors.say(port, kind="start", player="<script>")["error"]


def test_a_message_that_is_sent_again_counts_once_and_a_second_window_is_noticed(port, tmp_path):
    key = visitors.say(port, kind="start", player="ann")["game"]
    message = {"kind": "answer", "player": "ann", "game": key}
    first = visitors.say(port, **message, trial=1, choice=2, seconds=1)
    assert first["phase"] == "feedback"
    again = visitors.say(port, **message, trial=1, choice=2, seconds=9)  # the reply to the first was lost
    assert again | {"turn": 0} == first | {"turn": 0}
    other = visitors.say(port, **message, trial=1, choice=3, seconds=1)
    assert "another window" in other["error"] and (other["phase"], other["trial"]) == ("play", 2)
    assert visitors.say(port, **message, trial=5, choice=3)["trial"] == 2  # not shown yet
    changed = visitors.say(port, **{**message, "game": "0a1b2c3d"}, trial=2, choice=3)
    assert "other trials than this page showed" in changed["error"]
    assert [row["choice"] for row in read_rows(tmp_path / "ann.csv")] == ["2"]
    wild = visitors.say(port, **message, trial=2, choice=3, seconds=-1e300)
    assert wild["phase"] == "feedback" and read_rows(tmp_path / "ann.csv")[1]["seconds"] == ""


@pytest.mark.slow
def test_a_flood_is_refused_as_the_game_is_full_and_leaves_nothing_behind(port, monkeypatch):
    def eventually_served():
        for _ in range(200):
            with suppress(OSError):
                if visitors.ask(port, "/")[0] == 200:
                    return True
            time.sleep(0.05)
        return False

    def kept():
        gc.collect()
        return sum(type(one) in (IOStream, Session) for one in gc.get_objects())

    before = kept()
    stalled = [socket.create_connection(("127.0.0.1", port)) for _ in range(4)]
    status, page = 0, b""
    for _ in range(200):
        status, page = visitors.ask(port, "/")
        if status == 503:
            break
        time.sleep(0.02)
    assert status == 503 and b"The game is full" in page and b"tries again" in page
    status, body = visitors.ask(port, "/play", b"{}", {"Content-Type": "application/json"})
    assert status == 503 and body.startswith(b"The game is full")
    stalled += [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
    with pytest.raises(OSError):
        for _ in range(200):
            visitors.ask(port, "/")  # so many that they get no reply
    monkeypatch.setattr(server, "PATIENCE", 0.2)  # those that say nothing are let go
    assert eventually_served()
    for one in stalled:
        one.close()
    for _ in range(300):  # aborted, and reloads
        with socket.create_connection(("127.0.0.1", port)) as one:
            one.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    assert eventually_served()
    for number in range(40):
        visitors.say(port, kind="start", player=f"visitor {number}")
    assert kept() - before < 10  # neither a connection nor a player is kept


def test_visitors_who_do_not_wait_leave_no_queue(port, monkeypatch):
    held, began = threading.Event(), []

    def slow(*message):
        began.append(message)
        held.wait(60)
        return {"phase": "name"}

    monkeypatch.setattr(server, "reply", slow)
    head = b"POST /play HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
    for _ in range(40):  # each asks and goes away
        with suppress(ConnectionError), socket.create_connection(("127.0.0.1", port)) as one:
            one.sendall(head)
            one.settimeout(0.05)
            with suppress(TimeoutError):
                one.recv(20)
    held.set()
    for _ in range(200):
        if visitors.ask(port, "/play", b"{}", {"Content-Type": "application/json"})[0] == 200:
            break
        time.sleep(0.02)
    assert 4 <= len(began) <= 6


@pytest.mark.parametrize(
    "path",
    [
        *(
            "/../05_odd_one_out_game.ipynb",
            "/..%2f..%2fetc%2fpasswd",
            "/%2e%2e/images/game.png",
            "//etc/passwd",
        ),
        *(
            "/images/game.png",
            "/voila/files/images/game.png",
            "/files/ann.csv",
            "/outputs/game/ann.csv",
            "/ann.csv",
        ),
        *(
            "/page.html",
            "/board.js/",
            "/board.js%00",
            "/board.js/../ann.csv",
            "/BOARD.JS",
            "/play",
            "/api/kernels",
        ),
        "/static/board.js",
    ],
)
def test_nothing_but_the_game_can_be_fetched(port, path, tmp_path):
    (tmp_path / "ann.csv").write_text("secret")
    for method in ("GET", "HEAD", "POST", "PUT", "DELETE"):
        reply = raw(
            port, f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n".encode()
        )
        assert int(reply.split()[1]) in (400, 404, 405), reply[:100]
        assert b"secret" not in reply and b"root:" not in reply and b"PNG" not in reply


def test_another_site_cannot_answer_for_a_player(port, tmp_path):
    key = visitors.say(port, kind="start", player="ann")["game"]
    body = json.dumps({"kind": "answer", "player": "ann", "game": key, "trial": 1, "choice": 1}).encode()
    kind = {"Content-Type": "application/json"}
    for headers, expected in (
        ({**kind, "Origin": "http://evil.example"}, 403),
        ({**kind, "Origin": f"http://127.0.0.1:{port + 1}"}, 403),
        ({**kind, "Origin": "null"}, 403),
        ({**kind, "Origin": "http://["}, 403),
        ({**kind, "Sec-Fetch-Site": "cross-site"}, 403),
        ({"Content-Type": "text/plain"}, 400),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 400),
        ({**kind, "Host": "evil.example", "Origin": "http://evil.example"}, 421),  # its name now points here
        ({**kind, "Host": "127.0.0.1.evil.example"}, 421),
    ):
        assert visitors.ask(port, "/play", body, headers)[0] == expected, headers
    assert visitors.ask(port, "/", headers={"Host": "evil.example"})[0] == 421
    assert not (tmp_path / "ann.csv").exists()
    for host in ("192.168.1.20:8866", "[::1]:8866", "localhost", "classroom:8866"):
        assert visitors.ask(port, "/", headers={"Host": host})[0] == 200, host
    assert (
        visitors.ask(port, "/play", body, {**kind, "Host": "localhost", "Origin": "http://localhost"})[0]
        == 200
    )
    assert len(read_rows(tmp_path / "ann.csv")) == 1


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"[]", b"7", b"{", b"\xff\xfe", b"[" * 4000, b'{"kind": "answer", "player": "ann"}'),
        *(
            b'{"kind": "answer", "trial": [], "choice": 1}',
            b'{"kind": "answer", "trial": 1e999, "choice": 1}',
            b'{"kind": "answer", "trial": 1, "choice": 2.9}',
        ),
        *(b'{"kind": "answer", "trial": 1, "choice": 1, "seconds": [1]}', b'"' + b"x" * 5000 + b'"'),
    ],
    ids=range(12),
)
def test_what_is_no_message_is_refused(port, body, tmp_path):
    with suppress(ConnectionError):  # too long a one may be cut off
        assert visitors.ask(port, "/play", body, {"Content-Type": "application/json"})[0] in (400, 413)
    assert not list(tmp_path.iterdir())
    assert visitors.ask(port, "/")[0] == 200


def test_the_page_may_run_its_own_script_and_nothing_else(port):
    reply = raw(port, b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").decode().lower()
    policy = re.search(r"content-security-policy: (.*)\r\n", reply)
    assert (
        policy and "unsafe" not in policy[1] and policy[1].startswith("default-src 'none'; script-src 'self'")
    )
    assert (
        raw(port, b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"y" * 70_000 + b"\r\n\r\n")[:12]
        != b"HTTP/1.1 200"
    )


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL], ids=lambda one: one.name)
def test_a_signal_to_the_launcher_ends_all_of_it(number, tmp_path):
    port = free_port()
    command = [sys.executable, "-m", "tests.benchmarks.visitors", "serve", str(tmp_path), str(port)]
    with visitors.started(command, port) as process:
        assert visitors.play(port, "ann", 2)
        assert not psutil.Process(process.pid).children(recursive=True)
        with socket.create_connection(("127.0.0.1", port)):  # one that is open does not hold it up
            process.send_signal(number)
            assert process.wait(60) == (-signal.SIGKILL if number == signal.SIGKILL else 0)
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    with pytest.raises(ConnectionRefusedError):
        visitors.ask(port, "/")
    assert len(read_rows(tmp_path / "ann.csv")) == 2


@pytest.mark.slow
def test_a_server_that_is_killed_loses_no_answer_that_was_acknowledged(tmp_path):
    found = visitors.kills(4, players=4, folder=tmp_path)
    assert found["answers"] > 40
    assert found == {"kills": 4, "answers": found["answers"], "lost": 0, "refused": 0}


def test_a_game_that_cannot_be_served_says_why(tmp_path, capsys, make_notebook):
    assert main(["--notebook", str(tmp_path / "no.ipynb")]) == 2
    assert "Unknown notebook" in capsys.readouterr().err
    other = make_notebook("03", "x = 1", parameters="out: str = 'o'  # there")
    assert main(["--notebook", str(other)]) == 2
    assert "03.ipynb' is no copy of 05_odd_one_out_game.ipynb" in capsys.readouterr().err
    kit = json.loads(find_notebook(NOTEBOOK, "").read_text())
    cell = next(cell for cell in kit["cells"] if "parameters" in cell["metadata"].get("tags", []))
    named = make_notebook(
        "named",
        parameters="".join(cell["source"]).replace("player: Optional[str] = None", 'player: str = "a"'),
    )
    assert main(["--notebook", str(named)]) == 2
    assert "requests a name from every visitor" in capsys.readouterr().err
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["--port", str(taken.getsockname()[1])]) == 2
    assert "choose another by --port" in capsys.readouterr().err


def test_the_game_that_is_served_is_the_notebooks():
    notebook = find_notebook(NOTEBOOK, "")
    asked = game_parameters(notebook)
    source = "".join(
        "".join(cell["source"])
        for cell in json.loads(notebook.read_text())["cells"]
        if cell["id"] == "game-04"
    )
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    (call,) = [one for one in calls if ast.unparse(one.func) == "lk.game.new_game"]
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    assert given == {**{name: name for name in OPTIONS}, "how": "trials"}
    assert set(given.values()) <= set(asked)
