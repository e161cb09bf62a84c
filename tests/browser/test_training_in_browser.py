"""Notebook 90 trains a small model in JupyterLab, in a real browser without a network."""

from __future__ import annotations

import pytest

from tests.browser.driver import Notebook, Visit
from tests.browser.servers import Server
from tests.test_training import SMALL_TRAINING

pytestmark = [pytest.mark.browser, pytest.mark.slow]

NAME = "90_train_tiny_ldm"
PARAMETERS = {NAME: SMALL_TRAINING}


def test_training_runs_to_its_end(lab: Server, visit: Visit) -> None:
    notebook = Notebook(visit, lab, f"{NAME}.ipynb")
    assert notebook.run_all(timeout=400) == []
    visit.page.wait_for_timeout(300)
    notebook.close()
    visit.check(lab)
