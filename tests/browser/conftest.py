"""One JupyterLab for all browser tests of a process, and pages that are watched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import need_browser


@pytest.fixture(scope="session")
def jupyterlab(
    tmp_path_factory: pytest.TempPathFactory, emoji_features: Callable[[Path], Path]
) -> Iterator[object]:
    """JupyterLab on a folder of features. `make test` runs all tests that use it in one process."""
    need_browser()
    from tests.browser.servers import lab_server

    folder: Path = tmp_path_factory.mktemp("lab")
    (folder / "notebooks").mkdir()
    emoji_features(folder / "notebooks" / "features")
    # Part of a series: the PNGs of its figures are left to the series' report, which is not made here.
    environment = {"LDM_KIT_OFFLINE": "1", "LDM_KIT_SERIES": str(folder / "notebooks")}
    with lab_server(folder / "notebooks", folder / "state", environment) as server:
        yield server


@pytest.fixture(scope="module")
def lab(jupyterlab: object, request: pytest.FixtureRequest) -> object:
    """JupyterLab on fresh copies of the notebooks.

    A module's `PARAMETERS` (notebook's name -> parameters) are put into the copies. All share one feature
    store, so that nothing is computed twice.
    """
    from tests.browser.driver import copy_notebooks

    copy_notebooks(jupyterlab.folder, getattr(request.module, "PARAMETERS", None))  # type: ignore[attr-defined]
    return jupyterlab


@pytest.fixture
def visit(browser: object) -> Iterator[object]:
    """A page that refuses and counts whatever is not on this machine; checked at the end."""
    from tests.browser.driver import watched_page

    with watched_page(browser) as page:  # type: ignore[arg-type]
        yield page
        page.check()
