"""What every figure shares: template, colour-blind-safe colours, error bars, chance and ceiling, the noise axis."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
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
INK = "#222222"
LINE = 88  # letters of a subtitle that fit into a figure's width
CHANCE_COLOUR, CEILING_COLOUR = "#6b6b6b", "rgba(0, 158, 115, 0.15)"
JUDGED_BY = {
    "human": "people",
    "human model": "a human model (choices drawn from an embedding fitted to people)",
    "simulated": "simulated observers",
}

# Plotly.js's settings wherever a figure is drawn: by default a button uploads it to plotly's cloud.
CONFIG = {"displaylogo": False, "showSendToCloud": False}
for _, renderer in pio.renderers.items():
    if hasattr(renderer, "config"):
        renderer.config = {**(renderer.config or {}), **CONFIG}

# In a page, a figure takes the available width, up to its own; below the width that its labels need, it is scaled down.
NARROWEST = 640
AXIS = {
    "automargin": True,
    "title": {"standoff": 12},
    "zeroline": False,
    "showline": True,
    "linecolor": "#999999",
    "ticks": "outside",
    "gridcolor": "#eeeeee",
}
pio.templates["ldm_kit"] = go.layout.Template(
    layout={
        # CSS takes a font's name that ends in a digit only in quotes.
        "font": {
            "family": "'Source Sans 3', 'Segoe UI', 'DejaVu Sans', sans-serif",
            "size": 14,
            "color": INK,
        },
        "title": {"x": 0, "xref": "container", "xanchor": "left", "pad": {"l": 16}, "font": {"size": 18}},
        "colorway": COLOURS,
        "colorscale": {"sequential": SCALE, "diverging": DIVERGING},
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "margin": {"l": 70, "r": 30, "t": 80, "b": 60},
        "xaxis": AXIS,
        "yaxis": AXIS,
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
        Whose judgements, under which conditions; set smaller below the title, broken where it is too long.
    **layout
        Further entries of plotly's layout.

    Returns
    -------
    plotly.graph_objects.Figure
        Empty, with the template "ldm_kit".

    Examples
    --------
    >>> figure("Alignment by block").layout.title.text
    'Alignment by block'
    """
    lines = _lines(subtitle)
    room = {"margin": {"t": 80 + 18 * (len(lines) - 1)}} if len(lines) > 1 else {}
    return go.Figure(layout={"template": "ldm_kit", "title_text": heading(title, lines), **room, **layout})


def heading(title: str, lines: Sequence[str]) -> str:
    """Write a title with smaller lines below it, escaped for plotly.

    Examples
    --------
    >>> heading("Map of <b>", ["at 0.5"])
    "Map of &lt;b&gt;<br><sup style='color:#555'>at 0.5</sup>"
    """
    first, *below = escaped([title, *lines])
    return first + "".join(f"<br><sup style='color:#555'>{line}</sup>" for line in below)


def escaped(names: Iterable[object]) -> list[str]:
    """Escape names that come from data: plotly would read them as tags.

    Examples
    --------
    >>> escaped(["<b>", "animal"])
    ['&lt;b&gt;', 'animal']
    """
    return [html.escape(str(name), quote=False) for name in names]


