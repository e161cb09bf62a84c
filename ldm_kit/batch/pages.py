"""Executed notebooks as pages to read: figures alive, formulas set, nothing loaded from the network."""

from __future__ import annotations

import html
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import tostring

import bleach
from jinja2 import pass_context
from nbconvert.exporters.html import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

import ldm_kit
from ldm_kit.files import write_text
from ldm_kit.run_record import allow_scripts, content_policy

TEMPLATES = Path(ldm_kit.__path__[0]) / "data" / "report"
PLOTLY = "application/vnd.plotly.v1+json"
WIDGET = "application/vnd.jupyter.widget-view+json"
WIDGETS = "application/vnd.jupyter.widget-state+json"
LIVE_ONLY = '<p class="live-only">{told}</p>'
# What stands in a widget's place, by the CSS class that the kit's own have.
IN_ITS_PLACE = {
    "ldm-explorer": "Here is a live control: open the notebook in JupyterLab to use it. A figure below shows "
    "what it opens with.",
    "ldm-grid-picker": "Here the grid is picked in JupyterLab. This run took it from the parameters.",
}
OTHERWISE = "Here is a live control: open the notebook in JupyterLab to use it."


# HTML that a Markdown cell may hold: what has no attributes, and nothing to run.
PLAIN_TAG = re.compile(r"&lt;(/?(?:details|summary|br|sub|sup|kbd|small))&gt;")
# What tables of pandas, and others that describe themselves by HTML, are made of.
OUTPUT_TAGS = {
    *bleach.ALLOWED_TAGS,
    *(
        "div",
        "span",
        "p",
        "pre",
        "br",
        "hr",
        "h1",
        "h2",
        "h3",
        "h4",
        "sub",
        "sup",
        "small",
        "details",
        "summary",
    ),
    *("table", "caption", "colgroup", "col", "thead", "tbody", "tfoot", "tr", "th", "td"),
}
OUTPUT_ATTRIBUTES = {
    "*": ["class", "title"],
    "th": ["colspan", "rowspan", "scope"],
    "td": ["colspan", "rowspan"],
}
# Outputs that are shown, by what nbconvert's template makes of them; a script of a cell is not.
SHOWN = ("text/html", "text/markdown", "image/svg+xml", "image/png", "image/jpeg", "text/latex", "text/plain")


class _PageRenderer(IPythonRenderer):
    """Markdown without what runs, its formulas as MathML, which browsers draw by themselves."""

    def block_html(self, html: str) -> str:
        return f"{plain_tags(html)}\n"

    def inline_html(self, html: str) -> str:
        return plain_tags(html)

    def block_mermaidjs(self, code: str) -> str:
        return self.block_code(code)

    def latex_environment(self, name: str, body: str) -> str:
        return mathml(rf"\begin{{{name}}}{body}\end{{{name}}}", display="block")

    def block_math(self, body: str) -> str:
        return mathml(body, display="block")

    def inline_math(self, body: str) -> str:
        return mathml(body, display="inline")


class PageExporter(HTMLExporter):
    """nbconvert's HTML, with our template and with formulas as MathML."""

    def __init__(self, **options: Any) -> None:
        super().__init__(  # type: ignore[no-untyped-call]
            extra_template_basedirs=[str(TEMPLATES)], template_name="notebook", **options
        )

    @pass_context
    def markdown2html(self, context: Any, source: str) -> str:
        """Turn a Markdown cell into HTML; nbconvert calls this as a filter."""
        return markdown_as_html(
            source,
            attachments=context.get("cell", {}).get("attachments", {}),
            embed_images=self.embed_images,
            path=context.get("resources", {}).get("metadata", {}).get("path", ""),
            anchor_link_text=self.anchor_link_text,
            exclude_anchor_links=self.exclude_anchor_links,
        )


