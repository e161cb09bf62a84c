"""Every notebook opens in JupyterLab and runs to its end, in a real browser without a network.

Most do so in the tests of what they hold; the others do here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from tests.browser import test_explorers_in_browser, test_game_in_browser, test_training_in_browser
from tests.browser.driver import Notebook, Visit
from tests.browser.servers import ROOT, Server
from tests.test_report import NAME, TEXTS, what_data_made

pytestmark = [pytest.mark.browser, pytest.mark.slow]

# Run to their end by the tests of what they hold: those of the explorers, of the game and of the training.
ELSEWHERE = {
    *test_explorers_in_browser.PARAMETERS,
    test_game_in_browser.NAME,
    test_training_in_browser.NAME,
}
HERE = {"00_start_here", "06_model_comparison"}
PARAMETERS = {
    "00_start_here": {"noise_levels": [0.3, 0.9], "features": "features"},
    "06_model_comparison": {"models": ["tiny-ldm", "pixels"], "noise_levels": [0.1], "n_noise": 1},
}


@pytest.mark.parametrize("name", sorted(HERE))
def test_a_notebook_runs_to_its_end(name: str, lab: Server, visit: Visit) -> None:
    notebook = Notebook(visit, lab, f"{name}.ipynb")
    assert notebook.run_all() == []
    visit.page.wait_for_timeout(300)
    notebook.close()
    visit.check(lab)


def test_every_notebook_is_run_by_a_browser_test() -> None:
    assert {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")} == HERE | ELSEWHERE


HOSTILE = [
    "import pandas as pd, ldm_kit as lk",
    f"results, texts = lk.RunRecord('out', title='', question=''), {TEXTS!r}",
    "data = lk.load_dataset('folder', 'hostile')\nlabel = data.stimuli[0].label",
    "for name, text in texts.items():\n    display(results.finding(f'{label}: **{text}**, `{text}` and {text}'))",
    "pd.DataFrame({label: [label, *texts.values()]}, index=[label, *texts])",
    "figure = lk.plots.figure(label, ', '.join(texts.values()))\n"
    "figure.add_bar(x=list(texts.values()), y=[1] * len(texts), name=label)\nfigure",
    "view = lk.widgets.IntoTheNoise(lk.load_model('tiny-ldm'), data.stimuli, [0.5], blocks='mid_block')\nview",
    "view.say(label)",
]


def test_nothing_that_comes_from_data_runs_in_jupyterlab(
    lab: Server, visit: Visit, make_notebook: Callable[..., Path]
) -> None:
    (lab.folder / "hostile").mkdir()
    for place in range(2):
        Image.new("RGB", (64, 64), "red").save(lab.folder / "hostile" / f"{NAME}{'.' * place}.png")
    files = sorted(path.name for path in (lab.folder / "hostile").iterdir())
    captions = {"name": files, "caption": [" ".join(TEXTS.values())] * 2}
    pd.DataFrame(captions).to_csv(lab.folder / "hostile" / "captions.csv", index=False)
    make_notebook("names", *HOSTILE, folder=lab.folder)
    notebook = Notebook(visit, lab, "names.ipynb")
    assert notebook.run_all() == []
    visit.page.locator(".js-plotly-plot .gtitle", has_text=NAME).first.wait_for(state="attached")
    visit.page.locator(".ldm-status", has_text=NAME).wait_for()
    cells = visit.page.locator(".jp-Notebook .jp-OutputArea-output")
    assert what_data_made(cells) == []
    shown = " ".join(cells.all_inner_texts())
    assert NAME in shown and all(" ".join(text.split()) in shown for text in TEXTS.values())
    notebook.close()
    visit.check(lab)


def test_jupyterlab_asks_nobody_for_news_updates_or_extensions(lab: Server, visit: Visit) -> None:
    visit.page.goto(f"{lab.base}/lab?token={lab.token}&reset")
    visit.page.wait_for_function("() => window.jupyterapp && window.jupyterapp.restored.then(() => true)")
    for what in ("update", "news", "extensions?refresh=1"):  # as the page does, sooner or later
        visit.page.request.get(f"{lab.base}/lab/api/{what}")
    visit.check(lab)
