"""The report of a run: one page that says what was asked, what was found and from what; all offline."""

from __future__ import annotations

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

import ldm_kit
from ldm_kit.batch.provenance import package_versions
from ldm_kit.batch.state import STATE, locked, read_json, report_locked, sweep
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

WHAT_JUDGEMENTS_ARE = {
    "human": "people's own choices",
    "human model": "choices drawn from an embedding that was fitted to people's",
    "simulated": "choices drawn from a simulated observer, not from people",
}
ENDED_EARLY = "This notebook is {status}: it was stopped, or is still at work. What it had written by then is shown below."
SHOWN_ROWS = 500
# itables gives a float as its text and its value: the text of one that is missing goes, it sorts as before.
WITHOUT_NAN = (
    "function (cell, given) { if (Array.isArray(given) && Number.isNaN(given[1])) cell.textContent = ''; }"
)
# Links to itables' site on how to trust a notebook, which a page on disk needs not.
ITABLES_HELP = re.compile(r"\s*\(need <a [^<]*</a>\?\)|<sup><noscript>.*?</sup>", re.DOTALL)
# itables imports itself from a blob, and makes WITHOUT_NAN, a text by then, a function.
ITABLES_SCRIPTS = "blob: 'unsafe-eval'"


AnyType = TypeVar("AnyType")


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
    written = read_json(out / "series.json")
    series = {key: _of(str, written, key) for key in ("title", "question", "source")}
    order = {str(name): place for place, name in enumerate(_of(list, written, "runs"))}
    folders = [path.parent for path in out.glob(f"*/{STATE}")]
    folders.sort(key=lambda folder: (order.get(folder.name, len(order)), folder.name))
    if not folders:
        raise BadInputError(
            f"No run lies in {str(out)!r} (a folder with a run.json), so there is nothing to report. "
            f"Run `python -m ldm_kit.batch notebooks/demo.yaml --out {out}` first."
        )
    with report_locked(out):
        for folder in folders:
            with suppress(BadInputError), locked(out, folder.name):  # one that is at work is left alone
                sweep(folder)
        library = write_plotly_library(out)
        advice = write_pngs(_plotly_figures(folders))
        index = out / "index.html"
        nonce = secrets.token_urlsafe()
        runs = [_read_run(folder, library, index) for folder in folders]
        for table in (table for run in runs for table in run["tables"]):
            table["html"] = allow_scripts(table["html"], nonce)
        page = _template().render(
            series=series,
            runs=runs,
            headline=_headline(runs),
            findings=_headline_findings(runs),
            judgements=_judgements(runs),
            tables_script=allow_scripts(_tables_script(), nonce),
            nonce=nonce,
            content_policy=content_policy(nonce, ITABLES_SCRIPTS),
            versions=package_versions(),
            made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        )
        write_text(index, page)
    return Report(index, advice, [finding["text"] for finding in _headline_findings(runs)])


def _plotly_figures(folders: list[Path]) -> list[Path]:
    return [
        folder / "figures" / f"{entry['name']}.json"
        for folder in folders
        for entry in _entries(read_json(folder / MANIFEST), "figures")
        if entry["kind"] == "plotly" and (folder / "figures" / f"{entry['name']}.json").exists()
    ]


