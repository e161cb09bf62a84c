"""What a player does on the board, and what the board shows."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from playwright.sync_api import Locator, Page, expect

BOARD = ".ldm-board"


def board(page: Page) -> Locator:
    return page.locator(BOARD).first


def wait_for(page: Page, phase: str, done: int | None = None) -> None:
    counted = "" if done is None else f'[data-done="{done}"]'
    page.locator(f'{BOARD}[data-phase="{phase}"]{counted}').first.wait_for()


def begin(page: Page, name: str) -> None:
    """Give a name and start, by keys alone."""
    wait_for(page, "name")
    field = page.locator(f"{BOARD} .ldm-name")
    field.fill(name)
    field.press("Enter")
    wait_for(page, "play", 0)


def shown(page: Page) -> list[str]:
    """The alt texts of the three images, from left to right, without their sides' names."""
    texts = page.locator(f"{BOARD} .ldm-picture img").evaluate_all("all => all.map(one => one.alt)")
    assert [text.split(" image: ")[0] for text in texts] == ["left", "middle", "right"]
    return [text.split(" image: ")[1] for text in texts]


def click(page: Page, side: int) -> dict[str, Any]:
    """Answer by a click on a picture."""
    before = seen(page, side)
    page.locator(f'{BOARD} [data-side="{side}"]').click()
    return before | told(page, before["done"])


def press(page: Page, side: int) -> dict[str, Any]:
    """Answer by a key."""
    before = seen(page, side)
    page.keyboard.press(str(side))
    return before | told(page, before["done"])


def seen(page: Page, side: int) -> dict[str, Any]:
    wait_for(page, "play")
    done = int(board(page).get_attribute("data-done") or -1)
    return {"images": shown(page), "choice": side, "done": done}


def told(page: Page, done: int) -> dict[str, Any]:
    """What the feedback says, and whom it names below which picture."""
    wait_for(page, "feedback", done + 1)
    who = page.locator(f"{BOARD} .ldm-pictures > div").evaluate_all(
        "all => all.map(one => [...one.querySelectorAll('li')].map(entry => entry.textContent))"
    )
    return {"status": page.locator(f"{BOARD} .ldm-said").inner_text(), "who": who}


def go_on(page: Page, *, by_key: bool = False) -> None:
    button = page.locator(f"{BOARD} .ldm-next")
    if by_key:
        expect(button).to_be_focused()
        page.keyboard.press("Enter")
    else:
        button.click()


def check_rows(path: Path, trials: list[dict[str, Any]], labels: dict[str, str]) -> None:
    """The file holds just what was shown and chosen, in order."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(trials)
    for number, (row, trial) in enumerate(zip(rows, trials, strict=True), 1):
        assert row["trial"] == str(number)
        assert row["player"] == path.stem
        assert row["judgements"] == "human"
        assert [labels[row[f"image{side}"]] for side in (1, 2, 3)] == trial["images"]
        assert row["choice"] == str(trial["choice"])
        assert 0 < float(row["seconds"]) < 120


def agreement(page: Page) -> dict[str, float]:
    """What is drawn at the end: the place of each of the others' dots, from 0 to 1 of the width."""
    drawn: list[list[Any]] = page.locator(f"{BOARD} .ldm-agreement").evaluate(
        """(all) => [...all.querySelectorAll("svg")].map((one) => {
            const [dot, place] = [one.querySelector("circle").getBoundingClientRect(), one.getBoundingClientRect()];
            const left = place.left + one.clientLeft;
            return [one.previousSibling.textContent, (dot.left + dot.width / 2 - left) / one.clientWidth];
        })"""
    )
    return dict(drawn)
