"""Each explorer in a real browser: a control is changed, and what is drawn is what Python computed, and new."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser

from tests.browser.driver import Notebook, Visit, choose, eventually, slide, type_text, watched_page
from tests.browser.servers import Server
from tests.conftest import EMOJI_BLOCKS

pytestmark = [pytest.mark.browser, pytest.mark.slow]

GRID = {
    "blocks": EMOJI_BLOCKS,
    "noise_levels": [0.3, 0.9],
    "features": "features",
    "n_noise": 1,
}
PARAMETERS: dict[str, dict[str, Any]] = {
    "01_extraction": GRID,
    "02_probing": {**GRID, "non_linear": False},
    "03_layer_comparison": GRID,
    "04_text_conditioning": GRID,
}
DONE = "view.shown_key == view.key(view.tab, view.state) and not view.latest.busy"
# The numbers that traces draw, as Python holds them.
PYTHON = "[[trace.to_plotly_json().get(a) for a in 'xyz'] for trace in view.drawing.drawn.data]"


class Seen:
    """An explorer in its notebook, and the figure that it showed last."""

    def __init__(self, visit: Visit, lab: Server, name: str, explorer: str) -> None:
        self.notebook, self.selector = Notebook(visit, lab, f"{name}.ipynb"), f".ldm-{explorer}"
        self.page = visit.page
        assert self.notebook.run_all() == []
        self.page.wait_for_selector(f"{self.selector} .lm-TabBar-tab")
        self.page.set_default_timeout(20_000)
        self.last: Any = None
        self.picture = ""

    def close(self) -> None:
        """End the kernel; nothing may have left the machine, from the page or from the kernel."""
        self.notebook.close()
        self.notebook.visit.check(self.notebook.server)

    def open(self, tab: str) -> None:
        self.page.locator(f"{self.selector} .lm-TabBar-tab", has_text=tab).first.click()
        self.notebook.until(f"view.tab == {tab!r}")

    def at(self, control: str) -> str:
        return f"{self.selector} .ldm-{control}"

    def drawn(self) -> Any:
        """What the browser draws, once it is what Python computed for the state of the controls."""

        def both() -> tuple[Any, Any]:
            python = _plain(self.notebook.python(PYTHON))
            (figure,) = self.notebook.figures(self.selector)
            return python, _plain([[trace.get(axis) for axis in "xyz"] for trace in figure["data"]])

        self.notebook.until(DONE)
        return eventually(self.page, both, lambda pair: pair[0] == pair[1])[1]

    def changed(self, state: str = "True") -> None:
        """Fail unless what is drawn is new, and Python's for a state of which this expression holds."""
        self.notebook.until(state)  # a key may reach the kernel after the question whether it is done
        self.last = eventually(self.page, self.drawn, lambda now: now != self.last)

    def block_changes(self) -> None:
        """Choose another block, and see what is drawn change."""
        other = self.notebook.python("[one for one in view.block.options if one != view.block.value]")[0]
        choose(self.page, self.at("block"), other)
        self.changed(f"view.state.block == {other!r}")

    def level_changes(self) -> None:
        """Move the slider of the noise level, and see what is drawn change."""
        levels = [
            option[-1] if isinstance(option, list) else option
            for option in self.notebook.python("view.level.options")
        ]
        at = self.notebook.python("view.level.index")
        other = at - 1 if at == len(levels) - 1 else at + 1
        slide(self.page, self.at("noise-level"), other - at)
        self.changed(f"view.state.level == {levels[other]!r}")

    def picture_changed(self, state: str = "True") -> None:
        """Fail unless the picture is another one, and has its words."""
        self.notebook.until(f"{state} and {DONE}")
        image = self.page.locator(f"{self.selector} img.ldm-picture")

        def both() -> tuple[Any, ...]:
            words = self.notebook.python("view.shown().alt")
            return image.get_attribute("src") or "", image.get_attribute("title"), words

        def new(told: tuple[Any, ...]) -> bool:
            source, title, words = told
            return source.startswith("blob:") and source != self.picture and title == words != ""

        self.picture = eventually(self.page, both, new)[0]


def _plain(value: Any) -> Any:
    """Numbers rounded to what float32 keeps, lists all the way down."""
    if isinstance(value, dict) and "bdata" in value:  # plotly's packed arrays
        import base64

        numbers = np.frombuffer(base64.b64decode(value["bdata"]), dtype=value["dtype"])
        shape = [int(n) for n in str(value.get("shape", len(numbers))).split(",")]
        return _plain(numbers.reshape(shape).tolist())
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return float(f"{value:.5g}") if isinstance(value, (int, float)) else value


