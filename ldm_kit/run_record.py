"""What a notebook leaves behind: tables, figures, findings and where they came from, in one folder.

The folder's `results.json` lists them in the order they were first given; the report of a batch run is made
from it.
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
    >>> Finding("Chance is **0.333**.")
    'Chance is **0.333**.'
    """

    __slots__ = ()

    def _repr_markdown_(self) -> str:
        return f"> {only_marks(self)}"


class RunRecord:
    """Collect what a notebook found in a folder, every file written aside and moved into place.

    Parameters
    ----------
    out : path-like
        The folder; made if missing. Its manifest starts anew, so that nothing of an earlier run is reported.
    title : str, optional
        What the notebook is called in the report; the folder's name if not given.
    question : str, optional
        What the notebook answers; opens its card in the report.

    Raises
    ------
    BadInputError
        If the folder cannot be written to.

    Examples
    --------
    >>> results = RunRecord("outputs/02_probing", question="What does a probe add?")  # doctest: +SKIP
    >>> results.record(model="tiny-ldm", judgements="simulated", seed=0)  # doctest: +SKIP
    >>> results.table(table, "probes")  # doctest: +SKIP
    >>> results.figure(figure, "probe_gain", caption="The probe's gain by block.")  # doctest: +SKIP
    >>> results.finding(f"The probe adds {gain:.3f} at `{block}`.")  # doctest: +SKIP
    >>> results.close()  # doctest: +SKIP
    """

    def __init__(self, out: str | os.PathLike[str], *, title: str = "", question: str = "") -> None:
        self.out = Path(out)
        series = os.environ.get(SERIES_VARIABLE)
        inside = series is not None and self.out.resolve().is_relative_to(series)
        self._home = Path(series).resolve() if inside and series else self.out.resolve()
        self._in_series = inside
        self._manifest: dict[str, Any] = {
            "format": FORMAT,
            "title": title,
            "question": question,
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "findings": [],
            "figures": [],
            "tables": [],
            "provenance": {},
        }
        self._write()

    def __repr__(self) -> str:
        counts = ", ".join(
            f"{len(self._manifest[kind])} {kind}" for kind in ("tables", "figures", "findings")
        )
        return f"RunRecord({str(self.out)!r}: {counts})"

    def table(self, table: pd.DataFrame, name: str, *, caption: str = "") -> pd.DataFrame:
        """Keep a table as parquet and CSV and return it, to be shown.

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
        >>> results.table(table, "alignment", caption="Odd-one-out accuracy")  # doctest: +SKIP
        """
        from ldm_kit.tables import write_table

        write_table(table, self.out / "tables" / f"{_checked(name)}.parquet")
        judgements = (
            sorted({str(value) for value in table["judgements"] if value}) if "judgements" in table else []
        )
        self._put("tables", name, caption=caption, rows=len(table), judgements=judgements)
        return table

    def figure(self, figure: AnyFigure, name: str, *, caption: str = "", headline: bool = False) -> AnyFigure:
        """Keep a figure and return it, to be shown.

        A plotly figure becomes interactive HTML that needs no network, and JSON, of which the PNG is made
        where a Chromium is found: by `close`, or, under the batch runner, by the report. A PIL picture
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
        >>> results.figure(figure, "block_curves", caption="Alignment by block")  # doctest: +SKIP
        """
        path = self.out / "figures" / f"{_checked(name)}.png"
        if hasattr(figure, "to_plotly_json"):
            self._write_plotly(figure, path, caption or name)
            kind = "plotly"
        elif hasattr(figure, "save") and hasattr(figure, "getbands"):
            with written_aside(path) as aside:
                figure.save(aside)
            kind = "picture"
        else:
            raise BadInputError(
                f"The figure {name!r} is a {type(figure).__name__}. Give a plotly Figure or a PIL Image; "
                "pixels in an array become one by PIL.Image.fromarray."
            )
        self._put("figures", name, caption=caption, headline=headline, kind=kind)
        return figure

    def finding(self, text: str, *, name: str = "", headline: bool = False) -> Finding:
        """Keep a sentence that says what was found, its numbers computed, and return it, to be shown.

        Parameters
        ----------
        text : str
            Markdown's emphasis and code marks may be used.
        name : str, optional
            Replaces an earlier finding of this name; else the same text is kept once.
        headline : bool
            Whether the report and the terminal's summary open with it.

        Returns
        -------
        Finding
            A string that a notebook displays as Markdown.

        Examples
        --------
        >>> results.finding(f"`{best}` is the most human block: {accuracy:.3f}.")  # doctest: +SKIP
        """
        self._put("findings", name or text, text=text, headline=headline)
        return Finding(text)

    def record(self, **provenance: Any) -> None:
        """Keep where the numbers came from: model, dataset, judgements, seed, device, whatever JSON can hold.

        Raises
        ------
        BadInputError
            If a value is not for JSON.

        Examples
        --------
        >>> results.record(model="tiny-ldm", dataset="toybox", judgements="simulated")  # doctest: +SKIP
        """
        for key, value in provenance.items():
            try:
                json.dumps(value)
            except TypeError as error:
                raise BadInputError(
                    f"The record {key}={value!r} is not for JSON ({error}). "
                    "Give text, a number, a list, or str(…) of it."
                ) from error
        self._manifest["provenance"].update(provenance)
        self._write()

    def close(self) -> RunRecord:
        """Draw the PNGs, unless the report of a series will; why there are none is logged.

        Returns
        -------
        RunRecord
            Itself: shown, it says where things lie.

        Examples
        --------
        >>> results.close()  # doctest: +SKIP
        RunRecord('outputs/02_probing': 2 tables, 4 figures, 3 findings)
        """
        if not self._in_series:
            paths = [self.out / "figures" / f"{entry['name']}.json" for entry in self._plotly_figures()]
            if advice := write_pngs(paths):
                logger.warning(advice)
        return self

    def _plotly_figures(self) -> list[dict[str, Any]]:
        return [entry for entry in self._manifest["figures"] if entry["kind"] == "plotly"]

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
        entries: list[dict[str, Any]] = self._manifest[listing]
        new = {"name": name, **what}
        for place, entry in enumerate(entries):
            if entry["name"] == name:
                entries[place] = new
                break
        else:
            entries.append(new)
        self._write()

    def _write(self) -> None:
        write_text(self.out / MANIFEST, json.dumps(self._manifest, indent=1, ensure_ascii=False))


