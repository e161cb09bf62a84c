"""The report: whole, offline, and honest about who judged."""

from __future__ import annotations

import errno
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pandas as pd
import pytest

import ldm_kit.run_record
from ldm_kit.batch import build_report, run_series
from ldm_kit.batch.__main__ import summary
from ldm_kit.batch.report import _figure, mathml
from ldm_kit.errors import BadInputError
from ldm_kit.files import write_text
from ldm_kit.run_record import HOW_TO_GET_PNGS
from ldm_kit.tables import split_columns

pytestmark = pytest.mark.slow

NOTEBOOK = """
import plotly.graph_objects as go
from PIL import Image
from ldm_kit.run_record import RunRecord
from ldm_kit.tables import tidy
results = RunRecord(out, title="Layers", question="Which block is <most> human?")
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

# What runs in a browser if any page takes it for HTML, Markdown, a formula or a script's end. In a file's name
# no slash can stand; elsewhere all can.
RUNS = "window.pwned=1"
NAME = f"<img src=x onerror={RUNS}> & `b`"
TEXTS = {
    "image": f"<img src=x onerror={RUNS}>",
    "script": f"</script><script>{RUNS}</script>",
    "link": f"[a link](javascript:{RUNS})",
    "loud": f"![loud](x&quot;onerror={RUNS})",
    "code": f"`a`<img src=x onerror={RUNS}>`b`",
    "escape": f"\\`<img src=x onerror={RUNS}>`",
    "formula": rf"$\text{{<img src=x onerror={RUNS}>}}$",
    "place": rf"$\href{{javascript:{RUNS}}}{{x}}$",
    "environment": rf"\begin{{a}}<img src=x onerror={RUNS}>\end{{a}}",
    "diagram": f"\n```mermaid\n<img src=x onerror={RUNS}>\n```\n",
    "anchor": f'<a href="javascript:{RUNS}">click</a>',
}
HOSTILE = [
    """
import logging
import ipywidgets, pandas as pd
from IPython.display import Markdown, display
import ldm_kit as lk
data = lk.load_dataset("folder", folder)
label = data.stimuli[0].label
results = lk.RunRecord(out, title=label, question=f"Is it {label}? {texts['link']}")
results.record(model=label, judgements=label, **{label: list(texts.values()), "nested": {label: texts}})
""",
    """
rows = [{"block": text, "accuracy": 0.1, label: name, "judgements": label} for name, text in texts.items()]
results.table(pd.DataFrame(rows), "table", caption=f"{label} {texts['script']}")
""",
    """
figure = lk.plots.figure(label, subtitle=", ".join(texts.values()))
figure.add_bar(x=list(texts.values()), y=list(range(len(texts))), name=label, hovertext=list(texts.values()))
results.figure(figure, "bars", caption=f"{label} {texts['link']} {texts['script']}", headline=True)
""",
    """
strip = lk.look(lk.load_model("tiny-ldm"), data.stimuli, data.stimuli.names[0], [0.5], "mid_block", prompt=texts["image"])
results.figure(lk.plots.film_strip(strip), "strip", caption=data.stimuli.captions[0])
""",
    """
for name, text in texts.items():
    display(results.finding(f"{name}: **{label}**, `{label}` and {text} {text}.", name=name, headline=True))
    if name != "loud":  # an image, as Markdown may hold; it is not there
        display(Markdown(text))
