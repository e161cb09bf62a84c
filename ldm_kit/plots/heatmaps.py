"""Heatmaps: alignment and gains by block and noise level, and named dimensions by block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from ldm_kit.plots.curves import one_conditioning
from ldm_kit.plots.template import (
    DIVERGING,
    INK,
    SCALE,
    escaped,
    figure,
    ink_on,
    judged_by,
    noise_axis,
)
from ldm_kit.tables import in_network_order


def block_noise_heatmap(
    table: pd.DataFrame,
    conditioning: str | None = None,
    *,
    to_ceiling: bool = False,
    marked: Mapping[str, tuple[str, float]] | None = None,
) -> go.Figure:
    """Draw alignment as a map, blocks in network order × noise levels.

    Parameters
    ----------
    table : pandas.DataFrame
        The tidy table, one row per cell.
    conditioning : str, optional
        Which to draw, if the table holds several.
    to_ceiling : bool
        Whether the scale reaches to the noise ceiling, where the table has one, so that colour shows the
        share of what is possible; otherwise to the highest cell, so that small differences show.
    marked : mapping of str to (block, noise level), optional
        Cells to frame, each with a letter.

    Returns
    -------
    plotly.graph_objects.Figure
        The colour scale starts at chance, so that dark means "not human". Chance and ceiling are named on it.

    Raises
    ------
    BadInputError
        If the table holds several conditionings and none is chosen.

    Examples
    --------
    >>> from ldm_kit.tables import tidy
    >>> cells = [{"block": "a", "depth": 0, "noise_level": level, "accuracy": level} for level in (0.4, 0.5)]
    >>> block_noise_heatmap(tidy(cells)).data[0].z.tolist()
    [[0.4, 0.5]]
    """
    cells = one_conditioning(table, conditioning)
    grid, half = _by_block_and_level(cells, "accuracy")
    scale = _scale(cells, float(grid.min().min()), float(grid.max().max()), to_ceiling)
    low, span = scale["zmin"], max(scale["zmax"] - scale["zmin"], 1e-9)
    name = str(cells["conditioning"].iloc[0]) or "as given"
    subtitle = f"odd-one-out accuracy ± half of the 95 % interval, conditioning {name}, {judged_by(cells)}"
    fig = _map(
        cells,
        grid,
        [[_cell(f"{v:.3f}", e, ink_on((v - low) / span)) for v, e in rows] for rows in _pairs(grid, half)],
        "Alignment by block and noise level",
        subtitle,
        colorscale=SCALE,
        **scale,
        hovertemplate="%{y}<br>noise level %{x}<br>accuracy %{z:.3f}<extra></extra>",
    )
    for letter, (block, level) in (marked or {}).items():
        _frame(fig, letter, list(grid.columns).index(level), list(grid.index).index(block))
    return fig


def gain_heatmap(table: pd.DataFrame, *, title: str = "What the prompt adds") -> go.Figure:
    """Draw gains as a map, blocks in network order × noise levels, each with its interval.

    Parameters
    ----------
    table : pandas.DataFrame
        From `ldm_kit.compare`: rows with ``block``, ``depth``, ``noise_level``, ``difference``, ``ci_low``,
        ``ci_high``, and, where they were corrected, ``low_corrected`` and ``high_corrected``.
    title : str

    Returns
    -------
    plotly.graph_objects.Figure
        Orange is a gain, blue a loss. A gain is set bold if its (corrected) interval excludes zero.

    Examples
    --------
    >>> rows = {"block": ["a"], "depth": [0], "noise_level": [0.3], "difference": [0.1], "judgements": ["human"]}
    >>> gain_heatmap(pd.DataFrame(rows).assign(ci_low=0.05, ci_high=0.15)).data[0].text[0][0]
    '<span style="color:#000000"><b>+0.100</b><br>±0.050</span>'
    """
    grid, half = _by_block_and_level(table, "difference")
    corrected = "low_corrected" in table
    low, high = ("low_corrected", "high_corrected") if corrected else ("ci_low", "ci_high")
    excludes_zero = (table[low] > 0) | (table[high] < 0)
    bold, _ = _by_block_and_level(table.assign(bold=excludes_zero.astype(float)), "bold")
    reach = max(0.02, float(table["difference"].abs().max()))
    text = [
        [
            _cell(f"<b>{v:+.3f}</b>" if b else f"{v:+.3f}", e, ink_on((v / reach + 1) / 2, DIVERGING))
            for v, e, b in rows
        ]
        for rows in _pairs(grid, half, bold)
    ]
    return _map(
        table,
        grid,
        text,
        title,
        f"difference in odd-one-out accuracy ± half of the 95 % interval, {judged_by(table)}",
        colorscale=DIVERGING,
        zmin=-reach,
        zmax=reach,
        colorbar={"title": {"text": "gain"}, "tickformat": "+.2f"},
        hovertemplate="%{y}<br>noise level %{x}<br>gain %{z:+.3f}<extra></extra>",
    )


def _by_block_and_level(table: pd.DataFrame, value: str) -> tuple[Any, Any]:
    """Pivot a value, and half of its interval, to blocks in network order × noise levels."""
    table = table.assign(half=(table["ci_high"] - table["ci_low"]) / 2)
    both = table.pivot_table(index="block", columns="noise_level", values=[value, "half"], dropna=False)
    both = both.loc[in_network_order(table)]
    return both[value], both["half"]


def _pairs(*grids: pd.DataFrame) -> list[list[tuple[Any, ...]]]:
    """Pair up the cells of grids, row by row."""
    return [list(zip(*rows, strict=True)) for rows in zip(*(grid.to_numpy() for grid in grids), strict=True)]


def _cell(value: str, half: float, ink: str) -> str:
    """Write a cell's number and, below it, half of its interval where there is one."""
    if "nan" in value:  # not measured
        return ""
    below = f"<br>±{half:.3f}" if half == half else ""
    return f'<span style="color:{ink}">{value}{below}</span>'


