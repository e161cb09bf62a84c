"""The odd-one-out game, played in a real browser: by clicks, by keys, through a restart, and served to a class."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, expect

import ldm_kit as lk
from ldm_kit.datasets.triplet_files import read_rows
from tests.benchmarks import visitors
from tests.browser import play
from tests.browser.driver import Notebook, copy_notebooks, watched_page
from tests.browser.servers import Server, free_port, game_server

pytestmark = [pytest.mark.browser, pytest.mark.slow]

NAME = "05_odd_one_out_game"
GAME = {"n_trials": 7, "n_catch": 3, "features": "features"}
PARAMETERS = {NAME: GAME}


@pytest.fixture(scope="module")
def labels() -> dict[str, str]:
    stimuli = lk.load_dataset("emoji").stimuli
    return dict(zip(stimuli.names, stimuli.labels, strict=True))


@pytest.fixture(scope="module")
def game(browser: Browser, lab: Server) -> Iterator[Notebook]:
    """The notebook, open; its first run, which starts a kernel, is shared by the tests."""
    with watched_page(browser) as visit:
        notebook = Notebook(visit, lab, f"{NAME}.ipynb")
        yield notebook
        notebook.close()
        visit.check(lab)


def check_feedback(trial: dict[str, object], notebook: Notebook) -> None:
    """What the page says is what the kernel computes from features and judgements."""
    number = int(str(trial["done"])) + 1
    told = notebook.python(f"vars(page.session.feedback({number}))")
    who = trial["who"]
    assert isinstance(who, list)
    assert "you" in who[told["choice"] - 1] and told["choice"] == trial["choice"]
    for name, side in told["others"].items():
        if name != "simulated observers":
            assert [place for place, named in enumerate(who, 1) if name in named] == ([side] if side else [])
    assert "Simulated observers: " in str(trial["status"])


def test_ten_trials_by_clicks_and_keys_are_ten_right_rows(
    lab: Server, game: Notebook, labels: dict[str, str]
) -> None:
    notebook, page = game, game.page
    assert notebook.run_all() == []
    play.begin(page, "ann")
    path = lab.folder / "outputs" / "game" / "ann.csv"
    trials = []
    for side in (1, 2, 3, 1, 2):
        trials.append(play.click(page, side))
        check_feedback(trials[-1], notebook)
        play.check_rows(path, trials, labels)  # at once, not at the end
        play.go_on(page)

    page.wait_for_timeout(200)
    notebook.restart()  # in the middle of the game
    assert notebook.run_all() == []
    field = page.locator(".ldm-board .ldm-name")
    field.fill("ann")
    field.press("Enter")
    play.wait_for(page, "play", 5)
    for side in (3, 2, 1, 3, 2):
        trials.append(play.press(page, side))
        check_feedback(trials[-1], notebook)
        play.go_on(page, by_key=True)
    play.check_rows(path, trials, labels)

    play.wait_for(page, "end")
    scores = notebook.python("page.scores()[['other', 'accuracy']].to_dict('list')")
    expected = dict(zip(scores["other"], scores["accuracy"], strict=True))
    assert play.agreement(page) == pytest.approx(expected, abs=0.01)
    ends = page.locator(".ldm-board").inner_text()
    assert "prove little" in ends and "√c" in ends
    # the notebook itself is as it was: the keys made no headings of cells
    assert notebook.python("len(page.session.choices)") == 10
    kinds = page.evaluate(
        "() => window.jupyterapp.shell.currentWidget.content.widgets.map(cell => cell.model.type)"
    )
    assert kinds.count("code") == notebook.code_cells
    assert len(lk.read_choices(path)) == 7


def test_the_board_can_be_reached_and_read_without_a_mouse(game: Notebook) -> None:
    notebook, page = game, game.page
    assert notebook.run_all() == []
    play.begin(page, "bea")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.dataset.side") == "1"
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.dataset.side") == "3"
    ring = page.evaluate("getComputedStyle(document.activeElement).outlineWidth")
    assert float(ring.removesuffix("px")) >= 2
    page.keyboard.press("Enter")
    play.wait_for(page, "feedback", 1)
    assert notebook.python("page.session.choices") == [3]
    page.keyboard.press("2")  # it is answered: the key means nothing now
    page.keyboard.press("Enter")
    play.wait_for(page, "play", 1)
    assert notebook.python("page.session.choices") == [3]
    status = page.locator(".ldm-board [role=status]")
    assert status.get_attribute("aria-live") == "polite"


def test_two_visitors_at_once_play_the_served_game(
    browser: Browser, tmp_path: Path, labels: dict[str, str], emoji_features: Callable[[Path], Path]
) -> None:
    features = emoji_features(tmp_path / "features")
    copy_notebooks(tmp_path / "notebooks", {NAME: {"features": str(features)}})
    notebook = tmp_path / "notebooks" / f"{NAME}.ipynb"
    with (
        game_server(notebook, tmp_path / "state", {"LDM_KIT_OFFLINE": "1"}) as served,
        watched_page(browser) as cleo,
        watched_page(browser, width=390, height=800) as dan,
    ):
        answers = served.folder / "outputs" / "game"
        trials: dict[str, list[dict[str, object]]] = {"cleo": [], "dan": []}
        for name, visit in (("cleo", cleo), ("dan", dan)):
            visit.page.goto(served.base)
            play.begin(visit.page, name)
        for act, side in ((play.click, 1), (play.press, 2), (play.press, 3)):
            for name, visit in (("cleo", cleo), ("dan", dan)):
                trials[name].append(act(visit.page, side))
                play.check_rows(answers / f"{name}.csv", trials[name], labels)
                play.go_on(visit.page, by_key=visit is cleo)
        dan.page.reload()  # and the same name goes on
        field = dan.page.locator(".ldm-name")
        field.fill("dan")
        field.press("Enter")
        for done in range(3, 13):
            play.wait_for(dan.page, "play", done)
            trials["dan"].append(play.press(dan.page, done % 3 + 1))
            play.go_on(dan.page, by_key=True)
        play.wait_for(dan.page, "end")
        play.check_rows(answers / "dan.csv", trials["dan"], labels)
        assert len(play.agreement(dan.page)) == 4
        wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert dan.page.evaluate(wide) == 0
        for visit in (cleo, dan):
            visit.check(served)
    assert len(set(lk.read_choices(answers).subjects.tolist())) == 2


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images whose names are markup."""
    folder = tmp_path_factory.mktemp("images")
    for name in (
        "<img src=x onerror=hacked=1>",
        "<b>bold",
        "&lt;i&gt;",
        "'\"><svg onload=hacked=1>",
        "x" * 60,
    ):
        Image.new("RGB", (64, 64), "teal").save(folder / f"{name}.png")
    return folder


