"""Pick blocks, noise levels and conditionings, starting from the notebook's parameters."""

from __future__ import annotations

from collections.abc import Sequence

import ipywidgets

from ldm_kit.errors import BadInputError
from ldm_kit.features.conditioning import CONDITIONINGS
from ldm_kit.models import OpenedModel
from ldm_kit.plots.template import percent

LEVELS = tuple(round(0.05 * i, 2) for i in range(1, 20))


class GridPicker(ipywidgets.HBox):  # type: ignore[misc]
    """Choose the grid of an extraction: blocks × noise levels × conditionings.

    Parameters
    ----------
    model : OpenedModel
    blocks : str or sequence of str, optional
        Picked at first; as in `OpenedModel.select_blocks`.
    noise_levels : sequence of float
        Picked at first.
    conditionings : str or sequence of str
        Picked at first.
    needed : sequence of str
        Conditionings that the cells below cannot do without.

    Raises
    ------
    BadInputError
        If a needed conditioning is not among those picked: at first, or when `conditionings` is read.

    Notes
    -----
    Run headless, nobody picks anything, and the parameters stand. Run live, pick (with Ctrl or Shift for
    several) and run the cells below again.

    Examples
    --------
    >>> from ldm_kit.models import load_model
    >>> picker = GridPicker(load_model("tiny-ldm", device="cpu"), noise_levels=[0.3, 0.7])
    >>> picker.noise_levels, picker.conditionings
    ([0.3, 0.7], ['none'])
    """

    def __init__(
        self,
        model: OpenedModel,
        blocks: str | Sequence[str] | None = None,
        noise_levels: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.9),
        conditionings: str | Sequence[str] = "none",
        *,
        needed: Sequence[str] = (),
    ) -> None:
        self._needed = tuple(needed)
        chosen = model.select_blocks(blocks)
        table = model.blocks()
        stages = set(table.loc[table["stage"], "block"])
        offered = [block for block in table["block"] if block in chosen or block in stages]
        picked = [conditionings] if isinstance(conditionings, str) else list(conditionings)
        levels = [model.level(level) for level in sorted({*LEVELS, *map(float, noise_levels)})]
        options = [
            (f"{one.level:g}  (timestep {one.timestep}, {percent(one.signal_share)} signal)", one.level)
            for one in levels
        ]
        self._blocks = _many("blocks", offered, chosen)
        self._levels = _many("noise levels", options, [float(level) for level in noise_levels])
        self._conditionings = _many("conditioning", list(CONDITIONINGS), picked)
        super().__init__([self._blocks, self._levels, self._conditionings])
        self.add_class("ldm-grid-picker")
        _ = self.conditionings  # at once, not when features have been extracted

    @property
    def blocks(self) -> list[str]:
        """The blocks picked, in network order."""
        return list(self._blocks.value)

    @property
    def noise_levels(self) -> list[float]:
        """The noise levels picked, ascending."""
        return list(self._levels.value)

    @property
    def conditionings(self) -> list[str]:
        """The conditionings picked."""
        picked = list(self._conditionings.value)
        if missing := [name for name in self._needed if name not in picked]:
            raise BadInputError(
                f"The conditioning {picked} lacks {' and '.join(missing)}; what follows needs "
                f"{', '.join(self._needed)}. Add {'it' if len(missing) == 1 else 'them'} to `conditionings`."
            )
        return picked


def _many(title: str, options: Sequence[object], value: Sequence[object]) -> ipywidgets.SelectMultiple:
    widget = ipywidgets.SelectMultiple(
        options=options,
        value=tuple(value),
        description=title,
        rows=min(8, max(3, len(options))),
        style={"description_width": "90px"},
        layout={"width": "340px"},
        tooltip=f"{title}: pick several with Ctrl or Shift, then run the cells below again",
    )
    widget.add_class(f"ldm-pick-{title.replace(' ', '-')}")
    return widget
