"""Several models side by side: alignment over relative depth, one curve a model."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from ldm_kit.errors import unknown_name
from ldm_kit.plots.alignment import error_bars
from ldm_kit.plots.template import COLOURS, add_ceiling, add_chance, figure, judged_by

DASHES = ("solid", "dash", "dot", "dashdot")


def model_curves(
    table: pd.DataFrame, noise_level: float, *, title: str = "Alignment through each network"
) -> go.Figure:
    """Draw alignment over relative depth, one curve a model.

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
    >>> lk.plots.model_curves(table, 0.3)  # doctest: +SKIP
    """
    levels = table.groupby("model", sort=False)["noise_level"].transform("max")
    shown = table[(table["noise_level"] == noise_level) | (levels == 0)]
    if not (shown["noise_level"] == noise_level).any():
        raise unknown_name(
            "noise level", noise_level, sorted(table["noise_level"].unique()), "Extract it first."
        )
    fig = figure(
        title,
        f"odd-one-out accuracy with 95 % intervals, {judged_by(table)}; denoisers at noise level {noise_level:g}",
        height=520,
    )
    names = list(dict.fromkeys(shown["model"]))
    for i, name in enumerate(names):
        rows = shown[shown["model"] == name].sort_values("depth")
        colour, dash = COLOURS[i % len(COLOURS)], DASHES[i // len(COLOURS) % len(DASHES)]
        line = {"color": colour, "dash": dash if len(rows) > 1 else "dot"}
        if len(rows) == 1:
            fig.add_scatter(
                x=[0, 1], y=[rows["accuracy"].item()] * 2, mode="lines", line=line, legendgroup=name,
                showlegend=False, hoverinfo="skip",
            )  # fmt: skip
        star = rows["block"] == "mid_block"
        fig.add_scatter(
            x=rows["relative_depth"]
            + 0.008 * (i - (len(names) - 1) / 2),  # apart, so that bars can be told apart
            y=rows["accuracy"],
            error_y=error_bars(rows),
            name=name,
            legendgroup=name,
            mode="lines+markers",
            line=line,
            marker={
                "color": colour,
                "symbol": ["star" if is_star else "circle" for is_star in star],
                "size": [15 if is_star else 8 for is_star in star],
            },
            text=rows["block"],
            hovertemplate=f"{name}<br>%{{text}}<br>accuracy %{{y:.3f}}<extra></extra>",
        )
    if (shown["block"] == "mid_block").any():
        fig.add_scatter(
            x=[None], y=[None], mode="markers", name="bottleneck",
            marker={"symbol": "star", "size": 13, "color": "#444444"},
        )  # fmt: skip
    add_chance(fig, shown)
    add_ceiling(fig, shown)
    fig.update_xaxes(title="relative depth, 0 the first block and 1 the last", range=[-0.05, 1.05])
    fig.update_yaxes(title="odd-one-out accuracy", tickformat=".2f")
    fig.update_layout(legend_title_text="model")
    return fig
