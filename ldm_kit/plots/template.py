"""One look for every figure: template, colours that colour-blind readers can tell apart, captions."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import plotly.io as pio
from plotly.colors import sample_colorscale

# Okabe & Ito (2008), without its yellow, which is too pale for lines on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
# Perceptually even, and the same for every kind of colour vision.
SCALE = "Cividis"
# Blue to orange through white, for differences.
DIVERGING = [[0.0, "#0072B2"], [0.5, "#ffffff"], [1.0, "#D55E00"]]
LINE = 88  # letters of a subtitle that fit into a figure's width
CHANCE, CEILING = "#6b6b6b", "rgba(0, 158, 115, 0.15)"
JUDGES = {
    "human": "people",
    "human model": "a human model (choices drawn from an embedding fitted to people)",
    "simulated": "simulated observers",
}

# What plotly.js is told wherever a figure is drawn: else each has a button that uploads it to plotly's cloud.
CONFIG = {"displaylogo": False, "showSendToCloud": False}
for _, renderer in pio.renderers.items():
    if hasattr(renderer, "config"):
        renderer.config = {**(renderer.config or {}), **CONFIG}

# A page's figure takes the width that it finds, up to its own; where its words need more, it is drawn that wide and
# scaled down.
NARROWEST = 640
FITTING = """<style>
.ldm-figure { max-width: var(--width); container-type: inline-size; overflow-x: auto; overflow-y: hidden; }
.ldm-figure > div { --scale: min(1, tan(atan2(100cqw, var(--least)))); width: max(100cqw, var(--least)) !important;
  transform: scale(var(--scale)); transform-origin: 0 0; margin-bottom: calc((var(--scale) - 1) * var(--height)); }
@media print {
  .ldm-figure .modebar { display: none; }
  .ldm-figure > div { width: 100% !important; transform: none; margin-bottom: 0; }
  .ldm-figure :is(.svg-container, .main-svg) { width: 100% !important; }
}
</style>"""
# Paper tells nobody how wide it is: what was drawn for the screen is scaled as a picture is.
SCALING = """
const plot = document.getElementById("{plot_id}");
const scaled = () => plot.querySelectorAll(".main-svg").forEach((one) => {
  one.setAttribute("viewBox", `0 0 ${one.getAttribute("width")} ${one.getAttribute("height")}`);
  one.setAttribute("preserveAspectRatio", "xMinYMin meet");
});
scaled();
plot.on("plotly_afterplot", scaled);
"""

pio.templates["ldm_kit"] = go.layout.Template(
    layout={
        "font": {
            # A name that ends in a digit is no font name to CSS unless it is quoted.
            "family": "'Source Sans 3', 'Segoe UI', 'DejaVu Sans', sans-serif",
            "size": 14,
            "color": "#222222",
        },
        "title": {"x": 0, "xref": "container", "xanchor": "left", "pad": {"l": 16}, "font": {"size": 18}},
        "colorway": COLOURS,
        "colorscale": {"sequential": SCALE, "diverging": DIVERGING},
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "margin": {"l": 70, "r": 30, "t": 80, "b": 60},
        "xaxis": {
            "automargin": True,
            "title": {"standoff": 12},
            "zeroline": False,
            "showline": True,
            "linecolor": "#999999",
            "ticks": "outside",
            "gridcolor": "#eeeeee",
        },
        "yaxis": {
            "automargin": True,
            "title": {"standoff": 12},
            "zeroline": False,
            "showline": True,
            "linecolor": "#999999",
            "ticks": "outside",
            "gridcolor": "#eeeeee",
        },
        "legend": {"title": {"font": {"size": 13}}, "font": {"size": 13}},
        "width": 900,
        "height": 480,
    }
)


def figure(title: str, subtitle: str = "", **layout: object) -> go.Figure:
    """Begin a figure in the kit's template.

    Parameters
    ----------
    title : str
        What is seen.
    subtitle : str
        Who judged, under which conditions; set smaller below the title.
    **layout
        Further entries of plotly's layout.

    Examples
    --------
    >>> figure("Alignment by block").layout.title.text
    'Alignment by block'
    """
    lines = _lines(subtitle)
    room = {"margin": {"t": 80 + 18 * (len(lines) - 1)}} if len(lines) > 1 else {}
    return go.Figure(
        layout={"template": "ldm_kit", "title": {"text": heading(title, lines)}, **room, **layout}
    )


def heading(title: str, lines: Sequence[str]) -> str:
    """Write a title and the lines below it as plotly reads them: names in them are text, not tags.

    Examples
    --------
    >>> heading("Tokens of <b>", ["at 0.5"])
    "Tokens of &lt;b&gt;<br><sup style='color:#555'>at 0.5</sup>"
    """
    below = (f"<br><sup style='color:#555'>{html.escape(line, quote=False)}</sup>" for line in lines)
    return html.escape(title, quote=False) + "".join(below)


def escaped(names: pd.Series) -> pd.Series:
    """Give names as plotly reads text: what looks like a tag is none.

    Examples
    --------
    >>> escaped(pd.Series(["<b>", "animal"])).tolist()
    ['&lt;b&gt;', 'animal']
    """
    return names.astype(str).map(lambda name: html.escape(name, quote=False))


def figure_html(figure: go.Figure | Mapping[str, Any], library: str | bool = False) -> str:
    """Give a figure as HTML that fits any page: never wider than what it stands in, on a phone and on paper, too.

    Parameters
    ----------
    figure : plotly.graph_objects.Figure, or what its JSON holds
    library : str or bool
        Address of the plotly.js that it is drawn with; False where the page has it.

    Returns
    -------
    str
        A ``div`` with its script.

    Examples
    --------
    >>> "--width: 900px" in figure_html(figure("Alignment by block"))
    True
    """
    plain = figure.to_plotly_json() if isinstance(figure, go.Figure) else figure
    layout = dict(plain.get("layout", {}))
    template = dict(layout.get("template", {}))
    base = dict(template.get("layout", {}))
    width, height = size_of(layout)
    for one in (layout, base):  # plotly.js would go back to it
        one.pop("width", None)
    div = pio.to_html(
        {
            "data": plain["data"],
            "layout": {**layout, "height": height, "template": {**template, "layout": base}},
        },
        config={**CONFIG, "responsive": True},
        include_plotlyjs=library,
        full_html=False,
        post_script=SCALING,
        validate=False,
    )
    size = f"--width: {width}px; --height: {height}px; --least: {min(width, NARROWEST)}px"
    return f'{FITTING}<div class="ldm-figure" style="{size}">{div}</div>'


def size_of(layout: Mapping[str, Any]) -> tuple[int, int]:
    """Give the width and height of a figure, which its template may say.

    Examples
    --------
    >>> size_of({"height": 300})
    (900, 300)
    """
    base = layout.get("template", {}).get("layout", {})
    width, height = (layout.get(name) or base.get(name) for name in ("width", "height"))
    return int(width or 900), int(height or 480)


def _lines(text: str) -> list[str]:
    """Break a long subtitle after a comma, so that it is not cut off at the figure's edge."""
    if len(text) <= LINE:
        return [text] if text else []
    cut = text.rfind(", ", 0, LINE) + 1 or text.rfind(" ", 0, LINE)
    return [text[:cut], *_lines(text[cut:].lstrip())] if cut > 0 else [text]