def markdown_as_html(source: str, **options: Any) -> str:
    """Turn Markdown into HTML in which nothing runs: raw HTML is shown as text, save plain tags.

    Examples
    --------
    >>> markdown_as_html("**1/3** <img src=x> &lt;")
    '<p><strong>1/3</strong> &lt;img src=x&gt; &lt;</p>'
    """
    # Its `escape` would show entities as they are written; the renderer's own methods escape HTML.
    renderer = _PageRenderer(escape=False, allow_harmful_protocols=False, **options)
    return str(MarkdownWithMath(renderer=renderer).render(source)).strip()


def plain_tags(text: str) -> str:
    """Escape HTML, save tags that have no attributes and nothing to run.

    Examples
    --------
    >>> plain_tags("<details><img src=x>")
    '<details>&lt;img src=x&gt;'
    """
    return PLAIN_TAG.sub(r"<\1>", html.escape(text, quote=False))


def mathml(latex: str, *, display: str) -> str:
    r"""Turn LaTeX into MathML; what cannot be turned is shown as it was written.

    Parameters
    ----------
    latex : str
        Without the dollar signs.
    display : {"inline", "block"}

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


def write_page(notebook: Path, target: Path, *, library: Path, report: Path) -> Path:
    """Write an executed notebook as HTML that needs no network and no kernel.

    Parameters
    ----------
    notebook : pathlib.Path
    target : pathlib.Path
        The page.
    library : pathlib.Path
        The plotly.min.js that its figures are drawn with; it is linked, not copied.
    report : pathlib.Path
        The page that it links back to.

    Returns
    -------
    pathlib.Path
        The target.

    Examples
    --------
    >>> write_page(folder / "a.ipynb", folder / "a.html", library=library, report=index)  # doctest: +SKIP
    """
    import nbformat

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
        "plotly_library": _link(library, target),
        "report": _link(report, target),
    }
    page, _ = PageExporter().from_notebook_node(node, resources=resources)
    return write_text(target, page)


def _is_progress(output: Any, widgets: Mapping[str, Any]) -> bool:
    """Tell whether an output is a tqdm bar, which says nothing once it has ended."""
    parts = _widget(output, widgets).get("state", {}).get("children", [])
    kinds = [widgets.get(part.removeprefix("IPY_MODEL_"), {}).get("model_name") for part in parts]
    return kinds == ["HTMLModel", "FloatProgressModel", "HTMLModel"]


def _widget(output: Any, widgets: Mapping[str, Any]) -> Mapping[str, Any]:
    """The saved state of the widget that an output shows; empty if it shows none, or nothing was saved."""
    shown = output.get("data", {}).get(WIDGET, {})
    state: Mapping[str, Any] = widgets.get(shown.get("model_id", ""), {})
    return state


def _make_static(output: Any, widgets: Mapping[str, Any], nonce: str) -> None:
    """Put a figure where plotly's data is, a note where a widget is, and keep of the rest what runs nothing."""
    data = output["data"]
    output["metadata"] = {}  # sizes of images, which nbconvert would write into the page as they are
    if PLOTLY in data:
        from ldm_kit.plots.template import figure_html

        output["data"] = {"text/html": allow_scripts(figure_html(data[PLOTLY]), nonce)}
    elif WIDGET in data:
        classes = _widget(output, widgets).get("state", {}).get("_dom_classes", [])
        told = next((IN_ITS_PLACE[name] for name in classes if name in IN_ITS_PLACE), OTHERWISE)
        output["data"] = {"text/html": LIVE_ONLY.format(told=told)}
    else:
        output["data"] = {kind: data[kind] for kind in SHOWN if kind in data}
        if "text/html" in data:
            output["data"]["text/html"] = _harmless(data["text/html"])


def _harmless(text: str) -> str:
    """Clean a cell's HTML: its own style sheets go, whatever can run is shown as text."""
    bare = re.sub(r"<style\b.*?</style>", "", text, flags=re.DOTALL)
    cleaned: str = bleach.clean(bare, tags=OUTPUT_TAGS, attributes=OUTPUT_ATTRIBUTES)
    return cleaned


def _link(path: Path, page: Path) -> str:
    return Path(os.path.relpath(path, page.parent)).as_posix()
