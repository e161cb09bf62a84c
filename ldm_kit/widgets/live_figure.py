"""Draw a plain figure into the one live figure of a notebook."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from typing import Any

import ipywidgets
import plotly.graph_objects as go

from ldm_kit.plots.template import CONFIG

# What one figure may have and the next not, without being of another kind.
FREE = {"shapes", "annotations", "title", "template"}


class LiveFigure(ipywidgets.Box):  # type: ignore[misc]
    """A FigureWidget in its box, into which plain figures are drawn.

    Parameters
    ----------
    figure : plotly.graph_objects.Figure
        Drawn at first.
    on_click : callable (trace, points, keys), optional
        Called when a point of any trace is clicked.

    Attributes
    ----------
    live : plotly.graph_objects.FigureWidget
        It brings 5 MB of plotly.js with it, so there is one a notebook, and it is drawn into.
    drawn : plotly.graph_objects.Figure
        What it shows, or will once a browser has it.

    Notes
    -----
    What is sent before the browser has loaded plotly.js is lost. So nothing is sent before the first view
    has answered; what was asked for last is drawn then.

    Examples
    --------
    >>> box = LiveFigure(go.Figure(go.Bar(y=[3])))
    >>> box.draw(go.Figure(go.Bar(y=[1, 2])))
    >>> box.ready()
    >>> [trace.type for trace in box.live.data], list(box.live.data[0].y)
    (['bar'], [1, 2])
    """

    def __init__(self, figure: go.Figure, on_click: Callable[[Any, Any, Any], None] | None = None) -> None:
        self.drawn = self._sent = figure
        self._on_click, self._ready = on_click, False
        self.live = go.FigureWidget(figure)
        self.live._config = CONFIG
        self._listen()
        # A view tells plotly's Python side what it filled in as soon as it has drawn.
        self.live.observe(self.ready, names="_js2py_traceDeltas")
        # plotly's drawing says nothing to a screen reader: what is drawn stands beside it, to be read aloud.
        self.told = ipywidgets.HTML(_told(figure), layout={"height": "0", "margin": "0"})
        super().__init__([self.live, self.told])

    def draw(self, figure: go.Figure) -> None:
        """Show what `figure` shows; what is the same already is not sent."""
        self.drawn = figure
        self.told.value = _told(figure)
        if self._ready and figure is not self._sent:
            self._pass_on(figure)

    def ready(self, _change: Any = None) -> None:
        """Begin to send: a browser has the figure."""
        if not self._ready:
            self._ready = True
            self.draw(self.drawn)

    def _pass_on(self, figure: go.Figure) -> None:
        same = _kind(self._sent) == _kind(figure)
        self._sent = figure
        if same:
            with self.live.batch_update():
                _exchange(self.live.layout, figure.layout)
                for old, new in zip(self.live.data, figure.data, strict=True):
                    _exchange(old, new)
            return
        # First: on the next figure's axes they would lie nowhere.
        self.live.update_layout(shapes=[], annotations=[])
        self.live.data = ()
        self.live.add_traces([trace.to_plotly_json() for trace in figure.data])
        bare = go.Figure(layout=figure.layout)
        bare.layout.shapes, bare.layout.annotations = (), ()
        with self.live.batch_update():
            _exchange(self.live.layout, bare.layout)
        # Last: plotly.js finds a category's place only once the axis has been drawn.
        with self.live.batch_update():
            _exchange(self.live.layout, figure.layout)
        self._listen()

    def _listen(self) -> None:
        for trace in self.live.data if self._on_click is not None else ():
            trace.on_click(self._on_click)


def _told(figure: go.Figure) -> str:
    """An invisible picture whose name is the figure's title, tags taken out."""
    title = re.sub("<br>", ". ", figure.layout.title.text or "Figure")
    label = html.escape(html.unescape(re.sub("<[^>]*>", "", title)), quote=True)
    return f'<span role="img" aria-label="{label}"></span>'


def _kind(figure: go.Figure) -> tuple[list[str], set[str]]:
    """What must be the same for a figure to be changed where it stands."""
    return [trace.type for trace in figure.data], set(figure.layout.to_plotly_json()) - FREE


def _exchange(old: Any, new: Any) -> None:
    """Give a trace or a layout the properties of another; what is the same is not sent."""
    before, after = old.to_plotly_json(), new.to_plotly_json()
    for name in before:
        if name not in after and name not in ("uid", "type", "template"):
            old[name] = [] if isinstance(before[name], (list, tuple)) else None
    for name, value in after.items():
        if name not in ("type", "template") and repr(before.get(name)) != repr(value):
            old[name] = value
