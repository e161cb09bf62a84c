"""The report: whole, offline, and honest about who judged."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pandas as pd
import pytest

import ldm_kit.static_images
from ldm_kit.atomic import write_text
from ldm_kit.batch import build_report, run_series
from ldm_kit.batch.pages import mathml
from ldm_kit.batch.report import _figure
from ldm_kit.demo import told
from ldm_kit.errors import BadInputError
from ldm_kit.static_images import HOW_TO_GET_PNGS
from ldm_kit.tables import split_columns

NOTEBOOK = """
import plotly.graph_objects as go
from PIL import Image
from ldm_kit.results import Results
from ldm_kit.tables import tidy
results = Results(out, title="Layers", question="Which block is <most> human?")
results.record(model={"model": "tiny-ldm", "revision": "sha256:0123"}, models=["a", "b"], judgements="", seed=0)
rows = [dict(model="tiny-ldm", judgements="simulated", block=f"<b>{i}", accuracy=i / 30) for i in range(12)]
results.table(tidy(rows), "alignment", caption="Accuracy by block")
"""
FIGURES = """
results.figure(Image.new("RGB", (30, 20)), "first", caption="Not the best.")
from ldm_kit import plots
figure = plots.figure("Alignment through the network", ", ".join(["odd-one-out accuracy of each block"] * 2))
figure.add_scatter(y=[1, 2])
figure.show()
results.figure(figure, "curves", caption="Curves.", headline=True)
"""
REST = """
results.figure(Image.new("RGB", (90, 20)), "strip", caption="A strip.")
results.finding("`mid_block` is **most** human <script>: 0.400.", headline=True)
results.finding("A lesser finding.")
results.close()
"""


WIDGETS = [
    "import ipywidgets; ipywidgets.IntSlider()",
    "from tqdm.notebook import tqdm\nfor _ in tqdm(range(2), 'probes'): pass",
    "picker = ipywidgets.HBox(); picker.add_class('ldm-grid-picker'); picker",
    "explorer = ipywidgets.VBox(); explorer.add_class('ldm-explorer'); explorer",
]


class Links(HTMLParser):
    """Collect what a page loads, and what it links to."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.linked: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        if "src" in given:
            self.loaded.append(given["src"])
        if "href" in given:
            (self.linked if tag == "a" else self.loaded).append(given["href"])


