"""Notebook 90 trains its smoke model in JupyterLab, in a real browser without a network."""

from __future__ import annotations

import pytest

from tests.browser.driver import Notebook, Visit
from tests.browser.servers import Server

pytestmark = [pytest.mark.browser, pytest.mark.slow]

NAME = "90_train_tiny_ldm"


def test_training_runs_to_its_end_on_its_defaults(lab: Server, visit: Visit) -> None:
    notebook = Notebook(visit, lab, f"{NAME}.ipynb")
    assert notebook.run_all(timeout=400) == []
    visit.page.wait_for_timeout(300)
    notebook.close()
    visit.check(lab)
