"""The game's page as a plain object: what it shows after which message, without a browser."""

from __future__ import annotations

import io
import json
import os
import re
from base64 import b64decode
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest
from PIL import Image

import ldm_kit as lk
from ldm_kit.checkout import find_notebook
from ldm_kit.datasets.choice_files import read_rows
from ldm_kit.errors import BadInputError
from ldm_kit.game.__main__ import NOTEBOOK, main, voila_command, voila_environment
from ldm_kit.widgets.odd_one_out import SIDE, data_uri


@pytest.fixture(scope="module")
def game():
    data = lk.load_dataset("toybox")
    sets = lk.game.candidate_sets(data, 30)
    rng = np.random.default_rng(0)
    answers = {name: rng.integers(-1, 3, 30).astype(np.int8) for name in ("mid_block", "up_blocks.1")}
    return lk.game.Game(data.stimuli, sets, answers, n_trials=5, n_catch=2)


def send(page, **message):
    """What the browser sends, by the way that it takes."""
    page.board._handle_custom_msg(message, [])


def view(page):
    return json.loads(json.dumps(page.board.view))  # it must fit into JSON


def play(page, *choices):
    for choice in choices:
        send(page, kind="answer", trial=view(page)["trial"], choice=choice, seconds=0.5)
        send(page, kind="next")


def test_a_visitor_gives_a_name_plays_and_sees_one_figure(game, tmp_path):
    page = lk.widgets.OddOneOut(game, folder=tmp_path)
    assert view(page)["phase"] == "name"
    send(page, kind="start", player="ann")
    seen = view(page)
    assert seen["phase"] == "play" and (seen["trial"], seen["done"], seen["total"]) == (1, 0, 7)
    labels = [game.stimuli[game.stimuli.index(name)].label for name in page.session.pictures]
    assert [one["alt"] for one in seen["pictures"]] == labels
    assert not any("who" in one for one in seen["pictures"])  # nothing is told beforehand
    send(page, kind="answer", trial=1, choice=2, seconds=0.75)
    seen = view(page)
    assert seen["phase"] == "feedback" and seen["choice"] == 2 and seen["done"] == 1
    assert seen["said"].startswith(f"You: {labels[1]}. Simulated observers: ")
    votes = [entry["text"] for one in seen["pictures"] for entry in one["who"] if entry["kind"] == "judges"]
    assert sum(int(text.split()[0]) for text in votes) == sum(page.session.feedback(1).votes)
    assert read_rows(tmp_path / "ann.csv")[0]["seconds"] == "0.750"
    assert page.figure is None and len(page.children) == 1
    send(page, kind="next")
    play(page, 1, 2, 3, 1, 2, 3)
    seen = view(page)
    assert seen["phase"] == "end"
    assert "prove little" in " ".join(seen["lines"]) and "√c" in " ".join(seen["lines"])
    assert isinstance(page.figure, go.FigureWidget) and page.children[1] is page.figure
    scores = page.scores().set_index("other")["accuracy"]
    drawn = {name: x for trace in page.figure.data for name, x in zip(trace.y, trace.x, strict=True)}
    assert drawn == pytest.approx(scores[list(drawn)].to_dict())
    send(page, kind="next")
    assert view(page)["phase"] == "name" and len(page.children) == 1
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
    assert [one["alt"] for one in view(again)["pictures"]] == [one["alt"] for one in view(first)["pictures"]]
    play(again, 1, 1, 1, 1)
    finished = lk.widgets.OddOneOut(game, "ann", tmp_path)
    assert view(finished)["phase"] == "end" and finished.figure is not None
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


def test_pictures_are_sent_small_and_whole():
    large = Image.effect_noise((900, 600), 60).convert("RGB")
    for picture, kind in ((large, "JPEG"), (large.resize((64, 64)), "PNG")):
        sent = Image.open(io.BytesIO(b64decode(data_uri(picture).split(",")[1])))
        assert sent.format == kind and max(sent.size) <= SIDE
    assert large.size == (900, 600)  # left as it was


def test_the_page_loads_nothing_from_anywhere():
    folder = Path(lk.__file__).parent / "data" / "game"
    for name in ("board.js", "board.css"):
        text = (folder / name).read_text()
        assert not re.search(r"https?:|//cdn|import\s*\(|@import|^\s*import ", text, re.MULTILINE), name
        assert "innerHTML" not in text  # a name or label is text, never markup
    page = Path(lk.__file__).parent / "data" / "jupyter" / "voila" / "templates" / "ldm_kit" / "index.html.j2"
    assert "https:" not in page.read_text()


def test_the_server_is_voila_on_the_games_notebook(tmp_path, capsys):
    notebook = find_notebook(NOTEBOOK, "")
    command = voila_command(notebook, "127.0.0.1", 8866, True)
    assert command[1:4] == ["-m", "voila", str(notebook)]
    assert "--Voila.ip=127.0.0.1" in command and "--no-browser" in command
    template = (
        Path(voila_environment()["JUPYTER_PATH"].split(os.pathsep)[0]) / "voila" / "templates" / "ldm_kit"
    )
    assert "--template=ldm_kit" in command and (template / "conf.json").is_file()
    assert main(["--notebook", str(tmp_path / "no.ipynb")]) == 2
    assert "There is no notebook at" in capsys.readouterr().err
