"""Executed notebooks as pages to read: figures alive, formulas set, nothing loaded from the network."""

from __future__ import annotations

import html
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import pass_context
from nbconvert.exporters.html import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

import ldm_kit
from ldm_kit.atomic import write_text

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


class _MathRenderer(IPythonRenderer):
    """Formulas as MathML, which browsers draw by themselves."""

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
        renderer = _MathRenderer(
            escape=False,
            attachments=context.get("cell", {}).get("attachments", {}),
            embed_images=self.embed_images,
            path=context.get("resources", {}).get("metadata", {}).get("path", ""),
            anchor_link_text=self.anchor_link_text,
            exclude_anchor_links=self.exclude_anchor_links,
        )
        rendered: str = MarkdownWithMath(renderer=renderer).render(source)
        return rendered


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
    from latex2mathml.converter import convert

    latex = re.sub(r"\\arg(?![a-zA-Z])", r"\\operatorname{arg}", latex)  # the one name that it does not know
    try:
        return str(convert(latex, display=display))
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
    for cell in node.cells:
        if cell.metadata.get("jupyter", {}).get("source_hidden"):
            cell.setdefault("transient", {})["remove_source"] = True
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if not _is_progress(output, widgets)]
        for output in cell.get("outputs", []):
            if "data" in output:
                _make_static(output, widgets)
    resources = {
        "metadata": {"name": notebook.stem, "path": str(notebook.parent)},
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


def _make_static(output: Any, widgets: Mapping[str, Any]) -> None:
    """Put a figure where plotly's data is, and a note where a widget is."""
    data = output["data"]
    if PLOTLY in data:
        from ldm_kit.plots.template import figure_html

        output["data"] = {"text/html": figure_html(data[PLOTLY])}
    elif WIDGET in data:
        classes = _widget(output, widgets).get("state", {}).get("_dom_classes", [])
        told = next((IN_ITS_PLACE[name] for name in classes if name in IN_ITS_PLACE), OTHERWISE)
        output["data"] = {"text/html": LIVE_ONLY.format(told=told)}


def _link(path: Path, page: Path) -> str:
    return Path(os.path.relpath(path, page.parent)).as_posix()
