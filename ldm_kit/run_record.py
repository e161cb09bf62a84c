"""What a notebook leaves behind: tables, figures, findings and where they came from, in one folder.

The folder's `results.json` lists them in the order in which they came; the report of a batch run is made from it.
"""

from __future__ import annotations

import html
import json
import logging
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ldm_kit.errors import BadInputError
from ldm_kit.files import write_text, written_aside

if TYPE_CHECKING:
    import pandas as pd

# Set by the batch runner in its kernels: the folder of the series, whose report draws all PNGs at once and
# whose figures share one plotly.min.js.
SERIES_VARIABLE = "LDM_KIT_SERIES"
PROXY = "CHOREO_PROXY_SERVER"  # of the browser that draws PNGs
MANIFEST = "results.json"
FORMAT = 1

# Code in Markdown: it begins and ends with as many backticks, and stands for itself.
CODE = re.compile(r"((?<!`)(`+)(?!`).+?(?<!`)\2(?!`))", re.DOTALL)
# What would begin HTML, a link, an image, a formula or an escape.
BEGINNINGS = re.compile(r"[<>&\[\]!$\\~|]|:(?=//)")

HOW_TO_GET_PNGS = (
    "No Chromium or Chrome was found, so figures are interactive HTML only. For PNGs as well, install one "
    "(e.g. apt install chromium), or set BROWSER_PATH to yours, and run again."
)

AnyFigure = TypeVar("AnyFigure")
logger = logging.getLogger(__name__)


def only_marks(text: str) -> str:
    r"""Keep Markdown's emphasis, code and list marks in a text; HTML, links and formulas are shown as they are written.

    Names, labels and prompts from data stand in sentences, and Markdown may hold HTML, links and formulas.

    Parameters
    ----------
    text : str

    Returns
    -------
    str
        Markdown of one line.

    Examples
    --------
    >>> only_marks("The odd one is **<b>** of `<b>`.")
    'The odd one is **&#60;b&#62;** of `<b>`.'
    """
    parts = CODE.split(" ".join(text.split()))
    for place in range(0, len(parts), 3):  # between them: the code, and the backticks that it began with
        parts[place] = BEGINNINGS.sub(lambda found: f"&#{ord(found[0])};", parts[place])
    return "".join(part for place, part in enumerate(parts) if place % 3 != 2)


class Finding(str):
    """A sentence with computed numbers; a notebook displays it as Markdown, of which it has marks alone.

    Examples
    --------
    >>> Finding("Chance is **0.333**.")._repr_markdown_()
    '> Chance is **0.333**.'
    """

    __slots__ = ()

    def _repr_markdown_(self) -> str:
        return f"> {only_marks(self)}"


