"""Into the noise: what the model is shown, what it guesses, and what a block holds, token by token."""

from __future__ import annotations

from collections.abc import Generator, Hashable, Sequence
from typing import Any, ClassVar, NamedTuple

import ipywidgets
from PIL import Image, ImageDraw

from ldm_kit.datasets.stimuli import Stimuli
from ldm_kit.errors import UnreadableImageError
from ldm_kit.features.looking import Look, looks_at
from ldm_kit.models.model import OpenedModel
from ldm_kit.plots.alignment import percent
from ldm_kit.plots.pictures import film_strip, picture_grid, space_colours
from ldm_kit.plots.tokens import token_maps, token_norms, token_similarity
from ldm_kit.widgets.explorer import FIGURE_WIDTH, Explorer, Progress, Shown, control
from ldm_kit.widgets.kept import Kept
from ldm_kit.widgets.uploads import uploaded_picture

LEVELS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
ABOUT = """
<p><b>The picture</b> goes through the autoencoder and gets noise to the chosen level. The denoiser runs
<b>once</b>. <b>The estimate</b> is the clean picture that this one pass implies: sharp where the model is sure,
the mean of all that could be where it is not.</p>
<p><b>In colour:</b> a block holds a vector at every place, a <i>token</i>. Red, green and blue are the three
directions in which the tokens of this map differ most; like colours, like tokens. The colours of two maps cannot be
compared, except within the film strip, where they are found over all levels together.</p>
<p><b>Tokens:</b> how long each vector is, and its cosine similarity to the token marked ×: orange points the same
way, blue the opposite one. In the second picture, look for the like: do the wheels of two cars match? Click a place,
or move the slider, to mark another token.</p>
"""


class State(NamedTuple):
    """What the controls say."""

    stimulus: str
    second: str
    level: float
    prompt: str
    block: str
    token: int


