"""Where is the human? The map of alignment, and what lies behind each of its cells."""

from __future__ import annotations

from collections.abc import Generator, Hashable
from typing import Any, ClassVar, NamedTuple

import ipywidgets
import numpy as np
import numpy.typing as npt
import pandas as pd

from ldm_kit.datasets.dataset import Dataset
from ldm_kit.errors import BadInputError
from ldm_kit.features.store import FeatureStore
from ldm_kit.measures import (
    accuracy_by_category,
    ceiling_of,
    compare,
    dimension_regression,
    odd_one_out,
    predicted_odd,
    similarity,
)
from ldm_kit.measures.grouped import set_keys
from ldm_kit.plots import (
    block_curves,
    block_noise_heatmap,
    category_dots,
    difference_dots,
    dimension_dots,
    triplet_sheet,
)
from ldm_kit.plots.template import judged_by
from ldm_kit.tables import only
from ldm_kit.widgets.explorer import Explorer, Progress, Shown, control
from ldm_kit.wording import format_accuracy, format_difference

ABOUT = """
<p><b>The map</b> tells, for each block and noise level, the share of triplets on which the block leaves out the item that
the judges left out. Chance is 1/3; the <b>noise ceiling</b> is how well judges predict each other, the most that can be
hoped for. The scale reaches from one to the other, so that colour tells the share of what is possible; scaled to the
best cell instead, small differences show, and look larger than they are.</p>
<p><b>Cell A</b> is opened in the other tabs: accuracy by category, the dimensions that can be read from it (of SPoSE
or VICE, a human model; or Toybox's norms, which are the simulated observers'), and the triplets on which it is most
and least human, by the margin of the pair that judges kept together. One such triplet is an anecdote. <b>Cell B</b>
is what it is compared with, triplet by triplet. Click a cell of the map to make it A.</p>
<p>The highest of many noisy cells is too high: notebook 03 tells how to name a winner honestly.</p>
"""
SCALES = {"from chance to the noise ceiling": True, "from chance to the best cell": False}
MOST_TRIPLETS = 4


class State(NamedTuple):
    """What the controls say."""

    words: str
    a: tuple[str, float]
    b: tuple[str, float]
    scale: bool


