"""What all explorers share: controls left, tabs right, one status line, one question answered below."""

from __future__ import annotations

import html
import io
from collections.abc import Generator, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import ipywidgets
import plotly.graph_objects as go
import traitlets
from PIL import Image

from ldm_kit.errors import LdmKitError, unknown_name
from ldm_kit.widgets.kept import Kept
from ldm_kit.widgets.latest import Latest
from ldm_kit.widgets.live_figure import LiveFigure

CONTROLS_WIDTH, FIGURE_WIDTH, FIGURE_HEIGHT = 330, 860, 480

# A step of work tells which share is done, and what is being done.
Progress = tuple[float, str]


@dataclass(frozen=True, eq=False)
class Shown:
    """What a tab shows for one state: a figure, a picture, or both, and a line that says what they are.

    Parameters
    ----------
    figure : plotly.graph_objects.Figure, optional
    picture : PIL.Image, optional
    alt : str
        The picture in words, for those who do not see it.
    said : str
        For the status line.
    """

    figure: go.Figure | None = None
    picture: Image.Image | None = None
    alt: str = ""
    said: str = ""

    @cached_property
    def png(self) -> bytes:
        """The picture as a PNG file; empty if there is none."""
        buffer = io.BytesIO()
        if self.picture is not None:
            self.picture.save(buffer, format="PNG")
        return buffer.getvalue()


class Picture(ipywidgets.Image):  # type: ignore[misc]
    """An `Image` with a title, which is what a screen reader says of it.

    Notes
    -----
    ipywidgets has no alternative text for images, and shows a tooltip only on widgets with a description.
    """

    description = traitlets.Unicode("").tag(sync=True)


