"""What explorers stand on: only the newest request is worked on, results are cached, one figure is live."""

from __future__ import annotations

import asyncio
import html
import re
from collections import OrderedDict
from collections.abc import Callable, Generator, Hashable
from importlib import resources
from typing import Any, Generic, TypeVar

import ipywidgets
import plotly.graph_objects as go
import traitlets

from ldm_kit.plots.template import CONFIG

Value = TypeVar("Value")
Steps = Callable[[], Generator[None, None, None]]
PAUSE = 0.002  # seconds between two steps, in which the kernel reads its messages: a newer request, a Cancel
LOADER = """
async function loaded(context) {
  const code = new Blob([context.model.get("_bundle")], { type: "text/javascript" });
  const address = URL.createObjectURL(code);
  try {
    const widget = (await import(address)).default();
    await widget.initialize(context);
    return widget;
  } finally {
    URL.revokeObjectURL(address);
  }
}
export default () => {
  let widget;
  return {
    initialize(context) { widget = loaded(context); },
    async render(context) { return (await widget).render(context); },
  };
};
"""
# What one figure may have and the next not, without being of another kind.
FREE = {"shapes", "annotations", "title", "template"}


class Latest:
    """Run one piece of work at a time, the newest; wait a moment first, in case a newer one comes.

    Parameters
    ----------
    delay : float
        Seconds of silence before work begins. Each new request begins the wait anew.

    Notes
    -----
    Work is a generator: it may be stopped wherever it yields, and is closed there, so that a `finally` tidies
    up. All happens on the event loop of the requesting thread (a kernel's own), so that nothing needs a lock,
    and a notebook's cell never meets half of a step. Without a running loop, as in a plain script, work is done
    at once.

    Examples
    --------
    >>> done = []
    >>> def steps():
    ...     yield
    ...     done.append("worked")
    >>> Latest().ask(steps)
    >>> done
    ['worked']
    """

    def __init__(self, delay: float = 0.15) -> None:
        self.delay = delay
        self._task: asyncio.Task[None] | None = None

    @property
    def busy(self) -> bool:
        """Whether something is waiting or being worked on."""
        return self._task is not None and not self._task.done()

    def ask(self, steps: Steps) -> None:
        """Work on this, and on no earlier request."""
        self.cancel()
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            for _ in steps():
                pass
            return
        self._task = loop.create_task(self._work(steps))

    def cancel(self) -> None:
        """Forget what is waiting, and stop what is being worked on at its next step."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def idle(self) -> None:
        """Wait until nothing is left to do."""
        while self.busy:
            await asyncio.sleep(0.005)

    async def _work(self, steps: Steps) -> None:
        await asyncio.sleep(self.delay)
        running = steps()
        try:
            for _ in running:
                await asyncio.sleep(PAUSE)
        finally:
            running.close()


class Cache(Generic[Value]):
    """Values up to a number of bytes in all; the one that was read longest ago goes first.

    Parameters
    ----------
    most : int
        Bytes in all. The newest value stays whatever its size.

    Notes
    -----
    `functools.lru_cache` counts entries and needs a function; these come from generators and differ in size.

    Examples
    --------
    >>> cache = Cache(most=10)
    >>> cache.put("a", "first", size=6)
    >>> cache.put("b", "second", size=6)
    >>> "a" in cache, cache["b"]
    (False, 'second')
    """

    def __init__(self, most: int = 256 * 2**20) -> None:
        self.most = most
        self._values: OrderedDict[Hashable, tuple[Value, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._values

    def __getitem__(self, key: Hashable) -> Value:
        self._values.move_to_end(key)
        return self._values[key][0]

    def put(self, key: Hashable, value: Value, size: int) -> None:
        """Store a value of so many bytes under a key."""
        self._values[key] = (value, size)
        self._values.move_to_end(key)
        while len(self._values) > 1 and sum(held for _, held in self._values.values()) > self.most:
            self._values.popitem(last=False)


class _Whole(go.FigureWidget):  # type: ignore[misc]
    """A figure that a browser hears of once it has traces and settings, and that it may take its time to load.

    plotly announces a figure while it is empty and sends the rest after; a slow browser loses that and draws nothing.
    anywidget gives up on code that is not loaded after two seconds, and plotly.js has 5 MB: it is loaded by a few lines that are.
    """

    _esm = LOADER
    _bundle = traitlets.Unicode().tag(sync=True)

    @traitlets.default("_bundle")
    def _plotly_js(self) -> str:
        return (resources.files("plotly") / "package_data" / "widgetbundle.js").read_text(encoding="utf-8")

    def open(self) -> None:
        if self._config:
            super().open()


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
        It brings 5 MB of plotly.js with it, so there is one per notebook, and it is drawn into.
    drawn : plotly.graph_objects.Figure
        What it shows, or will once a browser has it.

    Notes
    -----
    What is sent before the browser has loaded plotly.js is lost. So nothing is sent before the first view
    has answered; the last figure is drawn then.

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
        self.live = _Whole(figure)
        self.live._config = CONFIG
        self.live.open()
        self._listen()
        # A view sends the defaults that it filled in as soon as it has drawn.
        self.live.observe(self.ready, names="_js2py_traceDeltas")
        # A screen reader finds nothing in plotly's drawing: its title stands beside it, to be read aloud.
        self.label = ipywidgets.HTML(_label(figure), layout={"height": "0", "margin": "0"})
        super().__init__([self.live, self.label])

    def draw(self, figure: go.Figure) -> None:
        """Show a figure; only what differs is sent."""
        self.drawn = figure
        self.label.value = _label(figure)
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


def _label(figure: go.Figure) -> str:
    """Make an invisible image whose name is the figure's title, without tags."""
    title = re.sub("<br>", ". ", figure.layout.title.text or "Figure")
    label = html.escape(html.unescape(re.sub("<[^>]*>", "", title)), quote=True)
    return f'<span role="img" aria-label="{label}"></span>'


def _kind(figure: go.Figure) -> tuple[list[str], set[str]]:
    """Return what must be the same for a figure to be changed in place."""
    return [trace.type for trace in figure.data], set(figure.layout.to_plotly_json()) - FREE


def _exchange(old: Any, new: Any) -> None:
    """Set the properties of a trace or layout to those of another; only differences are sent."""
    before, after = old.to_plotly_json(), new.to_plotly_json()
    for name in before:
        if name not in after and name not in ("uid", "type", "template"):
            old[name] = [] if isinstance(before[name], (list, tuple)) else None
    for name, value in after.items():
        if name not in ("type", "template") and repr(before.get(name)) != repr(value):
            old[name] = value
