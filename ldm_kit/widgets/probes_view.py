"""The probe's view: who is near whom, before and after the probe, and in a space of dimensions."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, ClassVar, NamedTuple

import ipywidgets
import numpy as np
import numpy.typing as npt

from ldm_kit import plots
from ldm_kit.datasets import Dataset
from ldm_kit.errors import BadInputError
from ldm_kit.features import FeatureStore
from ldm_kit.measures import ProbeResult, similarity
from ldm_kit.widgets.explorer import (
    FIGURE_WIDTH,
    Explorer,
    Progress,
    Shown,
    cell_name,
    control,
    dropdown,
    label_of,
    level_slider,
)

BEFORE, AFTER = "the block", "after the probe"


class State(NamedTuple):
    """The values of the controls."""

    stimulus: str
    block: str
    level: float
    conditioning: str
    neighbours: int


class ProbesView(Explorer):
    """Nearest neighbours of a stimulus before and after the probe, beside those in a space of dimensions.

    Parameters
    ----------
    store : FeatureStore
        That the probes were fitted on. Of noise samples that are apart the mean is shown.
    data : Dataset
        With triplets; its `default_embedding`, where it has one, is what block and probe are set beside.
    result : ProbeResult
        From `cross_validate_probe` on `store`, with its probes.
    stimulus : str, optional
        Shown at first.
    delay : float
        Seconds that changes must have stopped for before work begins.

    Raises
    ------
    BadInputError
        If the result holds no probes, or those of other stimuli.

    Examples
    --------
    >>> cell = store.select(blocks="mid_block", noise_levels=0.3, conditionings="none")
    >>> linear = lk.cross_validate_probe(cell, data.triplets, lk.LinearProbe(alpha=1.0), cv=2)
    >>> lk.widgets.ProbesView(cell, data, linear).tab
    'Neighbours'
    """

    NAME = "probes-view"
    STATE = State
    TABS: ClassVar[dict[str, str]] = {
        "Neighbours": "The chosen stimulus (left) and its nearest neighbours in each space.",
        "Ranks": "How near every other stimulus is: in the space of dimensions, in the block, after the probe.",
    }

    def __init__(
        self,
        store: FeatureStore,
        data: Dataset,
        result: ProbeResult,
        *,
        stimulus: str | None = None,
        delay: float = 0.15,
    ) -> None:
        if not result.probes:
            raise BadInputError("The result holds no probes. Cross-validate with keep_probes=True.")
        if not set(result.folds) & set(store.names):
            raise BadInputError(
                "The result's probes were fitted on none of the store's stimuli. Pass the store that was cross-validated."
            )
        store = store.mean_of_draws()
        self._store, self._data, self._result = store, data, result
        best = result.summary().nlargest(1, "accuracy").iloc[0]
        start = store.names[0] if stimulus is None else data.stimuli.names[data.stimuli.index(stimulus)]
        self._labels = [label_of(data.stimuli, name) for name in store.names]
        self.stimulus = dropdown("stimulus", zip(self._labels, store.names, strict=True), start)
        self.block = dropdown("block", store.blocks, best["block"])
        self.level = level_slider("noise level", store.noise_levels, best["noise_level"])
        self.conditioning = dropdown("conditioning", store.conditionings, best["conditioning"])
        most = min(8, len(store) - 1)
        self.neighbours = control(
            ipywidgets.IntSlider, "neighbours", min=min(2, most), max=most, value=min(6, most)
        )
        super().__init__([getattr(self, name) for name in State._fields], delay)

    def steps(self, tab: str, state: State) -> Generator[Progress, None, Shown]:
        """Compute the similarities, then show them."""
        yield 0.2, f"{cell_name((state.block, state.level))} …"
        row = self._store.names.index(state.stimulus)
        nearest = {space: _nearest(values, row) for space, values in self.similarities(state).items()}
        return self._neighbours(row, nearest, state) if tab == "Neighbours" else self._ranks(nearest, state)

    def similarities(self, state: State | None = None) -> dict[str, npt.NDArray[np.float64]]:
        """Return the similarity of the chosen stimulus to every stimulus, in each space.

        Returns
        -------
        dict of str to ndarray, shape (n,)
            Rows as in the store's `names`.

        Examples
        --------
        >>> cell = store.select(blocks="mid_block", noise_levels=0.3, conditionings="none")
        >>> linear = lk.cross_validate_probe(cell, data.triplets, lk.LinearProbe(alpha=1.0), cv=2)
        >>> sorted(lk.widgets.ProbesView(cell, data, linear).similarities())
        ['after the probe', 'norms (simulated)', 'the block']
        """
        state = self.state if state is None else state
        row = self._store.names.index(state.stimulus)
        X = self._store[state.block, state.level, state.conditioning]
        near = {
            BEFORE: similarity(X, "centred cosine")[row],
            AFTER: similarity(self._probe(state).transform(X), "dot")[row],
        }
        names, space = list(self._store.names), self._data.default_embedding
        if space is not None and set(names) <= set(self._data.embeddings[space].index):
            embedding = self._data.embeddings[space].loc[names].to_numpy()
            near[self._data.describe_embedding(space)] = similarity(embedding, "dot")[row]
        return near

    # What the tabs show ---------------------------------------------------------------------------

    def _neighbours(self, row: int, nearest: dict[str, list[int]], state: State) -> Shown:
        columns, stimuli = state.neighbours + 1, self._data.stimuli
        places = [i for order in nearest.values() for i in [row, *order[: state.neighbours]]]
        sheet = plots.picture_grid(
            [stimuli.open(self._store.names[i]) for i in places],
            [self._labels[i] for i in places],
            columns=columns,
            size=min(112, (FIGURE_WIDTH - 130) // columns - 8),
            rows=[space.replace(" (", "\n(") for space in nearest],
        )
        listed = (
            f"{space}: {', '.join(self._labels[i] for i in order[: state.neighbours])}"
            for space, order in nearest.items()
        )
        alt = f"Nearest to {self._labels[row]}. {'; '.join(listed)}."
        return Shown(image=sheet, alt=alt, status=self._describe(nearest, state))

    def _ranks(self, nearest: dict[str, list[int]], state: State) -> Shown:
        ranks = {space: {i: rank for rank, i in enumerate(order, 1)} for space, order in nearest.items()}
        across = ([space for space in nearest if space not in (BEFORE, AFTER)] or [BEFORE])[0]
        others = sorted(nearest[across])
        fig = plots.figure(
            f"How near is everything to {label_of(self._data.stimuli, state.stimulus)}?",
            f"{cell_name((state.block, state.level))}, conditioning {state.conditioning}; 1 is the nearest",
            height=520,
        )
        ends = [1, len(others)]
        fig.add_scatter(
            x=ends, y=ends, mode="lines", line={"color": "#bbbbbb"}, showlegend=False, hoverinfo="skip"
        )
        for i, space in enumerate(one for one in (BEFORE, AFTER) if one != across):
            fig.add_scatter(
                x=[ranks[across][one] for one in others],
                y=[ranks[space][one] for one in others],
                text=[self._labels[one] for one in others],
                name=space,
                mode="markers",
                marker={"size": 9, "color": plots.COLOURS[i], "symbol": ("circle", "diamond-open")[i]},
                hovertemplate="%{text}: %{x} → %{y}<extra></extra>",
            )
        fig.update_xaxes(title=f"rank in {across}")
        fig.update_yaxes(title="rank in the block, after the probe")
        return Shown(fig, status=self._describe(nearest, state))

    # How it is computed ---------------------------------------------------------------------------

    def _probe(self, state: State) -> Any:
        """Return the probe that never saw the stimulus; what has no judgements was seen by none."""
        fold = self._result.folds.get(state.stimulus, 0)
        table = self._result.table.query("repeat == 0").reset_index(drop=True)
        same = (table["block"] == state.block) & (table["conditioning"] == state.conditioning)
        same &= (table["fold"] == fold) & np.isclose(table["noise_level"], state.level)
        if not same.any():
            raise BadInputError(
                f"No probe was fitted on {cell_name((state.block, state.level))} under {state.conditioning!r}. "
                "Pass the store that was cross-validated."
            )
        return self._result.probes[int(np.flatnonzero(same)[0])]

    def _describe(self, nearest: dict[str, list[int]], state: State) -> str:
        """Say whose probe is shown, and how many of the nearest are so in block and probe."""
        whose = ""
        if state.stimulus not in self._result.folds:
            whose = "It has no judgements, so no probe saw it; shown is that of fold 0. "
        k = state.neighbours
        before, after, *spaces = (set(order[:k]) for order in nearest.values())
        if not spaces:
            return f"{whose}The dataset has no space of dimensions to compare with."
        return (
            f"{whose}Of the {k} nearest in {list(nearest)[2]}, {len(before & spaces[0])} are so in the block "
            f"and {len(after & spaces[0])} after the probe."
        )


def _nearest(values: npt.NDArray[Any], row: int) -> list[int]:
    """List all others, nearest first."""
    return [int(i) for i in np.argsort(-values, kind="stable") if i != row]
