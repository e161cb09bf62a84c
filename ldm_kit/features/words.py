"""Which words reach the denoiser: the text encoder's vocabulary, and features named by their word."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ldm_kit.datasets.stimuli import Stimuli
from ldm_kit.errors import BadInputError, MismatchError
from ldm_kit.features.prompts import shuffled_concepts
from ldm_kit.features.store import FeatureStore
from ldm_kit.models.model import OpenedModel

# A hyphen parts words ("t-shirt" is two), as it does for the bundled model's list.
WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")


def vocabulary_coverage(model: OpenedModel, prompts: Iterable[str]) -> tuple[float, list[str]]:
    """Give the share of the prompts' words that the text encoder met in training.

    Parameters
    ----------
    model : OpenedModel
        Its folder must hold ``words.txt``, one word a line, as the bundled model's does.
    prompts : iterable of str

    Returns
    -------
    share : float
        Of word occurrences, 0–1. NaN if the model's training words are not known, as for all public
        models, whose text encoders have met practically any word.
    unknown : list of str
        The distinct words it never met, most frequent first.

    Examples
    --------
    >>> lk.vocabulary_coverage(model, ["a photo of a aardvark"])  # doctest: +SKIP
    (0.8, ['aardvark'])
    """
    words = model.training_words
    if words is None:
        return float("nan"), []
    met = 0
    unknown: dict[str, int] = {}
    for prompt in prompts:
        for word in WORD.findall(prompt.lower()):
            if word in words:
                met += 1
            else:
                unknown[word] = unknown.get(word, 0) + 1
    total = met + sum(unknown.values())
    share = met / total if total else float("nan")
    return share, sorted(unknown, key=lambda word: -unknown[word])


def relabel_by_prompt(store: FeatureStore, stimuli: Stimuli) -> FeatureStore:
    """Name features extracted with shuffled labels by the object that the *word* said.

    Scored under its own names, a store tells whether a representation follows the picture; under these,
    whether it follows the word.

    Parameters
    ----------
    store : FeatureStore
        With the conditioning ``"shuffled"`` alone, extracted from these stimuli; its seed says who got which word.
    stimuli : Stimuli
        The whole dataset's, one picture a concept.

    Returns
    -------
    FeatureStore
        The same arrays; each row bears the name of the picture whose label it was shown.

    Raises
    ------
    BadInputError
        If a concept has several pictures, so that a word names no single one, or the store has other conditionings.
    MismatchError
        If the prompts in the store are not those of these stimuli.

    Examples
    --------
    >>> by_word = lk.relabel_by_prompt(store.select(conditioning="shuffled"), data.stimuli)  # doctest: +SKIP
    """
    if store.conditionings != ("shuffled",):
        raise BadInputError(
            f"The store shows the conditionings {store.conditionings}; only shuffled labels can be named by their word. "
            "Give `store.select(conditionings='shuffled')`."
        )
    picture_of = dict(zip(stimuli.concepts, stimuli.names, strict=True))
    if len(picture_of) < len(stimuli):
        raise BadInputError(
            f"{len(stimuli)} stimuli show {len(picture_of)} concepts: with several pictures a concept, a word "
            "names no single one. Select one picture a concept first."
        )
    partner = shuffled_concepts(stimuli.all_concepts, store.request["seed"])
    concept_of = dict(zip(stimuli.names, stimuli.concepts, strict=True))
    words = {name: picture_of.get(partner[concept_of[name]]) for name in store.names}
    missing = [name for name, word in words.items() if word is None]
    if missing:
        raise BadInputError(
            f"The word shown with {missing[0]!r} is {partner[concept_of[missing[0]]]!r}, which has no picture "
            "among these stimuli. Extract the whole dataset."
        )
    label_of = dict(zip(stimuli.all_concepts, stimuli.all_labels, strict=True))
    for name, prompt in zip(store.names, store.prompts("shuffled"), strict=True):
        expected = store.request["template"].replace("{name}", label_of[partner[concept_of[name]]])
        if prompt != expected:
            raise MismatchError(
                f"{name!r} was shown with {prompt!r} in the store {store.where!r}, and would be with {expected!r} among "
                "these stimuli. Give the stimuli that the store was extracted from."
            )
    return store.renamed({name: str(word) for name, word in words.items()})