def _map(
    table: pd.DataFrame, grid: pd.DataFrame, text: list[list[str]], title: str, subtitle: str, **heat: Any
) -> go.Figure:
    """Draw a labelled heatmap of blocks × noise levels."""
    fig = figure(title, subtitle, height=max(360, 56 * len(grid) + 160))
    fig.add_heatmap(
        z=grid.to_numpy(),
        x=[f"{level:g}" for level in grid.columns],
        y=list(grid.index),
        text=text,
        texttemplate="%{text}",
        textfont={"size": 12},
        **heat,
    )
    fig.update_xaxes(type="category")
    noise_axis(fig, table)
    return fig.update_yaxes(title="block, input at the top", autorange="reversed")


def _scale(cells: pd.DataFrame, lowest: float, highest: float, to_ceiling: bool) -> dict[str, Any]:
    """Make a colour scale from chance up, with chance and noise ceiling named on it."""
    chance = float(cells["chance"].min()) if cells["chance"].notna().any() else lowest
    low, high = min(chance, lowest), highest
    ticks = {chance: f"{chance:.3f} chance"}
    ceiling_low, ceiling_high = (float(cells[name].max()) for name in ("ceiling_low", "ceiling_high"))
    if to_ceiling and ceiling_low == ceiling_low and ceiling_high == ceiling_high:  # NaN: unknown
        high = max(highest, ceiling_high)
        ticks[ceiling_low] = f"{ceiling_low:.3f} ceiling"
    # Round numbers where no named one stands.
    step = 0.1 if high - low > 0.25 else 0.05 if high - low > 0.12 else 0.02
    for i in range(int(low / step), int(high / step) + 1):
        tick = round(i * step, 2)
        if low <= tick <= high and all(abs(tick - named) > 0.07 * (high - low) for named in ticks):
            ticks[tick] = f"{tick:.2f}"
    bar = {"title": {"text": "accuracy"}, "tickvals": list(ticks), "ticktext": list(ticks.values())}
    return {"zmin": low, "zmax": high, "colorbar": bar}


def _frame(fig: go.Figure, letter: str, column: int, row: int) -> None:
    """Frame a cell of a heatmap, with its letter in the corner."""
    box = {"x0": column - 0.48, "x1": column + 0.48, "y0": row - 0.47, "y1": row + 0.47}
    dash = "solid" if letter == "A" else "dash"
    fig.add_shape(type="rect", **box, line={"color": "#D55E00", "width": 4, "dash": dash})
    fig.add_annotation(
        x=column - 0.42,
        y=row - 0.3,
        text=f"<b>{letter}</b>",
        showarrow=False,
        font={"size": 14, "color": INK},
        bgcolor="#ffffff",
        borderpad=1,
    )


def dimension_heatmap(table: pd.DataFrame, *, title: str = "Human dimensions by block") -> go.Figure:
    """Draw how well each block predicts each named dimension.

    Parameters
    ----------
    table : pandas.DataFrame
        From `ldm_kit.dimension_regression`: rows with ``block``, ``depth``, ``dimension`` and ``r2``.
    title : str

    Returns
    -------
    plotly.graph_objects.Figure
        Dimensions from best to worst predicted. R² below zero (worse than the mean) is drawn as zero.

    Examples
    --------
    >>> rows = {"block": "a", "depth": 0, "dimension": ["red", "round"], "r2": [-0.1, 0.4]}
    >>> dimension_heatmap(pd.DataFrame(rows)).data[0].z.tolist()
    [[0.4], [0.0]]
    """
    rows = table[table["dimension"] != ""]
    grid = rows.pivot_table(index="dimension", columns="block", values="r2")[in_network_order(rows)]
    grid = grid.loc[grid.max(axis=1).sort_values(ascending=False).index]
    subtitle = "cross-validated R² on held-out objects (0: no better than the mean)"
    fig = figure(title, subtitle, height=max(360, 17 * len(grid) + 170))
    fig.add_heatmap(
        z=grid.clip(lower=0).to_numpy(),
        x=list(grid.columns),
        y=escaped(grid.index),
        customdata=grid.to_numpy(),
        hovertemplate="%{y}<br>%{x}: R² = %{customdata:.3f}<extra></extra>",
        colorscale="Blues",
        zmin=0,
        zmax=max(0.05, float(grid.max().max())),
        colorbar={"title": {"text": "R²"}},
    )
    fig.update_xaxes(title="block, in network order", type="category")
    return fig.update_yaxes(autorange="reversed", tickfont={"size": 11}, dtick=1)
