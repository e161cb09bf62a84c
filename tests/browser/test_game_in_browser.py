"""The odd-one-out game, played in a real browser: by clicks, by keys, through a restart, and by Voilà."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

import ldm_kit as lk
from tests.browser import play
from tests.browser.driver import Notebook, copy_notebooks, eventually, watched_page
from tests.browser.servers import Server, voila_server

pytestmark = [pytest.mark.browser, pytest.mark.slow]

NAME = "05_odd_one_out_game"
GAME = {"n_trials": 7, "n_catch": 3, "features": "features"}
PARAMETERS = {NAME: GAME}


@pytest.fixture(scope="module")
def labels() -> dict[str, str]:
    stimuli = lk.load_dataset("toybox").stimuli
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
    for name, side in told["said"].items():
        if name != "simulated observers":
            assert [place for place, named in enumerate(who, 1) if name in named] == ([side] if side else [])
    assert "Simulated observers: " in str(trial["said"])


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
    scores = notebook.python("page.scores()[['other', 'accuracy', 'ci_low', 'ci_high']].to_dict('list')")
    page.locator(".ldm-odd-one-out .js-plotly-plot .main-svg").first.wait_for()
    expected = pytest.approx(dict(zip(scores["other"], scores["accuracy"], strict=True)))

    def drawn() -> dict[str, float]:
        (figure,) = notebook.figures(".ldm-odd-one-out")
        traces = [trace for trace in figure["data"] if trace.get("mode") == "markers"]
        return {name: x for trace in traces for name, x in zip(trace["y"], trace["x"], strict=True)}

    eventually(page, drawn, lambda now: now == expected)
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


@pytest.fixture(scope="module")
def voila(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder: Path = tmp_path_factory.mktemp("voila")
    copy_notebooks(folder / "notebooks", {NAME: GAME})
    environment = {"LDM_KIT_OFFLINE": "1", "LDM_KIT_SERIES": str(folder / "notebooks")}
    with voila_server(folder / "notebooks" / f"{NAME}.ipynb", folder / "state", environment) as server:
        yield server


def test_voila_serves_the_game_to_two_visitors_at_once(
    voila: Server, browser: Browser, labels: dict[str, str]
) -> None:
    with watched_page(browser) as cleo, watched_page(browser) as dan:
        for visit in (cleo, dan):  # both kernels start, and want the same features
            visit.page.set_default_timeout(120_000)
            visit.page.goto(voila.base, wait_until="commit")
        for name, visit in (("cleo", cleo), ("dan", dan)):
            page = visit.page
            play.begin(page, name)
            trials = []
            for act, side in ((play.click, 1), (play.press, 2), (play.press, 3)):
                trials.append(act(page, side))
                play.go_on(page)
            play.wait_for(page, "play", 3)
            play.check_rows(voila.folder / "outputs" / "game" / f"{name}.csv", trials, labels)
            assert "Error displaying widget" not in page.locator("body").inner_text()
        for visit in (cleo, dan):
            visit.check(voila)
    assert len(set(lk.read_choices(voila.folder / "outputs" / "game").subjects.tolist())) == 2