@pytest.fixture(scope="module")
def noise(browser: Browser, lab: Server) -> Iterator[Seen]:
    """One notebook for two tests: to run it takes longer than they do."""
    with watched_page(browser) as visit:
        seen = Seen(visit, lab, "01_extraction", "into-the-noise")
        yield seen
        seen.close()


def test_into_the_noise(noise: Seen, tmp_path: Any) -> None:
    seen = noise
    seen.open("Image")
    seen.picture_changed()
    seen.open("Positions")
    seen.last = None
    seen.changed()
    slide(seen.page, seen.at("noise-level"), -1)
    slide(seen.page, seen.at("noise-level"), 1)
    choose(seen.page, seen.at("block"), "mid_block")
    seen.changed("view.state.block == 'mid_block'")
    type_text(seen.page, seen.at("prompt"), "a photo of a cat")
    seen.changed("view.state.prompt == 'a photo of a cat'")
    seen.level_changes()
    seen.open("Image")
    seen.picture_changed()
    path = tmp_path / "mine.png"
    Image.new("RGB", (64, 64), "#0072B2").save(path)
    bad = tmp_path / "notes.png"
    bad.write_text("milk, eggs")
    with seen.page.expect_file_chooser() as chooser:
        seen.page.locator(f"{seen.selector} button.ldm-upload").click()
    chooser.value.set_files([path, bad])
    seen.notebook.until("view.stimulus.value.endswith('/mine.png')")
    seen.picture_changed()


def test_a_flood_of_keys_is_computed_a_handful_of_times(noise: Seen) -> None:
    seen = noise
    seen.open("Positions")
    seen.last = seen.drawn()
    before = seen.notebook.python("view.computed")
    seen.page.locator(f"{seen.at('position')} .noUi-handle").first.focus()
    for i in range(200):
        seen.page.keyboard.press("ArrowLeft" if i % 20 == 19 else "ArrowRight")
    seen.changed()
    assert seen.notebook.python("view.computed") - before <= 10


def test_where_is_the_human(lab: Server, visit: Visit) -> None:
    seen = Seen(visit, lab, "03_layer_comparison", "where-is-the-human")
    seen.changed()
    seen.notebook.run("view.block.value, view.level.value = 'up_blocks.1', 0.9")
    seen.notebook.until(DONE)
    plot = seen.page.locator(f"{seen.selector} .js-plotly-plot .nsewdrag").first
    plot.scroll_into_view_if_needed()
    area = plot.bounding_box()
    assert area is not None
    first = (area["x"] + area["width"] / 4, area["y"] + area["height"] / 6)

    def click() -> Any:
        """A click on the map's first cell, input of the network and lowest noise, makes it A."""
        seen.page.mouse.click(*first)  # lost if the map is just being redrawn
        return seen.notebook.python("view.state.a")

    eventually(seen.page, click, lambda a: a == ["down_blocks.1", 0.3])
    seen.open("Categories")
    seen.changed()
    choose(seen.page, seen.at("block-A"), "mid_block")
    seen.changed("view.state.a == ('mid_block', 0.3)")
    slide(seen.page, seen.at("noise-A"), 1)
    seen.changed("view.state.a == ('mid_block', 0.9)")
    for tab in ("Curves", "Dimensions", "Two cells", "Map"):
        seen.open(tab)
        if tab == "Two cells":
            choose(seen.page, seen.at("block-B"), "up_blocks.1")
            seen.notebook.until("view.state.b[0] == 'up_blocks.1'")
        seen.changed()
    seen.open("Triplets")
    seen.picture_changed()
    seen.close()


def test_prompt_gains(lab: Server, visit: Visit) -> None:
    seen = Seen(visit, lab, "04_text_conditioning", "prompt-gains")
    seen.changed()
    choose(seen.page, seen.at("conditioning"), "caption")
    seen.changed("view.state.conditioning == 'caption'")
    choose(seen.page, seen.at("conditioning"), "your template")
    type_text(seen.page, seen.at("template"), "a toy {name}")
    seen.notebook.until("'Press Run' in view.status.value")
    seen.page.locator(f"{seen.selector} button.ldm-run").click()
    seen.changed("view.state.template == 'a toy {name}'")
    seen.open("Matrices")
    seen.changed()
    seen.block_changes()
    seen.level_changes()
    seen.open("Gain")
    seen.changed()
    seen.close()


def test_the_probes_view(lab: Server, visit: Visit) -> None:
    seen = Seen(visit, lab, "02_probing", "probes-view")
    seen.picture_changed()
    seen.open("Ranks")
    seen.changed()
    seen.block_changes()
    seen.level_changes()
    choose(seen.page, seen.at("stimulus"), "car")
    seen.changed("view.stimulus.label == 'car'")
    seen.open("Neighbours")
    seen.picture_changed()
    seen.close()
