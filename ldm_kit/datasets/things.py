"""THINGS: photographs of object concepts, and what people say about them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ldm_kit.datasets.captions import match_captions, read_captions
from ldm_kit.datasets.choice_files import holds_choices
from ldm_kit.datasets.concepts import PLAIN, TABLES, read_concepts
from ldm_kit.datasets.dataset import Dataset
from ldm_kit.datasets.repeated import aggregate_repeated, read_repeated
from ldm_kit.datasets.stimuli import Stimuli
from ldm_kit.datasets.things_files import (
    EMBEDDINGS,
    TRIPLETS,
    locate,
    things_categories,
    things_embeddings,
    things_rdm,
    things_root,
    within,
)
from ldm_kit.datasets.things_pictures import Pictures, find_pictures
from ldm_kit.datasets.triplet_files import read_triplets
from ldm_kit.datasets.triplets import Triplets

if TYPE_CHECKING:
    import pandas as pd


def load_things(
    root: str | os.PathLike[str] | None = None,
    *,
    triplets: str | os.PathLike[str] | None = None,
    captions: str | os.PathLike[str] | None = None,
    pictures: str | None = None,
    embeddings: Mapping[str, str | os.PathLike[str]] | None = None,
) -> Dataset:
    """Load THINGS from a folder.

    ===================  ===========================================
    concepts             1,854 (those without a picture are dropped)
    choices              4.7 million as released, or any part of them
    categories           27
    SPoSE, VICE          66, 49 and 42 dimensions, where present
    ===================  ===========================================

    Parameters
    ----------
    root : path-like, optional
        Holds ``things_concepts.tsv`` or ``unique_id.txt`` and the pictures, laid out as
        ``object_images/NAME/NAME_01b.jpg``, ``images/NAME.jpg`` (or ``.png``) or
        ``object_images_CC0/NAME.jpg``; perhaps triplets, embeddings, categories. By default the folder
        that the environment variable ``LDM_KIT_THINGS`` names.
    triplets : path-like, optional
        A file that `read_triplets` reads, as a path or as a name within `root`; by default the first found. Choices
        from elsewhere, or of players, are not taken for THINGS' own: `repeated` is then what repeats among them.
    captions : path-like, optional
        A file that `read_captions` reads. By default the concepts' definitions serve.
    pictures : str, optional
        Which of the layouts' folders to use, if there are several.
    embeddings : mapping of str to path-like, optional
        Further vectors of all concepts in canonical order, e.g. ``{"CLIP": "clip_vit_b32_things.npy"}``.

    Returns
    -------
    Dataset
        Stimuli in the canonical order of their concepts; `notes` tell how many concepts and triplets are
        left.

    Raises
    ------
    BadInputError
        If there is no such folder, no list of concepts or no picture, or a file is not what it should be.

    References
    ----------
    Hebart et al. (2019), PLOS ONE 14(10), e0223792; Hebart et al. (2023), eLife 12, e82580;
    Stoinski et al. (2023), Behavior Research Methods 56, 1583 (THINGSplus).

    Examples
    --------
    >>> load_things("../shared/things").stimuli.names[:2]  # doctest: +SKIP
    ('acorn.jpg', 'airbag.jpg')
    """
    root = things_root(root)
    concepts = _concepts(root)
    order = list(concepts.index)
    found = find_pictures(root, order, pictures)
    stimuli = _stimuli(concepts, found)
    if captions is not None:
        captions = within(root, captions)
        stimuli = replace(stimuli, captions=match_captions(read_captions(captions), stimuli, captions.name))
    notes = [f"{len(stimuli):,} of {len(order):,} concepts have a picture in {found.folder.name!r}."]
    if found.folder.name == "object_images_CC0":
        notes.append("People judged another photograph of each concept than this one of THINGSplus (CC0).")
    file = within(root, triplets) if triplets is not None else locate(root, *TRIPLETS)
    choices, own = None, True
    if file is not None:
        players = holds_choices(file)
        own = not players and file.resolve().is_relative_to(root.resolve())
        if players:  # the game names pictures, other files name concepts
            every = read_triplets(file, stimuli.names, dataset="things")
        else:
            every = _renamed(read_triplets(file, order, dataset="things"), found.names)
        choices = every.among(stimuli.names)
        notes.append(f"{len(choices):,} of {len(every):,} triplets in {file.name!r} have all three pictures.")
    else:
        notes.append("There is no file of triplets: give one with `triplets=`, or see `fetch_things`.")
    return Dataset(
        "things",
        stimuli,
        choices,
        repeated=_repeated(root if own else None, order, found.names, choices),
        embeddings=things_embeddings(root, order, found.names, embeddings or {}),
        embedding_sources=dict.fromkeys(EMBEDDINGS, "human model"),
        categories=things_categories(root, found.names),
        rdm=things_rdm(root, found.names),
        notes=tuple(notes),
    )


def _concepts(root: Path) -> pd.DataFrame:
    listed = locate(root, *TABLES, PLAIN)
    return read_concepts(root if listed is None else listed.parent)


def _stimuli(concepts: pd.DataFrame, found: Pictures) -> Stimuli:
    there = concepts.loc[list(found.names)]
    return Stimuli(
        names=tuple(found.names.values()),
        concepts=tuple(found.names),
        labels=tuple(there["label"]),
        captions=tuple(there["definition"]),
        root=str(found.folder),
        dataset="things",
    )


def _renamed(triplets: Triplets, names: Mapping[str, str]) -> Triplets:
    """From concepts to stimuli; a concept without a picture keeps a name that no stimulus has."""
    return replace(triplets, names=tuple(names.get(concept, f"({concept})") for concept in triplets.names))


def _repeated(
    root: Path | None, order: list[str], names: Mapping[str, str], choices: Triplets | None
) -> pd.DataFrame | None:
    """As THINGS published them (in `root`, unless the choices are others'), or counted among the choices."""
    file = None if root is None else locate(root, "noise_ceiling_triplets.csv")
    if file is not None:
        return read_repeated(file, order, names)
    counted = None if choices is None else aggregate_repeated(choices)
    return None if counted is None or counted.empty else counted