def links_of(page: Path) -> Links:
    links = Links()
    links.feed(page.read_text())
    return links


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run a notebook with everything in it, one that fails and one that leaves nothing; no PNGs."""
    import nbformat
    from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

    folder = tmp_path_factory.mktemp("a series")
    parameters = new_code_cell("out: str = ''", metadata={"tags": ["parameters"]})
    widgets = [new_code_cell(source) for source in WIDGETS]
    text = new_markdown_cell("# Title\nChance is $\\frac{1}{3}$, and\n\n$$\\arg\\max_x x$$")
    cells = [text, parameters, *map(new_code_cell, [NOTEBOOK, FIGURES, REST]), *widgets]
    for name, content in {"a": cells, "b": [new_code_cell("1 / 0")], "c": [new_code_cell("1")]}.items():
        nbformat.write(new_notebook(cells=content), folder / f"{name}.ipynb")
    (folder / "s.yaml").write_text(
        "title: A & B\nquestion: Which?\nruns: [{notebook: b.ipynb}, {notebook: a.ipynb}, {notebook: c.ipynb}]"
    )
    out: Path = folder / "out"
    run_series(folder / "s.yaml", out)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ldm_kit.static_images.find_browser", lambda: None)
        assert build_report(out).advice == HOW_TO_GET_PNGS
    return out


def test_nothing_is_loaded_from_the_network_and_every_link_resolves(series: Path) -> None:
    pages = sorted(series.rglob("*.html"))
    assert {page.name for page in pages} == {"index.html", "a.html", "b.failed.html", "c.html", "curves.html"}
    for page in pages:
        text, links = page.read_text(), links_of(page)
        for target in [*links.loaded, *links.linked]:
            if target.startswith(("data:", "#")):
                continue
            assert not re.match(r"[a-z]+:|//", target), f"{page.name} names {target}"
            assert (page.parent / unquote(target.partition("#")[0])).exists(), (
                f"{page.name} links to {target}"
            )
        for target in links.linked:
            assert not target.startswith("#") or f'id="{target[1:]}"' in text, f"{page.name}: {target}"
        assert not re.search(r"import\(\s*['\"]https?:|@import|url\(['\"]?https?:", text)


def test_the_index_tells_what_was_asked_found_and_by_whom(series: Path) -> None:
    text = (series / "index.html").read_text()
    assert "<h1>A &amp; B</h1>" in text
    assert "Which block is &lt;most&gt; human?" in text
    assert "<code>mid_block</code> is <strong>most</strong> human &lt;script&gt;: 0.400." in text
    assert "simulated observer, not from people" in text
    assert "ZeroDivisionError: division by zero" in text
    assert re.search(r"In every row: model <b>tiny-ldm</b>", text)
    assert 'src="a/figures/curves.html"' in text  # interactive, in place of the PNG that could not be drawn
    assert 'src="a/figures/strip.png"' in text
    assert 'class="wide"' in text
    order = [text.index(f'<article id="{name}"') for name in "bac"]
    assert order == sorted(order)


def test_a_card_opens_with_its_headline_figure_and_folds_the_others(series: Path) -> None:
    card = (series / "index.html").read_text().partition('<article id="a"')[2]
    best, folded, others = card.partition('<details class="more">')
    assert folded and "a/figures/curves.html" in best and "a/figures/first.png" not in best
    assert "2 more figures" in others and "a/figures/first.png" in others
    assert 'loading="lazy"' not in others.partition("</details>")[0]  # print unfolds, and does not wait


def test_provenance_is_told_with_its_values(series: Path) -> None:
    text = (series / "index.html").read_text()
    told = " ".join(re.sub("<[^>]*>", " ", text.partition("<h3>Recorded</h3>")[2]).split())
    assert "model tiny-ldm" in told and "revision sha256:0123" in told
    assert "models a, b" in told


def test_nobodys_judgement_has_no_badge(series: Path) -> None:
    text = (series / "index.html").read_text()
    assert '<b class="badge simulated">' in text and '<b class="badge ">' not in text


def test_the_notebooks_page_has_live_figures_formulas_and_a_note_for_widgets(series: Path) -> None:
    text = (series / "a" / "a.html").read_text()
    assert "Plotly.newPlot" in text and 'src="../plotly.min.js"' in text
    assert "<mfrac>" in text and "<mo>arg</mo>" in text
    notes = re.findall('<p class="live-only">(.*?)</p>', text)
    assert len(notes) == 3  # a bar that has ended says nothing
    assert "Here is a live control" in notes[0] and "figure" not in notes[0]
    assert "Here the grid is picked" in notes[1]
    assert "A figure below" in notes[2]
    assert "application/vnd.jupyter.widget" not in text


def test_only_headline_findings_open_the_report(series: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ldm_kit.static_images.find_browser", lambda: None)
    report = build_report(series)
    assert report.findings == ["`mid_block` is **most** human <script>: 0.400."]
    lines = told([], report).splitlines()
    assert "  - mid_block is most human <script>: 0.400." in lines
    assert lines[-1] == f"Open {series / 'index.html'}"


def test_no_run_no_report(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="nothing to report"):
        build_report(tmp_path)


def test_columns_are_parted() -> None:
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", "x"], "c": [None, None], "d": [0.123456, 0.123456]})
    varying, constant = split_columns(frame)
    assert list(varying) == ["a"]
    assert constant == {"b": "x", "d": "0.1235"}
    assert list(split_columns(frame.head(1))[0]) == ["a", "b", "d"]


def test_a_figure_whose_name_holds_a_dot_keeps_its_height(tmp_path: Path) -> None:
    for name, height in (("up_blocks.1", 700), ("up_blocks", 300)):
        write_text(tmp_path / "figures" / f"{name}.json", json.dumps({"layout": {"height": height}}))
    assert _figure(tmp_path, {"name": "up_blocks.1", "kind": "plotly"})["height"] == 700


def test_a_formula_that_cannot_be_set_is_shown_as_written() -> None:
    assert mathml(r"\left( <", display="inline") == r"<code>\left( &lt;</code>"


@pytest.mark.browser
def test_the_index_draws_tables_and_figures_with_the_network_shut(series: Path, browser: Any) -> None:
    from tests.browser.driver import watched_page

    with watched_page(browser, width=1400, height=1200) as visit:
        page = visit.page
        page.goto((series / "index.html").as_uri())
        page.wait_for_selector("table.dataTable tbody tr")
        accuracies = page.locator("table.dataTable tbody tr td:last-child")
        page.locator("table.dataTable thead th").last.click()
        page.locator("table.dataTable thead th").last.click()
        page.wait_for_function(
            "() => document.querySelector('table.dataTable tbody tr td:last-child').textContent.startsWith('0.36')"
        )
        assert accuracies.first.inner_text().startswith("0.36")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.locator("table.dataTable tbody tr").count() == 12  # all, for paper
        page.set_viewport_size({"width": 800, "height": 1200})
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.locator("iframe").first.scroll_into_view_if_needed()
        page.frame_locator("iframe").first.locator(".js-plotly-plot .main-svg").first.wait_for()
        page.goto((series / "a" / "a.html").as_uri())
        page.locator(".js-plotly-plot .main-svg").first.wait_for()
        visit.check()


# How far a frame's drawings and words reach beyond it, in pixels; -1000 if nothing is drawn yet.
BEYOND = """() => Math.max(-1000, ...[...document.querySelectorAll('.main-svg, .gtitle')].map((one) => {
    const {right, bottom} = one.getBoundingClientRect(), within = one.closest('.ldm-figure, body');
    return Math.max(right - within.getBoundingClientRect().right, window.frameElement ? bottom - innerHeight : 0);
}))"""


@pytest.mark.browser
@pytest.mark.parametrize("width", [1440, 768, 390, "paper"])
def test_figures_fit_their_frames_without_pngs(series: Path, browser: Any, width: int | str) -> None:
    from tests.browser.driver import eventually, watched_page

    with watched_page(browser, width=1440 if width == "paper" else int(width)) as visit:
        for path in (series / "index.html", series / "a" / "a.html"):
            page = visit.page
            page.goto(path.as_uri())
            drawn = lambda: [one for one in page.frames if one.locator(".main-svg").count()]  # noqa: B023, E731
            frames = eventually(page, drawn, bool)
            for frame in frames:
                if width == "paper":  # a narrower one, of which no event tells
                    page.emulate_media(media="print")
                    frame.evaluate(
                        "document.querySelectorAll('.ldm-figure').forEach(f => f.style.width = '400px')"
                    )
                eventually(page, lambda: frame.evaluate(BEYOND), lambda beyond: -1000 < beyond < 1, 5)  # noqa: B023
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        visit.check()


@pytest.mark.browser
def test_the_browser_that_draws_pngs_asks_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import plotly.graph_objects as go

    from tests.browser.servers import Gate

    gate, figure = Gate(), tmp_path / "one.json"
    for name, value in gate.variables().items():
        monkeypatch.setenv(name, value)
    go.Figure(go.Scatter(y=[1, 2])).write_json(figure)
    assert ldm_kit.static_images.write_pngs([figure]) == ""
    assert figure.with_suffix(".png").exists()
    assert gate.asked == []  # without the shut door: MathJax's CDN, and news of the browser's own
