"""What each stimulus is conditioned on: a prompt, a vector sequence that was given, or its own picture."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from ldm_kit.datasets.stimuli import Stimuli
from ldm_kit.errors import BadInputError
from ldm_kit.features.prompts import prompts_for
from ldm_kit.models.model import OpenedModel, Text


@dataclass(frozen=True, eq=False)
class Conditioning:
    """One conditioning of some stimuli.

    Parameters
    ----------
    name : str
        ``"none"``, ``"label"``, …
    prompts : sequence of str
        One a stimulus: the words; for ``"embedding"`` the vectors' hash; for ``"image"``, and for a ``"none"`` that
        is not the empty prompt, a remark. A store keeps them, and refuses a prompt that has changed.
    vectors : mapping of str to Text
        The encoded vectors by their hash, for ``"embedding"``.
    """

    name: str
    prompts: Sequence[str]
    vectors: Mapping[str, Text] = field(default_factory=dict)

    def text(self, model: OpenedModel, rows: Sequence[int], pictures: Sequence[Image.Image]) -> Text:
        """Give what the denoiser is conditioned on, for the stimuli at `rows`, whose pictures are `pictures`."""
        if self.name == "image":
            return model.text_of_pictures(pictures)
        if self.name == "none":
            return model.texts([None] * len(rows))
        given = [self.prompts[row] for row in rows]
        if not self.vectors:
            return model.texts(given)
        texts = [self.vectors[prompt] for prompt in given]
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
    """Make the conditionings that were asked for.

    Parameters
    ----------
    names : sequence of str
        Among `ldm_kit.features.prompts.CONDITIONINGS`.
    model : OpenedModel
    stimuli : Stimuli
    template, seed
        As for `extract`.
    embedding : array-like (tokens, channels), or mapping of str to such, optional
        What ``"embedding"`` stands for: one sequence for all, or one for each stimulus's name or concept.

    Raises
    ------
    BadInputError
        If ``"embedding"`` is asked for without vectors or the reverse, a stimulus has none, or the model reads
        no text.
    """
    if (embedding is not None) != ("embedding" in names):
        raise BadInputError(
            "The conditioning 'embedding' and the argument `embedding` go together: name the one among the "
            "conditionings, and give the vectors, (tokens, channels), as the other."
        )
    worded = [name for name in names if name not in ("none", "image")]
    if worded and not model.reads_text:
        raise BadInputError(
            f"{model.identity.model!r} reads no text, so it cannot be conditioned on {worded[0]!r}. Ask for "
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
    """One vector sequence a stimulus; equal ones are encoded once, and told apart by their hash."""
    vectors: dict[str, Text] = {}
    prompts = []
    for name, concept in zip(stimuli.names, stimuli.concepts, strict=True):
        given = embedding
        if isinstance(embedding, Mapping):
            given = embedding.get(name, embedding.get(concept))
            if given is None:
                raise BadInputError(
                    f"`embedding` has no vectors for {name!r}, nor for its concept {concept!r}; it has them for "
                    f"{sorted(embedding)[:5]}. Give one sequence for all, or one for each name or concept."
                )
        array = np.ascontiguousarray(given, dtype=np.float32)
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