def _read_run(folder: Path, library: Path, index: Path) -> dict[str, Any]:
    """Gather all that the card of one run shows."""
    from ldm_kit.batch.pages import write_page

    name = folder.name
    run, results = read_json(folder / STATE), read_json(folder / MANIFEST)
    status = _of(str, run, "status") or "unknown"
    problems = [] if status in ("done", "failed") else [ENDED_EARLY.format(status=status)]
    problems += [
        f"{file} cannot be read: it is damaged. Run this notebook again."
        for file, read in ((STATE, run), (MANIFEST, results))
        if not read and (folder / file).exists()
    ]
    executed = [folder / f"{name}.ipynb", folder / f"{name}.failed.ipynb"]
    shown = next((file for file in executed[:: 1 if status == "done" else -1] if file.exists()), None)
    links = {}
    if shown is not None:
        with _problems_kept(problems, shown):
            links["the executed notebook, to read"] = write_page(
                shown, shown.with_suffix(".html"), library=library, report=index
            )
        links["the same as .ipynb"] = shown
    if status != "done":
        links["log"] = folder / f"{name}.log"
    figures, tables = [], []
    for entry in _entries(results, "figures"):
        with _problems_kept(problems, folder / "figures" / entry["name"]):
            figures.append(figure := _figure(folder, entry))
            if "png" not in figure and "html" not in figure:
                raise FileNotFoundError("there is neither a PNG nor a page of it")
    for entry in _entries(results, "tables"):
        with _problems_kept(problems, folder / "tables" / f"{entry['name']}.parquet"):
            tables.append(_table(folder, entry))
    return {
        "name": name,
        "status": status,
        "error": _of(str, run, "error"),
        "seconds": _of(float, run, "seconds"),
        "started": _of(str, run, "started"),
        "notebook": _of(str, run, "notebook"),
        "parameters": _of(dict, run, "parameters"),
        "versions": _of(dict, run, "versions"),
        "problems": problems,
        "title": _of(str, results, "title") or name,
        "question": _of(str, results, "question"),
        "findings": _entries(results, "findings", needed="text"),
        "figures": _best_first(figures),
        "tables": tables,
        "provenance": _of(dict, results, "provenance"),
        "links": {text: _relative(path, index.parent) for text, path in links.items() if path.exists()},
    }


def _of(kind: type[AnyType], mapping: Mapping[str, Any], key: str) -> AnyType:
    """Take a value from a JSON file; one of another type counts as missing, and gives the type's empty value."""
    value = mapping.get(key)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    return value if isinstance(value, kind) else kind()


def _entries(results: Mapping[str, Any], listing: str, *, needed: str = "name") -> list[dict[str, Any]]:
    """Take those entries of a manifest's list that can be shown; texts that they lack are empty."""
    entries = [one for one in _of(list, results, listing) if isinstance(one, dict) and _of(str, one, needed)]
    texts = ("name", "caption", "text", "kind")
    return [
        {
            **{key: _of(str, one, key) for key in texts},
            "headline": one.get("headline") is True,
            "judgements": kinds,
        }
        for one in entries
        if needed == "text" or is_file_name(one["name"])
        for kinds in [[str(kind) for kind in _of(list, one, "judgements")]]
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
    """Say where a figure's files are; only those that exist are linked."""
    from ldm_kit.plots.template import NARROWEST, size_of

    stem = folder / "figures" / entry["name"]
    drawn = entry["kind"] == "plotly"
    layout = _of(dict, read_json(stem.with_name(f"{stem.name}.json")), "layout") if drawn else {}
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
        "rows": len(frame),
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
        recorded = run["provenance"].get("judgements")
        named.update(map(str, recorded if isinstance(recorded, list) else [recorded or ""]))
        named.update(kind for table in run["tables"] for kind in table.get("judgements", []))
    return {kind: WHAT_JUDGEMENTS_ARE.get(kind, "") for kind in sorted(named) if kind}  # "": nobody judged


def _relative(path: Path, base: Path) -> str:
    return Path(os.path.relpath(path, base)).as_posix()


def _template() -> Any:
    import jinja2

    from ldm_kit.batch.pages import markdown_as_html
    from ldm_kit.tables import short

    folder = Path(ldm_kit.__path__[0]) / "data" / "report"
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )

    def inline(text: str) -> str:
        """Render a sentence's marks, without the paragraph around it."""
        return markdown_as_html(only_marks(text)).removeprefix("<p>").removesuffix("</p>")

    environment.filters["markdown"] = inline
    environment.filters["short"] = short
    return environment.get_template("index.html.j2")
