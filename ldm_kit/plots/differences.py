"""What does it add? Differences with their intervals: words over none, a probe over none."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from ldm_kit.plots.alignment import error_bars, noise_axis
from ldm_kit.plots.template import (
    CHANCE,
    COLOURS,
    DIVERGING,
    add_ceiling,
    add_chance,
    escaped,
    figure,
    ink_on,
    judged_by,
)
from ldm_kit.tables import in_network_order


def gain_curves(
    table: pd.DataFrame,
    *,
    value: str = "difference",
    by: str = "block",
    x: str = "noise_level",
    title: str = "What words add",
    subtitle: str = "",
    legend: str = "",
) -> go.Figure:
    """Draw differences in accuracy with their intervals around zero.

    Parameters
    ----------
    table : pandas.DataFrame
        Rows with `value`, ``ci_low`` and ``ci_high`` (of the difference), `by` and `x`.
    value : str
        The difference's column.
    by : str
        One curve for each.
    x : str
        What runs along the axis.
    title, subtitle, legend : str

    Returns
    -------
    plotly.graph_objects.Figure
        A curve whose interval covers the zero line shows no gain.

    Examples
    --------
    >>> lk.plots.gain_curves(gains)  # doctest: +SKIP
    """
    names = in_network_order(table) if by == "block" else list(dict.fromkeys(table[by]))
    fig = figure(title, subtitle or f"difference in odd-one-out accuracy, 95 % intervals, {judged_by(table)}")
    order = in_network_order(table) if x == "block" else None
    for i, name in enumerate(names):
        rows = table[table[by] == name].sort_values("depth" if order else x)
        fig.add_scatter(
            x=rows[x],
            y=rows[value],
            error_y=error_bars(rows, value),
            name=str(name),
            mode="lines+markers",
            marker={"symbol": i, "size": 9},
            line={"color": COLOURS[i % len(COLOURS)], "dash": "dash" if i >= len(COLOURS) else "solid"},
        )
    fig.add_hline(y=0, line={"color": CHANCE, "dash": "dash", "width": 1.5})
    fig.update_layout(legend_title_text=legend or by.replace("_", " "))
    fig.update_xaxes(title=x.replace("_", " "))
    if x == "noise_level":
        noise_axis(fig, table)
    fig.update_yaxes(title="gain in accuracy", tickformat="+.2f")
    return fig


def grouped_bars(
    table: pd.DataFrame,
    *,
    x: str = "block",
    by: str = "probe",
    title: str = "A probe against zero-shot",
    y_title: str = "held-out odd-one-out accuracy",
) -> go.Figure:
    """Draw accuracies side by side with 95 % intervals, the chance line and the ceiling.

    Parameters
    ----------
    table : pandas.DataFrame
        The tidy table; one row for each `x` and `by`.
    x, by : str
        Columns: what runs along the axis, and what stands side by side.
    title, y_title : str

    Examples
    --------
    >>> lk.plots.grouped_bars(result.summary())  # doctest: +SKIP
    """
    order = in_network_order(table) if x == "block" else list(dict.fromkeys(table[x]))
    fig = figure(title, f"95 % intervals, {judged_by(table)}", barmode="group")
    for i, (name, rows) in enumerate(table.groupby(by, sort=False)):
        rows = rows.set_index(x).reindex(order)
        fig.add_bar(
            x=[str(item) for item in order],
            y=rows["accuracy"],
            error_y=error_bars(rows),
            name=str(name),
            marker={"color": COLOURS[i % len(COLOURS)], "pattern": {"shape": ("", "/", ".", "x")[i % 4]}},
        )
    add_chance(fig, table)
    add_ceiling(fig, table)
    lowest = table[["ci_low", "accuracy"]].min().min()
    fig.update_xaxes(title=x.replace("_", " "), type="category")
    # Bars start below chance, not at zero: zero accuracy means nothing in a choice of three.
    highest = table[["ci_high", "accuracy", "ceiling_high"]].max().max()
    span = [min(0.3, float(lowest) - 0.02), float(highest) + 0.02]
    fig.update_yaxes(title=y_title, tickformat=".2f", range=span)
    return fig


def category_dots(table: pd.DataFrame, *, title: str = "By category") -> go.Figure:
    """Draw accuracy by category, one dot with its 95 % interval each.

    Parameters
    ----------
    table : pandas.DataFrame
        Rows with ``category``, ``accuracy``, ``ci_low`` and ``ci_high``, drawn from bottom to top.
    title : str

    Examples
    --------
    >>> lk.plots.category_dots(lk.accuracy_by_category(cell, triplets, categories))  # doctest: +SKIP
    """
    fig = figure(title, f"odd-one-out accuracy with 95 % intervals, {judged_by(table)}")
    fig.add_scatter(
        x=table["accuracy"],
        y=escaped(table["category"]),
        error_x=error_bars(table),
        mode="markers",
        marker={"size": 9, "color": COLOURS[0]},
    )
    chance = float(table["chance"].iloc[0])
    fig.add_vline(x=chance, line={"color": CHANCE, "dash": "dash"}, annotation_text=f"chance {chance:.3f}")
    fig.update_layout(height=max(320, 22 * len(table) + 160))
    fig.update_xaxes(title="odd-one-out accuracy", tickformat=".2f")
    return fig


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
    >>> lk.plots.dimension_heatmap(lk.dimension_regression(store, norms))  # doctest: +SKIP
    """
    rows = table[table["dimension"] != ""]
    grid = rows.pivot_table(index="dimension", columns="block", values="r2")[in_network_order(rows)]
    grid = grid.loc[grid.max(axis=1).sort_values(ascending=False).index]
    fig = figure(title, "cross-validated R² on held-out objects (0: no better than the mean)")
    fig.add_heatmap(
        z=grid.clip(lower=0).to_numpy(),
        x=list(grid.columns),
        y=[str(name) for name in grid.index],
        customdata=grid.to_numpy(),
        hovertemplate="%{y}<br>%{x}: R² = %{customdata:.3f}<extra></extra>",
        colorscale="Blues",
        zmin=0,
        zmax=max(0.05, float(grid.max().max())),
        colorbar={"title": {"text": "R²"}},
    )
    fig.update_layout(height=max(360, 17 * len(grid) + 170))
    fig.update_xaxes(title="block, in network order", type="category")
    fig.update_yaxes(autorange="reversed", tickfont={"size": 11}, dtick=1)
    return fig


