"""Pick blocks, noise levels and conditionings; what is picked at first are the notebook's parameters."""

from __future__ import annotations

from collections.abc import Sequence

import ipywidgets

from ldm_kit.errors import BadInputError
from ldm_kit.features.conditioning import CONDITIONINGS
from ldm_kit.models.noise import NoiseLevel
from ldm_kit.models.opened import OpenedModel
from ldm_kit.plots.alignment import percent

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
        Conditionings that what follows cannot do without.

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
    >>> picker = lk.widgets.GridPicker(model, noise_levels=[0.3, 0.7])  # doctest: +SKIP
    >>> picker.noise_levels  # doctest: +SKIP
    [0.3, 0.7]
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
        offered = [block for block in table["block"] if block in chosen]
        offered += [block for block in table.loc[table["stage"], "block"] if block not in chosen]
        order = list(table["block"])
        levels = sorted({*LEVELS, *map(float, noise_levels)})
        words = [conditionings] if isinstance(conditionings, str) else list(conditionings)
        self._blocks = _many("blocks", sorted(offered, key=order.index), chosen)
        self._levels = _many(
            "noise levels",
            [(_placed(model.level(level)), level) for level in levels],
            [float(level) for level in noise_levels],
        )
        self._conditionings = _many("conditioning", list(CONDITIONINGS), words)
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
        if missing := [words for words in self._needed if words not in picked]:
            raise BadInputError(
                f"The conditioning {picked} lacks {' and '.join(missing)}; what follows needs "
                f"{', '.join(self._needed)}. Add {'it' if len(missing) == 1 else 'them'} to `conditionings`."
            )
        return picked


def _placed(level: NoiseLevel) -> str:
    return f"{level.level:g}  (timestep {level.timestep}, {percent(level.signal_share)} signal)"


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
