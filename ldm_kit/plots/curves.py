"""Curves: alignment over blocks, noise levels and models, and what a prompt or a probe adds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from ldm_kit.errors import BadInputError, unknown_name
from ldm_kit.plots.template import (
    COLOURS,
    add_bounds,
    add_line,
    error_bars,
    figure,
    judged_by,
    noise_axis,
    percent,
    signal_shares,
)
from ldm_kit.tables import in_network_order, only

DASHES = ("solid", "dash", "dot", "dashdot")


def one_conditioning(table: pd.DataFrame, conditioning: str | None) -> pd.DataFrame:
    """Select one conditioning; several without a choice are an error, so that they are never mixed."""
    if conditioning is not None:
        return only(table, conditioning=conditioning)
    found = list(dict.fromkeys(table["conditioning"]))
    if len(found) > 1:
        raise BadInputError(
            f"The table holds the conditionings {found}. Choose which to draw with `conditioning=`."
        )
    return table


def block_curves(table: pd.DataFrame, conditioning: str | None = None) -> go.Figure:
    """Draw alignment over the blocks in network order, one curve per noise level.

    Parameters
    ----------
    table : pandas.DataFrame
        The tidy table, one row per cell.
    conditioning : str, optional
        Which to draw, if the table holds several.

    Returns
    -------
    plotly.graph_objects.Figure
        With 95 % intervals, the chance line, and the noise ceiling where the table has one. The bottleneck
        is marked.

    Raises
    ------
    BadInputError
        If the table holds several conditionings and none is chosen.

    Examples
    --------
    >>> from ldm_kit.tables import tidy
    >>> cells = [{"block": name, "depth": i, "noise_level": 0.3, "accuracy": 0.4} for i, name in enumerate("ab")]
    >>> block_curves(tidy(cells)).data[0].x
    ('a', 'b')
    """
    cells = one_conditioning(table, conditioning)
    blocks = in_network_order(cells)
    fig = _figure("Alignment through the network", cells)
    shares = signal_shares(cells)
    for i, (level, rows) in enumerate(cells.groupby("noise_level")):
        rows = rows.set_index("block").reindex(blocks)
        name = f"{level:g} ({percent(shares[level])})" if shares else f"{level:g}"
        _curve(fig, blocks, rows, name, i, marker={"symbol": i, "size": 9})
    if "mid_block" in blocks:
        fig.add_vline(x=blocks.index("mid_block"), line={"color": "#dddddd", "width": 18}, layer="below")
        fig.add_annotation(x="mid_block", y=1, yref="paper", text="bottleneck", showarrow=False, font_size=12)
    fig.update_layout(legend_title_text="noise level" + ("<br>(signal's share)" if shares else ""))
    fig.update_xaxes(title="block, in network order", type="category", categoryarray=blocks)
    return fig


def noise_curves(table: pd.DataFrame, blocks: list[str] | None = None) -> go.Figure:
    """Draw alignment over the noise level, one curve per block (and one dash per conditioning).

    Parameters
    ----------
    table : pandas.DataFrame
        The tidy table.
    blocks : list of str, optional
        By default all.

    Returns
    -------
    plotly.graph_objects.Figure
        With 95 % intervals, the chance line, and the noise ceiling where the table has one. Conditionings of a
        single block differ in colour, too.

    Examples
    --------
    >>> from ldm_kit.tables import tidy
    >>> cells = [{"block": "a", "depth": 0, "noise_level": level, "accuracy": 0.4} for level in (0.1, 0.9)]
    >>> noise_curves(tidy(cells)).data[0].x.tolist()
    [0.1, 0.9]
    """
    blocks = blocks or in_network_order(table)
    conditionings = list(dict.fromkeys(table["conditioning"]))
    fig = _figure("Alignment over noise", table)
    for i, block in enumerate(blocks):
        found = only(table, block=block)
        for j, conditioning in enumerate(conditionings):
            rows = found[found["conditioning"] == conditioning].sort_values("noise_level")
            name = f"{block}, {conditioning}" if len(conditionings) > 1 else block
            colour = i if len(blocks) > 1 else j  # colours are distinguished more easily than dashes
            marker = {"symbol": i, "size": 8}
            _curve(fig, rows["noise_level"], rows, name, colour, DASHES[j % len(DASHES)], marker=marker)
    fig.update_xaxes(range=[-0.03, 1.03])
    noise_axis(fig, table)
    return fig


def model_curves(table: pd.DataFrame, noise_level: float) -> go.Figure:
    """Draw alignment over relative depth, one curve per model.

    Parameters
    ----------
    table : pandas.DataFrame
        From `ldm_kit.alignment_of_models`: the tidy table with `relative_depth`.
    noise_level : float
        Which to draw of models that take noise; models that take none are drawn as they are.

    Returns
    -------
    plotly.graph_objects.Figure
        With 95 % intervals, the chance line and the noise ceiling where known. The bottleneck of a U-Net is
        a star. A model of one block is a dotted line across, its interval at the right.

    Raises
    ------
    UnknownNameError
        If no model has that noise level.

    Examples
    --------
    >>> from ldm_kit.tables import tidy
    >>> cell = {"block": "a", "depth": 0, "relative_depth": 1.0, "noise_level": 0.3, "accuracy": 0.4}
    >>> [curve.x for curve in model_curves(tidy([{**cell, "model": "m"}]), 0.3).data[:1]]
    [(0, 1)]
    """
    levels = table.groupby("model", sort=False)["noise_level"].transform("max")
    shown = table[(table["noise_level"] == noise_level) | (levels == 0)]
    if not (shown["noise_level"] == noise_level).any():
        found = sorted(table["noise_level"].unique())
        raise unknown_name("noise level", noise_level, found, "Extract it first.")
    fig = _figure("Alignment through each network", shown, f"; denoisers at noise level {noise_level:g}")
    names = list(dict.fromkeys(shown["model"]))
    for i, name in enumerate(names):
        rows = shown[shown["model"] == name].sort_values("depth")
        dash = DASHES[i // len(COLOURS) % len(DASHES)] if len(rows) > 1 else "dot"
        if len(rows) == 1:
            line = {"color": COLOURS[i % len(COLOURS)], "dash": dash}
            across: dict[str, Any] = {
                "x": [0, 1],
                "y": [rows["accuracy"].item()] * 2,
                "mode": "lines",
                "line": line,
            }
            fig.add_scatter(**across, legendgroup=name, showlegend=False, hoverinfo="skip")
        star = (rows["block"] == "mid_block").to_numpy()
        shift = 0.008 * (i - (len(names) - 1) / 2)  # so that error bars do not cover each other
        _curve(
            fig,
            rows["relative_depth"] + shift,
            rows,
            name,
            i,
            dash,
            legendgroup=name,
            marker={"symbol": np.where(star, "star", "circle"), "size": np.where(star, 15, 8)},
            text=rows["block"],
            hovertemplate=f"{name}<br>%{{text}}<br>accuracy %{{y:.3f}}<extra></extra>",
        )
    if (shown["block"] == "mid_block").any():
        marker = {"symbol": "star", "size": 13, "color": "#444444"}
        fig.add_scatter(x=[None], y=[None], mode="markers", name="bottleneck", marker=marker)
    fig.update_xaxes(title="relative depth, 0 the first block and 1 the last", range=[-0.05, 1.05])
    fig.update_layout(legend_title_text="model", height=520)
    return fig


def gain_curves(
    table: pd.DataFrame,
    *,
    by: str = "block",
    x: str = "noise_level",
    title: str = "What the prompt adds",
    legend: str = "",
) -> go.Figure:
    """Draw differences in accuracy with their intervals around zero.

    Parameters
    ----------
    table : pandas.DataFrame
        Rows with ``difference``, ``ci_low`` and ``ci_high`` (of the difference), `by` and `x`.
    by : str
        One curve for each.
    x : str
        What runs along the axis.
    title, legend : str

    Returns
    -------
    plotly.graph_objects.Figure
        A curve whose interval covers the zero line shows no gain.

    Examples
    --------
    >>> rows = {"block": ["a"], "depth": [0], "noise_level": [0.3], "difference": [0.1], "judgements": ["human"]}
    >>> gain_curves(pd.DataFrame(rows).assign(ci_low=0.0, ci_high=0.2)).data[0].y.tolist()
    [0.1]
    """
    names = in_network_order(table) if by == "block" else list(dict.fromkeys(table[by]))
    fig = figure(title, f"difference in odd-one-out accuracy, 95 % intervals, {judged_by(table)}")
    for i, name in enumerate(names):
        rows = table[table[by] == name].sort_values("depth" if x == "block" else x)
        dash = "dash" if i >= len(COLOURS) else "solid"
        _curve(fig, rows[x], rows, str(name), i, dash, "difference", marker={"symbol": i, "size": 9})
    add_line(fig, 0)
    fig.update_layout(legend_title_text=legend or by.replace("_", " "))
    fig.update_xaxes(title=x.replace("_", " "))
    if x == "noise_level":
        noise_axis(fig, table)
    fig.update_yaxes(title="gain in accuracy", tickformat="+.2f")
    return fig


def _figure(title: str, table: pd.DataFrame, more: str = "") -> go.Figure:
    """Begin a figure of accuracies, with chance and ceiling."""
    fig = figure(title, f"odd-one-out accuracy with 95 % intervals, {judged_by(table)}{more}")
    fig.update_yaxes(title="odd-one-out accuracy", tickformat=".2f")
    add_bounds(fig, table)
    return fig


def _curve(
    fig: go.Figure,
    x: Any,
    rows: pd.DataFrame,
    name: str,
    colour: int,
    dash: str = "solid",
    value: str = "accuracy",
    **trace: Any,
) -> None:
    """Add a curve with the error bars of its rows."""
    fig.add_scatter(
        x=x,
        y=rows[value],
        error_y=error_bars(rows, value),
        name=name,
        mode="lines+markers",
        line={"color": COLOURS[colour % len(COLOURS)], "dash": dash},
        **trace,
    )
