"""What does a prompt add? Type one, and see the gain in alignment by block and noise level."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Generator, Hashable
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import ipywidgets
import numpy as np
import pandas as pd

from ldm_kit import measures, plots
from ldm_kit.datasets import Dataset
from ldm_kit.errors import BadInputError, LdmKitError
from ldm_kit.features import (
    FeatureStore,
    SideBySide,
    extract,
    prompts_for,
    relabel_by_prompt,
    vocabulary_coverage,
)
from ldm_kit.models import OpenedModel
from ldm_kit.widgets.explorer import (
    Explorer,
    Progress,
    Shown,
    cell_name,
    control,
    dropdown,
    label_of,
    level_slider,
)

OWN = "your template"
BY_PROMPT = "shuffled, scored as the prompt's object"
SHOWN_AT_FIRST = 16
SLICE = 4  # images extracted between two looks at *Cancel*


class State(NamedTuple):
    """The values of the controls."""

    conditioning: str
    template: str
    block: str
    level: float
    chosen: tuple[str, ...]


class PromptGains(Explorer):
    """A conditioning, or a prompt of one's own: its gain by block and noise level, and its effect on similarities.

    Parameters
    ----------
    model : OpenedModel
    data : Dataset
        With triplets.
    store : FeatureStore
        With the conditioning "none", and any others; new prompts get its blocks, noise levels, seed and noise samples. Where
        these are apart, a gain is the mean of theirs, and matrices show their mean features.
    metric : str
        As for `odd_one_out`.
    block : str, optional
        Whose matrices are shown at first; by default the middle one.
    home : path-like, optional
        Folder for the features of new prompts, one store per template; by default a temporary one.
    delay : float
        Seconds that changes must have stopped for before work begins.

    Raises
    ------
    BadInputError
        If the dataset has no triplets, or the store no features without a prompt.

    Examples
    --------
    >>> view = lk.widgets.PromptGains(model, data, store)
    >>> view.conditioning.value = "label"
    >>> type(view.figure("Gain")).__name__
    'Figure'
    """

    NAME = "prompt-gains"
    RUNS = True
    STATE = State
    TABS: ClassVar[dict[str, str]] = {
        "Gain": "What this prompt adds to the alignment of each block at each noise level.",
        "Matrices": "Similarities of the chosen stimuli in one block, without and with the prompt.",
    }

    def __init__(
        self,
        model: OpenedModel,
        data: Dataset,
        store: FeatureStore,
        *,
        metric: str = "cosine",
        block: str | None = None,
        home: str | os.PathLike[str] | None = None,
        delay: float = 0.15,
    ) -> None:
        if data.triplets is None:
            raise BadInputError(f"The dataset {data.name!r} has no triplets, so nothing can be aligned.")
        if "none" not in store.conditionings:
            raise BadInputError(
                "The store has no features without a prompt. Extract conditioning 'none' as well."
            )
        self._model, self._data, self._store, self._metric = model, data, store, metric
        if home is None:
            self._temporary = tempfile.TemporaryDirectory()  # goes when the explorer goes
            home = self._temporary.name
        self._home = Path(home)
        self._extracted: dict[str, FeatureStore] = {}
        self.names = self._ordered()
        others = [name for name in store.conditionings if name != "none"]
        by_prompt = [BY_PROMPT] if "shuffled" in others else []
        first = "label" if "label" in others else [*others, OWN][0]
        blocks = list(store.blocks)
        self.conditioning = dropdown("conditioning", ["none", *others, *by_prompt, OWN], first)
        template = str(store.request["template"])
        self.template = control(ipywidgets.Text, "template", value=template, continuous_update=False)
        self.template.tooltip = "{name} stands for the object's label"
        self.block = dropdown("block", blocks, block or blocks[len(blocks) // 2])
        self.level = level_slider("noise level", store.noise_levels, store.noise_levels[-1])
        options = [(label_of(data.stimuli, name), name) for name in self.names]
        chosen = self.names[:SHOWN_AT_FIRST]
        self.chosen = control(ipywidgets.SelectMultiple, "stimuli", options=options, value=chosen, rows=9)
        self.chosen.tooltip = "For the matrices: pick several with Ctrl or Shift; Ctrl+A takes all"
        super().__init__([getattr(self, name) for name in State._fields], delay)

    @property
    def state(self) -> State:
        """The values of the controls."""
        state: State = super().state
        return state._replace(template=state.template.strip() if state.conditioning == OWN else "")

    def key(self, tab: str, state: State) -> Hashable:
        """Leave out what a tab does not depend on."""
        return (tab, state.conditioning, state.template) if tab == "Gain" else (tab, state)

    def must_run(self, tab: str, state: State) -> str:
        """Say that a new template needs an extraction, or why it cannot have one."""
        if state.conditioning != OWN or state.template in self._extracted:
            return ""
        try:
            (example,) = prompts_for("label", self._data.stimuli[:1], template=state.template)
        except LdmKitError as error:
            return str(error)
        return f"Press Run to extract {len(self._store):,} images with prompts such as “{example}”."

    def steps(self, tab: str, state: State) -> Generator[Progress, None, Shown]:
        """Extract what is missing, then compare."""
        if state.conditioning == OWN and state.template not in self._extracted:
            yield from self._extract(state.template)
        yield 0.95, f"{tab} …"
        return self._gain(state) if tab == "Gain" else self._matrices(state)

    # What the tabs show ---------------------------------------------------------------------------

    def _gains(self, state: State) -> pd.DataFrame:
        if state.conditioning == "none":
            return pd.DataFrame()
        none = self._store.select(conditionings="none")
        both = SideBySide({"none": none, state.conditioning: self._features(state)})
        assert self._data.triplets is not None  # checked at the start
        return measures.compare(
            both, self._data.triplets, by="conditioning", metric=self._metric, reference="none"
        )

    def _gain(self, state: State) -> Shown:
        gains = self._gains(state)
        if gains.empty:
            return Shown(status="No prompt on either side: the gain is zero. Choose a conditioning.")
        fig = plots.gain_heatmap(gains, title=f"What the prompt adds: {state.template or state.conditioning}")
        sure = int((gains["low_corrected"] > 0).sum())
        status = f"In {sure} of {len(gains)} cells the gain's corrected interval lies above zero."
        return Shown(fig, status=f"{status} {self._first_prompt(state)}")

    def _matrices(self, state: State) -> Shown:
        if len(state.chosen) < 2:
            return Shown(status="Choose two stimuli or more.")
        stores = {"no prompt": self._store.select(conditionings="none")}
        if state.conditioning != "none":
            stores[state.conditioning] = self._features(state)
        rows = [self.names.index(one) for one in state.chosen]
        sides: dict[str, Any] = {}
        for title, features in stores.items():
            mean = features.mean_of_draws().select(names=self.names)
            X = mean[state.block, state.level, features.conditionings[0]]
            sides[title] = np.round(measures.similarity(X, self._metric)[np.ix_(rows, rows)], 5)
        cell = cell_name((state.block, state.level))
        fig = plots.matrices(
            sides,
            [label_of(self._data.stimuli, name) for name in state.chosen],
            subtitle=f"{cell}, {self._metric}",
            bar=self._metric.split()[-1],
        )
        return Shown(fig, status=f"{len(state.chosen)} stimuli, {cell}. {self._first_prompt(state)}")

    # How it is computed ---------------------------------------------------------------------------

    def _extract(self, template: str) -> Generator[Progress, None, None]:
        """Extract the template slice by slice; what a cancelled run finished is found again."""
        stimuli = self._data.stimuli.select(self._store.names)
        draws, request = self._store.draws, self._store.request
        folder = self._home / hashlib.sha256(template.encode()).hexdigest()[:12]
        for start in range(0, len(stimuli), SLICE):
            yield 0.9 * start / len(stimuli), f"Extracting: {start} of {len(stimuli)} images …"
            extract(
                self._model,
                stimuli[start : start + SLICE],
                blocks=list(self._store.blocks),
                noise_levels=self._store.noise_levels,
                conditionings="label",
                out=folder,
                pooling=request["pooling"],
                seed=request["seed"],
                n_noise=max(draws) + 1 if draws else request["n_noise"],
                draws="apart" if draws else "mean",
                template=template,
                progress=False,
            )
        self._extracted[template] = FeatureStore.open(folder).select(
            blocks=self._store.blocks,
            noise_levels=self._store.noise_levels,
            conditionings="label",
            names=stimuli.names,
            draws=draws or None,
        )

    def _features(self, state: State) -> FeatureStore:
        if state.conditioning == OWN:
            return self._extracted[state.template]
        if state.conditioning == BY_PROMPT:
            shuffled = self._store.select(conditionings="shuffled")
            return relabel_by_prompt(shuffled, self._data.stimuli)
        return self._store.select(conditionings=state.conditioning)

    def _first_prompt(self, state: State) -> str:
        """Quote the first prompt, and give the share of its words that the text encoder met in training."""
        if state.conditioning == "none":
            return ""
        features = self._features(state)
        prompts = features.prompts(features.conditionings[0])
        share, _ = vocabulary_coverage(self._model, prompts)
        known = "" if share != share else f"; its text encoder met {share:.0%} of the words in training"
        return f"First prompt: “{prompts[0]}”{known}."

    def _ordered(self) -> list[str]:
        """List the stimuli by category, so that the matrices have blocks on their diagonal."""
        names, categories = list(self._store.names), self._data.categories
        if categories is None:
            return names
        first = categories.reindex(names).fillna(False).astype(bool).to_numpy().argmax(axis=1)
        return [names[row] for row in np.argsort(first, kind="stable")]
