"""Every notebook opens in JupyterLab and runs to its end, in a real browser without a network.

Most do so in the tests of what they hold, which run all cells, too; the others do here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from tests.browser.driver import Notebook, Visit
from tests.browser.servers import ROOT, Server
from tests.test_report import NAME, TEXTS, what_data_made

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
