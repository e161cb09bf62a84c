"""What a notebook leaves behind: tables, figures, findings and where they came from, in one folder.

The folder's `results.json` lists them in the order they were first given; the report of a batch run is made
from it.
"""

from __future__ import annotations

import html
import json
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ldm_kit.atomic import write_text, written_aside
from ldm_kit.errors import BadInputError
from ldm_kit.static_images import write_pngs

if TYPE_CHECKING:
    import pandas as pd

# Set by the batch runner in its kernels: the folder of the series, whose report draws all PNGs at once and
# whose figures share one plotly.min.js.
SERIES_VARIABLE = "LDM_KIT_SERIES"
MANIFEST = "results.json"
FORMAT = 1

AnyFigure = TypeVar("AnyFigure")


class Finding(str):
    """A sentence with computed numbers; a notebook displays it as Markdown.

    Examples
    --------
    >>> Finding("Chance is **0.333**.")
    'Chance is **0.333**.'
    """

    __slots__ = ()

    def _repr_markdown_(self) -> str:
        return f"> {self}"


class Results:
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
    >>> results = Results("outputs/02_probing", question="What does a probe add?")  # doctest: +SKIP
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
        return f"Results({str(self.out)!r}: {counts})"

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

    def close(self) -> None:
        """Draw the PNGs, unless the report of a series will, and say where things lie.

        Examples
        --------
        >>> results.close()  # doctest: +SKIP
        tables, figures and findings: outputs/02_probing
        """
        if not self._in_series:
            paths = [self.out / "figures" / f"{entry['name']}.json" for entry in self._plotly_figures()]
            if advice := write_pngs(paths):
                print(advice)
        print(f"tables, figures and findings: {self.out}")

    def _plotly_figures(self) -> list[dict[str, Any]]:
        return [entry for entry in self._manifest["figures"] if entry["kind"] == "plotly"]

    def _write_plotly(self, figure: Any, path: Path, title: str) -> None:
        import plotly.io

        from ldm_kit.plots.template import figure_html

        library = Path(os.path.relpath(write_plotly_library(self._home), path.parent.resolve())).as_posix()
        page = (
            '<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{html.escape(title)}</title><style>body {{ margin: 0; }}</style></head>\n"
            f"<body>{figure_html(figure, library)}</body>\n</html>\n"
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


def _checked(name: str) -> str:
    if not re.fullmatch(r"\w[\w.+=-]*", name):
        raise BadInputError(
            f"{name!r} cannot name a file of results. Use letters, digits and _ . + = - only, "
            "e.g. 'block_curves'."
        )
    return name
