"""The report of a run: an index of what was found and from what, and a page a notebook; all offline.

Whatever comes from data (names, labels, prompts, parameters, what a notebook displays) is shown as text: nothing of it runs
in a reader's browser, and no page loads anything from the network.
"""

from __future__ import annotations

import html
import logging
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from xml.etree.ElementTree import tostring

import ldm_kit
from ldm_kit.batch.checklist import checklist
from ldm_kit.batch.protocol import compare
from ldm_kit.batch.run import STATE, locked, read_json, sweep, versions
from ldm_kit.errors import BadInputError
from ldm_kit.files import write_text
from ldm_kit.run_record import (
    MANIFEST,
    allow_scripts,
    content_policy,
    is_file_name,
    only_marks,
    write_plotly_library,
    write_pngs,
)

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)
TEMPLATES = Path(ldm_kit.__path__[0]) / "data" / "report"
WHAT_JUDGEMENTS_ARE = {
    "human": "people's own choices",
    "human model": "choices drawn from an embedding that was fitted to people's",
    "simulated": "choices drawn from a simulated observer, not from people",
}
# What is read of a run's `run.json`, and of an entry in its `results.json`.
RUN = {
    "error": str, "seconds": float, "started": str, "notebook": str, "parameters": dict, "versions": dict,
    "given": dict, "code": dict,
}  # fmt: skip
ENTRY = {"name": str, "caption": str, "text": str, "kind": str, "headline": bool, "judgements": list}
SHOWN_ROWS = 500
# itables gives a float as its text and its value: the text of one that is missing goes, it sorts as before.
WITHOUT_NAN = (
    "function (cell, given) { if (Array.isArray(given) && Number.isNaN(given[1])) cell.textContent = ''; }"
)
# Links to itables' site on how to trust a notebook, which a page on disk needs not.
ITABLES_HELP = re.compile(r"\s*\(need <a [^<]*</a>\?\)|<sup><noscript>.*?</sup>", re.DOTALL)
# itables imports itself from a blob, and makes WITHOUT_NAN, a text by then, a function.
ITABLES_SCRIPTS = "blob: 'unsafe-eval'"

PLOTLY = "application/vnd.plotly.v1+json"
WIDGET = "application/vnd.jupyter.widget-view+json"
WIDGETS = "application/vnd.jupyter.widget-state+json"
LIVE = "Here is a live control: open the notebook in JupyterLab to use it."
# What stands in a widget's place, by the CSS class that the kit's own have.
IN_ITS_PLACE = {
    "ldm-explorer": f"{LIVE} A figure below shows what it opens with.",
    "ldm-grid-picker": "Here the grid is picked in JupyterLab. This run took it from the parameters.",
}
# HTML that a Markdown cell may hold: what has no attributes, and nothing to run.
PLAIN_TAG = re.compile(r"&lt;(/?(?:details|summary|br|sub|sup|kbd|small))&gt;")
# What tables of pandas, and others that describe themselves by HTML, are made of.
OUTPUT_TAGS = {
    "a", "abbr", "acronym", "b", "blockquote", "br", "code", "details", "div", "em", "h1", "h2", "h3", "h4", "hr", "i", "li", "ol",
    "p", "pre", "small", "span", "strong", "sub", "summary", "sup", "ul",
    "caption", "col", "colgroup", "table", "tbody", "td", "tfoot", "th", "thead", "tr",
}  # fmt: skip
OUTPUT_ATTRIBUTES = {
    "*": ["class", "title"],
    "th": ["colspan", "rowspan", "scope"],
    "td": ["colspan", "rowspan"],
}
# Outputs that are shown, by what nbconvert's template makes of them; a script of a cell is not.
SHOWN = ("text/html", "text/markdown", "image/svg+xml", "image/png", "image/jpeg", "text/latex", "text/plain")

AnyType = TypeVar("AnyType")


@dataclass(frozen=True)
class Report:
    """Where the report lies, and what the terminal says about it."""

    index: Path
    advice: str  # why there are no PNGs, or nothing
    findings: list[str]  # headline ones first
    protocol: dict[str, Any] | None = (
        None  # how what ran compares with a frozen protocol: see `protocol.compare`
    )