def ink_on(share: float, scale: object = SCALE) -> str:
    """Black or white, whichever is read more easily on this place of a colour scale.

    Plotly's own choice is dark grey or white by brightness, which fails WCAG's 4.5 : 1 on middling colours.

    Parameters
    ----------
    share : float
        From 0, the scale's beginning, to 1.

    Examples
    --------
    >>> ink_on(0.0), ink_on(1.0)
    ('#ffffff', '#000000')
    """
    (colour,) = sample_colorscale(scale, [min(1.0, max(0.0, share))], colortype="tuple")
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in colour]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#000000" if (luminance + 0.05) ** 2 > 1.05 * 0.05 else "#ffffff"


def judged_by(table: pd.DataFrame) -> str:
    """Say who made the choices that a table was scored on, for a subtitle.

    Examples
    --------
    >>> judged_by(pd.DataFrame({"judgements": ["simulated"]}))
    'judged by simulated observers'
    """
    judges = [JUDGES.get(name, name) for name in dict.fromkeys(table["judgements"]) if name]
    return f"judged by {' and '.join(judges)}" if judges else ""


def add_chance(fig: go.Figure, table: pd.DataFrame) -> None:
    """Draw the chance line that the table names, if it is one number."""
    chances = table["chance"].dropna().unique()
    if len(chances) == 1:
        fig.add_hline(
            y=float(chances[0]),
            line={"color": CHANCE, "dash": "dash", "width": 1.5},
            annotation={"text": f"chance {chances[0]:.3f}", "font": {"color": CHANCE, "size": 12}},
            annotation_position="bottom left",
        )


def add_ceiling(fig: go.Figure, table: pd.DataFrame) -> None:
    """Draw the noise ceiling (how well judges predict each other) as a band, where the table has one."""
    bounds = table[["ceiling_low", "ceiling_high"]].dropna().drop_duplicates()
    if len(bounds) == 1:
        low, high = (float(value) for value in bounds.iloc[0])
        fig.add_hrect(
            y0=low,
            y1=high,
            fillcolor=CEILING,
            line_width=0,
            annotation={
                "text": f"noise ceiling {low:.3f}–{high:.3f}",
                "font": {"color": "#00694d", "size": 12},
            },
            annotation_position="top right",
        )
