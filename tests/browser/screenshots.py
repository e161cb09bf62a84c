"""``python -m tests.browser.screenshots [NAME …]``: make the pictures of notebooks/images anew.

Each is taken in a real Chromium from a notebook that runs in JupyterLab, or from the report of `make demo`.
An explorer is shown with the tab named here open, after its controls were set.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Locator, Page

from ldm_kit.files import written_aside
from ldm_kit.run_record import HOW_TO_GET_PNGS, find_browser
from tests.browser import play
from tests.browser.driver import Notebook, chromium, copy_notebooks, watched_page
from tests.browser.servers import ROOT, Server, lab_server

IMAGES = ROOT / "notebooks" / "images"
WIDEST = 1400  # pixels kept
COLOURS = 192  # enough for a page's colours; a quarter of the bytes
# picture -> notebook, tab, what is set first
EXPLORERS = {
    "into_the_noise": ("01_extraction", "Positions", "view.level.value = 0.3"),
    "probes_view": ("02_probing", "Neighbours", "view.stimulus.value = 'car.png'"),
    "where_is_the_human": ("03_layer_comparison", "Map", "view.block_b.value = 'mid_block'"),
    "prompt_gains": ("04_text_conditioning", "Gain", "view.conditioning.value = 'label'"),
}


@dataclass
class Stage:
    """What all pictures are taken on: a browser, and JupyterLab on a copy of the notebooks."""

    browser: Browser
    folder: Path
    stack: ExitStack
    _lab: Server | None = field(default=None, init=False)

    @property
    def lab(self) -> Server:
        """JupyterLab, started when first needed."""
        if self._lab is None:
            shared = {name: {"features": "features"} for name, *_ in EXPLORERS.values()}
            copy_notebooks(self.folder / "notebooks", shared)
            environment = {"LDM_KIT_OFFLINE": "1", "LDM_KIT_SERIES": str(self.folder / "notebooks")}
            server = lab_server(self.folder / "notebooks", self.folder / "lab", environment)
            self._lab = self.stack.enter_context(server)
        return self._lab

    def open(self, name: str, width: int = 1100, height: int = 1000) -> Notebook:
        """Open a notebook and run it to its end."""
        visit = self.stack.enter_context(watched_page(self.browser, width=width, height=height))
        notebook = Notebook(visit, self.lab, f"{name}.ipynb")
        errors = notebook.run_all()
        if errors:
            raise RuntimeError(f"{name}: {errors[0]}")
        return notebook

    def page(self, path: Path, width: int = 1100, height: int = 800) -> Page:
        """Open a page from disk."""
        page = self.stack.enter_context(watched_page(self.browser, width=width, height=height)).page
        page.goto(path.resolve().as_uri())
        return page


def keep(picture: bytes, name: str) -> Path:
    """Write a screenshot as a small PNG."""
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    image.thumbnail((WIDEST, WIDEST * 2))
    path = IMAGES / f"{name}.png"
    with written_aside(path) as aside:
        image.quantize(COLOURS, dither=Image.Dither.NONE).save(aside, optimize=True)
    print(f"{path.relative_to(ROOT)}: {image.width} × {image.height}, {path.stat().st_size / 1024:.0f} KB")
    return path


def shot(place: Locator | Page, name: str) -> Path:
    """Take a picture of a part of a page, or of what is seen of it."""
    page = place.page if isinstance(place, Locator) else place
    page.mouse.move(0, 0)
    page.wait_for_timeout(400)
    return keep(place.screenshot(animations="disabled"), name)


def game(stage: Stage) -> None:
    """A trial with its feedback, and the result."""
    notebook = stage.open("05_odd_one_out_game")
    page = notebook.page
    play.begin(page, "Ann")
    for number in range(13):
        # agree with the observers two times in three, so that there is something to see
        side = notebook.python(
            "page.session.current.sides.index(game.sets.majority[page.session.current.set_index])"
        )
        play.press(page, side + 1 if number % 3 else 1)
        if number == 1:
            shot(page.locator(".ldm-board"), "game")
        play.go_on(page)
    play.wait_for(page, "end")
    page.locator(".ldm-agreement circle").first.wait_for()
    shot(page.locator(".ldm-odd-one-out"), "game_result")
    notebook.close()


def explorer(stage: Stage, name: str) -> None:
    """One explorer, as it stands in its notebook."""
    notebook_name, tab, code = EXPLORERS[name]
    notebook = stage.open(notebook_name, width=1400)
    place = notebook.page.locator(f".ldm-{name.replace('_', '-')}").first
    place.scroll_into_view_if_needed()
    place.locator(".lm-TabBar-tab", has_text=tab).first.click()
    notebook.run(code)
    notebook.until(f"not view.latest.busy and view.tab == {tab!r}")
    notebook.page.wait_for_timeout(1500)
    shot(place, name)
    notebook.close()


def report(stage: Stage) -> None:
    """The top of the demo's report; the demo is run if it was not."""
    index = ROOT / "outputs" / "demo" / "index.html"
    if not index.is_file():
        from ldm_kit.demo import main as demo

        print("There is no outputs/demo yet: running the demo, some minutes.", flush=True)
        if demo(["--out", str(index.parent)]):
            raise RuntimeError("the demo failed; see its log")
    page = stage.page(index, width=1100, height=900)
    page.locator("table.dataTable tbody tr").first.wait_for()
    shot(page, "report")


SHOTS: dict[str, Callable[[Stage], None]] = {
    **{name: partial(explorer, name=name) for name in EXPLORERS},
    "game": game,
    "report": report,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Take the pictures that are named, or all."""
    parser = argparse.ArgumentParser(prog="python -m tests.browser.screenshots")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of {', '.join(SHOTS)}; all by default")
    given = parser.parse_args(arguments)
    unknown = sorted(set(given.names) - set(SHOTS))
    if unknown or find_browser() is None:
        print(f"No picture is called {unknown[0]!r}." if unknown else HOW_TO_GET_PNGS, file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder, chromium() as browser, ExitStack() as stack:
        stage = Stage(browser, Path(folder), stack)
        for name in given.names or SHOTS:
            SHOTS[name](stage)
    return 0


if __name__ == "__main__":
    sys.exit(main())
