"""What do words add? Type a prompt, and see the gain in alignment by block and noise level."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Generator, Hashable
from pathlib import Path
from typing import ClassVar, NamedTuple

import ipywidgets
import numpy as np
import pandas as pd

from ldm_kit.datasets.dataset import Dataset
from ldm_kit.errors import BadInputError, LdmKitError
from ldm_kit.features.conditioning import prompts_for, vocabulary_coverage
from ldm_kit.features.extraction import extract
from ldm_kit.features.store import FeatureStore, SideBySide, relabel_by_prompt
from ldm_kit.measures import compare, similarity
from ldm_kit.models.opened import OpenedModel
from ldm_kit.plots.differences import gain_heatmap
from ldm_kit.plots.matrices import matrices
from ldm_kit.widgets.explorer import Explorer, Progress, Shown, control

ABOUT = """
<p><b>The gain</b> is the accuracy with these words minus the accuracy with none, in the same block at the same noise level,
on the same triplets. Orange is a gain, blue a loss; it is set <b>bold</b> if its 95 % interval excludes zero.</p>
<p><b>The template</b> is your own prompt; <code>{name}</code> stands for the object's word. Press <i>Run</i>: every picture goes
through the model with its new prompt. <i>Cancel</i> keeps what is done, and <i>Run</i> goes on from there.</p>
<p><b>Shuffled</b> labels give each picture another object's word. Scored as the picture's object they should harm; scored as
the word's object they tell how much of the gain is the word alone.</p>
<p><b>The matrices</b> show the similarity of the chosen stimuli in one block, without and with the words, on one colour scale.
Do the words pull a category together, or everything?</p>
"""
OWN = "your template"
BY_WORD = "shuffled, scored as the word's object"
SHOWN_AT_FIRST = 16


class State(NamedTuple):
    """What the controls say."""

    words: str
    template: str
    block: str
    level: float
    chosen: tuple[str, ...]


class WhatWordsAdd(Explorer):
    """A conditioning, or a prompt of one's own: its gain by block and noise level, and what it does to similarities.

    Parameters
    ----------
    model : OpenedModel
    data : Dataset
        With triplets.
    store : FeatureStore
        With the conditioning "none", and any others; its blocks, noise levels and seed are kept for new prompts.
    metric : str
        As for `odd_one_out`.
    block : str, optional
        Whose matrices are shown at first; by default the middle one.
    home : path-like, optional
        Folder in which the features of new prompts are kept, one store a template; by default a temporary one.
    slice_size : int
        Pictures extracted between two looks at *Cancel*.
    delay : float
        Seconds that changes must have stopped for before work begins.

    Raises
    ------
    BadInputError
        If the dataset has no triplets, or the store no features without words.

    Examples
    --------
    >>> view = lk.widgets.WhatWordsAdd(model, data, store)  # doctest: +SKIP
    >>> view.words.value, view.template.value = "your template", "a drawing of a {name}"  # doctest: +SKIP
    >>> view.figure("Gain")  # doctest: +SKIP
    """

    NAME = "what-words-add"
    ABOUT = ABOUT
    RUNS = True
    TABS: ClassVar[dict[str, str]] = {
        "Gain": "What these words add to the alignment of each block at each noise level.",
        "Matrices": "Similarities of the chosen stimuli in one block, without and with the words.",
    }

    def __init__(
        self,
        model: OpenedModel,
        data: Dataset,
        store: FeatureStore,
        *,
        metric: str = "centred cosine",
        block: str | None = None,
        home: str | os.PathLike[str] | None = None,
        slice_size: int = 4,
        delay: float = 0.15,
    ) -> None:
        if data.triplets is None:
            raise BadInputError(f"The dataset {data.name!r} has no triplets, so nothing can be aligned.")
        if "none" not in store.conditionings:
            raise BadInputError(
                "The store has no features without words. Extract conditioning 'none' as well."
            )
        self._model, self._data, self._store, self._metric = model, data, store, metric
        if home is None:
            self._temporary = tempfile.TemporaryDirectory()  # goes when the explorer goes
            home = self._temporary.name
        self._home = Path(home)
        self._slice, self._worded = slice_size, dict[str, FeatureStore]()
        self.names = self._ordered()
        there = [name for name in store.conditionings if name != "none"]
        by_word = [BY_WORD] if "shuffled" in there else []
        options = ["none", *there, *by_word, OWN]
        first = "label" if "label" in there else (there or [OWN])[0]
        template = str(store.request["template"])
        blocks, levels = list(store.blocks), [(f"{level:g}", level) for level in store.noise_levels]
        self.words = control(ipywidgets.Dropdown, "words", options=options, value=first)
        self.template = control(ipywidgets.Text, "template", value=template, continuous_update=False)
        self.template.tooltip = "{name} stands for the object's word"
        self.block = control(
            ipywidgets.Dropdown, "block", options=blocks, value=block or blocks[len(blocks) // 2]
        )
        self.level = control(ipywidgets.SelectionSlider, "noise level", options=levels, value=levels[-1][1])
        self.chosen = control(
            ipywidgets.SelectMultiple,
            "stimuli",
            options=[(self._label(name), name) for name in self.names],
            value=self.names[:SHOWN_AT_FIRST],
            rows=9,
        )
        self.chosen.tooltip = "For the matrices: pick several with Ctrl or Shift; Ctrl+A takes all"
        controls = [self.words, self.template, self.block, self.level, self.chosen]
        super().__init__(controls, controls, delay)
        if first != OWN:
            self.start()

    @property
    def state(self) -> State:
        """What the controls say."""
        return State(
            self.words.value,
            self.template.value.strip() if self.words.value == OWN else "",
            self.block.value,
            self.level.value,
            tuple(self.chosen.value),
        )

    def key(self, tab: str, state: State) -> Hashable:
        """Leave out what a tab does not depend on."""
        return (tab, state.words, state.template) if tab == "Gain" else (tab, state)

    def must_run(self, tab: str, state: State) -> str:
        """Say that a new template needs an extraction, or why it cannot have one."""
        if state.words != OWN or state.template in self._worded:
            return ""
        try:
            (example,) = prompts_for("label", self._data.stimuli[:1], template=state.template)
        except LdmKitError as error:
            return str(error)
        return f"Press Run to extract {len(self._store):,} pictures with prompts such as “{example}”."

    def steps(self, tab: str, state: State) -> Generator[Progress, None, Shown]:
        """Extract what is missing, then compare."""
        if state.words == OWN and state.template not in self._worded:
            yield from self._extract(state.template)
        yield 0.95, f"{tab} …"
        return self._gain(state) if tab == "Gain" else self._matrices(state)

    # What the tabs show ---------------------------------------------------------------------------

    def gains(self) -> pd.DataFrame:
        """Give the table behind the gain of the present words; empty for none.

        Examples
        --------
        >>> view.gains()[["block", "noise_level", "difference"]]  # doctest: +SKIP
        """
        self.shown("Gain")
        return self._gains(self.state)

    def _gains(self, state: State) -> pd.DataFrame:
        if state.words == "none":
            return pd.DataFrame()
        parts = {"none": self._store.select(conditionings="none"), state.words: self._features(state)}
        triplets = self._data.triplets
        table: pd.DataFrame = compare(
            SideBySide(parts), triplets, by="conditioning", metric=self._metric, reference="none"
        )
        return table

    def _gain(self, state: State) -> Shown:
        gains = self._gains(state)
        if gains.empty:
            return Shown(said="No words on either side: the gain is zero. Choose words, or type a template.")
        told = state.template if state.words == OWN else state.words
        fig = gain_heatmap(gains, title=f"What words add: {told}")
        sure = int((gains["low_corrected"] > 0).sum())
        said = f"In {sure} of {len(gains)} cells the gain's corrected interval lies above zero. {self._words_said(state)}"
        return Shown(fig, said=said)

    def _matrices(self, state: State) -> Shown:
        if len(state.chosen) < 2:
            return Shown(said="Choose two stimuli or more.")
        cell = {"blocks": [state.block], "noise_levels": [state.level]}
        parts = {"no words": self._store.select(conditionings="none", **cell)}  # type: ignore[arg-type]
        if state.words != "none":
            parts[state.words] = self._features(state).select(**cell)  # type: ignore[arg-type]
        sides = {}
        for name, part in parts.items():
            X = part.select(names=self.names)[part.cells()[0]]
            rows = [self.names.index(one) for one in state.chosen]
            sides[name] = np.round(similarity(X, self._metric)[np.ix_(rows, rows)], 5)
        fig = matrices(
            sides,
            [self._label(name) for name in state.chosen],
            subtitle=f"{state.block} at noise level {state.level:g}, {self._metric}",
            bar=self._metric.split()[-1],
        )
        said = f"{len(state.chosen)} stimuli, {state.block} at noise level {state.level:g}. "
        return Shown(fig, said=said + self._words_said(state))

    # How it is got at -----------------------------------------------------------------------------

    def _extract(self, template: str) -> Generator[Progress, None, None]:
        """Extract the template slice by slice; what a cancelled run finished is found again."""
        stimuli = self._data.stimuli.select(self._store.names)
        folder = self._home / hashlib.sha256(template.encode()).hexdigest()[:12]
        for start in range(0, len(stimuli), self._slice):
            yield 0.9 * start / len(stimuli), f"Extracting: {start} of {len(stimuli)} pictures …"
            store = extract(
                self._model,
                stimuli[start : start + self._slice],
                blocks=list(self._store.blocks),
                noise_levels=self._store.noise_levels,
                conditionings="label",
                out=folder,
                pooling=self._store.request["pooling"],
                seed=self._store.request["seed"],
                template=template,
                progress=False,
            )
        self._worded[template] = FeatureStore.open(folder).select(
            blocks=store.blocks, noise_levels=store.noise_levels, conditionings="label", names=stimuli.names
        )

    def _features(self, state: State) -> FeatureStore:
        if state.words == OWN:
            return self._worded[state.template]
        if state.words == BY_WORD:
            shuffled = self._store.select(conditionings="shuffled")
            return relabel_by_prompt(shuffled, self._data.stimuli)
        return self._store.select(conditionings=state.words)

    def _words_said(self, state: State) -> str:
        """Give the first prompt, and the share of words that the text encoder knows."""
        if state.words == "none":
            return ""
        part = self._features(state)
        prompts = part.prompts(part.conditionings[0])
        share, _ = vocabulary_coverage(self._model, prompts)
        met = "" if share != share else f"; its text encoder met {share:.0%} of the words in training"
        return f"First prompt: “{prompts[0]}”{met}."

    def _label(self, name: str) -> str:
        return self._data.stimuli[self._data.stimuli.index(name)].label

    def _ordered(self) -> list[str]:
        """List the stimuli by category, so that the matrices have blocks on their diagonal."""
        names = list(self._store.names)
        categories = self._data.categories
        if categories is None:
            return names
        first = categories.reindex(names).fillna(False).astype(bool)
        return [names[row] for row in np.argsort(first.to_numpy().argmax(axis=1), kind="stable")]
