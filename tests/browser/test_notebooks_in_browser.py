"""Every notebook opens in JupyterLab and runs to its end, in a real browser without a network."""

from __future__ import annotations

import pytest

from tests.browser.driver import Notebook, Visit
from tests.browser.servers import ROOT, Server

pytestmark = [pytest.mark.browser, pytest.mark.slow]

NAMES = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
GRID = {"blocks": ["down_blocks.1", "mid_block", "up_blocks.1"], "features": "features"}
PARAMETERS = {
    "00_start_here": {"noise_levels": [0.3, 0.9], "features": "features"},
    "01_extraction": {**GRID, "noise_levels": [0.3, 0.9]},
    "02_probing": {**GRID, "noise_levels": [0.3]},
    "03_layer_comparison": {**GRID, "noise_levels": [0.3, 0.9]},
    "04_text_conditioning": {**GRID, "noise_levels": [0.3, 0.9]},
}


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs_to_its_end(name: str, lab: Server, visit: Visit) -> None:
    notebook = Notebook(visit, lab, f"{name}.ipynb")
    assert notebook.run_all() == []
    visit.page.wait_for_timeout(300)
    notebook.close()
    visit.check(lab)
