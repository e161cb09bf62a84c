"""Conditioning: what the text encoder is given for each stimulus."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ldm_kit.datasets.stimuli import Stimuli
from ldm_kit.errors import BadInputError, unknown_name

CONDITIONINGS = ("none", "empty", "label", "caption", "shuffled", "embedding", "image")
# Recorded as the prompt of "image", a control: the model is told what it is to see.
OWN_PICTURE = "(its own picture)"
TEMPLATE = "a photo of a {name}"


def prompts_for(conditioning: str, stimuli: Stimuli, *, template: str = TEMPLATE, seed: int = 0) -> list[str]:
    """Give the prompt of each stimulus under one conditioning.

    Parameters
    ----------
    conditioning : {"none", "empty", "label", "caption", "shuffled", "image"}
        ``"none"`` and ``"empty"`` are empty here; what a model is given for ``"none"``, its own unconditional input,
        may be something else (see `ldm_kit.extract`); ``"label"`` is the template with the object's name; ``"caption"``
        the stimulus's own caption; ``"shuffled"`` the label of another object, a control; ``"image"``
        (models conditioned on an image embedding only) no words: the stimulus's own picture, a control.
    stimuli : Stimuli
    template : str
        Must hold ``{name}``.
    seed : int
        Of the shuffle.

    Returns
    -------
    list of str
        One a stimulus.

    Raises
    ------
    UnknownNameError
        For another conditioning.
    BadInputError
        If a caption is missing, or the template has no ``{name}``.

    Examples
    --------
    >>> prompts_for("label", data.stimuli[:1])  # doctest: +SKIP
    ['a photo of a apple']
    """
    if conditioning in ("none", "empty", "image"):
        return [OWN_PICTURE if conditioning == "image" else ""] * len(stimuli)
    if conditioning == "caption":
        missing = [n for n, c in zip(stimuli.names, stimuli.captions, strict=True) if not c]
        if missing:
            raise BadInputError(
                f"{len(missing)} of {len(stimuli)} stimuli have no caption, the first is {missing[0]!r}. "
                "Give a captions file to `load_dataset`, or leave 'caption' out of the conditionings."
            )
        return [str(caption) for caption in stimuli.captions]
    if conditioning not in CONDITIONINGS:
        raise unknown_name("conditioning", conditioning, CONDITIONINGS, "Choose among these.")
    if "{name}" not in template:
        raise BadInputError(
            f"The prompt template {template!r} has no {{name}}. Write for example {TEMPLATE!r}."
        )
    words = dict(zip(stimuli.concepts, stimuli.labels, strict=True))
    if conditioning == "shuffled":
        partner = shuffled_concepts(stimuli.all_concepts, seed)
        labels = dict(zip(stimuli.all_concepts, stimuli.all_labels, strict=True))
        words = {concept: labels[partner[concept]] for concept in words}
    return [template.replace("{name}", words[concept]) for concept in stimuli.concepts]


def shuffled_concepts(concepts: Sequence[str], seed: int = 0) -> dict[str, str]:
    """Give every concept another one's name, each used once.

    Parameters
    ----------
    concepts : sequence of str
        All concepts of the dataset, not of a subset: a stimulus's shuffled label must not depend on
        which other stimuli are extracted with it.
    seed : int

    Returns
    -------
    dict of str to str
        One cycle through all concepts in a random order, so that none keeps its own label.

    Raises
    ------
    BadInputError
        With fewer than two concepts.

    Examples
    --------
    >>> shuffled_concepts(["cat", "car"])
    {'car': 'cat', 'cat': 'car'}
    """
    ordered = sorted(set(concepts))
    if len(ordered) < 2:
        raise BadInputError(
            f"Shuffled labels need two concepts or more; there is {len(ordered)}. Drop 'shuffled'."
        )
    ring = [ordered[i] for i in np.random.default_rng(seed).permutation(len(ordered))]
    return dict(sorted(zip(ring, [*ring[1:], ring[0]], strict=True)))
