"""What all explorers share: controls left, tabs right, one status line, an explanation below."""

from __future__ import annotations

import html
import io
from collections.abc import Generator, Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from typing import Any, ClassVar

import ipywidgets
import plotly.graph_objects as go
import traitlets
from PIL import Image

from ldm_kit.datasets import Stimuli
from ldm_kit.errors import LdmKitError, one_of
from ldm_kit.widgets.live import Cache, Latest, LiveFigure

CONTROLS_WIDTH, FIGURE_WIDTH, FIGURE_HEIGHT = 330, 860, 480

# A step of work: the share that is done, and what is being done.
Progress = tuple[float, str]


@dataclass(frozen=True, eq=False)
class Shown:
    """What a tab shows for one state: a figure, an image, or both, and a line that describes them.

    Parameters
    ----------
    figure : plotly.graph_objects.Figure, optional
    image : PIL.Image, optional
    alt : str
        A description of the image, for a screen reader.
    status : str
        For the status line.
    """

    figure: go.Figure | None = None
    image: Image.Image | None = None
    alt: str = ""
    status: str = ""

    @cached_property
    def png(self) -> bytes:
        """The image as a PNG file; empty if there is none."""
        buffer = io.BytesIO()
        if self.image is not None:
            self.image.save(buffer, format="PNG")
        return buffer.getvalue()


class TitledImage(ipywidgets.Image):  # type: ignore[misc]
    """An `Image` with a title, which a screen reader reads.

    Notes
    -----
    ipywidgets has no alternative text for images, and shows a tooltip only on widgets with a description.
    """

    description = traitlets.Unicode("").tag(sync=True)