def dimension_dots(
    table: pd.DataFrame, *, most: int = 20, title: str = "By dimension", subtitle: str = ""
) -> go.Figure:
    """Draw how well each named dimension is predicted, one dot with its 95 % interval each.

    Parameters
    ----------
    table : pandas.DataFrame
        From `ldm_kit.dimension_regression`, of one cell: ``dimension``, ``r2``, ``r2_low``, ``r2_high``.
    most : int
        How many of the best to draw.
    title, subtitle : str

    Examples
    --------
    >>> rows = {"dimension": ["red"], "r2": [0.5], "r2_low": [0.4], "r2_high": [0.6]}
    >>> dimension_dots(pd.DataFrame(rows)).data[0].x.tolist()
    [0.5]
    """
    rows = table[table["dimension"] != ""].sort_values("r2").tail(most)
    bars = rows.assign(ci_low=rows["r2_low"], ci_high=rows["r2_high"])
    told = subtitle or "R² on held-out objects with 95 % intervals"
    left = f"; the {len(rows)} best of {len(table)}" if len(table) > len(rows) else ""
    fig = figure(title, f"{told}{left}")
    fig.add_scatter(
        x=rows["r2"],
        y=escaped(rows["dimension"]),
        error_x=error_bars(bars, "r2"),
        mode="markers",
        marker={"size": 9, "color": COLOURS[0]},
    )
    fig.add_vline(x=0, line={"color": CHANCE, "dash": "dash"}, annotation_text="no better than the mean")
    fig.update_layout(height=max(320, 22 * len(rows) + 160))
    fig.update_xaxes(title="R²", tickformat=".2f")
    return fig


def difference_dots(
    table: pd.DataFrame, *, y: str = "category", title: str = "How two cells differ", subtitle: str = ""
) -> go.Figure:
    """Draw differences in accuracy with their 95 % intervals, one dot a row.

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
    >>> difference_dots(pd.DataFrame(rows)).data[0].y.tolist()
    ['all']
    """
    fig = figure(title, subtitle)
    fig.add_scatter(
        x=table["difference"],
        y=escaped(table[y]),
        error_x=error_bars(table, "difference"),
        mode="markers",
        marker={"size": 9, "color": COLOURS[0]},
    )
    fig.add_vline(x=0, line={"color": CHANCE, "dash": "dash"})
    fig.update_layout(height=max(320, 22 * len(table) + 160))
    fig.update_xaxes(title="difference in odd-one-out accuracy", tickformat="+.2f")
    return fig


def gain_heatmap(table: pd.DataFrame, *, title: str = "What words add", subtitle: str = "") -> go.Figure:
    """Draw gains as a map, blocks in network order × noise levels, each with its interval.

    Parameters
    ----------
    table : pandas.DataFrame
        From `ldm_kit.compare`: rows with ``block``, ``depth``, ``noise_level``, ``difference``, ``ci_low``,
        ``ci_high``, and, where they were corrected, ``low_corrected`` and ``high_corrected``.
    title, subtitle : str

    Returns
    -------
    plotly.graph_objects.Figure
        Orange is a gain, blue a loss. A gain is set bold if its (corrected) interval excludes zero.

    Examples
    --------
    >>> lk.plots.gain_heatmap(gains[gains["a"] == "label"])  # doctest: +SKIP
    """
    blocks, levels = in_network_order(table), sorted(table["noise_level"].unique())
    cells = table.set_index(["block", "noise_level"])
    grid = [[float(cells.loc[(block, level), "difference"]) for level in levels] for block in blocks]
    reach = max(0.02, float(table["difference"].abs().max()))
    text = [[_gain_said(cells.loc[(block, level)], reach) for level in levels] for block in blocks]
    told = subtitle or f"difference in odd-one-out accuracy ± half of the 95 % interval, {judged_by(table)}"
    fig = figure(title, told, height=max(360, 56 * len(blocks) + 160))
    fig.add_heatmap(
        z=grid,
        x=[f"{level:g}" for level in levels],
        y=blocks,
        text=text,
        texttemplate="%{text}",
        textfont={"size": 12},
        colorscale=DIVERGING,
        zmin=-reach,
        zmax=reach,
        colorbar={"title": {"text": "gain"}, "tickformat": "+.2f"},
        hovertemplate="%{y}<br>noise level %{x}<br>gain %{z:+.3f}<extra></extra>",
    )
    fig.update_xaxes(type="category")
    noise_axis(fig, table)
    fig.update_yaxes(title="block, input at the top", autorange="reversed")
    return fig


def _gain_said(row: pd.Series, reach: float) -> str:
    half = (row["ci_high"] - row["ci_low"]) / 2
    told = f"{row['difference']:+.3f}"
    sure = row.get("low_corrected", row["ci_low"]) > 0 or row.get("high_corrected", row["ci_high"]) < 0
    text = (f"<b>{told}</b>" if sure else told) + (f"<br>±{half:.3f}" if half == half else "")
    ink = ink_on((row["difference"] / reach + 1) / 2, DIVERGING)
    return f'<span style="color:{ink}">{text}</span>'