def build_report(out: str | os.PathLike[str]) -> Report:
    """Make ``index.html`` of a series' folder, a page for each executed notebook, and PNGs where possible.

    Parameters
    ----------
    out : path-like
        The folder that `run_series` wrote.

    Returns
    -------
    Report

    Raises
    ------
    BadInputError
        If no run lies in the folder.

    Examples
    --------
    >>> build_report("outputs/demo").index  # doctest: +SKIP
    PosixPath('outputs/demo/index.html')
    """
    out = Path(out)
    written = read_json(out / "series.json")
    order = _of(list, written, "runs")
    folders = [path.parent for path in out.glob(f"*/{STATE}")]
    folders.sort(key=lambda one: (order.index(one.name) if one.name in order else len(order), one.name))
    if not folders:
        raise BadInputError(
            f"No run lies in {str(out)!r} (a folder with a run.json), so there is nothing to report. "
            f"Run `python -m ldm_kit.batch notebooks/demo.yaml --out {out}` first."
        )
    with locked(out):
        sweep(out)
        for folder in folders:
            with suppress(BadInputError), locked(out, folder.name):  # one that is at work is left alone
                sweep(folder)
        library = write_plotly_library(out)
        drawn = [
            folder / "figures" / f"{one['name']}.json"
            for folder in folders
            for one in _entries(read_json(folder / MANIFEST), "figures")
            if one["kind"] == "plotly"
        ]
        advice = write_pngs([path for path in drawn if path.exists()])
        index, nonce = out / "index.html", secrets.token_urlsafe()
        runs = [_read_run(folder, library, index) for folder in folders]
        for table in (table for run in runs for table in run["tables"]):
            table["html"] = allow_scripts(table["html"], nonce)
        found = [finding | {"run": run["name"]} for run in runs for finding in run["findings"]]
        found = [finding for finding in found if finding["headline"]] or found[:5]
        figures = [figure for run in runs for figure in run["figures"]]
        protocol = _protocol(written, runs)
        exclusions = (protocol or {}).get("exclusions", [])
        for run in runs:
            run["checklist"] = checklist(run["frames"], run["provenance"], exclusions)
        page = _template().render(
            series={key: _of(str, written, key) for key in ("title", "question", "source")},
            runs=runs,
            headline=next((figure for figure in figures if figure["headline"]), None),
            findings=found,
            protocol=protocol,
            judgements=_judgements(runs),
            tables_script=allow_scripts(_tables_script(), nonce),
            nonce=nonce,
            content_policy=content_policy(nonce, ITABLES_SCRIPTS),
            versions=versions(),
            made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        )
        write_text(index, page)
    return Report(index, advice, [finding["text"] for finding in found], protocol)


# --- The index


def _read_run(folder: Path, library: Path, index: Path) -> dict[str, Any]:
    """Gather all that the card of one run shows."""
    import pandas as pd

    name, results = folder.name, read_json(folder / MANIFEST)
    state = read_json(folder / STATE)
    status = _of(str, state, "status") or "unknown"
    problems = [
        f"{file} cannot be read: it is damaged. Run this notebook again."
        for file, read in ((STATE, state), (MANIFEST, results))
        if not read and (folder / file).exists()
    ]
    executed = [folder / f"{name}.ipynb", folder / f"{name}.failed.ipynb"]
    shown = next((file for file in executed[:: 1 if status == "done" else -1] if file.exists()), None)
    links = {} if status == "done" else {"log": folder / f"{name}.log"}
    if shown is not None:
        links = {"the same as .ipynb": shown, **links}
        with _problems_kept(problems, shown):
            page = write_page(shown, shown.with_suffix(".html"), library=library, report=index)
            links = {"the executed notebook, to read": page, **links}
    figures, tables, frames = [], [], dict[str, Any]()
    for entry in _entries(results, "figures"):
        with _problems_kept(problems, folder / "figures" / entry["name"]):
            figures.append(figure := _figure(folder, entry))
            if "png" not in figure and "html" not in figure:
                raise FileNotFoundError("there is neither a PNG nor a page of it")
    for entry in _entries(results, "tables"):
        with _problems_kept(problems, folder / "tables" / f"{entry['name']}.parquet"):
            frame = pd.read_parquet(folder / "tables" / f"{entry['name']}.parquet")
            tables.append(_table(folder, entry, frame))
            frames[entry["name"]] = frame
    return {
        "name": name,
        "status": status,
        **{key: _of(kind, state, key) for key, kind in RUN.items()},
        "problems": problems,
        "title": _of(str, results, "title") or name,
        "question": _of(str, results, "question"),
        "findings": _entries(results, "findings", needed="text"),
        "figures": sorted(figures, key=lambda figure: not figure["headline"]),
        "tables": tables,
        "frames": frames,
        "provenance": _of(dict, results, "provenance"),
        "links": {text: _relative(path, index.parent) for text, path in links.items() if path.exists()},
    }


