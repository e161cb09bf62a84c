"""Turn a slider and watch a picture drown in noise while a block loses it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import ipywidgets
from PIL import Image

from ldm_kit.datasets.stimuli import Stimuli
from ldm_kit.features.looking import look
from ldm_kit.models.opened import OpenedModel
from ldm_kit.plots.pictures import picture_grid, space_colours


class NoiseView(ipywidgets.VBox):  # type: ignore[misc]
    """A stimulus, a noise level, a block, a prompt: what the model is shown, guesses and holds.

    Parameters
    ----------
    model : OpenedModel
    stimuli : Stimuli
    noise_levels : sequence of float
        The slider's places.
    block : str, optional
        Shown at first; by default the middle of the network.
    seed : int

    Notes
    -----
    What was computed once is kept, so that going back is instant. The picture is an `Image` that a change
    replaces; no `Output` is used, since headless runs can hang on one.

    Examples
    --------
    >>> lk.widgets.NoiseView(model, data.stimuli)  # doctest: +SKIP
    """

    def __init__(
        self,
        model: OpenedModel,
        stimuli: Stimuli,
        noise_levels: Sequence[float] = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
        block: str | None = None,
        seed: int = 0,
    ) -> None:
        self._model, self._stimuli, self._seed = model, stimuli, seed
        self._kept: dict[tuple[str, float, str, str], bytes] = {}
        blocks = model.select_blocks(None)
        if block is not None:
            blocks = list(dict.fromkeys([*blocks, *model.select_blocks(block)]))
        levels = sorted({float(level) for level in noise_levels})
        self.stimulus = _wide(ipywidgets.Dropdown, "stimulus", options=list(stimuli.names))
        self.level = _wide(
            ipywidgets.SelectionSlider,
            "noise level",
            options=[(f"{level:g}  (timestep {model.level(level).timestep})", level) for level in levels],
            value=levels[len(levels) // 3],
            continuous_update=False,
        )
        first = block and model.select_blocks(block)[0]
        self.block = _wide(
            ipywidgets.Dropdown, "block", options=blocks, value=first or blocks[len(blocks) // 2]
        )
        self.prompt = _wide(ipywidgets.Text, "prompt", placeholder="empty: no words", continuous_update=False)
        self.image = ipywidgets.Image(format="png")
        self.status = ipywidgets.HTML()
        for widget in (self.stimulus, self.level, self.block, self.prompt):
            widget.observe(self._show, names="value")
        controls = ipywidgets.VBox([self.stimulus, self.level, self.block, self.prompt, self.status])
        super().__init__([ipywidgets.HBox([controls, self.image])])
        self.add_class("ldm-noise-view")
        self._show(None)

    def picture(self, stimulus: str, level: float, block: str, prompt: str = "") -> Image.Image:
        """Compute what is shown for one state, as a PIL picture."""
        (view,) = look(self._model, self._stimuli, stimulus, [level], block, prompt, self._seed)
        colours = space_colours(view.maps[None])[0]
        clean = self._model.preprocess(self._stimuli.open(view.stimulus))
        return picture_grid(
            [clean, view.noised, view.estimate, colours],
            ["picture", f"noised to {level:g}", "model's estimate", block],
            columns=4,
            size=150,
        )

    def _show(self, _change: Any) -> None:
        state = (self.stimulus.value, self.level.value, self.block.value, self.prompt.value)
        if state not in self._kept:
            buffer = io.BytesIO()
            self.picture(*state).save(buffer, format="PNG")
            self._kept[state] = buffer.getvalue()
        self.image.value = self._kept[state]
        level = self._model.level(self.level.value)
        self.status.value = (
            f"Noise level {level.level:g}: timestep {level.timestep} of {self._model.steps}, "
            f"σ = {level.sigma:.2f}. Signal {level.signal:.2f}, noise {level.noise:.2f}."
        )


def _wide(kind: Any, title: str, **options: Any) -> Any:
    widget = kind(
        description=title, style={"description_width": "90px"}, layout={"width": "380px"}, **options
    )
    widget.add_class(f"ldm-noise-{title.replace(' ', '-')}")
    return widget
