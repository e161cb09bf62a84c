"""The probe's view: who is near whom, before and after, and in the judges' own space."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, ClassVar, NamedTuple

import ipywidgets
import numpy as np
import numpy.typing as npt

from ldm_kit.datasets.dataset import Dataset
from ldm_kit.errors import BadInputError
from ldm_kit.features.store import FeatureStore
from ldm_kit.measures import ProbeResult, protocol_linhardt, similarity
from ldm_kit.plots import picture_grid
from ldm_kit.plots.template import COLOURS, figure
from ldm_kit.widgets.explorer import FIGURE_WIDTH, Explorer, Progress, Shown, control

ABOUT = """
<p><b>Each row</b> begins with the chosen stimulus and goes on with its nearest neighbours: in the block (centred cosine),
after the probe (dot product), and in a space of named dimensions, where there is one. Its row says what it is: SPoSE and
VICE were fitted to people's choices (a human model); Toybox's norms are those of the simulated observers, also where others
chose.</p>
<p>The probe is that of the fold in which the chosen stimulus was <b>held out</b>: it never saw it, but it did see most of its
neighbours. A stimulus that nobody judged was seen by no probe; then the first fold's is shown, and the status line says so.</p>
<p><b>Ranks:</b> every other stimulus is a dot; at the left lies what that space holds near (1 is the nearest), at the bottom
what the block does. A probe that helps draws dots towards the diagonal.</p>
"""
BEFORE, AFTER = "the block", "after the probe"


class State(NamedTuple):
    """What the controls say."""

    stimulus: str
    block: str
    level: float
    words: str
    neighbours: int


class ProbesView(Explorer):
    """Nearest neighbours of a stimulus before and after the probe, beside those in a space of dimensions.

    Parameters
    ----------
    store : FeatureStore
        That the probes were fitted on.
    data : Dataset
        With triplets; its `space`, where it has one, is what block and probe are set beside.
    result : ProbeResult
        From `cross_validate_probe` on `store`, its probes kept.
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
    >>> view = lk.widgets.ProbesView(store, data, linear)  # doctest: +SKIP
    >>> view.figure("Neighbours")  # doctest: +SKIP
    """

    NAME = "probes-view"
    ABOUT = ABOUT
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
                "The result's probes were fitted on none of the store's stimuli. Give the store that was cross-validated."
            )
        self._store, self._data, self._result = store, data, result
        best = result.summary().loc[result.summary()["accuracy"].idxmax()]
        stimuli = data.stimuli
        options = [(stimuli[stimuli.index(name)].label, name) for name in store.names]
        start = store.names[0] if stimulus is None else stimuli.names[stimuli.index(stimulus)]
        levels = [(f"{level:g}", level) for level in store.noise_levels]
        most = min(8, len(store) - 1)
        self.stimulus = control(ipywidgets.Dropdown, "stimulus", options=options, value=start)
        self.block = control(ipywidgets.Dropdown, "block", options=store.blocks, value=best["block"])
        self.level = control(
            ipywidgets.SelectionSlider, "noise level", options=levels, value=float(best["noise_level"])
        )
        self.words = control(
            ipywidgets.Dropdown, "words", options=store.conditionings, value=best["conditioning"]
        )
        self.neighbours = control(
            ipywidgets.IntSlider, "neighbours", min=min(2, most), max=most, value=min(6, most)
        )
        controls = [self.stimulus, self.block, self.level, self.words, self.neighbours]
        super().__init__(controls, controls, delay)
        self.start()

    @property
    def state(self) -> State:
        """What the controls say."""
        return State(
            self.stimulus.value, self.block.value, self.level.value, self.words.value, self.neighbours.value
        )

    def steps(self, tab: str, state: State) -> Generator[Progress, None, Shown]:
        """Compute the similarities, then show them."""
        yield 0.2, f"{state.block} at noise level {state.level:g} …"
        row = self._store.names.index(state.stimulus)
        near = self.similarities(state)
        return self._neighbours(row, near, state) if tab == "Neighbours" else self._ranks(row, near, state)

    def similarities(self, state: State | None = None) -> dict[str, npt.NDArray[np.float64]]:
        """Give the similarity of the chosen stimulus to every stimulus, in each space.

        Returns
        -------
        dict of str to ndarray, shape (n,)
            Rows as in the store's `names`.

        Examples
        --------
        >>> sorted(view.similarities())  # doctest: +SKIP
        ['after the probe', 'norms (simulated)', 'the block']
        """
        state = self.state if state is None else state
        row = self._store.names.index(state.stimulus)
        X = self._store[state.block, state.level, state.words]
        probe = self._probe(state)
        near = {
            BEFORE: similarity(X, "centred cosine")[row],
            AFTER: similarity(probe.transform(X), "dot")[row],
        }
        names = list(self._store.names)
        space = self._data.default_embedding
        if space is not None and set(names) <= set(self._data.embeddings[space].index):
            embedding = self._data.embeddings[space].loc[names].to_numpy()
            near[self._data.describe_embedding(space)] = similarity(embedding, "dot")[row]
        return near

    # What the tabs show ---------------------------------------------------------------------------

    def _neighbours(self, row: int, near: dict[str, Any], state: State) -> Shown:
        order = {space: [row, *_nearest(values, row)[: state.neighbours]] for space, values in near.items()}
        names, stimuli = self._store.names, self._data.stimuli
        labels = {i: stimuli[stimuli.index(names[i])].label for row in order.values() for i in row}
        columns = state.neighbours + 1
        sheet = picture_grid(
            [stimuli.open(names[i]) for row in order.values() for i in row],
            [labels[i] for row in order.values() for i in row],
            columns=columns,
            size=min(112, (FIGURE_WIDTH - 130) // columns - 8),
            rows=[space.replace(" (", "\n(") for space in order],
        )
        alt = "; ".join(f"{space}: {', '.join(labels[i] for i in row[1:])}" for space, row in order.items())
        return Shown(
            picture=sheet, alt=f"Nearest to {labels[row]}. {alt}.", said=self._said(near, row, state)
        )

    def _ranks(self, row: int, near: dict[str, Any], state: State) -> Shown:
        ranks = {space: _rank(values, row) for space, values in near.items()}
        spaces = [space for space in ranks if space not in (BEFORE, AFTER)]
        across = spaces[0] if spaces else BEFORE
        names = self._store.names
        others = [i for i in range(len(names)) if i != row]
        labels = [self._data.stimuli[self._data.stimuli.index(names[i])].label for i in others]
        chosen = self._data.stimuli[self._data.stimuli.index(state.stimulus)].label
        fig = figure(
            f"How near is everything to {chosen}?",
            f"{state.block} at noise level {state.level:g}, words: {state.words}; 1 is the nearest",
            height=520,
        )
        most = len(names) - 1
        diagonal = {"x": [1, most], "y": [1, most], "mode": "lines", "line": {"color": "#bbbbbb"}}
        fig.add_scatter(**diagonal, showlegend=False, hoverinfo="skip")
        for i, space in enumerate(one for one in (BEFORE, AFTER) if one != across):
            fig.add_scatter(
                x=[int(ranks[across][one]) for one in others],
                y=[int(ranks[space][one]) for one in others],
                text=labels,
                name=space,
                mode="markers",
                marker={"size": 9, "color": COLOURS[i], "symbol": ("circle", "diamond-open")[i]},
                hovertemplate="%{text}: %{x} → %{y}<extra></extra>",
            )
        fig.update_xaxes(title=f"rank in {across}")
        fig.update_yaxes(title="rank in the block, after the probe")
        return Shown(fig, said=self._said(near, row, state))

    # How it is got at -----------------------------------------------------------------------------

    def _probe(self, state: State) -> Any:
        fold = self._result.folds.get(state.stimulus, 0)  # no fold saw what nobody judged
        table = self._result.table.reset_index(drop=True)
        same = (table["block"] == state.block) & (table["conditioning"] == state.words)
        same &= (table["fold"] == fold) & np.isclose(table["noise_level"], state.level)
        if not same.any():
            raise BadInputError(
                f"No probe was fitted on {state.block} at noise level {state.level:g} under {state.words!r}. "
                "Give the store that was cross-validated."
            )
        return self._result.probes[int(np.flatnonzero(same)[0])]

    def _said(self, near: dict[str, Any], row: int, state: State) -> str:
        spaces = [space for space in near if space not in (BEFORE, AFTER)]
        fold = self._result.folds.get(state.stimulus)
        whose = "Nobody judged it, so no probe saw it; shown is that of fold 0. " if fold is None else ""
        if protocol_linhardt.NAME in str(self._result.table["probe"].iloc[0]):
            whose = f"The protocol {protocol_linhardt.NAME} peeks: this probe saw the stimulus, too. "
        if not spaces:
            return f"{whose}The dataset has no space of dimensions to compare with."
        k = state.neighbours
        sets = {space: set(_nearest(values, row)[:k]) for space, values in near.items()}
        before, after = (len(sets[space] & sets[spaces[0]]) for space in (BEFORE, AFTER))
        return f"{whose}Of the {k} nearest in {spaces[0]}, {before} are so in the block and {after} after the probe."


def _nearest(values: npt.NDArray[Any], row: int) -> list[int]:
    """All others, nearest first."""
    return [int(i) for i in np.argsort(-values, kind="stable") if i != row]


def _rank(values: npt.NDArray[Any], row: int) -> npt.NDArray[np.int64]:
    """The rank of each other stimulus, 1 for the nearest; 0 for the stimulus itself."""
    ranks = np.zeros(len(values), dtype=np.int64)
    for place, i in enumerate(_nearest(values, row)):
        ranks[i] = place + 1
    return ranks