def test_a_page_waits_for_a_server_that_was_killed_and_shows_names_as_text(
    browser: Browser, tmp_path: Path, hostile: Path
) -> None:
    port = free_port()
    command = [sys.executable, "-m", "tests.benchmarks.visitors", "serve"]
    command += [str(tmp_path), str(port), str(hostile)]
    with watched_page(browser, width=390, height=800) as visit:
        page = visit.page
        with visitors.started(command, port) as process:
            page.goto(f"http://127.0.0.1:{port}/")
            play.begin(page, "ann")
            trial = play.click(page, 1)
            shown = page.locator(".ldm-board").inner_text()
            assert all(name in shown for name in (*trial["images"], "<b>mid</b>"))
            assert page.locator(".ldm-board :is(b, i, script, [onload], [onerror])").count() == 0
            assert page.evaluate("window.hacked === undefined")
            play.go_on(page)
            play.wait_for(page, "play", 1)
            visit.check()
            process.kill()
            process.wait()
        page.keyboard.press("2")
        expect(page.locator("[role=alert]")).to_contain_text("The game does not answer. Trying again")
        with visitors.started(command, port):
            play.told(page, 1)
            play.go_on(page)
            play.wait_for(page, "play", 2)
            assert [row["choice"] for row in read_rows(tmp_path / "ann.csv")] == ["1", "2"]
        assert not visit.left and all("ERR_CONNECTION_REFUSED" in error for error in visit.errors)
