"""Toybox as a data set: the evaluation pictures, and choices by simulated observers or a human model."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ldm_kit.datasets import observers, toybox
from ldm_kit.datasets.captions import match_captions, read_captions
from ldm_kit.datasets.dataset import Dataset
from ldm_kit.datasets.embeddings import read_embedding
from ldm_kit.datasets.repeated import aggregate_repeated
from ldm_kit.datasets.stimuli import Stimuli
from ldm_kit.datasets.triplet_files import read_triplets
from ldm_kit.datasets.triplets import Triplets
from ldm_kit.errors import unknown_name

if TYPE_CHECKING:
    import pandas as pd

N_TRIPLETS = 20_000
N_REPEATS = 25  # judges who all see the triplets judged repeatedly
# SPoSE and VICE are fitted with a softmax over plain dot products: at 1 they choose as people did.
HUMAN_MODEL_TEMPERATURE = 1.0


def load_toybox(
    *,
    judgements: str | os.PathLike[str] | None = None,
    triplets: str | os.PathLike[str] | None = None,
    captions: str | os.PathLike[str] | None = None,
    n_triplets: int = N_TRIPLETS,
    seed: int = 0,
) -> Dataset:
    """Load Toybox: drawings of 56 everyday objects, which come with the package.

    ===========  =================================
    pictures     56, one an object (exemplar 0)
    categories   14
    choices      20,000, simulated or human model
    ===========  =================================

    Parameters
    ----------
    judgements : path-like, optional
        An embedding of the THINGS concepts (SPoSE or VICE; text or ``.npy``, with ``unique_id.txt`` or
        ``things_concepts.tsv`` beside it) to draw the choices from; rows are matched by concept name. By
        default the choices come from feature norms that we wrote.
    triplets : path-like, optional
        A file of choices to use instead, with the names of objects or 0-based indices: human ones, say.
    captions : path-like, optional
        A file that `read_captions` reads. By default the captions are Toybox's own.
    n_triplets : int
        How many choices to draw.
    seed : int
        Of the choices. The pictures are always the same.

    Returns
    -------
    Dataset
        Stimuli ``apple.png``, …; `embeddings` has what `judgements` named, and ``"norms"``.

    Raises
    ------
    UnknownNameError
        If an object of Toybox has no row in the embedding.

    Examples
    --------
    >>> load_toybox(n_triplets=100).triplets  # doctest: +SKIP
    Triplets(100 simulated choices over 56 stimuli of toybox)
    """
    stimuli = _stimuli()
    names = dict(zip(stimuli.concepts, stimuli.names, strict=True))
    if captions is not None:
        captions = Path(captions)
        stimuli = replace(stimuli, captions=match_captions(read_captions(captions), stimuli, captions.name))
    norms = observers.norms()
    embeddings = {"norms": _rows(norms, stimuli.concepts, "the norms").rename(index=names)}
    kinds = {"norms": "simulated"}  # we wrote them, whoever chooses
    if triplets is not None:
        choices = read_triplets(triplets, stimuli, dataset="toybox")
        taken = "human" if choices.judgements == "human" else "what they say, " + choices.judgements
        note = f"Choices are read from {choices.source!r} and taken for {taken}."
    elif judgements is None:
        choices = _drawn(embeddings["norms"], "simulated", n_triplets, seed, observers.TEMPERATURE)
        note = "Choices are simulated: drawn from feature norms that we wrote, not from people."
    else:
        file = Path(judgements).expanduser()
        vectors = _rows(read_embedding(file), stimuli.concepts, repr(file.name)).rename(index=names)
        embeddings = {file.stem: vectors} | {k: v for k, v in embeddings.items() if k != file.stem}
        kinds[file.stem] = "human model"
        choices = _drawn(vectors, "human model", n_triplets, seed, HUMAN_MODEL_TEMPERATURE)
        choices = replace(choices, source=f"{file.name}: {choices.source}")
        note = f"Choices are a human model's: drawn from {file.name!r}, which was fitted to people's choices."
    repeated = aggregate_repeated(choices)
    return Dataset(
        "toybox",
        stimuli,
        choices,
        repeated=None if repeated.empty else repeated,
        embeddings=embeddings,
        embedding_sources=kinds,
        categories=_categories(stimuli),
        notes=("Pictures are drawn by code: one of each object, which no training sees.", note),
    )


def _stimuli() -> Stimuli:
    concepts = sorted(toybox.names())
    return Stimuli(
        names=tuple(f"{concept}.png" for concept in concepts),
        concepts=tuple(concepts),
        labels=tuple(toybox.label(concept) for concept in concepts),
        captions=tuple(toybox.caption(concept, 0) for concept in concepts),
        dataset="toybox",
        opener=lambda name: toybox.render(name.removesuffix(".png"), 0),
        # The drawing, not its pixels: a rasteriser's next version may differ by a hair.
        fingerprinter=lambda name: hashlib.sha256(
            toybox.svg(name.removesuffix(".png"), 0).encode()
        ).hexdigest(),
    )


def _rows(vectors: pd.DataFrame, concepts: tuple[str, ...], source: str) -> pd.DataFrame:
    for concept in concepts:
        if concept not in vectors.index:
            raise unknown_name(
                f"concept of {source}",
                concept,
                vectors.index,
                "Toybox's objects are matched by THINGS' concept names: check the list beside the embedding.",
            )
    return vectors.loc[list(concepts)]


def _drawn(
    vectors: pd.DataFrame, judgements: str, n_triplets: int, seed: int, temperature: float
) -> Triplets:
    indices, subjects = observers.simulate_choices(
        vectors.to_numpy(dtype=np.float64),
        n_triplets=n_triplets,
        temperature=temperature,
        seed=seed,
        n_repeated=min(200, n_triplets // (4 * N_REPEATS)),  # a quarter of the choices
        n_repeats=N_REPEATS,
    )
    return Triplets(
        indices,
        tuple(map(str, vectors.index)),
        judgements,
        "toybox",
        subjects,
        source=f"softmax over dot products at temperature {temperature:g}, seed {seed}",
    )


def _categories(stimuli: Stimuli) -> pd.DataFrame:
    import pandas as pd

    kinds = [toybox.category(concept) for concept in stimuli.concepts]
    return pd.DataFrame(
        {kind: [k == kind for k in kinds] for kind in sorted(set(kinds))}, index=list(stimuli.names)
    )
