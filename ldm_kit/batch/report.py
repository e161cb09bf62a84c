"""The report of a run: one page that says what was asked, what was found and from what; all offline."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ldm_kit
from ldm_kit.atomic import write_text
from ldm_kit.batch.provenance import package_versions
from ldm_kit.batch.state import read_json
from ldm_kit.errors import BadInputError
from ldm_kit.results import MANIFEST, write_plotly_library
from ldm_kit.static_images import write_pngs

if TYPE_CHECKING:
    import pandas as pd

WHAT_JUDGEMENTS_ARE = {
    "human": "people's own choices",
    "human model": "choices drawn from an embedding that was fitted to people's",
    "simulated": "choices drawn from a simulated observer, not from people",
}
SHOWN_ROWS = 500
# itables gives a float as its text and its value: the text of one that is missing goes, it sorts as before.
WITHOUT_NAN = (
    "function (cell, given) { if (Array.isArray(given) && Number.isNaN(given[1])) cell.textContent = ''; }"
)
# Links to itables' site on how to trust a notebook, which a page on disk needs not.
ITABLES_HELP = re.compile(r"\s*\(need <a [^<]*</a>\?\)|<sup><noscript>.*?</sup>", re.DOTALL)


@dataclass(frozen=True)
class Report:
    """Where the report lies, and what the terminal says about it."""

    index: Path
    advice: str  # why there are no PNGs, or nothing
    findings: list[str]  # headline ones first


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
    series = read_json(out / "series.json")
    order = {name: place for place, name in enumerate(series.get("runs", []))}
    folders = [path.parent for path in out.glob("*/run.json")]
    folders.sort(key=lambda folder: (order.get(folder.name, len(order)), folder.name))
    if not folders:
        raise BadInputError(
            f"No run lies in {str(out)!r} (a folder with a run.json), so there is nothing to report. "
            f"Run `python -m ldm_kit.batch notebooks/demo.yaml --out {out}` first."
        )
    library = write_plotly_library(out)
    advice = write_pngs(_plotly_figures(folders))
    index = out / "index.html"
    runs = [_read_run(folder, library, index) for folder in folders]
    page = _template().render(
        series=series,
        runs=runs,
        headline=_headline(runs),
        findings=_headline_findings(runs),
        judgements=_judgements(runs),
        tables_script=_tables_script(),
        versions=package_versions(),
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )
    write_text(index, page)
    return Report(index, advice, [finding["text"] for finding in _headline_findings(runs)])


def _plotly_figures(folders: list[Path]) -> list[Path]:
    return [
        folder / "figures" / f"{entry['name']}.json"
        for folder in folders
        for entry in read_json(folder / MANIFEST).get("figures", [])
        if entry["kind"] == "plotly" and (folder / "figures" / f"{entry['name']}.json").exists()
    ]


def _read_run(folder: Path, library: Path, index: Path) -> dict[str, Any]:
    """Gather all that the card of one run shows."""
    from ldm_kit.batch.pages import write_page

    name = folder.name
    results = read_json(folder / MANIFEST)
    executed = [file for file in (folder / f"{name}.ipynb", folder / f"{name}.failed.ipynb") if file.exists()]
    run = read_json(folder / "run.json")
    shown = executed[-1] if run.get("status") == "failed" else executed[0] if executed else None
    links = {}
    if shown is not None:
        links["the executed notebook, to read"] = write_page(
            shown, shown.with_suffix(".html"), library=library, report=index
        )
        links["the same as .ipynb"] = shown
    if run.get("status") == "failed":
        links["log"] = folder / f"{name}.log"
    return {
        **run,
        "name": name,
        "title": results.get("title") or name,
        "question": results.get("question", ""),
        "findings": results.get("findings", []),
        "figures": _best_first([_figure(folder, entry) for entry in results.get("figures", [])]),
        "tables": [_table(folder, entry) for entry in results.get("tables", [])],
        "provenance": results.get("provenance", {}),
        "links": {text: _relative(path, index.parent) for text, path in links.items() if path.exists()},
    }


def _figure(folder: Path, entry: dict[str, Any]) -> dict[str, Any]:
    """Say where a figure's files are; only those that exist are linked."""
    from ldm_kit.plots.template import NARROWEST, size_of

    stem = folder / "figures" / entry["name"]
    layout = (
        read_json(stem.with_name(f"{stem.name}.json")).get("layout", {}) if entry["kind"] == "plotly" else {}
    )
    width, height = size_of(layout)
    files = {suffix: stem.with_name(f"{stem.name}.{suffix}") for suffix in ("png", "html")}
    present = {suffix: _relative(file, folder.parent) for suffix, file in files.items() if file.exists()}
    return {
        **entry,
        **present,
        "height": height,
        "least": min(width, NARROWEST),
        "wide": _is_wide(files["png"]),
    }