class Explorer(ipywidgets.VBox):  # type: ignore[misc]
    """Base of the explorers: a state, tabs that show it, and work that never stands in the way.

    A subclass names its tabs and answers `state`, `steps` and, if it likes, `key` and `must_run`.

    Parameters
    ----------
    controls : sequence of widgets
        Shown at the left, from top to bottom.
    watched : sequence of widgets
        Those whose `value` is part of the state.
    delay : float
        Seconds of silence before work begins.

    Notes
    -----
    A change that was seen before is shown at once, from what is kept. Otherwise work begins when changes have
    stopped for `delay` seconds, runs step by step, and gives way to a newer change or to *Cancel* between two
    steps; what is shown then is still the last state that was finished. There is one live figure, which all
    tabs share, since each brings 5 MB of plotly.js; pictures are `Image` widgets. No `Output` is used: a
    headless run can hang on one.
    """

    NAME: ClassVar[str] = "explorer"
    TABS: ClassVar[dict[str, str]] = {}
    ABOUT: ClassVar[str] = ""
    RUNS: ClassVar[bool] = False  # whether there is a Run button

    def __init__(
        self, controls: Sequence[Any], watched: Sequence[Any], delay: float = 0.15, tab: str | None = None
    ) -> None:
        self.latest = Latest(delay)
        self.kept: Kept[Shown] = Kept()
        self.computed = 0  # pieces of work begun
        self.shown_key: Hashable = None
        self.note = ""  # told once, before what is said of the next thing shown
        self.run = _button("Run", "play", "Compute what the controls ask for", style="primary")
        self.stop = _button("Cancel", "stop", "Stop computing; what was finished is kept", disabled=True)
        self.bar = ipywidgets.FloatProgress(max=1.0, layout={"width": "90px", "display": "none"})
        self.status = ipywidgets.HTML(layout={"width": "auto"})
        captions = [ipywidgets.HTML(text) for text in self.TABS.values()]
        self.tabs = ipywidgets.Tab(captions, titles=list(self.TABS), selected_index=0)
        if tab is not None:
            self.tabs.selected_index = self._place(tab)
        self.drawing = LiveFigure(self._first_figure(), self._take_click)
        self.image = Picture(format="png", layout={"align_self": "flex-start"})
        self._lay_out(controls)
        self.run.on_click(lambda _: self.start())
        self.stop.on_click(lambda _: self.cancel())
        self.tabs.observe(self._changed, names="selected_index")
        for widget in watched:
            widget.observe(self._changed, names="value")

    def _first_figure(self) -> go.Figure:
        """What the first tab with a figure shows: a live figure is best born with something to draw."""
        for tab in self.TABS:
            if not self.must_run(tab, self.state) and (figure := self.shown(tab).figure) is not None:
                return figure
        return go.Figure(layout={"template": "ldm_kit", "width": FIGURE_WIDTH, "height": FIGURE_HEIGHT})

    def _lay_out(self, controls: Sequence[Any]) -> None:
        buttons = ipywidgets.HBox([self.run, self.stop] if self.RUNS else [self.stop])
        line = ipywidgets.HBox(
            [self.bar, self.status], layout={"align_items": "center", "min_height": "34px"}
        )
        left = ipywidgets.VBox(
            [*controls, buttons], layout={"width": f"{CONTROLS_WIDTH}px", "flex": "0 0 auto"}
        )
        right = ipywidgets.VBox(
            [self.tabs, self.image, self.drawing],
            layout={"width": f"{FIGURE_WIDTH + 20}px", "overflow": "hidden"},
        )
        # HTML's own accordion: that of ipywidgets opens by the mouse alone.
        about = ipywidgets.HTML(
            f'<details class="ldm-about"><summary>What am I seeing?</summary>{self.ABOUT}</details>'
        )
        super().__init__([ipywidgets.HBox([left, right], layout={"flex_flow": "row wrap"}), line, about])
        for widget, name in (
            (self, "explorer"),
            (self, self.NAME),
            (self.status, "status"),
            (self.image, "picture"),
            (self.drawing, "figure"),
            (self.run, "run"),
            (self.stop, "cancel"),
        ):
            widget.add_class(f"ldm-{name}")

    # What a subclass answers ----------------------------------------------------------------------

    @property
    def state(self) -> Any:
        """What the controls say, as a hashable value."""
        raise NotImplementedError

    def steps(self, tab: str, state: Any) -> Generator[Progress, None, Shown]:
        """Compute what a tab shows, telling the progress at every step."""
        raise NotImplementedError

    def key(self, tab: str, state: Any) -> Hashable:
        """Give the part of the state that a tab depends on; what is kept is kept under it."""
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
        """Give what a tab shows for the present state, standing still, for print and for headless runs.

        Parameters
        ----------
        tab : str, optional
            Its title; by default the open one.

        Returns
        -------
        plotly.graph_objects.Figure or PIL.Image
            The figure; the picture, where a tab has no figure.

        Raises
        ------
        UnknownNameError
            If there is no such tab.

        Examples
        --------
        >>> explorer.figure("Film strip")  # doctest: +SKIP
        """
        shown = self.shown(tab)
        return shown.picture if shown.figure is None else go.Figure(shown.figure)

    def shown(self, tab: str | None = None) -> Shown:
        """Compute what a tab shows for the present state, or give it from what is kept."""
        title = self.tab if tab is None else list(self.TABS)[self._place(tab)]
        state = self.state
        key = self.key(title, state)
        if key not in self.kept:
            line = self.status.value
            for _ in self._compute(title, state):
                pass
            self.status.value, self.bar.value = line, 0.0  # what is shown has not changed
        return self.kept[key]

    def start(self) -> None:
        """Compute what the controls ask for; what *Run* does."""
        self._go(asked=True)

    def cancel(self) -> None:
        """Stop computing; what *Cancel* does. What is shown is the last state that was finished."""
        busy = self.latest.busy
        self.latest.cancel()
        self._rest()
        if busy:
            self.say("Cancelled. What is shown is the last state that was finished.")

    def say(self, told: str) -> None:
        """Write the status line."""
        self.status.value = f'<span role="status" aria-live="polite">{html.escape(told)}</span>'

    def _place(self, tab: str) -> int:
        if tab not in self.TABS:
            raise unknown_name("tab", tab, self.TABS, "Name one of the explorer's tabs.")
        return list(self.TABS).index(tab)

    def _changed(self, _change: Any = None) -> None:
        self._go(asked=False)

    def _go(self, asked: bool) -> None:
        tab, state = self.tab, self.state
        if self.key(tab, state) in self.kept:
            self.latest.cancel()
            self._rest()
            self._show(self.key(tab, state))
        elif (reason := self.must_run(tab, state)) and not asked:
            self.latest.cancel()
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
            self._rest()

    def _compute(self, tab: str, state: Any) -> Generator[None, None, None]:
        self.computed += 1
        steps = self.steps(tab, state)
        try:
            while True:
                self.bar.value, told = next(steps)
                self.say(told)
                yield
        except StopIteration as end:
            shown: Shown = end.value
            if shown.figure is not None:  # said outright: plotly.js does not go back to a template's size
                height = shown.figure.layout.height or FIGURE_HEIGHT
                shown.figure.update_layout(width=FIGURE_WIDTH, height=height)
            self.kept.put(self.key(tab, state), shown, 200_000 + len(shown.png))
        finally:
            steps.close()

    def _show(self, key: Hashable) -> None:
        shown = self.kept[key]
        self.image.layout.display = "none" if shown.picture is None else ""
        self.drawing.layout.display = "none" if shown.figure is None else ""
        if shown.picture is not None:
            with self.image.hold_sync():  # one message: a picture never stands with another's words
                self.image.value, self.image.tooltip = shown.png, shown.alt
        if shown.figure is not None:
            self.drawing.draw(shown.figure)
        self.shown_key = key
        self.say(f"{self.note} {shown.said}".strip())
        self.note = ""

    def _rest(self) -> None:
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
    widget = kind(
        description=title,
        style={"description_width": "88px"},
        layout={"width": f"{CONTROLS_WIDTH - 10}px"},
        **options,
    )
    widget.add_class(f"ldm-{title.replace(' ', '-')}")
    return widget


def _button(title: str, icon: str, tooltip: str, style: str = "", disabled: bool = False) -> Any:
    return ipywidgets.Button(
        description=title,
        icon=icon,
        tooltip=tooltip,
        button_style=style,
        disabled=disabled,
        layout={"width": "100px"},
    )