def _protocol(written: Mapping[str, Any], runs: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Compare the runs with the protocol that the series was run as; None if it was run as none."""
    protocol = _of(dict, written, "protocol")
    try:
        return compare(protocol, runs) if protocol else None
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        what = f"A record of the protocol or of a run is damaged ({type(error).__name__}: {error})"
        logger.warning("%s.", what)
        return {"problem": f"{what}, so that no deviation could be named. Run it with --protocol again."}


def _of(kind: type[AnyType], mapping: Mapping[str, Any], key: str) -> AnyType:
    """Take a value from a JSON file; one of another type counts as missing, and gives the type's empty value."""
    value = mapping.get(key)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    return value if isinstance(value, kind) else kind()


def _entries(results: Mapping[str, Any], listing: str, *, needed: str = "name") -> list[dict[str, Any]]:
    """Take those entries of a manifest's list that can be shown."""
    entries = [one for one in _of(list, results, listing) if isinstance(one, dict) and _of(str, one, needed)]
    return [
        {key: _of(kind, one, key) for key, kind in ENTRY.items()}
        for one in entries
        if needed == "text" or is_file_name(one["name"])
    ]


@contextmanager
def _problems_kept(problems: list[str], path: Path) -> Iterator[None]:
    """Note what cannot be shown, and go on: one damaged file is no reason to have no report."""
    try:
        yield
    except Exception as error:  # each reader has errors of its own for a damaged file
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        where = _relative(path, path.parent.parent)
        problems.append(f"{where} is {'damaged' if path.exists() else 'missing'} and not shown here: {first}")
        logger.warning("%s cannot be shown in the report: %s", path, first)


def _figure(folder: Path, entry: dict[str, Any]) -> dict[str, Any]:
    """Say where a figure's files are, and how large it is; only files that exist are linked."""
    from PIL import Image

    from ldm_kit.plots.template import NARROWEST, size_of

    stem, wide = folder / "figures" / entry["name"], False
    files = {suffix: stem.with_name(f"{stem.name}.{suffix}") for suffix in ("png", "html", "json")}
    width, height = size_of(_of(dict, read_json(files.pop("json")), "layout"))
    if files["png"].exists():
        with Image.open(files["png"]) as image:  # a film strip needs the page's whole width
            wide = image.width > 2.2 * image.height
    links = {suffix: _relative(file, folder.parent) for suffix, file in files.items() if file.exists()}
    return {**entry, **links, "height": height, "least": min(width, NARROWEST), "wide": wide}


def _table(folder: Path, entry: dict[str, Any], frame: pd.DataFrame) -> dict[str, Any]:
    from ldm_kit.tables import split_columns

    path = folder / "tables" / f"{entry['name']}.parquet"
    varying, constant = split_columns(frame)
    return {
        **entry,
        "rows": len(frame),
        "parquet": _relative(path, folder.parent),
        "csv": _relative(path.with_suffix(".csv"), folder.parent),
        "constant": constant,
        "html": _sortable(varying, f"{folder.name}-{entry['name']}"),
    }


def _sortable(frame: pd.DataFrame, identifier: str) -> str:
    """Make a table as itables does: sortable and searchable, its script in the page."""
    import itables

    shown = frame.head(SHOWN_ROWS).copy()
    for name in shown.columns:
        if shown[name].dtype.kind == "f":
            shown[name] = shown[name].round(4)
        elif shown[name].isna().any():  # a text that says "None" stays; a missing one is empty
            shown[name] = shown[name].astype(object).where(shown[name].notna(), "")
    made: str = itables.to_html_datatable(
        shown,
        connected=False,
        table_id="".join(letter if letter.isalnum() else "-" for letter in f"table-{identifier}"),
        showIndex=False,
        classes="display compact",
        paging=False,  # paper has no second page of a table: all rows are there, to be scrolled through
        columnDefs=[{"targets": "_all", "createdCell": itables.JavascriptFunction(WITHOUT_NAN)}],
        layout={"topStart": None, "topEnd": "search" if len(shown) > 10 else None, "bottomStart": "info"},
        maxBytes=0,
        allow_html=False,
        text_in_header_can_be_selected=False,  # the whole header sorts
        display_logo_when_loading=False,
    )
    return ITABLES_HELP.sub("", made)


def _tables_script() -> str:
    import itables.options
    from itables.javascript import generate_init_offline_itables_html

    script: str = generate_init_offline_itables_html(itables.options.dt_bundle)
    return script.partition("<noscript>")[0].rpartition("<div")[0]


def _judgements(runs: list[dict[str, Any]]) -> dict[str, str]:
    """Say which kinds of judgement the tables and records name, and what each is."""
    named: set[str] = set()
    for run in runs:
        recorded = run["provenance"].get("judgements")
        named.update(map(str, recorded if isinstance(recorded, list) else [recorded or ""]))
        named.update(str(kind) for table in run["tables"] for kind in table["judgements"])
    return {kind: WHAT_JUDGEMENTS_ARE.get(kind, "") for kind in sorted(named) if kind}  # "": nobody judged


def _relative(path: Path, base: Path) -> str:
    return Path(os.path.relpath(path, base)).as_posix()


def _template() -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["markdown"] = lambda text: (
        markdown_as_html(only_marks(text)).removeprefix("<p>").removesuffix("</p>")
    )
    return environment.get_template("index.html.j2")


# --- The page of a notebook


def write_page(notebook: Path, target: Path, *, library: Path, report: Path) -> Path:
    """Write an executed notebook as HTML that needs no network and no kernel; return where.

    It links to `library`, the plotly.min.js that its figures are drawn with, and back to the `report`.
    """
    import nbformat
    from jinja2 import pass_context
    from nbconvert.exporters.html import HTMLExporter

    node = nbformat.read(notebook, as_version=4)  # type: ignore[no-untyped-call]
    widgets = node.metadata.pop("widgets", {}).get(WIDGETS, {}).get("state", {})
    node.metadata["title"] = notebook.stem
    nonce = secrets.token_urlsafe()
    for cell in node.cells:
        if cell.metadata.get("jupyter", {}).get("source_hidden"):
            cell.setdefault("transient", {})["remove_source"] = True
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if not _is_progress(output, widgets)]
        for output in cell.get("outputs", []):
            if "data" in output:
                _make_static(output, widgets, nonce)
    resources = {
        "metadata": {"name": notebook.stem, "path": str(notebook.parent)},
        "nonce": nonce,
        "content_policy": content_policy(nonce),
        "plotly_library": _relative(library, target.parent),
        "report": _relative(report, target.parent),
    }

    @pass_context
    def markdown_cell(context: Any, source: str) -> str:
        return markdown_as_html(source, attachments=context.get("cell", {}).get("attachments", {}))

    exporter = HTMLExporter(extra_template_basedirs=[str(TEMPLATES)], template_name="notebook")  # type: ignore[no-untyped-call]
    exporter.register_filter("markdown2html", markdown_cell)  # type: ignore[no-untyped-call]
    page, _ = exporter.from_notebook_node(node, resources=resources)
    return write_text(target, page)