""",
    "display({'text/html': texts['image'], 'text/plain': ''}, {'application/javascript': 'window.pwned=1'}, raw=True)",
    "print(label); logging.getLogger().warning(label); ipywidgets.HTML(label)",
    "raise ValueError(' '.join([label, *texts.values()]))",
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
        patch.setattr("ldm_kit.run_record.find_browser", lambda: None)
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
    monkeypatch.setattr("ldm_kit.run_record.find_browser", lambda: None)
    report = build_report(series)
    assert report.findings == ["`mid_block` is **most** human <script>: 0.400."]
    lines = summary([], report).splitlines()
    assert "  - mid_block is most human <script>: 0.400." in lines
    assert lines[-1] == f"Open {series / 'index.html'}"


RECORD = {
    "status": "done",
    "error": "",
    "seconds": 1.0,
    "started": "",
    "notebook": "",
    "parameters": {},
    "versions": {},
}


@pytest.mark.parametrize(
    "content", ["{", "[]", "5", '{"status": 5, "seconds": "long", "parameters": [], "versions": 1}']
)
@pytest.mark.parametrize("damaged", ["run.json", "results.json", "series.json"])
def test_a_damaged_record_is_named_and_the_report_goes_on(
    tmp_path: Path, damaged: str, content: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ldm_kit.run_record.find_browser", lambda: None)
    for name in "ab":
        write_text(tmp_path / name / "run.json", json.dumps(RECORD))
        write_text(
            tmp_path / name / "results.json", json.dumps({"findings": [{"text": f"Found by {name}."}]})
        )
    write_text(
        tmp_path / "series.json", json.dumps({"title": "T", "question": "", "source": "", "runs": ["b", "a"]})
    )
    write_text(tmp_path / ("" if damaged == "series.json" else "a") / damaged, content)
    text = build_report(tmp_path).index.read_text()
    assert "Found by b." in text
    if content[:2] in ("{", "[]", "5") and damaged != "series.json":
        assert f"{damaged} cannot be read: it is damaged" in text


def test_entries_of_odd_types_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ldm_kit.run_record.find_browser", lambda: None)
    write_text(tmp_path / "a" / "run.json", json.dumps({"status": "failed", "error": 5, "started": None}))
    odd = [
        5,
        None,
        [],
        {"name": 5},
        {"name": "../../x", "kind": "plotly"},
        {"text": 5},
        {"text": "A finding."},
    ]
    results = {"findings": odd, "figures": odd, "tables": odd, "title": 5, "question": [], "provenance": [5]}
    write_text(tmp_path / "a" / "results.json", json.dumps(results))
    write_text(tmp_path / "series.json", json.dumps({"title": 5, "runs": {"a": 1}}))
    assert build_report(tmp_path).findings == ["A finding."]
    results = {"findings": 5, "figures": "x", "tables": {"a": 1}, "provenance": {"judgements": 5}}
    write_text(tmp_path / "a" / "results.json", json.dumps(results))
    assert build_report(tmp_path).findings == []


def test_missing_and_damaged_files_are_named_and_the_rest_is_shown(
    series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("ldm_kit.run_record.find_browser", lambda: None)
    out = tmp_path / "out"
    shutil.copytree(series, out)
    manifest = json.loads((out / "a" / "results.json").read_text())
    manifest["tables"] += [{**manifest["tables"][0], "name": name} for name in ("gone", "cut")]
    write_text(out / "a" / "results.json", json.dumps(manifest))
    (out / "a" / "tables" / "cut.parquet").write_bytes(b"PAR1")
    (out / "a" / "figures" / "strip.png").write_bytes(b"no picture")
    (out / "a" / "figures" / "first.png").unlink()
    (out / "a" / "figures" / "curves.json").write_text("{")
    (out / "c" / "c.ipynb").write_text("{")
    text = build_report(out).index.read_text()
    for named in (
        "tables/gone.parquet is missing and not shown here",
        "tables/cut.parquet is damaged and not shown here",
        "figures/strip is missing",
        "figures/first is missing",
        "c/c.ipynb is damaged and not shown here",
    ):
        assert named in text
    assert "In every row: model <b>tiny-ldm</b>" in text and "curves.html" in text
    assert "cut.parquet" in caplog.text


def test_a_full_disk_is_told_and_the_old_report_stays_whole(
    series: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, *args: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = {path: path.read_bytes() for path in series.rglob("*") if path.is_file()}
    monkeypatch.setattr("ldm_kit.run_record.find_browser", lambda: None)
    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(BadInputError, match="No space left on device.*Free some space"):
        build_report(series)
    monkeypatch.undo()
    assert {path: path.read_bytes() for path in series.rglob("*") if path.is_file()} == before


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
    assert ldm_kit.run_record.write_pngs([figure]) == ""
    assert figure.with_suffix(".png").exists()
    assert gate.asked == []  # without the shut door: MathJax's CDN, and news of the browser's own


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory, browser: object) -> Path:
    """A report in which each name, label, prompt and parameter wants to run."""
    import nbformat
    from nbformat.v4 import new_code_cell, new_notebook
    from PIL import Image

    folder = tmp_path_factory.mktemp("hostile")
    Image.new("RGB", (64, 64), "red").save(folder / f"{NAME}.png")
    pd.DataFrame({"name": [f"{NAME}.png"], "caption": [" ".join(TEXTS.values())]}).to_csv(
        folder / "captions.csv", index=False
    )
    given = new_code_cell(
        "out: str = ''\nfolder: str = ''\ntexts: dict = {}", metadata={"tags": ["parameters"]}
    )
    cells = [given, *map(new_code_cell, HOSTILE)]
    nbformat.write(new_notebook(cells=cells), folder / "h.ipynb")
    run = {
        "notebook": "h.ipynb",
        "parameters": {"folder": str(folder), "texts": TEXTS},
    }
    series = {"title": TEXTS["script"], "question": f"{TEXTS['image']} {TEXTS['link']}", "runs": [run]}
    (folder / "s.yaml").write_text(json.dumps(series))  # JSON is YAML
    (outcome,) = run_series(folder / "s.yaml", folder / "out")
    assert "ValueError" in str(outcome.error), outcome.error
    return build_report(folder / "out").index


def what_data_made(within: Any) -> list[str]:
    """Elements within a Playwright locator that can run what stands in `TEXTS`, or that one of them has run."""
    found: list[str] = within.evaluate_all(
        """(all) => all.flatMap((part) => [...part.querySelectorAll('*')]).filter((one) => [...one.attributes].some(
            ({name, value}) => name.startsWith('on') || /^\\s*javascript:/i.test(value)
            || (name === 'src' && value === 'x')
        )).map((one) => one.outerHTML.slice(0, 200)).concat(window.pwned ? ['it ran'] : [])"""
    )
    return found


@pytest.mark.browser
def test_nothing_that_comes_from_data_runs_in_any_page(hostile: Path, browser: Any) -> None:
    from tests.browser.driver import watched_page

    pages = sorted(hostile.parent.rglob("*.html"))
    assert {page.name for page in pages} == {"h.failed.html", "bars.html", "index.html"}
    for place in pages:
        with watched_page(browser) as visit:
            visit.page.goto(place.as_uri())
            visit.page.locator(".js-plotly-plot .main-svg, table.dataTable tbody td").first.wait_for()
            visit.page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
            assert what_data_made(visit.page.locator("html")) == [], place.name
            assert NAME in " ".join(visit.page.locator("body").all_inner_texts()), (
                "it is shown as it is written"
            )
            visit.check()


@pytest.mark.browser
def test_a_script_that_is_not_the_pages_own_does_not_run(hostile: Path, browser: Any) -> None:
    from tests.browser.driver import watched_page

    for place in hostile.parent.rglob("*.html"):
        other = place.with_name(f"with a script, {place.name}")
        stray = f"<body><script>{RUNS}</script><img src=data: onerror={RUNS}><iframe src='javascript:top.{RUNS}'></iframe>"
        other.write_text(re.sub("<body[^>]*>", stray, place.read_text(), count=1))
        with watched_page(browser) as visit:
            visit.page.goto(other.as_uri())
            visit.page.locator(".js-plotly-plot .main-svg, table.dataTable tbody td").first.wait_for()
            assert visit.page.evaluate("window.pwned") is None, place.name
        other.unlink()
