"""Draw a plain figure into the one live figure of a notebook, in as few messages as it takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import plotly.graph_objects as go

# Reset where a figure does not have them: a relayout leaves standing what it does not name.
LISTS = ("shapes", "annotations", "images")


def draw(live: go.FigureWidget, figure: go.Figure, on_click: Callable[[Any, Any], None] | None) -> None:
    """Make `live` show what `figure` shows.

    Parameters
    ----------
    live : plotly.graph_objects.FigureWidget
    figure : plotly.graph_objects.Figure
    on_click : callable (trace, points), optional
        Called when a point of any trace is clicked.

    Notes
    -----
    Traces of the same kinds are changed where they stand, so that the browser redraws once; others are
    exchanged. A FigureWidget brings 5 MB of plotly.js with it, so there is one, and it is drawn into.

    Examples
    --------
    >>> live = go.FigureWidget()
    >>> draw(live, go.Figure(go.Bar(y=[1, 2])), None)
    >>> [trace.type for trace in live.data], list(live.data[0].y)
    (['bar'], [1, 2])
    """
    layout = figure.layout.to_plotly_json()
    same = [trace.type for trace in live.data] == [trace.type for trace in figure.data]
    with live.batch_update():
        for name in set(live.layout.to_plotly_json()) - set(layout):
            live.layout[name] = [] if name in LISTS else None
        for name, value in layout.items():
            if name != "template":  # the same for all figures of the kit
                live.layout[name] = value
        if same:
            for old, new in zip(live.data, figure.data, strict=True):
                _exchange(old, new)
    if not same:
        live.data = ()
        live.add_traces([trace.to_plotly_json() for trace in figure.data])
        if on_click is not None:
            for trace in live.data:
                trace.on_click(on_click)


def _exchange(old: Any, new: Any) -> None:
    """Give a trace the properties of another of its kind."""
    before, after = old.to_plotly_json(), new.to_plotly_json()
    for name in before:
        if name not in after and name not in ("uid", "type"):
            old[name] = None
    for name, value in after.items():
        if name != "type":
            old[name] = value
