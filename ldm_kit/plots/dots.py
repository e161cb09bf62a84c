"""Dots and bars with their intervals: categories, dimensions, differences, probes, and players of the game."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from ldm_kit.errors import BadInputError
from ldm_kit.plots.template import COLOURS, add_bounds, add_line, error_bars, escaped, figure, judged_by
from ldm_kit.tables import in_network_order

PATTERNS = ("", "/", ".", "x")


def category_dots(table: pd.DataFrame, *, title: str = "By category") -> go.Figure:
    """Draw accuracy by category, one dot with its 95 % interval each.

    Parameters
    ----------
    table : pandas.DataFrame
        Rows with ``category``, ``accuracy``, ``ci_low`` and ``ci_high``, drawn from bottom to top.
    title : str

    Returns
    -------
    plotly.graph_objects.Figure
        With the chance line.

    Examples
    --------
    >>> rows = {"category": ["fruit"], "accuracy": [0.5], "ci_low": [0.4], "ci_high": [0.6], "chance": [1 / 3]}
    >>> category_dots(pd.DataFrame(rows).assign(judgements="human")).data[0].y
    ('fruit',)
    """
    subtitle = f"odd-one-out accuracy with 95 % intervals, {judged_by(table)}"
    fig = _dots(table, "accuracy", "category", title, subtitle)
    chance = float(table["chance"].iloc[0])
    add_line(fig, chance, f"chance {chance:.3f}", axis="x")
    return fig.update_xaxes(title="odd-one-out accuracy")


def dimension_dots(table: pd.DataFrame, *, title: str = "By dimension") -> go.Figure:
    """Draw how well the 20 best named dimensions are predicted, one dot with its 95 % interval each.

    Parameters
    ----------
    table : pandas.DataFrame
        From `ldm_kit.dimension_regression`, of one cell: ``dimension``, ``r2``, ``r2_low``, ``r2_high``.
    title : str

    Examples
    --------
    >>> rows = {"dimension": ["red"], "r2": [0.5], "r2_low": [0.4], "r2_high": [0.6]}
    >>> dimension_dots(pd.DataFrame(rows)).data[0].x.tolist()
    [0.5]
    """
    rows = table[table["dimension"] != ""].sort_values("r2").tail(20)
    bars = rows.assign(ci_low=rows["r2_low"], ci_high=rows["r2_high"])
    left_out = f"; the {len(rows)} best of {len(table)}" if len(table) > len(rows) else ""
    fig = _dots(bars, "r2", "dimension", title, f"R² on held-out objects with 95 % intervals{left_out}")
    add_line(fig, 0, "no better than the mean", axis="x")
    return fig.update_xaxes(title="R²")


def difference_dots(
    table: pd.DataFrame, *, y: str = "category", title: str = "How two cells differ", subtitle: str = ""
) -> go.Figure:
    """Draw differences in accuracy with their 95 % intervals, one dot per row.

    Parameters
    ----------
    table : pandas.DataFrame
        Rows with ``difference``, ``ci_low``, ``ci_high`` and `y`, drawn from bottom to top.
    y : str
        The column that names the rows.
    title, subtitle : str

    Examples
    --------
    >>> rows = {"category": ["all"], "difference": [0.1], "ci_low": [0.0], "ci_high": [0.2]}
    >>> difference_dots(pd.DataFrame(rows)).data[0].y
    ('all',)
    """
    fig = _dots(table, "difference", y, title, subtitle)
    add_line(fig, 0, axis="x")
    return fig.update_xaxes(title="difference in odd-one-out accuracy", tickformat="+.2f")


def _dots(table: pd.DataFrame, value: str, y: str, title: str, subtitle: str) -> go.Figure:
    """Draw one dot with its interval per row, from bottom to top."""
    fig = figure(title, subtitle, height=max(320, 22 * len(table) + 160))
    fig.add_scatter(
        x=table[value],
        y=escaped(table[y]),
        error_x=error_bars(table, value),
        mode="markers",
        marker={"size": 9, "color": COLOURS[0]},
    )
    return fig.update_xaxes(tickformat=".2f")


def agreement_dots(
    table: pd.DataFrame,
    ceiling: tuple[float, float] | None = None,
    *,
    title: str = "Who names the same odd one as you?",
) -> go.Figure:
    """Draw a player's agreement with the judgements and with each block, with exact intervals.

    Parameters
    ----------
    table : pandas.DataFrame
        From a game's `Session.scores`.
    ceiling : (float, float), optional
        Bounds of the player's personal ceiling, from `Consistency.ceiling`; drawn as a band.
    title : str

    Returns
    -------
    plotly.graph_objects.Figure
        Blocks in blue, all others in green; with the chance line.

    Raises
    ------
    BadInputError
        If nobody can be compared yet.

    Examples
    --------
    >>> rows = {"other": ["mid_block"], "block": ["mid_block"], "accuracy": [0.5], "ci_low": [0.2], "ci_high": [0.8]}
    >>> table = pd.DataFrame(rows).assign(agreed=4, n_triplets=8, chance=1 / 3)
    >>> agreement_dots(table, (0.7, 0.9)).data[0].x.tolist()
    [0.5]
    """
    shown = table[table["n_triplets"] > 0]
    if shown.empty:
        raise BadInputError("There is no answer to compare yet. Play a trial first.")
    known = ceiling is not None and ceiling[0] == ceiling[0]  # NaN without repeats
    low, high = ceiling if ceiling is not None and known else (0.0, 0.0)
    band = f"; yellow: the personal ceiling, {low:.2f} to {high:.2f}" if known else ""
    n = int(shown["n_triplets"].max())
    fig = figure(title, f"share of {n} trials answered alike, with exact 95 % intervals{band}", width=860)
    colours = shown["block"].eq("").map({True: COLOURS[2], False: COLOURS[0]})
    for colour, rows in shown.groupby(colours, sort=False):
        fig.add_scatter(
            x=rows["accuracy"],
            y=rows["other"],
            error_x=error_bars(rows) | {"thickness": 2, "width": 6},
            mode="markers",
            marker={"size": 11, "color": colour},
            customdata=rows[["agreed", "n_triplets", "ci_low", "ci_high"]].to_numpy(),
            hovertemplate=(
                "%{y}: %{customdata[0]} of %{customdata[1]}<br>[%{customdata[2]:.2f}, %{customdata[3]:.2f}]"
                "<extra></extra>"
            ),
            showlegend=False,
        )
    chance = float(shown["chance"].iloc[0])
    add_line(fig, chance, f"chance {chance:.2f}", axis="x")
    if known:
        yellow = "rgba(230, 159, 0, 0.25)"  # a ceiling of 1 has no width, and is drawn all the same
        fig.add_vrect(x0=low, x1=max(high, low + 0.006), fillcolor=yellow, line_width=0, layer="below")
    fig.update_xaxes(title="agreement with the player", range=[-0.02, 1.02], tickformat=".1f")
    # From top to bottom, with room for the label "chance" above the first.
    rows_axis = {"type": "category", "categoryorder": "array", "categoryarray": list(shown["other"])}
    fig.update_yaxes(range=[len(shown) - 0.4, -0.9], **rows_axis)
    return fig.update_layout(height=200 + 46 * len(shown))


def grouped_bars(
    table: pd.DataFrame,
    *,
    title: str = "A probe against zero-shot",
    y_title: str = "held-out odd-one-out accuracy",
) -> go.Figure:
    """Draw the accuracies of probes side by side, block by block, with 95 % intervals, the chance line and the ceiling.

    Parameters
    ----------
    table : pandas.DataFrame
        The tidy table; one row for each block and probe.
    title, y_title : str

    Examples
    --------
    >>> from ldm_kit.tables import tidy
    >>> rows = [{"block": "mid_block", "depth": 0, "probe": probe, "accuracy": 0.4} for probe in ("none", "linear")]
    >>> [bar.name for bar in grouped_bars(tidy(rows)).data]
    ['none', 'linear']
    """
    blocks = in_network_order(table)
    fig = figure(title, f"95 % intervals, {judged_by(table)}", barmode="group")
    for i, (name, rows) in enumerate(table.groupby("probe", sort=False)):
        rows = rows.set_index("block").reindex(blocks)
        fig.add_bar(
            x=blocks,
            y=rows["accuracy"],
            error_y=error_bars(rows),
            name=str(name),
            marker={"color": COLOURS[i % len(COLOURS)], "pattern": {"shape": PATTERNS[i % len(PATTERNS)]}},
        )
    add_bounds(fig, table)
    fig.update_xaxes(title="block", type="category")
    # Bars start below chance, not at zero: zero accuracy means nothing in a choice of three.
    lowest = table[["ci_low", "accuracy"]].min().min()
    highest = table[["ci_high", "accuracy", "ceiling_high"]].max().max()
    span = [min(0.3, float(lowest) - 0.02), float(highest) + 0.02]
    return fig.update_yaxes(title=y_title, tickformat=".2f", range=span)
