"""Where is the human? The map of alignment, and what lies behind each of its cells."""

from __future__ import annotations

from collections.abc import Generator, Hashable
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from ldm_kit import measures, plots
from ldm_kit.datasets import Dataset
from ldm_kit.errors import BadInputError
from ldm_kit.features import FeatureStore
from ldm_kit.plots.template import judged_by
from ldm_kit.sentences import format_accuracy, format_difference
from ldm_kit.tables import only
from ldm_kit.widgets.explorer import Explorer, Progress, Shown, cell_name, dropdown, level_slider

SCALES = [("from chance to the noise ceiling", True), ("from chance to the best cell", False)]
MOST_TRIPLETS = 4


class State(NamedTuple):
    """The values of the controls."""

    conditioning: str
    block: str
    level: float
    block_b: str
    level_b: float
    to_ceiling: bool

    @property
    def a(self) -> tuple[str, float]:
        """The cell that is opened."""
        return self.block, self.level

    @property
    def b(self) -> tuple[str, float]:
        """The cell that it is compared with."""
        return self.block_b, self.level_b


class WhereIsTheHuman(Explorer):
    """The block × noise-level map of alignment; choose a cell and see what it is made of.

    Parameters
    ----------
    store : FeatureStore
        Of noise samples that are apart the mean is shown.
    data : Dataset
        With triplets; categories and an embedding, where there are, give the profiles.
    metric : str
        As for `odd_one_out`.
    table : pandas.DataFrame, optional
        From `odd_one_out` on this store and metric; by default computed.
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
    >>> view = lk.widgets.WhereIsTheHuman(store, data)
    >>> type(view.figure("Categories")).__name__
    'Figure'
    """

    NAME = "where-is-the-human"
    STATE = State
    TABS: ClassVar[dict[str, str]] = {
        "Map": "Alignment by block and noise level. Click a cell to make it A.",
        "Curves": "The same through the network, from down over mid to up: is the bottleneck a dip?",
        "Categories": "Cell A, over the triplets that hold a member of each category.",
        "Dimensions": "What can be read from cell A by ridge regression, on held-out objects.",
        "Triplets": "Where cell A agrees with the judgement by the widest margin, and where it contradicts it.",
        "Two cells": "Cell A minus cell B, on the same triplets: in all, and by category.",
    }

    def __init__(
        self,
        store: FeatureStore,
        data: Dataset,
        *,
        metric: str = "cosine",
        table: pd.DataFrame | None = None,
        ceiling: Any = None,
        n_folds: int = 3,
        seed: int = 0,
        delay: float = 0.15,
    ) -> None:
        if data.triplets is None:
            raise BadInputError(f"The dataset {data.name!r} has no triplets, so nothing can be aligned.")
        store = store.mean_of_draws()
        self._store, self._data, self._metric = store.select(names=data.triplets.names), data, metric
        self._triplets, self._n_folds, self._seed = data.triplets, n_folds, seed
        if table is None:
            ceiling = measures.ceiling_of(data) if ceiling is None else ceiling
            table = measures.odd_one_out(store, data.triplets, metric=metric, ceiling=ceiling)
        self.table = table[table["metric"] == metric]
        best: Any = self.table.iloc[int(self.table["accuracy"].argmax())]
        blocks, levels, level = list(store.blocks), store.noise_levels, best["noise_level"]
        other = "mid_block" if "mid_block" in blocks and best["block"] != "mid_block" else blocks[0]
        self.conditioning = dropdown("conditioning", store.conditionings, best["conditioning"])
        self.block = dropdown("block A", blocks, best["block"])
        self.level = level_slider("noise A", levels, level)
        self.block_b = dropdown("block B", blocks, other)
        self.level_b = level_slider("noise B", levels, level)
        self.to_ceiling = dropdown("colours", SCALES, True)
        super().__init__([getattr(self, name) for name in State._fields], delay)

    def key(self, tab: str, state: State) -> Hashable:
        """Leave out what a tab does not depend on."""
        if tab == "Map":
            return tab, state
        return tab, state.conditioning, state.a, state.b if tab == "Two cells" else None

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
        level = {f"{one:g}": one for one in self._store.noise_levels}.get(str(x))
        if self.tab == "Map" and level is not None and y in self.block.options:
            self.block.value, self.level.value = y, level

    # What the tabs show ---------------------------------------------------------------------------

    def _map(self, state: State) -> Shown:
        marked = {"A": state.a} if state.a == state.b else {"B": state.b, "A": state.a}
        fig = plots.block_noise_heatmap(
            self.table, state.conditioning, to_ceiling=state.to_ceiling, marked=marked
        )
        return Shown(fig, status=self._describe(state))

    def _curves(self, state: State) -> Shown:
        return Shown(plots.block_curves(self.table, state.conditioning), status=self._describe(state))

    def _categories(self, state: State) -> Shown:
        categories = self._data.categories
        if categories is None:
            return Shown(status=f"The dataset {self._data.name!r} has no categories.")
        cell = self._cell(state)
        table = measures.accuracy_by_category(cell, self._triplets, categories, metric=self._metric)
        fig = plots.category_dots(table.sort_values("accuracy"), title=f"{cell_name(state.a)}, by category")
        return Shown(fig, status=self._describe(state))

    def _dimensions(self, state: State) -> Shown:
        if (name := self._data.default_embedding) is None:
            return Shown(status=f"The dataset {self._data.name!r} has no dimensions to predict.")
        embedding = self._data.embeddings[name]
        shared = [one for one in self._store.names if one in embedding.index]
        cell = self._cell(state).select(names=shared)
        table = measures.dimension_regression(cell, embedding, self._n_folds, self._seed)
        title = f"Dimensions of {self._data.describe_embedding(name)} in {cell_name(state.a)}"
        status = f"{len(shared)} objects, {self._n_folds} folds. {self._describe(state)}"
        return Shown(plots.dimension_dots(table, title=title), status=status)

    def _most_and_least(self, state: State) -> Shown:
        X = self._cell(state)[(*state.a, state.conditioning)]
        i, j, k = self._triplets.indices.T
        S = measures.similarity(X, self._metric)
        order = np.argsort(S[i, j] - np.maximum(S[i, k], S[j, k]))
        rows = np.array([*self._distinct(order[::-1]), *self._distinct(order)])
        indices, stimuli = self._triplets.indices[rows], self._data.stimuli
        odd = measures.predicted_odd(X, indices, self._metric)
        labels = [[stimuli.labels[int(one)] for one in row] for row in indices]
        sheet = plots.triplet_sheet(
            [[stimuli.open(int(one)) for one in row] for row in indices],
            labels,
            [(2, int(one)) for one in odd],
            titles=["Most human", "", "Least human", ""][: -(-len(rows) // 2)],
            size=118,
        )
        alt = "; ".join(
            f"{', '.join(names)}: chosen as odd {names[2]}, by the block {names[one] if one >= 0 else 'none (a tie)'}"
            for names, one in zip(labels, odd, strict=True)
        )
        return Shown(
            image=sheet, alt=alt, status=f"Blue: the odd one that was chosen. {self._describe(state)}"
        )

    def _two_cells(self, state: State) -> Generator[Progress, None, Shown]:
        if state.a == state.b:
            return Shown(status="A and B are the same cell. Choose another block or noise level for one.")
        cells = {"A": state.a, "B": state.b}
        arrays = {name: self._store[(*cell, state.conditioning)] for name, cell in cells.items()}
        overall = self._difference(arrays, self._triplets, "all triplets")
        categories = pd.DataFrame() if self._data.categories is None else self._data.categories
        members = categories.reindex(list(self._triplets.names)).fillna(False).astype(bool)
        tables = []
        for done, column in enumerate(members.columns):
            yield (done + 1) / (len(members.columns) + 1), f"A minus B, {column} …"
            held = np.asarray(members[column].to_numpy()[self._triplets.indices].any(axis=1))
            if held.any():
                tables.append(self._difference(arrays, self._triplets.take(held), str(column)))
        tables.sort(key=lambda table: float(table["difference"].iloc[0]))
        fig = plots.difference_dots(
            pd.concat([*tables, overall]),
            title=f"{cell_name(state.a)} minus {cell_name(state.b)}",
            subtitle=f"difference in accuracy, 95 % intervals, uncorrected; {judged_by(self.table)}",
        )
        row: Any = overall.iloc[0]
        return Shown(fig, status=f"A minus B over all triplets: {format_difference(row)}.")

    # How it is computed ---------------------------------------------------------------------------

    def _cell(self, state: State) -> FeatureStore:
        return self._store.select(
            blocks=[state.block], noise_levels=[state.level], conditionings=state.conditioning
        )

    def _describe(self, state: State) -> str:
        cell = {"conditioning": state.conditioning, "block": state.block, "noise_level": state.level}
        row: Any = only(self.table, **cell).iloc[0]
        return f"A: {cell_name(state.a)}, conditioning {state.conditioning}. Accuracy {format_accuracy(row)}."

    def _distinct(self, order: npt.NDArray[np.int64]) -> list[int]:
        """Take the first few rows whose sets of three differ."""
        sets = np.sort(self._triplets.indices[order[:500]], axis=1)
        _, first = np.unique(sets, axis=0, return_index=True)
        return [int(order[place]) for place in np.sort(first)[:MOST_TRIPLETS]]

    def _difference(self, arrays: dict[str, Any], triplets: Any, name: str) -> pd.DataFrame:
        """Compare the two cells on some of the triplets."""
        table: pd.DataFrame = measures.compare(arrays, triplets, metric=self._metric, correction="none")
        return table.assign(category=name)