def _is_progress(output: Any, widgets: Mapping[str, Any]) -> bool:
    """Tell whether an output is a tqdm bar, which says nothing once it has ended."""
    parts = _widget(output, widgets).get("state", {}).get("children", [])
    kinds = [widgets.get(part.removeprefix("IPY_MODEL_"), {}).get("model_name") for part in parts]
    return kinds == ["HTMLModel", "FloatProgressModel", "HTMLModel"]


def _widget(output: Any, widgets: Mapping[str, Any]) -> Mapping[str, Any]:
    """Find the saved state of the widget that an output shows; empty if it shows none, or nothing was saved."""
    state: Mapping[str, Any] = widgets.get(output.get("data", {}).get(WIDGET, {}).get("model_id", ""), {})
    return state


def _make_static(output: Any, widgets: Mapping[str, Any], nonce: str) -> None:
    """Put a figure where plotly's data is, a note where a widget is, and keep of the rest what runs nothing."""
    import bleach

    from ldm_kit.plots.template import figure_html

    data = output["data"]
    output["metadata"] = {}  # sizes of images, which nbconvert would write into the page as they are
    if PLOTLY in data:
        output["data"] = {"text/html": allow_scripts(figure_html(data[PLOTLY]), nonce)}
    elif WIDGET in data:
        classes = _widget(output, widgets).get("state", {}).get("_dom_classes", [])
        note = next((IN_ITS_PLACE[name] for name in classes if name in IN_ITS_PLACE), LIVE)
        output["data"] = {"text/html": f'<p class="live-only">{note}</p>'}
    else:
        output["data"] = {kind: data[kind] for kind in SHOWN if kind in data}
        if "text/html" in data:  # its own style sheets go, whatever can run is shown as text
            bare = re.sub(r"<style\b.*?</style>", "", data["text/html"], flags=re.DOTALL)
            cleaned = bleach.clean(bare, tags=OUTPUT_TAGS, attributes=OUTPUT_ATTRIBUTES)
            output["data"]["text/html"] = cleaned