class RunRecord:
    """Record what a notebook found in a folder, every file written aside and moved into place.

    Parameters
    ----------
    out : path-like
        The folder; made if missing. Its manifest starts anew, so that nothing of an earlier run is reported.
    title : str, optional
        What the notebook is called in the report; by default the folder's name.
    question : str, optional
        What the notebook answers; opens its card in the report.

    Raises
    ------
    BadInputError
        If the folder cannot be written to.

    Examples
    --------
    >>> import tempfile, pandas as pd
    >>> out = Path(tempfile.mkdtemp())
    >>> results = RunRecord(out, question="What does a probe add?")
    >>> results.record(model="tiny-ldm", judgements="simulated", seed=0)
    >>> table = results.table(pd.DataFrame({"block": ["mid_block"], "gain": [0.02]}), "probes")
    >>> results.finding("The probe adds 0.020 at `mid_block`.", headline=True)
    'The probe adds 0.020 at `mid_block`.'
    >>> sorted(path.name for path in out.rglob("*.*"))
    ['probes.csv', 'probes.parquet', 'results.json']
    """

    def __init__(self, out: str | os.PathLike[str], *, title: str = "", question: str = "") -> None:
        self.out = Path(out)
        series = Path(os.environ.get(SERIES_VARIABLE, os.devnull)).resolve()
        self._in_series = self.out.resolve().is_relative_to(series)
        self._home = series if self._in_series else self.out.resolve()  # of plotly.js
        self._about = {"format": FORMAT, "title": title, "question": question}
        self._about["started"] = datetime.now(UTC).isoformat(timespec="seconds")
        self._entries: dict[str, dict[str, Any]] = {"tables": {}, "figures": {}, "findings": {}}
        self._provenance: dict[str, Any] = {}
        self._write()

    def __repr__(self) -> str:
        counts = ", ".join(f"{len(entries)} {kind}" for kind, entries in self._entries.items())
        return f"RunRecord({str(self.out)!r}: {counts})"

    def table(self, table: pd.DataFrame, name: str, *, caption: str = "") -> pd.DataFrame:
        """Write a table as parquet and CSV, and return it to be displayed.

        Parameters
        ----------
        table : pandas.DataFrame
        name : str
            The file's name without suffix; the same name replaces.
        caption : str, optional

        Returns
        -------
        pandas.DataFrame
            The same table.

        Examples
        --------
        >>> results = RunRecord("run")
        >>> _ = results.table(pd.DataFrame({"accuracy": [0.4]}), "alignment", caption="Odd-one-out accuracy")
        >>> Path("run/tables/alignment.csv").read_text().split()
        ['accuracy', '0.4']
        """
        from ldm_kit.tables import write_table

        write_table(table, self.out / "tables" / f"{_checked(name)}.parquet")
        named = table.get("judgements", ())
        judgements = sorted({str(value) for value in named if value})
        self._put("tables", name, caption=caption, rows=len(table), judgements=judgements)
        return table

    def figure(self, figure: AnyFigure, name: str, *, caption: str = "", headline: bool = False) -> AnyFigure:
        """Write a figure, and return it to be displayed.

        A plotly figure becomes interactive HTML that needs no network, and JSON, of which the PNG is made
        where a Chromium is found: by `close`, or, under the batch runner, by the report. A PIL image
        becomes a PNG at once.

        Parameters
        ----------
        figure : plotly.graph_objects.Figure or PIL.Image.Image
        name : str
            The file's name without suffix; the same name replaces.
        caption : str, optional
            What the figure shows, in a sentence; also its alt text.
        headline : bool
            Whether the report shows it large, at the top of the notebook's card.

        Returns
        -------
        figure
            The same figure.

        Raises
        ------
        BadInputError
            If it is neither.

        Examples
        --------
        >>> results = RunRecord("run")
        >>> _ = results.figure(lk.plots.block_curves(table, conditioning="none"), "curves", caption="By block")
        >>> Path("run/figures/curves.json").is_file()
        True
        """
        path = self.out / "figures" / f"{_checked(name)}.png"
        kind = "plotly" if hasattr(figure, "to_plotly_json") else "image"
        if kind == "plotly":
            self._write_plotly(figure, path, caption or name)
        elif hasattr(figure, "save") and hasattr(figure, "getbands"):
            with written_aside(path) as aside:
                figure.save(aside)
        else:
            raise BadInputError(
                f"The figure {name!r} is a {type(figure).__name__}. Use a plotly Figure or a PIL Image; "
                "pixels in an array become one by PIL.Image.fromarray."
            )
        self._put("figures", name, caption=caption, headline=headline, kind=kind)
        return figure

    def finding(self, text: str, *, name: str = "", headline: bool = False) -> Finding:
        """Record a sentence that says what was found, its numbers computed, and return it to be displayed.

        Parameters
        ----------
        text : str
            Markdown's emphasis and code marks may be used.
        name : str, optional
            Replaces an earlier finding of this name; else the same text is recorded once.
        headline : bool
            Whether the report and the terminal's summary open with it.

        Returns
        -------
        Finding
            A string that a notebook displays as Markdown.

        Examples
        --------
        >>> RunRecord("run").finding("`mid_block` is the most human block.")
        '`mid_block` is the most human block.'
        """
        self._put("findings", name or text, text=text, headline=headline)
        return Finding(text)

    def record(self, **provenance: Any) -> None:
        """Record where the numbers came from: model, dataset, judgements, seed, device, whatever JSON can hold.

        Raises
        ------
        BadInputError
            If a value is not for JSON.

        Examples
        --------
        >>> RunRecord("run").record(model="tiny-ldm", dataset="emoji", judgements="simulated")
        """
        for key, value in provenance.items():
            try:
                json.dumps(value)
            except TypeError as error:
                raise BadInputError(
                    f"The record {key}={value!r} is not for JSON ({error}). Use text, numbers and lists, or str(…) of it."
                ) from error
        self._provenance |= provenance
        self._write()

    def close(self) -> RunRecord:
        """Draw the PNGs, unless the report of a series will; why there are none is logged.

        Returns
        -------
        RunRecord
            Itself: displayed, it says where things lie.

        Examples
        --------
        >>> RunRecord("run").close()
        RunRecord('run': 0 tables, 0 figures, 0 findings)
        """
        figures = self._entries["figures"].values()
        drawn = [self.out / "figures" / f"{one['name']}.json" for one in figures if one["kind"] == "plotly"]
        if not self._in_series and (advice := write_pngs(drawn)):
            logger.warning(advice)
        return self

    def _write_plotly(self, figure: Any, path: Path, title: str) -> None:
        import plotly.io

        from ldm_kit.plots.template import figure_html

        library = Path(os.path.relpath(write_plotly_library(self._home), path.parent.resolve())).as_posix()
        nonce = secrets.token_urlsafe()
        page = (
            f'<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="utf-8">{content_policy(nonce)}'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{html.escape(title)}</title><style>body {{ margin: 0; }}</style></head>\n"
            f"<body>{allow_scripts(figure_html(figure, library), nonce)}</body>\n</html>\n"
        )
        write_text(path.with_suffix(".html"), page)
        write_text(path.with_suffix(".json"), plotly.io.to_json(figure))

    def _put(self, listing: str, name: str, **what: Any) -> None:
        """Add to the manifest, or replace what has the same name where it stands."""
        self._entries[listing][name] = {"name": name, **what}
        self._write()

    def _write(self) -> None:
        listings = {kind: list(entries.values()) for kind, entries in self._entries.items()}
        manifest = {**self._about, **listings, "provenance": self._provenance}
        write_text(self.out / MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False))