def _best_first(figures: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Put the headline figure first, or, where none is one, leave the first where it is."""
    best = next((place for place, figure in enumerate(figures) if figure.get("headline")), 0)
    return [*figures[best : best + 1], *figures[:best], *figures[best + 1 :]]


def _is_wide(png: Path) -> bool:
    """Tell whether a picture needs the page's whole width, as a film strip does."""
    from PIL import Image

    if not png.exists():
        return False
    with Image.open(png) as picture:
        return picture.width > 2.2 * picture.height


def _table(folder: Path, entry: dict[str, Any]) -> dict[str, Any]:
    import pandas as pd

    from ldm_kit.tables import split_columns

    path = folder / "tables" / f"{entry['name']}.parquet"
    frame = pd.read_parquet(path)
    varying, constant = split_columns(frame)
    return {
        **entry,
        "parquet": _relative(path, folder.parent),
        "csv": _relative(path.with_suffix(".csv"), folder.parent),
        "constant": constant,
        "html": _sortable(varying, f"{folder.name}-{entry['name']}"),
    }


def _sortable(frame: pd.DataFrame, identifier: str) -> str:
    """Give a table as itables does: sortable and searchable, its script in the page."""
    import itables

    shown = frame.head(SHOWN_ROWS).copy()
    for name in shown.columns:
        if shown[name].dtype.kind == "f":
            shown[name] = shown[name].round(4)
        elif shown[name].isna().any():  # a text that says "None" stays; a missing one is empty
            shown[name] = shown[name].astype(object).where(shown[name].notna(), "")
    html: str = itables.to_html_datatable(
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
    return ITABLES_HELP.sub("", html)


def _tables_script() -> str:
    import itables.options
    from itables.javascript import generate_init_offline_itables_html

    script: str = generate_init_offline_itables_html(itables.options.dt_bundle)
    return script.partition("<noscript>")[0].rpartition("<div")[0]


def _headline(runs: list[dict[str, Any]]) -> dict[str, Any] | None:
    figures = [figure for run in runs for figure in run["figures"]]
    chosen = [figure for figure in figures if figure.get("headline")]
    return chosen[0] if chosen else None


def _headline_findings(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = [{**finding, "run": run["name"]} for run in runs for finding in run["findings"]]
    return [one for one in found if one.get("headline")] or found[:5]


def _judgements(runs: list[dict[str, Any]]) -> dict[str, str]:
    """Say which kinds of judgement the tables and records name, and what each is."""
    named: set[str] = set()
    for run in runs:
        recorded = run["provenance"].get("judgements", [])
        named.update([recorded] if isinstance(recorded, str) else recorded)
        named.update(kind for table in run["tables"] for kind in table.get("judgements", []))
    return {kind: WHAT_JUDGEMENTS_ARE.get(kind, "") for kind in sorted(named) if kind}  # "": nobody judged


def _relative(path: Path, base: Path) -> str:
    return Path(os.path.relpath(path, base)).as_posix()


def _template() -> Any:
    import jinja2
    import mistune

    from ldm_kit.tables import short

    folder = Path(ldm_kit.__path__[0]) / "data" / "report"
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    markdown = mistune.create_markdown(escape=True)

    def inline(text: str) -> str:
        """Render a sentence's marks, without the paragraph around it."""
        rendered = str(markdown(text)).strip()
        return rendered.removeprefix("<p>").removesuffix("</p>")

    environment.filters["markdown"] = inline
    environment.filters["short"] = short
    return environment.get_template("index.html.j2")
