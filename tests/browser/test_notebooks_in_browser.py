"""Every notebook opens in JupyterLab and runs to its end, in a real browser without a network.

Most do so in the tests of what they hold, which run all cells, too; the others do here.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.browser.driver import Notebook, Visit
from tests.browser.servers import ROOT, Server

pytestmark = [pytest.mark.browser, pytest.mark.slow]

ELSEWHERE = {
    "01_extraction": "test_explorers_in_browser",
    "02_probing": "test_explorers_in_browser",
    "03_layer_comparison": "test_explorers_in_browser",
    "04_text_conditioning": "test_explorers_in_browser",
    "05_odd_one_out_game": "test_game_in_browser",
    "90_train_tiny_ldm": "test_training_in_browser",  # beside the others, since it takes long
}
NAMES = sorted({path.stem for path in (ROOT / "notebooks").glob("*.ipynb")} - set(ELSEWHERE))
PARAMETERS = {
    "00_start_here": {"noise_levels": [0.3, 0.9]},
    "06_model_comparison": {"models": ["tiny-ldm", "pixels"], "noise_levels": [0.1]},
}


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs_to_its_end(name: str, lab: Server, visit: Visit) -> None:
    notebook = Notebook(visit, lab, f"{name}.ipynb")
    assert notebook.run_all() == []
    visit.page.wait_for_timeout(300)
    notebook.close()
    visit.check(lab)


@pytest.mark.parametrize("name", sorted(ELSEWHERE))
def test_the_others_are_run_where_it_is_said(name: str) -> None:
    text = (Path(__file__).parent / f"{ELSEWHERE[name]}.py").read_text()
    assert name in text and "run_all(" in text