def content_policy(nonce: str, more_scripts: str = "") -> str:
    """Make the rule of a page: scripts that bear the nonce run, no others, and nothing comes from elsewhere.

    Examples
    --------
    >>> content_policy("abc").split("; ")[1]
    "script-src 'nonce-abc'"
    """
    here = "'self' file:"
    rules = {
        "default-src": "'none'",
        "script-src": f"'nonce-{nonce}' {more_scripts}".strip(),
        "style-src": "'unsafe-inline'",
        "img-src": f"{here} data: blob:",
        "font-src": "data:",
        "frame-src": here,
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    content = "; ".join(f"{name} {value}" for name, value in rules.items())
    return f'<meta http-equiv="Content-Security-Policy" content="{content}">'


def allow_scripts(made: str, nonce: str) -> str:
    """Give the scripts in what plotly or itables made the page's nonce; in the data there, each < is escaped.

    Examples
    --------
    >>> allow_scripts("<script>draw()</script>", "abc")
    '<script nonce="abc">draw()</script>'
    """
    return re.sub(r"<script(?=[ >])", f'<script nonce="{nonce}"', made)


def write_plotly_library(folder: Path) -> Path:
    """Lay plotly.js, which all figures of a folder share, and return its path.

    Examples
    --------
    >>> write_plotly_library(Path("outputs/demo"))  # doctest: +SKIP
    PosixPath('outputs/demo/plotly.min.js')
    """
    from plotly.offline import get_plotlyjs

    path = folder / "plotly.min.js"
    text = get_plotlyjs()
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
            f"{name!r} cannot name a file of results. Use letters, digits and _ . + = - only, "
            "e.g. 'block_curves'."
        )
    return name


def find_browser() -> str | None:
    """Find the browser that kaleido would draw with.

    Returns
    -------
    str or None
        Its path, or None where no Chromium, Chrome, Edge or Brave is found.

    Examples
    --------
    >>> find_browser()  # doctest: +SKIP
    '/usr/bin/chromium'
    """
    from choreographer.browsers.chromium import Chromium

    found = Chromium.find_browser(skip_local=False)
    return str(found) if found and os.access(found, os.X_OK) else None


def write_pngs(figures: Iterable[str | os.PathLike[str]], *, scale: float = 2) -> str:
    """Draw figures that were saved as plotly JSON, each beside its JSON as PNG, all by one browser.

    A PNG younger than its JSON is left as it is. Whatever goes wrong with the browser is told, not raised: a
    figure exists without its PNG.

    Parameters
    ----------
    figures : iterable of path-like
        Files ``NAME.json``, as ``fig.write_json`` makes them.
    scale : float
        Pixels per unit of the figure's size.

    Returns
    -------
    str
        Empty if every figure has its PNG now, else one line that says why not and what to do.

    Examples
    --------
    >>> write_pngs(Path("outputs/demo").glob("*/figures/*.json"))  # doctest: +SKIP
    ''
    """
    todo = [path for path in map(Path, figures) if _is_due(path)]
    if not todo:
        return ""
    if find_browser() is None:
        return HOW_TO_GET_PNGS
    try:
        _draw(todo, scale)
    except Exception as error:  # a browser can fail in any way; a figure without PNG is still a figure
        first = (str(error) or type(error).__name__).splitlines()[0]
        return f"The browser could not draw the figures as PNG ({first}); they are interactive HTML only."
    return ""


# Nothing listens on port 1: a browser that is sent there reaches nobody, and is told so at once.
NOWHERE = "http://127.0.0.1:1"


@contextmanager
def _network_shut() -> Iterator[None]:
    """Keep the drawing browser on this machine: it would fetch MathJax, and look for news of its own."""
    before = os.environ.get("CHOREO_PROXY_SERVER")
    os.environ["CHOREO_PROXY_SERVER"] = NOWHERE
    try:
        yield
    finally:
        if before is None:
            del os.environ["CHOREO_PROXY_SERVER"]
        else:
            os.environ["CHOREO_PROXY_SERVER"] = before


def _is_due(path: Path) -> bool:
    png = path.with_suffix(".png")
    return not png.exists() or png.stat().st_mtime < path.stat().st_mtime


def _draw(paths: list[Path], scale: float) -> None:
    import plotly.io

    logging.getLogger("kaleido").setLevel(logging.ERROR)
    logging.getLogger("choreographer").setLevel(logging.ERROR)
    figures = [plotly.io.from_json(path.read_text(encoding="utf-8"), skip_invalid=True) for path in paths]
    defaults = plotly.io.defaults  # what a figure that says nothing gets; write_images gives it to all
    with ExitStack() as stack:
        stack.enter_context(_network_shut())
        asides = [stack.enter_context(written_aside(path.with_suffix(".png"))) for path in paths]
        plotly.io.write_images(
            figures,
            [str(aside) for aside in asides],
            scale=scale,
            width=[figure.layout.width or defaults.default_width for figure in figures],
            height=[figure.layout.height or defaults.default_height for figure in figures],
        )