class Explorer(ipywidgets.VBox):  # type: ignore[misc]
    """Base of the explorers: a state, tabs that show it, and work that never blocks the controls.

    A subclass has a `NAME` (``data/explorers/NAME.html`` explains it), tabs, and a `STATE`, a NamedTuple with
    one field per control that is watched. It implements `steps` and, if it likes, `key`, `must_run` and `clicked`.

    Parameters
    ----------
    controls : sequence of widgets
        Shown at the left, from top to bottom.
    delay : float
        Seconds of silence before work begins.

    Notes
    -----
    A state that was seen before is shown at once, from the cache. Otherwise work begins when changes have
    stopped for `delay` seconds, runs step by step, and gives way to a newer change or to *Cancel* between two
    steps; what is shown then is still the last state that was finished. There is one live figure, which all
    tabs share, since each brings 5 MB of plotly.js; images are `Image` widgets. No `Output` is used: a
    headless run can hang on one.
    """

    NAME: ClassVar[str] = "explorer"
    TABS: ClassVar[dict[str, str]] = {}
    RUNS: ClassVar[bool] = False  # whether there is a Run button
    STATE: ClassVar[Any]

    def __init__(self, controls: Sequence[Any], delay: float = 0.15) -> None:
        self.latest = Latest(delay)
        self.cache: Cache[Shown] = Cache()
        self.computed = 0  # pieces of work begun
        self.shown_key: Hashable = None
        self.note = ""  # shown once, before the next status
        self.run = _button("Run", "play", "Compute what the controls describe", button_style="primary")
        self.stop = _button("Cancel", "stop", "Stop computing; what was finished stays", disabled=True)
        self.bar = ipywidgets.FloatProgress(max=1.0, layout={"width": "90px", "display": "none"})
        self.status = ipywidgets.HTML(layout={"width": "auto"})
        captions = [ipywidgets.HTML(text) for text in self.TABS.values()]
        self.tabs = ipywidgets.Tab(captions, titles=list(self.TABS), selected_index=0)
        self.drawing = LiveFigure(self._first_figure(), self._take_click)
        self.image = TitledImage(format="png", layout={"align_self": "flex-start"})
        super().__init__(self._laid_out(controls))
        self.add_class("ldm-explorer")
        for name, widget in {
            self.NAME: self,
            "status": self.status,
            "picture": self.image,
            "figure": self.drawing,
            "run": self.run,
            "cancel": self.stop,
        }.items():
            widget.add_class(f"ldm-{name}")
        self.run.on_click(lambda _: self.start())
        self.stop.on_click(lambda _: self.cancel())
        self.tabs.observe(self._changed, names="selected_index")
        for name in self.STATE._fields:
            getattr(self, name).observe(self._changed, names="value")
        self._changed()

    def _first_figure(self) -> go.Figure:
        """Return the figure of the first tab that has one: a live figure is best born with something to draw."""
        for tab in self.TABS:
            if not self.must_run(tab, self.state) and (figure := self.shown(tab).figure) is not None:
                return figure
        return go.Figure(layout={"template": "ldm_kit", "width": FIGURE_WIDTH, "height": FIGURE_HEIGHT})

    def _laid_out(self, controls: Sequence[Any]) -> list[Any]:
        """Arrange controls and tabs beside each other, or below where the page is narrow."""
        buttons = ipywidgets.HBox([self.run, self.stop] if self.RUNS else [self.stop])
        left = ipywidgets.VBox(
            [*controls, buttons], layout={"width": f"{CONTROLS_WIDTH}px", "flex": "0 0 auto"}
        )
        right = ipywidgets.VBox(
            [self.tabs, self.image, self.drawing],
            layout={"width": f"{FIGURE_WIDTH + 20}px", "overflow": "hidden"},
        )
        line = ipywidgets.HBox(
            [self.bar, self.status], layout={"align_items": "center", "min_height": "34px"}
        )
        # HTML's own accordion: that of ipywidgets opens by the mouse alone.
        text = (resources.files("ldm_kit") / "data" / "explorers" / f"{self.NAME}.html").read_text(
            encoding="utf-8"
        )
        about = f'<details class="ldm-about"><summary>What am I seeing?</summary>{text}</details>'
        return [
            ipywidgets.HBox([left, right], layout={"flex_flow": "row wrap"}),
            line,
            ipywidgets.HTML(about),
        ]

    # What a subclass implements -------------------------------------------------------------------

    @property
    def state(self) -> Any:
        """The values of the controls, as a `State`."""
        return self.STATE(*(getattr(self, name).value for name in self.STATE._fields))

    def steps(self, tab: str, state: Any) -> Generator[Progress, None, Shown]:
        """Compute what a tab shows, yielding the progress at every step."""
        raise NotImplementedError

    def key(self, tab: str, state: Any) -> Hashable:
        """Return the fields of the state that a tab depends on; results are cached under it."""
        return tab, state

    def must_run(self, tab: str, state: Any) -> str:
        """Say why a state is not computed before *Run* is pressed; empty if it is."""
        return ""

    def clicked(self, x: Any, y: Any) -> None:
        """Take a click on the figure, at these coordinates."""

    # What all share -------------------------------------------------------------------------------

    @property
    def tab(self) -> str:
        """The title of the open tab."""
        return list(self.TABS)[self.tabs.selected_index or 0]

    def figure(self, tab: str | None = None) -> Any:
        """Return what a tab shows for the present state as a static figure, for print and headless runs.

        Parameters
        ----------
        tab : str, optional
            Its title; by default the open one.

        Returns
        -------
        plotly.graph_objects.Figure or PIL.Image
            The figure; the image, where a tab has no figure.

        Raises
        ------
        UnknownNameError
            If there is no such tab.

        Examples
        --------
        >>> explorer = lk.widgets.IntoTheNoise(model, data.stimuli, [0.1, 0.5], blocks="mid_block")
        >>> explorer.figure("Film strip").mode
        'RGB'
        """
        shown = self.shown(tab)
        return shown.image if shown.figure is None else go.Figure(shown.figure)

    def shown(self, tab: str | None = None) -> Shown:
        """Return what a tab shows for the present state, from the cache or computed now."""
        title = self.tab if tab is None else one_of("tab", tab, self.TABS)
        state = self.state
        key = self.key(title, state)
        if key not in self.cache:
            line = self.status.value
            for _ in self._compute(title, state):
                pass
            self.status.value, self.bar.value = line, 0.0  # what is shown has not changed
        return self.cache[key]

    def start(self) -> None:
        """Compute what the controls describe, as *Run* does."""
        self._request(run=True)

    def cancel(self) -> None:
        """Stop computing, as *Cancel* does. What is shown is the last state that was finished."""
        busy = self.latest.busy
        self._rest()
        if busy:
            self.say("Cancelled. What is shown is the last state that was finished.")

    def say(self, text: str) -> None:
        """Write the status line."""
        self.status.value = f'<span role="status" aria-live="polite">{html.escape(text)}</span>'

    def _changed(self, _change: Any = None) -> None:
        self._request(run=False)

    def _request(self, run: bool) -> None:
        """Show the present state: from the cache, or computed, unless that waits for *Run*."""
        tab, state = self.tab, self.state
        key = self.key(tab, state)
        if key in self.cache:
            self._rest()
            self._show(key)
        elif not run and (reason := self.must_run(tab, state)):
            self._rest()
            self.say(reason)
        else:
            self.latest.ask(lambda: self._work(tab, state))

    def _work(self, tab: str, state: Any) -> Generator[None, None, None]:
        """Compute, then show; whatever happens, leave the explorer ready for the next change."""
        self.stop.disabled = False
        self.bar.layout.display = ""
        try:
            yield from self._compute(tab, state)
            self._show(self.key(tab, state))
        except LdmKitError as error:
            self.say(str(error))
        except Exception as error:
            self.say(f"{type(error).__name__}: {error}")
            raise
        finally:
            self._idle()

    def _compute(self, tab: str, state: Any) -> Generator[None, None, None]:
        """Run the steps, and cache what they return."""
        self.computed += 1
        steps = self.steps(tab, state)
        try:
            while True:
                self.bar.value, text = next(steps)
                self.say(text)
                yield
        except StopIteration as end:
            shown: Shown = end.value
            if shown.figure is not None:  # explicit: plotly.js does not go back to a template's size
                height = shown.figure.layout.height or FIGURE_HEIGHT
                shown.figure.update_layout(width=FIGURE_WIDTH, height=height)
            self.cache.put(self.key(tab, state), shown, 200_000 + len(shown.png))
        finally:
            steps.close()

    def _show(self, key: Hashable) -> None:
        shown = self.cache[key]
        self.image.layout.display = "none" if shown.image is None else ""
        self.drawing.layout.display = "none" if shown.figure is None else ""
        if shown.image is not None:
            with self.image.hold_sync():  # one message: an image never stands with another's description
                self.image.value, self.image.tooltip = shown.png, shown.alt
        if shown.figure is not None:
            self.drawing.draw(shown.figure)
        self.shown_key = key
        self.say(f"{self.note} {shown.status}".strip())
        self.note = ""

    def _rest(self) -> None:
        """Stop what is under way."""
        self.latest.cancel()
        self._idle()

    def _idle(self) -> None:
        self.stop.disabled = True
        self.bar.layout.display = "none"
        self.bar.value = 0.0

    def _take_click(self, _trace: Any, points: Any, _keys: Any = None) -> None:
        if points.xs:
            self.clicked(points.xs[0], points.ys[0])