def content_policy(nonce: str, more_scripts: str = "") -> str:
    """Make the rule of a page: scripts that bear the nonce run, no others, and nothing comes from elsewhere.

    Examples
    --------
    >>> content_policy("abc").split("; ")[1]
    "script-src 'nonce-abc'"
    """
    rules = (
        "default-src 'none'; script-src "
        + f"'nonce-{nonce}' {more_scripts}".strip()
        + "; style-src 'unsafe-inline'; img-src 'self' file: data: blob:; font-src data:; frame-src 'self' file:; "
        "base-uri 'none'; form-action 'none'"
    )
    return f'<meta http-equiv="Content-Security-Policy" content="{rules}">'


def allow_scripts(page: str, nonce: str) -> str:
    """Add the page's nonce to the scripts that plotly or itables made; in the data there, each < is escaped.

    Examples
    --------
    >>> allow_scripts("<script>draw()</script>", "abc")
    '<script nonce="abc">draw()</script>'
    """
    return re.sub(r"<script(?=[ >])", f'<script nonce="{nonce}"', page)


def write_plotly_library(folder: Path) -> Path:
    """Write plotly.js, which all figures of a folder share, and return its path."""
    from plotly.offline import get_plotlyjs

    path, text = folder / "plotly.min.js", get_plotlyjs()
    if not path.exists() or path.stat().st_size != len(text.encode()):
        write_text(path, text)
    return path


def is_file_name(name: str) -> bool:
    """Tell whether a table or figure may be called so: its name becomes that of files.

    Examples
    --------
    >>> is_file_name("up_blocks.1"), is_file_name("../run")
    (True, False)
    """
    return re.fullmatch(r"\w[\w.+=-]*", name) is not None


def _checked(name: str) -> str:
    if not is_file_name(name):
        raise BadInputError(
            f"{name!r} cannot name a file of results. Use letters, digits and _ . + = - only, e.g. 'block_curves'."
        )
    return name


def find_browser() -> str | None:
    """Find the browser that kaleido would draw with: its path, or None without a Chromium, Chrome, Edge or Brave."""
    from choreographer.browsers.chromium import Chromium

    found = Chromium.find_browser(skip_local=False)
    return str(found) if found and os.access(found, os.X_OK) else None


def write_pngs(figures: Iterable[Path]) -> str:
    """Draw figures that were saved as plotly JSON, each beside its JSON as PNG, all by one browser.

    A PNG younger than its JSON is left as it is. Whatever goes wrong with the browser is returned in a line that says
    what to do, not raised: a figure exists without its PNG.
    """
    todo = [path for path in figures if _is_due(path)]
    if not todo:
        return ""
    if find_browser() is None:
        return HOW_TO_GET_PNGS
    try:
        _draw(todo)
    except Exception as error:  # a browser can fail in any way
        first = (str(error) or type(error).__name__).splitlines()[0]
        return f"The browser could not draw the figures as PNG ({first}); they are interactive HTML only."
    return ""


def _is_due(path: Path) -> bool:
    png = path.with_suffix(".png")
    return not png.exists() or png.stat().st_mtime < path.stat().st_mtime


def _draw(paths: list[Path]) -> None:
    import plotly.io

    for library in ("kaleido", "choreographer"):
        logging.getLogger(library).setLevel(logging.ERROR)
    figures = [plotly.io.from_json(path.read_text(encoding="utf-8"), skip_invalid=True) for path in paths]
    defaults = plotly.io.defaults  # the size of a figure that has none; write_images would give one to all
    with ExitStack() as stack:
        stack.enter_context(_network_shut())
        asides = [stack.enter_context(written_aside(path.with_suffix(".png"))) for path in paths]
        plotly.io.write_images(
            figures,
            list(map(str, asides)),
            scale=2,  # pixels per unit of the figure's size
            width=[figure.layout.width or defaults.default_width for figure in figures],
            height=[figure.layout.height or defaults.default_height for figure in figures],
        )


@contextmanager
def _network_shut() -> Iterator[None]:
    """Keep the drawing browser on this machine: it would fetch MathJax, and look for news of its own."""
    before = os.environ.get(PROXY)
    os.environ[PROXY] = "http://127.0.0.1:1"  # nothing listens there, and the browser learns so at once
    try:
        yield
    finally:
        os.environ.pop(PROXY)
        if before is not None:
            os.environ[PROXY] = before