class IntoTheNoise(Explorer):
    """A picture, a noise level, a prompt, a block: watch the picture drown while the block loses it.

    Parameters
    ----------
    model : OpenedModel
    stimuli : Stimuli
        To choose from; pictures of one's own can be uploaded.
    noise_levels : sequence of float
        The slider's places, and the film strip's.
    blocks : sequence of str, optional
        To choose from, as in `OpenedModel.select_blocks`; by default the stages.
    stimulus, block : str, optional
        Shown at first; by default the first stimulus, and the middle of the network.
    seed : int
        Of the noise, which is the very noise that `extract` adds.
    delay : float
        Seconds that changes must have stopped for before work begins.

    Examples
    --------
    >>> view = lk.widgets.IntoTheNoise(model, data.stimuli)  # doctest: +SKIP
    >>> view.figure("Film strip")  # doctest: +SKIP
    """

    NAME = "into-the-noise"
    ABOUT = ABOUT
    TABS: ClassVar[dict[str, str]] = {
        "Picture": "The picture, noised; what the model makes of it in one step; what the block holds.",
        "Tokens": "How long each token is, and how like the token marked × the others are.",
        "Film strip": "The same over all noise levels, with one set of colours.",
    }

    def __init__(
        self,
        model: OpenedModel,
        stimuli: Stimuli,
        noise_levels: Sequence[float] = LEVELS,
        *,
        blocks: str | Sequence[str] | None = None,
        stimulus: str | None = None,
        block: str | None = None,
        seed: int = 0,
        delay: float = 0.15,
    ) -> None:
        self._model, self._stimuli, self._seed = model, stimuli, seed
        self._own: dict[str, Image.Image] = {}
        self._looks: Kept[Look] = Kept()
        self.levels = sorted({model.level(float(level)).level for level in noise_levels})
        chosen = model.select_blocks(blocks)
        first = chosen[len(chosen) // 2] if block is None else model.select_blocks(block)[0]
        options = list(zip(stimuli.labels, stimuli.names, strict=True))
        start = stimuli.names[0 if stimulus is None else stimuli.index(stimulus)]
        other = stimuli.names[(stimuli.index(start) + 1) % len(stimuli)]
        places = [(f"{level:g}", level) for level in self.levels]
        self.stimulus = control(ipywidgets.Dropdown, "stimulus", options=options, value=start)
        self.second = control(ipywidgets.Dropdown, "second", options=options, value=other)
        self.upload = ipywidgets.FileUpload(
            accept="image/*",
            multiple=True,
            description="A picture of your own",
            tooltip="Upload JPEG, PNG, WebP, BMP, GIF, TIFF or PPM files; they stay on this machine",
            layout={"width": "220px", "margin": "2px 2px 2px 94px"},
        )
        self.upload.add_class("ldm-upload")
        self.level = control(
            ipywidgets.SelectionSlider,
            "noise level",
            options=places,
            value=self.levels[len(self.levels) // 3],
        )
        self.prompt = control(
            ipywidgets.Text, "prompt", placeholder="empty: no prompt", continuous_update=False
        )
        self.block = control(
            ipywidgets.Dropdown, "block", options=list(dict.fromkeys([*chosen, first])), value=first
        )
        self.token = control(ipywidgets.IntSlider, "token", min=0, max=0)
        self._fit_token()
        watched = [self.stimulus, self.second, self.level, self.prompt, self.block, self.token]
        shown = [self.stimulus, self.upload, self.level, self.prompt, self.block, self.second, self.token]
        self.block.observe(self._fit_token, names="value")
        self.upload.observe(self._take_upload, names="value")
        super().__init__(shown, watched, delay)
        self.start()

    @property
    def state(self) -> State:
        """What the controls say."""
        return State(
            self.stimulus.value,
            self.second.value,
            self.level.value,
            self.prompt.value.strip(),
            self.block.value,
            self.token.value,
        )

    def key(self, tab: str, state: State) -> Hashable:
        """Leave out what a tab does not depend on."""
        if tab == "Tokens":
            return tab, state
        level = -1.0 if tab == "Film strip" else state.level
        return tab, state._replace(second="", token=0, level=level)

    def steps(self, tab: str, state: State) -> Generator[Progress, None, Shown]:
        """Look at the levels that the tab needs, one a step."""
        if tab == "Film strip":
            views = []
            for i, level in enumerate(self.levels):
                yield i / len(self.levels), f"Noise level {level:g}: {i + 1} of {len(self.levels)} …"
                views.append(self._look(state.stimulus, level, state))
            return self._strip(views, state)
        yield 0.1, f"Noise level {state.level:g}, {state.block} …"
        view = self._look(state.stimulus, state.level, state)
        if tab == "Picture":
            return self._pictures(view, state)
        yield 0.6, "The second picture …"
        return self._tokens(view, self._look(state.second, state.level, state), state)

    def clicked(self, x: Any, y: Any) -> None:
        """Mark the token that was clicked on."""
        _, width = self._map_shape()
        self.token.value = int(y) * width + int(x)

    # What the tabs show ---------------------------------------------------------------------------

    def _pictures(self, view: Look, state: State) -> Shown:
        colours = space_colours(view.maps[None])[0]
        clean = self._model.preprocess(self._open(state.stimulus))
        sheet = picture_grid(
            [clean, view.noised, view.estimate, colours],
            ["picture", f"noised to {view.level:g}", "model's estimate", view.block],
            columns=4,
            size=FIGURE_WIDTH // 4 - 8,
        )
        said = self._said(state)
        return Shown(
            picture=sheet, alt=f"Picture, noised picture, estimate and feature map. {said}", said=said
        )

    def _strip(self, views: list[Look], state: State) -> Shown:
        size = min(112, (FIGURE_WIDTH - 130) // len(views) - 8)
        said = (
            f"{self._label(state.stimulus)} at {len(views)} noise levels{self._words(state)}, {state.block}."
        )
        alt = f"Noised pictures, the model's estimates, and the block in colour, by noise level. {said}"
        return Shown(picture=film_strip(views, size=size), alt=alt, said=said)

    def _tokens(self, view: Look, second: Look, state: State) -> Shown:
        height, width = view.maps.shape[1:]
        row, column = divmod(min(state.token, height * width - 1), width)
        own, other = self._label(state.stimulus), self._label(state.second)
        figure = token_maps(
            token_norms(view.maps),
            {
                f"like ×, in {own}": token_similarity(view.maps, row, column),
                f"like ×, in {other}": token_similarity(view.maps, row, column, second.maps),
            },
            (row, column),
            title=f"Tokens of {view.block}",
            subtitle=self._said(state),
        )
        pictures = [self._model.preprocess(self._open(name)) for name in (state.stimulus, state.second)]
        sheet = picture_grid(
            [_marked(pictures[0], row, column, height, width), pictures[1]],
            [f"{own}, token framed", other],
            columns=2,
            size=150,
        )
        said = f"Token in row {row}, column {column} of {height} × {width}. {self._said(state)}"
        return Shown(figure, sheet, f"{own} with its token framed, and {other}.", said)

    # How it is got at -----------------------------------------------------------------------------

    def _look(self, name: str, level: float, state: State) -> Look:
        key = (name, level, state.prompt, state.block)
        if key not in self._looks:
            picture = self._open(name)
            prompt = state.prompt or None
            (view,) = looks_at(self._model, picture, name, [level], state.block, prompt, self._seed)
            self._looks.put(key, view, view.maps.nbytes + 6 * view.noised.width * view.noised.height)
        return self._looks[key]

    def _open(self, name: str) -> Image.Image:
        return self._own[name] if name in self._own else self._stimuli.open(name)

    def _label(self, name: str) -> str:
        return name.split("/")[-1] if name in self._own else self._stimuli[self._stimuli.index(name)].label

    def _words(self, state: State) -> str:
        return f", prompt “{state.prompt}”" if state.prompt else ", no prompt"

    def _said(self, state: State) -> str:
        level = self._model.level(state.level)
        return (
            f"{self._label(state.stimulus)} at noise level {level.level:g} (timestep {level.timestep:g} of "
            f"{self._model.steps}, σ = {level.sigma:.2f}, {percent(level.signal_share)} of the variance signal)"
            f"{self._words(state)}."
        )

    def _map_shape(self) -> tuple[int, int]:
        table: Any = self._model.blocks().set_index("block")
        shape = tuple(table.loc[self.block.value, "shape"])
        if len(shape) == 3:
            return int(shape[1]), int(shape[2])
        side = round(shape[0] ** 0.5)
        return (side, side) if side * side == shape[0] else (int(shape[0]), 1)

    def _fit_token(self, _change: Any = None) -> None:
        """Let the slider reach the block's tokens, and start in the middle of the map."""
        height, width = self._map_shape()
        self.token.max = height * width - 1
        self.token.value = (height // 2) * width + width // 2

    def _take_upload(self, change: Any) -> None:
        """Offer what was uploaded; refuse, by name, what is no picture."""
        refused, taken = [], []
        for file in change["new"]:
            try:
                name, picture = uploaded_picture(file["name"], bytes(file["content"]))
            except UnreadableImageError as error:
                refused.append(str(error))
                continue
            self._own[name] = picture
            taken.append(name)
        for widget in (self.stimulus, self.second) if taken else ():
            chosen = widget.value
            options = [(f"{self._label(name)} (yours)", name) for name in self._own]
            stimuli = zip(self._stimuli.labels, self._stimuli.names, strict=True)
            widget.options = [*options, *stimuli]
            widget.value = taken[-1] if widget is self.stimulus else chosen
        if refused and self.latest.busy:  # told with what is shown next, which would wipe it out
            self.note = " ".join(refused)
        elif refused:
            self.say(" ".join(refused))


def _marked(picture: Image.Image, row: int, column: int, height: int, width: int) -> Image.Image:
    """Frame the part of a picture where a token lies."""
    scale = max(1, 300 // picture.width)
    marked = picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)
    x, y = marked.width / width, marked.height / height
    box = (column * x, row * y, (column + 1) * x - 1, (row + 1) * y - 1)
    ImageDraw.Draw(marked).rectangle(box, outline="#CC79A7", width=max(3, marked.width // 60))
    return marked