def control(kind: Any, title: str, **options: Any) -> Any:
    """Make a control in the explorers' width, with its title as label and as CSS class.

    Examples
    --------
    >>> control(ipywidgets.Text, "prompt").description
    'prompt'
    """
    layout = {"width": f"{CONTROLS_WIDTH - 10}px"}
    widget = kind(description=title, style={"description_width": "88px"}, layout=layout, **options)
    widget.add_class(f"ldm-{title.replace(' ', '-')}")
    return widget


def dropdown(title: str, options: Iterable[Any], value: Any) -> Any:
    """Make a control that chooses one of several options."""
    return control(ipywidgets.Dropdown, title, options=list(options), value=value)


def level_slider(title: str, levels: Iterable[float], value: float) -> Any:
    """Make a control that chooses one of several noise levels."""
    options = [(f"{level:g}", level) for level in levels]
    return control(ipywidgets.SelectionSlider, title, options=options, value=float(value))


def label_of(stimuli: Stimuli, name: str) -> str:
    """Return the label of a stimulus."""
    return stimuli[stimuli.index(name)].label


def cell_name(cell: tuple[str, float]) -> str:
    """Name a cell by its block and noise level, for titles and status lines."""
    return f"{cell[0]} at noise level {cell[1]:g}"


def _button(title: str, icon: str, tooltip: str, **options: Any) -> Any:
    return ipywidgets.Button(
        description=title, icon=icon, tooltip=tooltip, layout={"width": "100px"}, **options
    )
