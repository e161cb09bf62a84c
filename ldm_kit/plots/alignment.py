"""Where is the human? Alignment by block and noise level, as a map and as curves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from ldm_kit.errors import BadInputError
from ldm_kit.plots.template import COLOURS, SCALE, add_ceiling, add_chance, figure, ink_on, judged_by
from ldm_kit.tables import in_network_order, only


def one_conditioning(table: pd.DataFrame, conditioning: str | None) -> pd.DataFrame:
    """Keep one conditioning; if several are there and none is named, say so instead of mixing them."""
    if conditioning is not None:
        return only(table, conditioning=conditioning)
    there = list(dict.fromkeys(table["conditioning"]))
    if len(there) > 1:
        raise BadInputError(
            f"The table holds the conditionings {there}. Say which to draw with `conditioning=`."
        )
    return table


def block_noise_heatmap(
    table: pd.DataFrame,
    conditioning: str | None = None,
    value: str = "accuracy",
    *,
    to_ceiling: bool = False,
    marked: Mapping[str, tuple[str, float]] | None = None,
) -> go.Figure:
    """Draw alignment as a map, blocks in network order × noise levels.

    Parameters
    ----------
    table : pandas.DataFrame
        The tidy table, one row a cell.
    conditioning : str, optional
        Which to draw, if the table holds several.
    value : str
        Column that gives the colour.
    to_ceiling : bool
        Whether the scale reaches to the noise ceiling, where the table has one, so that colour tells the
        share of what is possible; otherwise to the highest cell, so that cells are told apart.
    marked : mapping of str to (block, noise level), optional
        Cells to frame, each with a letter.

    Returns
    -------
    plotly.graph_objects.Figure
        The colour scale starts at chance, so that dark means "not human". Chance and ceiling are named on it.

    Examples
    --------
    >>> lk.plots.block_noise_heatmap(table, conditioning="none")  # doctest: +SKIP
    """
    part = one_conditioning(table, conditioning)
    blocks = in_network_order(part)
    grid = part.pivot_table(index="block", columns="noise_level", values=value, observed=True).loc[blocks]
    wide = part.assign(width=(part["ci_high"] - part["ci_low"]) / 2)
    error = wide.pivot_table(index="block", columns="noise_level", values="width", dropna=False)
    error = error.reindex(index=blocks, columns=grid.columns)
    scale = _scale(part, float(grid.min().min()), float(grid.max().max()), to_ceiling)
    text = [
        [
            _said(v, e, (v - scale["zmin"]) / max(scale["zmax"] - scale["zmin"], 1e-9))
            for v, e in zip(*row, strict=True)
        ]
        for row in zip(grid.to_numpy(), error.to_numpy(), strict=True)
    ]
    name = str(part["conditioning"].iloc[0])
    fig = figure(
        "Alignment by block and noise level",
        f"odd-one-out accuracy ± half of the 95 % interval, conditioning {name or 'as given'}, {judged_by(part)}",
        height=max(360, 56 * len(blocks) + 160),
    )
    fig.add_heatmap(
        z=grid.to_numpy(),
        x=[f"{level:g}" for level in grid.columns],
        y=blocks,
        text=text,
        texttemplate="%{text}",
        textfont={"size": 12},
        colorscale=SCALE,
        **scale,
        hovertemplate="%{y}<br>noise level %{x}<br>accuracy %{z:.3f}<extra></extra>",
    )
    columns: list[object] = list(grid.columns)
    for letter, (block, level) in (marked or {}).items():
        _frame(fig, letter, columns.index(level), blocks.index(block))
    fig.update_xaxes(type="category")
    noise_axis(fig, part)
    fig.update_yaxes(title="block, input at the top", autorange="reversed")
    return fig


def _said(value: float, error: float, share: float) -> str:
    """A cell's number, with its error where there is one, to be read on the cell's colour."""
    if value != value:  # not measured
        return ""
    told = f"{value:.3f}" + (f"<br>±{error:.3f}" if error == error else "")
    return f'<span style="color:{ink_on(share)}">{told}</span>'


def _scale(part: pd.DataFrame, lowest: float, highest: float, to_ceiling: bool) -> dict[str, Any]:
    """A colour scale from chance up, on which chance and noise ceiling are named."""
    chance = float(part["chance"].min()) if part["chance"].notna().any() else lowest
    ceiling = part[["ceiling_low", "ceiling_high"]].max() if "ceiling_low" in part else None
    low = min(chance, lowest)
    reach = to_ceiling and ceiling is not None and bool(ceiling.notna().all())
    high = max(highest, float(ceiling["ceiling_high"])) if reach and ceiling is not None else highest
    ticks = {chance: f"{chance:.3f} chance"}
    if reach and ceiling is not None:
        ticks[float(ceiling["ceiling_low"])] = f"{ceiling['ceiling_low']:.3f} ceiling"
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
        font={"size": 14, "color": "#222222"},
        bgcolor="#ffffff",
        borderpad=1,
    )


def block_curves(
    table: pd.DataFrame, conditioning: str | None = None, title: str = "Alignment through the network"
) -> go.Figure:
    """Draw alignment over the blocks in network order, one curve a noise level.

    Parameters
    ----------
    table : pandas.DataFrame
        The tidy table, one row a cell.
    conditioning : str, optional
        Which to draw, if the table holds several.
    title : str

    Returns
    -------
    plotly.graph_objects.Figure
        With 95 % intervals, the chance line, and the noise ceiling where the table has one. The bottleneck
        is marked.

    Examples
    --------
    >>> lk.plots.block_curves(table, conditioning="none")  # doctest: +SKIP
    """
    part = one_conditioning(table, conditioning)
    blocks = in_network_order(part)
    fig = figure(title, f"odd-one-out accuracy with 95 % intervals, {judged_by(part)}")
    shares = signal_shares(part)
    for i, (level, rows) in enumerate(part.groupby("noise_level")):
        rows = rows.set_index("block").reindex(blocks)
        fig.add_scatter(
            x=blocks,
            y=rows["accuracy"],
            error_y=error_bars(rows),
            name=f"{level:g} ({percent(shares[level])})" if shares else f"{level:g}",
            mode="lines+markers",
            marker={"symbol": i, "size": 9},
            line={"color": COLOURS[i % len(COLOURS)]},
        )
    if "mid_block" in blocks:
        fig.add_vline(x=blocks.index("mid_block"), line={"color": "#dddddd", "width": 18}, layer="below")
        fig.add_annotation(x="mid_block", y=1, yref="paper", text="bottleneck", showarrow=False, font_size=12)
    add_chance(fig, part)
    add_ceiling(fig, part)
    fig.update_layout(legend_title_text="noise level" + ("<br>(signal's share)" if shares else ""))
    fig.update_xaxes(title="block, in network order", type="category", categoryarray=blocks)
    fig.update_yaxes(title="odd-one-out accuracy", tickformat=".2f")
    return fig


def noise_curves(table: pd.DataFrame, blocks: list[str] | None = None) -> go.Figure:
    """Draw alignment over the noise level, one curve a block (and a dash a conditioning).

    Parameters
    ----------
    table : pandas.DataFrame
        The tidy table.
    blocks : list of str, optional
        By default all.

    Examples
    --------
    >>> lk.plots.noise_curves(table, ["mid_block", "up_blocks.1"])  # doctest: +SKIP
    """
    blocks = blocks or in_network_order(table)
    conditionings = list(dict.fromkeys(table["conditioning"]))
    dashes = ("solid", "dash", "dot", "dashdot")
    fig = figure("Alignment over noise", f"odd-one-out accuracy with 95 % intervals, {judged_by(table)}")
    for i, block in enumerate(blocks):
        for j, conditioning in enumerate(conditionings):
            rows = only(table, block=block)
            rows = rows[rows["conditioning"] == conditioning].sort_values("noise_level")
            label = f"{block}, {conditioning}" if len(conditionings) > 1 else block
            fig.add_scatter(
                x=rows["noise_level"],
                y=rows["accuracy"],
                error_y=error_bars(rows),
                name=label,
                mode="lines+markers",
                marker={"symbol": i, "size": 8},
                # One block: its conditionings get the colours, which are easier to tell apart than dashes.
                line={
                    "color": COLOURS[(i if len(blocks) > 1 else j) % len(COLOURS)],
                    "dash": dashes[j % len(dashes)],
                },
            )
    add_chance(fig, table)
    add_ceiling(fig, table)
    fig.update_xaxes(range=[-0.03, 1.03])
    noise_axis(fig, table)
    fig.update_yaxes(title="odd-one-out accuracy", tickformat=".2f")
    return fig


def noise_axis(fig: go.Figure, table: pd.DataFrame) -> None:
    """Label an axis of noise levels; each tells the signal's share below, where the table has one for it.

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
    """Give each noise level's share of the signal; nothing if one is not known, or models differ in theirs.

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
    """Write a share so that neither a little noise nor a little signal is rounded away.

    Examples
    --------
    >>> [percent(share) for share in (1, 0.99915, 0.6, 0.0047, 2e-9, 0)]
    ['100 %', '99.9 %', '60 %', '0.47 %', '<0.1 %', '0 %']
    """
    value = 100 * share
    if 0 < value < 0.1 or 99.95 <= value < 100:
        return "<0.1 %" if value < 1 else ">99.9 %"
    return f"{value:.2g} %" if value < 10 else f"{value:.1f} %" if 99.5 < value < 100 else f"{value:.0f} %"


def error_bars(rows: pd.DataFrame, value: str = "accuracy") -> dict[str, object]:
    """Turn interval columns into plotly's error bars.

    Examples
    --------
    >>> rows = pd.DataFrame({"accuracy": [0.5], "ci_low": [0.4], "ci_high": [0.7]})
    >>> error_bars(rows)["array"].round(2).tolist()
    [0.2]
    """
    return {
        "type": "data",
        "symmetric": False,
        "array": (rows["ci_high"] - rows[value]).to_numpy(),
        "arrayminus": (rows[value] - rows["ci_low"]).to_numpy(),
        "thickness": 1.2,
        "width": 3,
    }
