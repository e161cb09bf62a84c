"""An explorer served by Voilà, as a lecturer may serve it to a class: no JupyterLab, no CDN, one kernel a visitor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
from playwright.sync_api import Page, expect

import ldm_kit as lk
from tests.browser.driver import Visit, choose, copy_notebooks, eventually, figures, slide
from tests.browser.servers import Server, voila_server

pytestmark = [pytest.mark.browser, pytest.mark.slow]

NAME = "03_layer_comparison"
VIEW = ".ldm-where-is-the-human"
BLOCKS, LEVELS = ["down_blocks.1", "mid_block"], [0.3, 0.9]


@pytest.fixture(scope="module")
def store(
    tmp_path_factory: pytest.TempPathFactory, emoji_features: Callable[[Path], Path]
) -> lk.FeatureStore:
    """The features, extracted beforehand: the page has only to open them."""
    return lk.FeatureStore.open(emoji_features(tmp_path_factory.mktemp("store") / "features"))


@pytest.fixture(scope="module")
def voila(store: lk.FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("voila")
    asked = {"blocks": BLOCKS, "noise_levels": LEVELS, "features": store.where, "n_noise": 1}
    copy_notebooks(folder / "notebooks", {NAME: asked})
    environment = {"LDM_KIT_OFFLINE": "1", "LDM_KIT_SERIES": str(folder / "notebooks")}
    with voila_server(folder / "notebooks" / f"{NAME}.ipynb", folder / "state", environment) as server:
        yield server


def by_category(store: lk.FeatureStore, block: str, level: float) -> list[float]:
    """What Python computes for a cell, without any widget."""
    data = lk.load_dataset("emoji")
    assert data.triplets is not None and data.categories is not None
    cell = store.select(blocks=[block], noise_levels=[level], conditionings="none")
    table: pd.DataFrame = lk.accuracy_by_category(
        cell, data.triplets, data.categories, metric="centred cosine"
    )
    return sorted(float(one) for one in table["accuracy"])


def drawn(page: Page) -> list[float]:
    (figure,) = figures(page, VIEW)
    return sorted(figure["data"][0]["x"])


def open_cell(page: Page, block: str, level: float) -> None:
    """Set cell A by its controls and wait until the status line tells of it."""
    choose(page, f"{VIEW} .ldm-block-A", block)
    slider = page.locator(f"{VIEW} .ldm-noise-A")
    if slider.locator(".widget-readout").inner_text() != f"{level:g}":
        slide(page, f"{VIEW} .ldm-noise-A", 1 if level == LEVELS[-1] else -1)
    expect(page.locator(f"{VIEW} .ldm-status")).to_contain_text(f"A: {block} at noise level {level:g}")


def open_by_keys(page: Page, tab: str) -> None:
    """From the last control on, by Tab, arrow and Enter alone."""
    page.locator(f"{VIEW} .ldm-colours select").focus()
    page.keyboard.press("Tab")
    for _ in range(10):
        if page.evaluate("document.activeElement.textContent") == tab:
            break
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(page.locator(f"{VIEW} .lm-TabBar-tab.lm-mod-current")).to_have_text(tab)


def test_another_cell_draws_other_data_and_python_says_the_same(
    voila: Server, visit: Visit, store: lk.FeatureStore
) -> None:
    page = visit.page
    page.set_default_timeout(120_000)
    page.goto(voila.base)
    page.locator(f"{VIEW} .js-plotly-plot .main-svg").first.wait_for()
    page.set_default_timeout(20_000)
    expect.set_options(timeout=20_000)
    open_by_keys(page, "Categories")
    seen = []
    for block, level in (("down_blocks.1", 0.3), ("mid_block", 0.3), ("mid_block", 0.9)):
        open_cell(page, block, level)
        expected = pytest.approx(by_category(store, block, level), abs=1e-6)
        seen.append(eventually(page, lambda: drawn(page), lambda now, it=expected: now == it))
    assert seen[0] != seen[1] != seen[2]
    about = page.locator(f"{VIEW} details.ldm-about")
    assert about.get_attribute("open") is None
    about.locator("summary").focus()
    page.keyboard.press("Enter")
    expect(about.get_by_text("Cell A")).to_be_visible()
    visit.check(voila)
