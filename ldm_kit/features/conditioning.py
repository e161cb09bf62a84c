"""Conditioning: what the denoiser is conditioned on for each stimulus, from its name to the text encoder's output."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from ldm_kit.datasets.stimuli import Stimuli
from ldm_kit.errors import BadInputError, one_of
from ldm_kit.models.model import OpenedModel, Text

CONDITIONINGS = ("none", "empty", "label", "caption", "shuffled", "embedding", "image")
TEMPLATE = "a photo of a {name}"
# Recorded as the prompt of "image", a control: the model is conditioned on what it is to see.
OWN_IMAGE = "(its own picture)"
# A hyphen separates words ("t-shirt" is two), as it does in the bundled model's list.
WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")


@dataclass(frozen=True, eq=False)
class Conditioning:
    """One conditioning of some stimuli.

    Parameters
    ----------
    name : str
        ``"none"``, ``"label"``, …
    prompts : sequence of str
        One a stimulus; for ``"embedding"`` the hash of its vectors; for ``"image"``, and for a ``"none"`` that is not
        the empty prompt, a remark. A store records them, and refuses a prompt that has changed.
    vectors : mapping of str to Text
        For ``"embedding"``: the encoded vectors by their hash.
    """

    name: str
    prompts: Sequence[str]
    vectors: Mapping[str, Text] = field(default_factory=dict)

    def text(self, model: OpenedModel, rows: Sequence[int], images: Sequence[Image.Image]) -> Text:
        """Encode what the stimuli at `rows` are conditioned on; `images` are theirs."""
        if self.name == "image":
            return model.text_of_pictures(images)
        if self.name == "none":
            return model.texts([None] * len(rows))
        prompts = [self.prompts[row] for row in rows]
        if self.name != "embedding":
            return model.texts(prompts)
        texts = [self.vectors[prompt] for prompt in prompts]
        return {key: torch.cat([text[key] for text in texts]) for key in texts[0]}


def conditionings_for(
    names: Sequence[str],
    model: OpenedModel,
    stimuli: Stimuli,
    *,
    template: str,
    seed: int,
    embedding: npt.ArrayLike | Mapping[str, npt.ArrayLike] | None = None,
) -> list[Conditioning]:
    """Make the conditionings that `extract` was called with; raise for those that the model or stimuli cannot have."""
    if (embedding is not None) != ("embedding" in names):
        raise BadInputError(
            "The conditioning 'embedding' and the argument `embedding` go together: name the one among the "
            "conditionings, and give the vectors, (tokens, channels), as the other."
        )
    of_text = [name for name in names if name not in ("none", "image")]
    if of_text and not model.reads_text:
        raise BadInputError(
            f"{model.identity.model!r} reads no text, so it cannot be conditioned on {of_text[0]!r}. Request "
            "conditionings='none' alone."
        )
    made = []
    for name in names:
        if name == "embedding":
            made.append(_of_vectors(model, stimuli, embedding))
        elif name == "none":
            made.append(Conditioning(name, [model.unconditional] * len(stimuli)))
        else:
            made.append(Conditioning(name, prompts_for(name, stimuli, template=template, seed=seed)))
    return made


def _of_vectors(model: OpenedModel, stimuli: Stimuli, embedding: Any) -> Conditioning:
    """Make the conditioning "embedding"; equal vector sequences are encoded once and named by their hash."""
    vectors: dict[str, Text] = {}
    prompts = []
    for name, concept in zip(stimuli.names, stimuli.concepts, strict=True):
        sequence = embedding
        if isinstance(embedding, Mapping):
            sequence = embedding.get(name, embedding.get(concept))
            if sequence is None:
                raise BadInputError(
                    f"`embedding` has no vectors for {name!r}, nor for its concept {concept!r}; it has them for "
                    f"{sorted(embedding)[:5]}. Give one sequence for all, or one for each name or concept."
                )
        array = np.ascontiguousarray(sequence, dtype=np.float32)
        key = f"sha256:{hashlib.sha256(array.tobytes()).hexdigest()[:16]} {array.shape}"
        if key not in vectors:
            vectors[key] = model.embedded(array)
        prompts.append(key)
    lengths = {text["sequence"].shape[1] for text in vectors.values()}
    if len(lengths) > 1:
        raise BadInputError(
            f"The vector sequences of `embedding` have {sorted(lengths)} tokens; a batch needs one length. Pad them "
            "as the model was trained, or extract them into stores of their own."
        )
    return Conditioning("embedding", prompts, vectors)


def prompts_for(conditioning: str, stimuli: Stimuli, *, template: str = TEMPLATE, seed: int = 0) -> list[str]:
    """Return the prompt of each stimulus under one conditioning.

    Parameters
    ----------
    conditioning : {"none", "empty", "label", "caption", "shuffled", "image"}
        ``"none"`` and ``"empty"`` are empty here; a model's own unconditional input, which ``"none"`` stands for, may be
        something else (see `ldm_kit.extract`); ``"label"`` is the template with the concept's label; ``"caption"`` the
        stimulus's own caption; ``"shuffled"`` the label of another concept, a control; ``"image"`` a remark: models
        that are conditioned on an image embedding get that of the stimulus itself, a control.
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
        If a caption is missing, the template has no ``{name}``, or there are fewer than two concepts to shuffle.

    Examples
    --------
    >>> import ldm_kit as lk
    >>> lk.features.prompts_for("label", lk.Stimuli(("apple.jpg", "ice_cream.jpg")))
    ['a photo of a apple', 'a photo of a ice cream']
    """
    allowed = [name for name in CONDITIONINGS if name != "embedding"]
    one_of("conditioning", conditioning, allowed, "Choose among these; an embedding has no prompts.")
    if conditioning in ("none", "empty", "image"):
        return [OWN_IMAGE if conditioning == "image" else ""] * len(stimuli)
    if conditioning == "caption":
        missing = [n for n, c in zip(stimuli.names, stimuli.captions, strict=True) if not c]
        if missing:
            raise BadInputError(
                f"{len(missing)} of {len(stimuli)} stimuli have no caption, the first is {missing[0]!r}. "
                "Give a captions file to `load_dataset`, or leave 'caption' out of the conditionings."
            )
        return [str(caption) for caption in stimuli.captions]
    check_template(template)
    labels = stimuli.labels
    if conditioning == "shuffled":
        other = shuffled_concepts(stimuli.all_concepts, seed)
        label_of = dict(zip(stimuli.all_concepts, stimuli.all_labels, strict=True))
        labels = tuple(label_of[other[concept]] for concept in stimuli.concepts)
    return [template.replace("{name}", label) for label in labels]


def check_template(template: str) -> None:
    """Raise unless a prompt template is a text that holds ``{name}``."""
    if not isinstance(template, str) or "{name}" not in template:
        raise BadInputError(
            f"The prompt template {template!r} has no {{name}}. Write for example {TEMPLATE!r}."
        )


def shuffled_concepts(concepts: Sequence[str], seed: int = 0) -> dict[str, str]:
    """Assign another concept to every concept, each used once.

    Parameters
    ----------
    concepts : sequence of str
        All concepts of the dataset, not of a subset: a stimulus's shuffled label must not depend on which other stimuli
        are extracted with it.
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


def vocabulary_coverage(model: OpenedModel, prompts: Iterable[str]) -> tuple[float, list[str]]:
    """Return the share of the prompts' words that the text encoder met in training.

    Parameters
    ----------
    model : OpenedModel
        Its folder must hold ``words.txt``, one word a line, as the bundled model's does.
    prompts : iterable of str

    Returns
    -------
    share : float
        Of word occurrences, 0–1. NaN if the model's training words are not known, as for all public models, whose text
        encoders have met practically any word.
    unknown : list of str
        The distinct words it never met, most frequent first.

    Examples
    --------
    >>> import ldm_kit as lk
    >>> lk.vocabulary_coverage(lk.load_model("tiny-ldm"), ["a photo of an aardvark"])
    (0.8, ['aardvark'])
    """
    known = model.training_words
    if known is None:
        return float("nan"), []
    words = Counter(word for prompt in prompts for word in WORD.findall(prompt.lower()))
    unknown = [word for word, _ in words.most_common() if word not in known]
    met = words.total() - sum(words[word] for word in unknown)
    return (met / words.total() if words else float("nan")), unknown