def markdown_as_html(source: str, **options: Any) -> str:
    """Turn Markdown into HTML in which nothing runs: raw HTML is shown as text, save plain tags; formulas are MathML.

    Examples
    --------
    >>> markdown_as_html("**1/3** <img src=x> &lt;")
    '<p><strong>1/3</strong> &lt;img src=x&gt; &lt;</p>'
    """
    from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

    class Renderer(IPythonRenderer):
        def block_html(self, html: str) -> str:
            return f"{_plain_tags(html)}\n"

        def inline_html(self, html: str) -> str:
            return _plain_tags(html)

        def block_mermaidjs(self, code: str) -> str:
            return self.block_code(code)

        def latex_environment(self, name: str, body: str) -> str:
            return mathml(rf"\begin{{{name}}}{body}\end{{{name}}}", display="block")

        def block_math(self, body: str) -> str:
            return mathml(body, display="block")

        def inline_math(self, body: str) -> str:
            return mathml(body, display="inline")

    # Its `escape` would show entities as they are written; the renderer's own methods escape HTML.
    renderer = Renderer(escape=False, allow_harmful_protocols=False, **options)
    return str(MarkdownWithMath(renderer=renderer).render(source)).strip()


def _plain_tags(text: str) -> str:
    """Escape HTML, save tags that have no attributes and nothing to run."""
    return PLAIN_TAG.sub(r"<\1>", html.escape(text, quote=False))


def mathml(latex: str, *, display: str) -> str:
    r"""Turn LaTeX, without the dollar signs, into MathML, which browsers draw; else show it as it was written.

    Examples
    --------
    >>> mathml("x", display="inline")
    '<math xmlns="http://www.w3.org/1998/Math/MathML" display="inline"><mrow><mi>x</mi></mrow></math>'
    """
    from latex2mathml.converter import convert_to_element

    latex = re.sub(r"\\arg(?![a-zA-Z])", r"\\operatorname{arg}", latex)  # the one name that it does not know
    try:
        formula = convert_to_element(latex, display=display)
        for part in formula.iter():  # signs are given as the text "&#x003C;": unescaped here, escaped below
            part.text = html.unescape(part.text or "") or None
            part.attrib.pop("href", None)
        return tostring(formula, encoding="unicode")
    except Exception:  # any formula that the converter does not know
        return f"<code>{html.escape(latex)}</code>"
