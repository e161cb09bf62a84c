"""The watch itself: what leaves the machine is refused and counted, and a console error is not overlooked."""

from __future__ import annotations

import os
import subprocess
import sys

import plotly.graph_objects as go
import plotly.io as pio
import pytest
from playwright.sync_api import Browser
from plotly.offline import get_plotlyjs

from ldm_kit.plots.template import CONFIG
from tests.browser.driver import eventually, promised, watched_page
from tests.browser.servers import Gate

pytestmark = pytest.mark.browser


def test_a_request_to_another_machine_is_refused_and_counted(browser: Browser) -> None:
    with watched_page(browser) as visit:
        visit.page.set_content(
            "<img src='https://example.org/a.png'><script>new WebSocket('wss://example.org')</script>"
        )
        visit.page.wait_for_timeout(300)
        assert sorted(visit.left) == ["https://example.org/a.png", "wss://example.org/"]
        with pytest.raises(AssertionError, match="2 requests left the machine"):
            visit.check()


def test_plotlys_button_that_uploads_a_figure_is_found(browser: Browser) -> None:
    figure, parts = go.Figure(go.Bar(y=[1])), [f"<script>{get_plotlyjs()}</script>"]
    parts += [pio.to_html(figure, config, include_plotlyjs=False, full_html=False) for config in ({}, CONFIG)]
    with watched_page(browser) as visit:
        visit.page.set_content("".join(parts))
        visit.page.locator(".modebar-btn").first.wait_for(state="attached")
        assert visit.page.locator(".modebar").count() == 2
        with pytest.raises(AssertionError, match="1 buttons upload a figure"):
            visit.check()


def test_an_error_in_the_console_is_one(browser: Browser) -> None:
    with watched_page(browser) as visit:
        visit.page.set_content("<script>console.error('wrong'); throw new Error('worse')</script>")
        visit.page.wait_for_timeout(200)
        with pytest.raises(AssertionError, match="wrong"):
            visit.check()
        assert len(visit.errors) == 2


def test_what_is_not_there_yet_is_asked_for_again(browser: Browser) -> None:
    with watched_page(browser) as visit:
        page = visit.page
        page.set_content("<p id=one></p>")
        page.evaluate("setTimeout(() => document.getElementById('one').textContent = 'a b', 300)")
        assert eventually(page, lambda: page.inner_text("#one").split()[1], bool, 10) == "b"
        with pytest.raises(AssertionError, match=r"a third: after 0\.2 s still list index out of range"):
            eventually(page, lambda: page.inner_text("#one").split()[2], bool, 0.2, "a third: ")


def test_a_promise_that_is_not_kept_is_an_error(browser: Browser) -> None:
    with watched_page(browser) as visit:
        with pytest.raises(TimeoutError, match=r"no answer in 0\.2 s to the question"):
            promised(visit.page, "() => new Promise(() => {})", timeout=0.2, what="the question")
        assert promised(visit.page, "async (n) => n + 1", 1, what="a sum") == 2
        assert promised(visit.page, "() => undefined", what="nothing") is None


def test_a_kernel_that_asks_the_network_is_turned_away_and_counted() -> None:
    gate = Gate()
    code = "import requests\ntry: requests.get('https://example.org')\nexcept requests.RequestException: print('refused')"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **gate.variables()}, capture_output=True, text=True
    )
    assert done.stdout.strip() == "refused"
    assert [asked.split(" HTTP")[0] for asked in gate.asked] == ["CONNECT example.org:443"]
    gate.close()