class WhereIsTheHuman(Explorer):
    """The block × noise-level map of alignment; choose a cell and see what it is made of.

    Parameters
    ----------
    store : FeatureStore
    data : Dataset
        With triplets; categories and an embedding, where there are, give the profiles.
    metric : str
        As for `odd_one_out`.
    table : pandas.DataFrame, optional
        From `odd_one_out` on this store and metric; computed if not given.
    ceiling : optional
        As for `odd_one_out`; by default that of `data`.
    n_folds, seed : int
        Of the regression of dimensions.
    delay : float
        Seconds that changes must have stopped for before work begins.

    Raises
    ------
    BadInputError
        If the dataset has no triplets.

    Examples
    --------
    >>> view = lk.widgets.WhereIsTheHuman(store, data, metric="centred cosine")  # doctest: +SKIP
    >>> view.figure("Categories")  # doctest: +SKIP
    """

    NAME = "where-is-the-human"
    ABOUT = ABOUT
    TABS: ClassVar[dict[str, str]] = {
        "Map": "Alignment by block and noise level. Click a cell to make it A.",
        "Curves": "The same through the network, from down over mid to up: is the bottleneck a dip?",
        "Categories": "Cell A, over the triplets that hold a member of each category.",
        "Dimensions": "What can be read from cell A by ridge regression, on held-out objects.",
        "Triplets": "Where cell A sides with the judges by the widest margin, and where it contradicts them.",
        "Two cells": "Cell A minus cell B, on the same triplets: in all, and by category.",
    }

    def __init__(
        self,
        store: FeatureStore,
        data: Dataset,
        *,
        metric: str = "centred cosine",
        table: pd.DataFrame | None = None,
        ceiling: Any = None,
        n_folds: int = 3,
        seed: int = 0,
        delay: float = 0.15,
    ) -> None:
        if data.triplets is None:
            raise BadInputError(f"The dataset {data.name!r} has no triplets, so nothing can be aligned.")
        self._store, self._data, self._metric = store.select(names=data.triplets.names), data, metric
        self._triplets, self._n_folds, self._seed = data.triplets, n_folds, seed
        self._ceiling = ceiling_of(data) if ceiling is None else ceiling
        if table is None:
            table = odd_one_out(store, data.triplets, metric=metric, ceiling=self._ceiling)
        self.table = table[table["metric"] == metric]
        best: Any = self.table.iloc[int(self.table["accuracy"].argmax())]
        blocks = list(store.blocks)
        other = "mid_block" if "mid_block" in blocks and best["block"] != "mid_block" else blocks[0]
        places = [(f"{level:g}", level) for level in store.noise_levels]
        level = float(best["noise_level"])
        self.words = control(ipywidgets.Dropdown, "words", options=store.conditionings)
        self.block = control(ipywidgets.Dropdown, "block A", options=blocks, value=best["block"])
        self.level = control(ipywidgets.SelectionSlider, "noise A", options=places, value=level)
        self.block_b = control(ipywidgets.Dropdown, "block B", options=blocks, value=other)
        self.level_b = control(ipywidgets.SelectionSlider, "noise B", options=places, value=level)
        self.scale = control(ipywidgets.Dropdown, "colours", options=list(SCALES))
        controls = [self.words, self.block, self.level, self.block_b, self.level_b, self.scale]
        self.words.value = best["conditioning"]
        super().__init__(controls, controls, delay)
        self.start()

    @property
    def state(self) -> State:
        """What the controls say."""
        a, b = (self.block.value, self.level.value), (self.block_b.value, self.level_b.value)
        return State(self.words.value, a, b, SCALES[self.scale.value])

    def key(self, tab: str, state: State) -> Hashable:
        """Leave out what a tab does not depend on."""
        if tab == "Map":
            return tab, state
        if tab == "Curves":
            return tab, state.words
        return tab, state.words, state.a, state.b if tab == "Two cells" else None

    def steps(self, tab: str, state: State) -> Generator[Progress, None, Shown]:
        """Compute what the tab shows."""
        yield 0.1, f"{tab} …"
        if tab == "Two cells":
            return (yield from self._two_cells(state))
        show = {
            "Map": self._map,
            "Curves": self._curves,
            "Categories": self._categories,
            "Dimensions": self._dimensions,
            "Triplets": self._most_and_least,
        }[tab]
        return show(state)

    def clicked(self, x: Any, y: Any) -> None:
        """Make the cell that was clicked on A."""
        if self.tab == "Map":
            level = {f"{one:g}": one for one in self._store.noise_levels}.get(str(x))
            if level is not None and y in self.block.options:
                self.block.value, self.level.value = y, level

    # What the tabs show ---------------------------------------------------------------------------

    def _map(self, state: State) -> Shown:
        marked = {"A": state.a} if state.a == state.b else {"B": state.b, "A": state.a}
        fig = block_noise_heatmap(self.table, state.words, to_ceiling=state.scale, marked=marked)
        return Shown(fig, said=self._row_said(state))

    def _curves(self, state: State) -> Shown:
        return Shown(block_curves(self.table, state.words), said=self._row_said(state))

    def _categories(self, state: State) -> Shown:
        if self._data.categories is None:
            return Shown(said=f"The dataset {self._data.name!r} has no categories.")
        table = accuracy_by_category(
            self._cell(state), self._triplets, self._data.categories, metric=self._metric
        ).sort_values("accuracy")
        return Shown(
            category_dots(table, title=f"{_named(state.a)}, by category"), said=self._row_said(state)
        )

    def _dimensions(self, state: State) -> Shown:
        if (name := self._data.default_embedding) is None:
            return Shown(said=f"The dataset {self._data.name!r} has no dimensions to predict.")
        embedding = self._data.embeddings[name]
        there = [one for one in self._store.names if one in embedding.index]
        cell = self._cell(state).select(names=there)
        table = dimension_regression(cell, embedding, self._n_folds, self._seed)
        fig = dimension_dots(
            table,
            title=f"Dimensions of {self._data.describe_embedding(name)} in {_named(state.a)}",
        )
        return Shown(fig, said=f"{len(there)} objects, {self._n_folds} folds. {self._row_said(state)}")

    def _most_and_least(self, state: State) -> Shown:
        cell = self._cell(state)
        X = cell[(*state.a, state.words)]
        i, j, k = self._triplets.indices.T
        S = similarity(X, self._metric)
        margin = S[i, j] - np.maximum(S[i, k], S[j, k])
        chosen = predicted_odd(X, self._triplets.indices, self._metric)
        order = np.argsort(margin)
        rows = np.array([*self._distinct(order[::-1]), *self._distinct(order)])
        picked = chosen[rows]
        indices, stimuli = self._triplets.indices[rows], self._data.stimuli
        sheet = triplet_sheet(
            [[stimuli.open(int(one)) for one in row] for row in indices],
            [[stimuli.labels[int(one)] for one in row] for row in indices],
            [(2, int(one)) for one in picked],
            titles=["Most human", "", "Least human", ""][: -(-len(rows) // 2)],
            size=118,
        )
        alt = "; ".join(
            f"{', '.join(stimuli.labels[int(one)] for one in row)}: judges left out "
            f"{stimuli.labels[int(row[2])]}"
            + (f", the block {stimuli.labels[int(row[model])]}" if model >= 0 else ", the block was tied")
            for row, model in zip(indices, picked, strict=True)
        )
        return Shown(picture=sheet, alt=alt, said=f"Blue: the judges' odd one. {self._row_said(state)}")

    def _two_cells(self, state: State) -> Generator[Progress, None, Shown]:
        if state.a == state.b:
            return Shown(said="A and B are the same cell. Choose another block or noise level for one.")
        arrays = {name: self._store[(*cell, state.words)] for name, cell in (("A", state.a), ("B", state.b))}
        tables = [self._difference(arrays, np.ones(len(self._triplets), dtype=bool), "all triplets")]
        categories = self._data.categories
        columns = [] if categories is None else list(categories.columns)
        for done, column in enumerate(columns):
            yield (done + 1) / (len(columns) + 1), f"A minus B, {column} …"
            assert categories is not None
            member = categories[column].reindex(list(self._triplets.names)).fillna(False).to_numpy(bool)
            held = np.asarray(member[self._triplets.indices].any(axis=1))
            if held.any():
                tables.append(self._difference(arrays, held, str(column)))
        overall, *parts = tables
        parts.sort(key=lambda part: float(part["difference"].iloc[0]))
        fig = difference_dots(
            pd.concat([*parts, overall]),
            title=f"{_named(state.a)} minus {_named(state.b)}",
            subtitle=f"difference in accuracy, 95 % intervals, uncorrected; {judged_by(self.table)}",
        )
        row: Any = overall.iloc[0]
        return Shown(fig, said=f"A minus B over all triplets: {format_difference(row)}.")

    # How it is got at -----------------------------------------------------------------------------

    def _cell(self, state: State) -> FeatureStore:
        block, level = state.a
        return self._store.select(blocks=[block], noise_levels=[level], conditionings=state.words)

    def _row_said(self, state: State) -> str:
        row: Any = only(self.table, conditioning=state.words, block=state.a[0], noise_level=state.a[1]).iloc[
            0
        ]
        return f"A: {_named(state.a)}, words: {state.words}. Accuracy {format_accuracy(row)}."

    def _distinct(self, order: npt.NDArray[np.int64]) -> list[int]:
        """Take the first few rows whose sets of three differ."""
        keys = set_keys(self._triplets.indices[order[:500]], len(self._triplets.names))
        _, first = np.unique(keys, return_index=True)
        return [int(order[place]) for place in np.sort(first)[:MOST_TRIPLETS]]

    def _difference(
        self, arrays: dict[str, npt.NDArray[Any]], held: npt.NDArray[np.bool_], name: str
    ) -> pd.DataFrame:
        table: pd.DataFrame = compare(
            arrays, self._triplets.take(held), metric=self._metric, correction="none"
        )
        return table.assign(category=name)


def _named(cell: tuple[str, float]) -> str:
    return f"{cell[0]} at noise level {cell[1]:g}"
