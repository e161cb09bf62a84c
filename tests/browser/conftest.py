"""One JupyterLab for the browser tests of a module, and pages that are watched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest


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