def figure_html(figure: go.Figure | Mapping[str, Any], library: str | bool = False) -> str:
    """Convert a figure to HTML that is never wider than what it stands in, on a phone and on paper, too.

    Parameters
    ----------
    figure : plotly.graph_objects.Figure, or the content of its JSON
    library : str or bool
        Address of plotly.js; False where the page has loaded it.

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
    for one in (layout, base):  # the page decides the width
        one.pop("width", None)
    layout |= {"height": height, "template": {**template, "layout": base}}
    div = pio.to_html(
        {"data": plain["data"], "layout": layout},
        config={**CONFIG, "responsive": True},
        include_plotlyjs=library,
        full_html=False,
        post_script=_data("print.js"),
        validate=False,
    )
    size = f"--width: {width}px; --height: {height}px; --least: {min(width, NARROWEST)}px"
    return f'<style>\n{_data("figure.css")}</style><div class="ldm-figure" style="{size}">{div}</div>'


def _data(name: str) -> str:
    """Read a file of `data/figure`."""
    return (resources.files("ldm_kit") / "data" / "figure" / name).read_text(encoding="utf-8")


def size_of(layout: Mapping[str, Any]) -> tuple[int, int]:
    """Return the width and height of a figure, from its layout or its template.

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
    """Choose black or white text, whichever contrasts more with this place (0 to 1) of a colour scale.

    Plotly chooses dark grey or white by brightness, which fails WCAG's 4.5 : 1 on middling colours.

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
    """Name the source of the judgements that a table was scored on, for a subtitle.

    Examples
    --------
    >>> judged_by(pd.DataFrame({"judgements": ["simulated"]}))
    'judged by simulated observers'
    """
    sources = [JUDGED_BY.get(name, name) for name in dict.fromkeys(table["judgements"]) if name]
    return f"judged by {' and '.join(sources)}" if sources else ""


def error_bars(rows: pd.DataFrame, value: str = "accuracy") -> dict[str, Any]:
    """Turn the columns ``ci_low`` and ``ci_high`` into plotly's error bars.

    Examples
    --------
    >>> rows = pd.DataFrame({"accuracy": [0.5], "ci_low": [0.4], "ci_high": [0.7]})
    >>> error_bars(rows)["array"].round(2).tolist()
    [0.2]
    """
    up, down = rows["ci_high"] - rows[value], rows[value] - rows["ci_low"]
    sides = {"array": up.to_numpy(), "arrayminus": down.to_numpy()}
    return {"type": "data", "symmetric": False, "thickness": 1.2, "width": 3, **sides}


def add_line(fig: go.Figure, value: float, text: str = "", *, axis: str = "y") -> None:
    """Draw a dashed line at a value of reference: chance, or zero."""
    draw, place = (fig.add_hline, "bottom left") if axis == "y" else (fig.add_vline, "top right")
    font = {"color": CHANCE_COLOUR, "size": 12}
    label = {"annotation": {"text": text, "font": font}, "annotation_position": place} if text else {}
    draw(**{axis: value}, line={"color": CHANCE_COLOUR, "dash": "dash", "width": 1.5}, **label)


def add_bounds(fig: go.Figure, table: pd.DataFrame) -> None:
    """Draw the table's chance line and its noise ceiling (a band), each where there is one for all rows."""
    chances = table["chance"].dropna().unique()
    if len(chances) == 1:
        add_line(fig, float(chances[0]), f"chance {chances[0]:.3f}")
    bounds = table[["ceiling_low", "ceiling_high"]].dropna().drop_duplicates()
    if len(bounds) == 1:
        low, high = bounds.iloc[0].astype(float)
        fig.add_hrect(
            y0=low,
            y1=high,
            fillcolor=CEILING_COLOUR,
            line_width=0,
            annotation={
                "text": f"noise ceiling {low:.3f}–{high:.3f}",
                "font": {"color": "#00694d", "size": 12},
            },
            annotation_position="top right",
        )


def noise_axis(fig: go.Figure, table: pd.DataFrame) -> None:
    """Label an axis of noise levels, with the signal's share of the variance below each where it is known.

    Examples
    --------
    >>> fig = figure("")
    >>> noise_axis(fig, pd.DataFrame({"noise_level": [0.3], "signal_share": [0.6]}))
    >>> fig.layout.xaxis.ticktext
    ('0.3<br>60',)
    """
    shares = signal_shares(table)
    if not shares:
        fig.update_xaxes(title="noise level (position in the training schedule)")
        return
    by_category = fig.layout.xaxis.type == "category"
    shown: list[float] = []
    for level in shares:  # on an axis of numbers, as many as have room
        if by_category or not shown or level - shown[-1] > 0.09:
            shown.append(level)
    fig.update_xaxes(
        title="noise level<br>signal's share of the variance in %",
        tickvals=[f"{level:g}" if by_category else level for level in shown],
        ticktext=[f"{level:g}<br>{percent(shares[level]).removesuffix(' %')}" for level in shown],
        tickangle=0,
    )


def signal_shares(table: pd.DataFrame) -> dict[Any, float]:
    """Return each noise level's share of the signal; empty if one is unknown, or models differ in theirs.

    Examples
    --------
    >>> signal_shares(pd.DataFrame({"noise_level": [0.9, 0.3], "signal_share": [0.1, 0.6]}))
    {0.3: 0.6, 0.9: 0.1}
    """
    if "signal_share" not in table or not len(table):
        return {}
    shares = table.groupby("noise_level")["signal_share"].agg(["min", "max"])
    one = (shares["max"] - shares["min"] < 1e-6).all()  # false for NaN
    return dict(zip(shares.index.astype(float), shares["max"].astype(float), strict=True)) if one else {}


def percent(share: float) -> str:
    """Format a share so that neither a little noise nor a little signal is rounded away.

    Examples
    --------
    >>> [percent(share) for share in (1, 0.99915, 0.6, 0.0047, 2e-9, 0)]
    ['100 %', '99.9 %', '60 %', '0.47 %', '<0.1 %', '0 %']
    """
    value = 100 * share
    if 0 < value < 0.1 or 99.95 <= value < 100:
        return "<0.1 %" if value < 1 else ">99.9 %"
    return f"{value:.2g} %" if value < 10 else f"{value:.1f} %" if 99.5 < value < 100 else f"{value:.0f} %"
