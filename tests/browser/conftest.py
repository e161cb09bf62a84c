"""One Chromium and one JupyterLab for the browser tests of a module."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ldm_kit.static_images import find_browser

NO_BROWSER = (
    "No Chromium or Chrome was found, so nothing was tested in a browser. Install one (e.g. apt install "
    "chromium), or set BROWSER_PATH to yours, and run again."
)


@pytest.fixture(scope="session")
def browser() -> Iterator[object]:
    """A Chromium; a machine without one skips, except in CI, which must have it."""
    if find_browser() is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(NO_BROWSER)
    from tests.browser.driver import chromium

    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def lab(
    browser: object, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[object]:
    """JupyterLab on a copy of the notebooks.

    A module's `PARAMETERS` (notebook's name -> parameters) are put into the copies. They share one feature
    store, so that nothing is computed twice.
    """
    from tests.browser.driver import copy_notebooks
    from tests.browser.servers import lab_server

    folder: Path = tmp_path_factory.mktemp("lab")
    copy_notebooks(folder / "notebooks", getattr(request.module, "PARAMETERS", None))
    # Part of a series: the PNGs of its figures are left to the series' report, which is not made here.
    environment = {"LDM_KIT_OFFLINE": "1", "LDM_KIT_SERIES": str(folder / "notebooks")}
    with lab_server(folder / "notebooks", folder / "state", environment) as server:
        yield server


@pytest.fixture
def visit(browser: object) -> Iterator[object]:
    """A page that refuses and counts whatever is not on this machine; checked at the end."""
    from tests.browser.driver import watched_page

    with watched_page(browser) as page:  # type: ignore[arg-type]
        yield page
        page.check()
