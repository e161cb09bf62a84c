"""Similarity matrices, side by side on one scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy.typing as npt
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ldm_kit.plots.template import SCALE, heading


def matrices(
    given: Mapping[str, npt.ArrayLike],
    labels: Sequence[str],
    *,
    title: str = "Similarity of the stimuli",
    subtitle: str = "",
    bar: str = "similarity",
    same_scale: bool = True,
) -> go.Figure:
    """Draw square matrices side by side.

    Parameters
    ----------
    given : mapping of str to array (n, n)
        Drawn in their order, the key above each.
    labels : sequence of str, length n
        Along both axes.
    title, subtitle, bar : str
    same_scale : bool
        One colour scale for all, so that colours may be compared; otherwise each has its own range, so that
        patterns may.

    Examples
    --------
    >>> lk.plots.matrices({"none": a, "label": b}, names)  # doctest: +SKIP
    """
    names = list(given)
    fig = make_subplots(cols=len(names), subplot_titles=names, horizontal_spacing=0.06, shared_yaxes=True)
    for i, name in enumerate(names):
        fig.add_heatmap(
            z=given[name],
            x=list(labels),
            y=list(labels),
            **({"coloraxis": "coloraxis"} if same_scale else {"colorscale": SCALE, "showscale": False}),
            hovertemplate="%{y} – %{x}: %{z:.3f}<extra></extra>",
            row=1,
            col=i + 1,
        )
    text = heading(title, [subtitle] if subtitle else [])
    fig.update_layout(
        template="ldm_kit",
        title={"text": text},
        coloraxis={"colorscale": SCALE, "colorbar": {"title": {"text": bar}}},
        width=120 + 380 * len(names),
        height=480,
        margin={"t": 110},
    )
    fig.update_xaxes(tickfont={"size": 9}, tickangle=-60)
    fig.update_yaxes(autorange="reversed", tickfont={"size": 9})
    return fig
