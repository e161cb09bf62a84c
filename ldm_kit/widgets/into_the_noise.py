"""Into the noise: the noised image, the model's estimate, and what a block holds at each spatial position."""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections.abc import Generator, Hashable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, NamedTuple

import ipywidgets
from PIL import Image, ImageDraw

from ldm_kit import plots
from ldm_kit.datasets import Stimuli
from ldm_kit.datasets.stimuli import open_image
from ldm_kit.errors import UnreadableImageError
from ldm_kit.features import Look, looks_at
from ldm_kit.models import OpenedModel
from ldm_kit.plots.template import percent
from ldm_kit.widgets.explorer import (
    FIGURE_WIDTH,
    Explorer,
    Progress,
    Shown,
    control,
    dropdown,
    label_of,
    level_slider,
)
from ldm_kit.widgets.live import Cache

LEVELS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
# Before an uploaded image's own name, so that it never bears a stimulus's: noise is drawn from the name.
FOLDER = "yours"


class State(NamedTuple):
    """The values of the controls."""

    stimulus: str
    second: str
    level: float
    prompt: str
    block: str
    position: int


class IntoTheNoise(Explorer):
    """An image, a noise level, a prompt, a block: watch the image drown while the block loses it.

    Parameters
    ----------
    model : OpenedModel
    stimuli : Stimuli
        To choose from; the user can upload images as well.
    noise_levels : sequence of float
        Of the slider and the film strip.
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
    >>> from ldm_kit.datasets import load_dataset
    >>> from ldm_kit.models import load_model
    >>> view = IntoTheNoise(load_model("tiny-ldm", device="cpu"), load_dataset("emoji").stimuli, [0.3, 0.9])
    >>> view.level.value = 0.3
    >>> [trace.type for trace in view.figure("Positions").data[:3]]
    ['heatmap', 'heatmap', 'heatmap']
    """

    NAME = "into-the-noise"
    STATE = State
    TABS: ClassVar[dict[str, str]] = {
        "Image": "The image, noised; the model's estimate of it in one step; what the block holds.",
        "Positions": "How long the vector at each spatial position is, and how similar to the one marked ×.",
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
        self._uploads: dict[str, Image.Image] = {}
        self._looks: Cache[Look] = Cache()
        self.levels = sorted({model.level(float(level)).level for level in noise_levels})
        chosen = model.select_blocks(blocks)
        first = chosen[len(chosen) // 2] if block is None else model.select_blocks(block)[0]
        start = 0 if stimulus is None else stimuli.index(stimulus)
        second = stimuli.names[(start + 1) % len(stimuli)]
        self.stimulus = dropdown("stimulus", self._options(), stimuli.names[start])
        self.second = dropdown("second", self._options(), second)
        self.upload = ipywidgets.FileUpload(
            accept="image/*",
            multiple=True,
            description="Your own image",
            tooltip="Upload JPEG, PNG, WebP, BMP, GIF, TIFF or PPM files; they stay on this machine",
            layout={"width": "220px", "margin": "2px 2px 2px 94px"},
        )
        self.upload.add_class("ldm-upload")
        self.level = level_slider("noise level", self.levels, self.levels[len(self.levels) // 3])
        self.prompt = control(
            ipywidgets.Text, "prompt", placeholder="empty: no prompt", continuous_update=False
        )
        self.block = dropdown("block", dict.fromkeys([*chosen, first]), first)
        self.position = control(ipywidgets.IntSlider, "position", min=0, max=0)
        self._fit_position()
        self.block.observe(self._fit_position, names="value")
        self.upload.observe(self._take_upload, names="value")
        shown = [self.stimulus, self.upload, self.level, self.prompt, self.block, self.second, self.position]
        super().__init__(shown, delay)

    @property
    def state(self) -> State:
        """The values of the controls."""
        state: State = super().state
        return state._replace(prompt=state.prompt.strip())

    def key(self, tab: str, state: State) -> Hashable:
        """Leave out what a tab does not depend on."""
        if tab == "Positions":
            return tab, state
        level = -1.0 if tab == "Film strip" else state.level
        return tab, state._replace(second="", position=0, level=level)

    def steps(self, tab: str, state: State) -> Generator[Progress, None, Shown]:
        """Look at the levels that the tab needs, one per step."""
        if tab == "Film strip":
            views = []
            for i, level in enumerate(self.levels):
                yield i / len(self.levels), f"Noise level {level:g}: {i + 1} of {len(self.levels)} …"
                views.append(self._look(state.stimulus, level, state))
            return self._strip(views, state)
        yield 0.1, f"Noise level {state.level:g}, {state.block} …"
        view = self._look(state.stimulus, state.level, state)
        if tab == "Image":
            return self._images(view, state)
        yield 0.6, "The second image …"
        return self._positions(view, self._look(state.second, state.level, state), state)

    def clicked(self, x: Any, y: Any) -> None:
        """Mark the position that was clicked on."""
        _, width = self._map_shape()
        self.position.value = int(y) * width + int(x)

    # What the tabs show ---------------------------------------------------------------------------

    def _images(self, view: Look, state: State) -> Shown:
        sheet = plots.picture_grid(
            [self._clean(state.stimulus), view.noised, view.estimate, *plots.space_colours(view.maps[None])],
            ["image", f"noised to {view.level:g}", "model's estimate", view.block],
            columns=4,
            size=FIGURE_WIDTH // 4 - 8,
        )
        status = self._describe(state)
        alt = f"Image, noised image, estimate and feature map. {status}"
        return Shown(image=sheet, alt=alt, status=status)

    def _strip(self, views: list[Look], state: State) -> Shown:
        strip = plots.film_strip(views, size=min(112, (FIGURE_WIDTH - 130) // len(views) - 8))
        label = self._label(state.stimulus)
        status = f"{label} at {len(views)} noise levels{_prompted(state)}, {state.block}."
        alt = f"Noised images, the model's estimates, and the block in colour, by noise level. {status}"
        return Shown(image=strip, alt=alt, status=status)

    def _positions(self, view: Look, second: Look, state: State) -> Shown:
        height, width = view.maps.shape[1:]
        row, column = divmod(min(state.position, height * width - 1), width)
        own, other = self._label(state.stimulus), self._label(state.second)
        figure = plots.token_maps(
            plots.token_norms(view.maps),
            {
                f"like ×, in {own}": plots.token_similarity(view.maps, row, column),
                f"like ×, in {other}": plots.token_similarity(view.maps, row, column, second.maps),
            },
            (row, column),
            title=f"Spatial positions of {view.block}",
            subtitle=self._describe(state),
        )
        framed = _framed(self._clean(state.stimulus), row, column, height, width)
        captions = [f"{own}, position framed", other]
        sheet = plots.picture_grid([framed, self._clean(state.second)], captions, columns=2, size=150)
        status = f"Row {row}, column {column} of {height} × {width}. {self._describe(state)}"
        return Shown(figure, sheet, f"{own} with the position framed, and {other}.", status)

    # How it is computed ---------------------------------------------------------------------------

    def _look(self, name: str, level: float, state: State) -> Look:
        key = (name, level, state.prompt, state.block)
        if key not in self._looks:
            image, prompt = self._open(name), state.prompt or None
            (view,) = looks_at(self._model, image, name, [level], state.block, prompt, self._seed)
            self._looks.put(key, view, view.maps.nbytes + 6 * view.noised.width * view.noised.height)
        return self._looks[key]

    def _open(self, name: str) -> Image.Image:
        return self._uploads[name] if name in self._uploads else self._stimuli.open(name)

    def _clean(self, name: str) -> Image.Image:
        image: Image.Image = self._model.preprocess(self._open(name))
        return image

    def _label(self, name: str) -> str:
        return PurePosixPath(name).name if name in self._uploads else label_of(self._stimuli, name)

    def _options(self) -> list[tuple[str, str]]:
        """List the images to choose from, uploads first."""
        uploads = [(f"{self._label(name)} (yours)", name) for name in self._uploads]
        return [*uploads, *zip(self._stimuli.labels, self._stimuli.names, strict=True)]

    def _describe(self, state: State) -> str:
        level = self._model.level(state.level)
        return (
            f"{self._label(state.stimulus)} at noise level {level.level:g} (timestep {level.timestep:g} of "
            f"{self._model.steps}, σ = {level.sigma:.2f}, {percent(level.signal_share)} of the variance signal)"
            f"{_prompted(state)}."
        )

    def _map_shape(self) -> tuple[int, int]:
        """Return height and width of the block's map; a sequence is a square, or else a column."""
        table: Any = self._model.blocks().set_index("block")
        shape = [int(size) for size in table.loc[self.block.value, "shape"]]
        if len(shape) == 3:
            return shape[1], shape[2]
        side = math.isqrt(shape[0])
        return (side, side) if side * side == shape[0] else (shape[0], 1)

    def _fit_position(self, _change: Any = None) -> None:
        """Let the slider reach the block's positions, and start in the middle of the map."""
        height, width = self._map_shape()
        self.position.max = height * width - 1
        self.position.value = (height // 2) * width + width // 2

    def _take_upload(self, change: Any) -> None:
        """Offer what was uploaded; refuse, by name, what is no image."""
        refused, taken = [], []
        for file in change["new"]:
            try:
                name, image = uploaded_image(file["name"], bytes(file["content"]))
            except UnreadableImageError as error:
                refused.append(str(error))
                continue
            self._uploads[name] = image
            taken.append(name)
        if taken:
            second = self.second.value
            self.stimulus.options = self.second.options = self._options()
            self.second.value, self.stimulus.value = second, taken[-1]
        if refused and self.latest.busy:  # shown with the next status, which would wipe it out
            self.note = " ".join(refused)
        elif refused:
            self.say(" ".join(refused))


def uploaded_image(name: str, content: bytes) -> tuple[str, Image.Image]:
    """Open an uploaded file as an image, under the rules that hold for every image.

    Parameters
    ----------
    name : str
        As the browser sends it; only its last component is used.
    content : bytes

    Returns
    -------
    name : str
        ``yours/HASH/NAME``: another image under the same file name has another name, and so its own noise.
    image : PIL.Image

    Raises
    ------
    UnreadableImageError
        If it is no image, damaged, empty or too large; the file is named.

    Examples
    --------
    >>> uploaded_image("notes.txt", b"milk, eggs")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    ldm_kit.errors.UnreadableImageError: ...
    """
    last = PurePosixPath(name.replace("\\", "/")).name or "image"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "upload"  # a name from outside is never a path here
        path.write_bytes(content)
        try:
            image = open_image(path)
        except UnreadableImageError as error:
            raise UnreadableImageError(str(error).replace(str(path), last)) from error
    return f"{FOLDER}/{hashlib.sha256(content).hexdigest()[:8]}/{last}", image


def _prompted(state: State) -> str:
    return f", prompt “{state.prompt}”" if state.prompt else ", no prompt"


def _framed(image: Image.Image, row: int, column: int, height: int, width: int) -> Image.Image:
    """Frame the region of an image where a spatial position lies."""
    scale = max(1, 300 // image.width)
    framed = image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
    x, y = framed.width / width, framed.height / height
    box = (column * x, row * y, (column + 1) * x - 1, (row + 1) * y - 1)
    ImageDraw.Draw(framed).rectangle(box, outline="#CC79A7", width=max(3, framed.width // 60))
    return framed
