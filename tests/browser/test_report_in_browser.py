"""The report, opened from disk in a real browser: links resolve, tables sort, figures draw, nobody is asked."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from ldm_kit.batch import build_report, run_series
from tests.browser.driver import eventually, watched_page
from tests.browser.servers import ROOT

pytestmark = [pytest.mark.browser, pytest.mark.slow]

RUNS = f"""
title: A class plays
question: Do you name the same odd one as the judges?
runs:
  - notebook: {ROOT / "notebooks" / "05_odd_one_out_game.ipynb"}
    parameters: {{autoplay: participant, n_trials: 12, n_catch: 3, features: FEATURES}}
"""


@pytest.fixture(scope="module")
def index(
    browser: Browser, tmp_path_factory: pytest.TempPathFactory, emoji_features: Callable[[Path], Path]
) -> Path:
    folder: Path = tmp_path_factory.mktemp("report")
    features = emoji_features(folder / "features")
    (folder / "series.yaml").write_text(RUNS.replace("FEATURES", str(features)))
    (outcome,) = run_series(folder / "series.yaml", folder / "out")
    assert outcome.status == "done", outcome.error
    return build_report(folder / "out").index


def linked(page: Page) -> list[str]:
    found: list[str] = page.locator("a[href]").evaluate_all("all => all.map(one => one.href)")
    return found


def test_every_link_leads_to_something_that_opens(index: Path, browser: Browser) -> None:
    with watched_page(browser) as visit:
        page = visit.page
        page.goto(index.as_uri())
        seen, todo = set(), [index.as_uri(), *linked(page)]
        while todo:
            url = todo.pop().partition("#")[0]
            if not url or url in seen:
                continue
            seen.add(url)
            assert url.startswith("file://"), f"the report links to {url}"
            if url.endswith(".html"):
                page.goto(url)
                todo += linked(page)
            else:
                from urllib.parse import unquote, urlparse

                assert Path(unquote(urlparse(url).path)).is_file(), url
        assert len(seen) > 3
        visit.check()


def test_tables_sort_and_figures_draw(index: Path, browser: Browser) -> None:
    with watched_page(browser) as visit:
        page = visit.page
        page.goto(index.as_uri())
        page.locator("table.dataTable tbody tr").first.wait_for()
        table = page.locator(
            "table.dataTable", has=page.locator("thead th", has_text=re.compile("^other$"))
        ).first
        heads, cells = table.locator("thead th"), table.locator("tbody td")
        shown = eventually(page, cells.all_inner_texts, lambda now: "" in now)
        assert not {"NaN", "None"} & set(shown), "a cell without a value is empty"
        place = [text.strip() for text in heads.all_inner_texts()].index("other")
        column = table.locator(f"tbody td:nth-child({place + 1})")
        before = column.all_inner_texts()
        heads.nth(place).click()
        eventually(page, column.all_inner_texts, lambda now: now == sorted(before))
        assert before != sorted(before)
        picture = page.locator('img[src*="agreement"], iframe[src*="agreement"]').first
        picture.scroll_into_view_if_needed()
        assert page.locator("body").inner_text().count("simulated") > 0
        figure = next(index.parent.rglob("figures/agreement.html"))
        page.goto(figure.as_uri())
        page.locator(".js-plotly-plot .main-svg").first.wait_for()
        visit.check()
