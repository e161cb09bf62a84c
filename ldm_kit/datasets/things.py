"""THINGS: photographs of object concepts, and people's judgements of them."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from ldm_kit.datasets.dataset import Dataset, within
from ldm_kit.datasets.embeddings import PLAIN, TABLES, named_rows, read_concepts, read_embedding
from ldm_kit.datasets.stimuli import Stimuli
from ldm_kit.datasets.text_tables import captioned, read_array, read_table, reading, whole_numbers
from ldm_kit.datasets.triplet_files import holds_choices, read_triplets
from ldm_kit.datasets.triplets import Triplets, aggregate_repeated, checked_indices
from ldm_kit.errors import BadInputError, one_of

_ENVIRONMENT = "LDM_KIT_THINGS"
# Where THINGS and THINGS-data put their files, relative to the root.
_FOLDERS = ("", "data", "variables", "triplet_dataset", "data/triplet_dataset", "03_category-level")
TRIPLETS = (
    "triplets_large_final_correctednc_correctedorder.csv",
    *("triplets.csv", "triplets.tsv", "triplets.txt", "triplets.npy"),
    *("human_triplets*.txt", "human_triplets*.npy"),
    "data1854_batch5_test10.txt",
)
_EMBEDDINGS = {
    "SPoSE-66": "spose_embedding_66d_sorted.txt",
    "SPoSE-49": "spose_embedding_49d_sorted.txt",
    "VICE": "vice_embedding_*d.npy",
}
CATEGORIES = ("categories53_things_order.tsv", "category53_wide-format.tsv")
# The 27 of THINGS (2019); THINGSplus added 26 finer ones.
_CLASSIC = (
    *("animal", "bird", "body part", "clothing", "clothing accessory", "container", "dessert", "drink"),
    *("electronic device", "food", "fruit", "furniture", "home decor", "insect", "kitchen appliance"),
    *("kitchen tool", "medical equipment", "musical instrument", "office supply", "part of car", "plant"),
    *("sports equipment", "tool", "toy", "vegetable", "vehicle", "weapon"),
)
# Folder -> where a concept's image lies in it. The first that holds an image is taken: `object_images` has
# the photographs that people judged, THINGSplus (CC0) has others of the same concepts.
_LAYOUTS: dict[str, tuple[str, ...]] = {
    "object_images": ("{0}/{0}_01b.jpg",),
    "images": ("{0}.jpg", "{0}.png", "{0}/{0}_01b.jpg"),
    "object_images_CC0": ("{0}.jpg",),
    ".": ("{0}/{0}_01b.jpg", "{0}.jpg", "{0}.png"),
}


def load_things(
    root: str | os.PathLike[str] | None = None,
    *,
    triplets: str | os.PathLike[str] | None = None,
    captions: str | os.PathLike[str] | None = None,
    images: str | None = None,
    embeddings: Mapping[str, str | os.PathLike[str]] | None = None,
) -> Dataset:
    r"""Load THINGS from a folder.

    ===================  ===========================================
    concepts             1,854 (those without an image are dropped)
    choices              4.7 million as released, or any part of them
    categories           27
    SPoSE, VICE          66, 49 and 42 dimensions, where present
    ===================  ===========================================

    Parameters
    ----------
    root : path-like, optional
        Holds ``things_concepts.tsv`` or ``unique_id.txt`` and the images, laid out as
        ``object_images/NAME/NAME_01b.jpg``, ``images/NAME.jpg`` (or ``.png``) or
        ``object_images_CC0/NAME.jpg``; perhaps triplets, embeddings, categories. By default the folder
        that the environment variable ``LDM_KIT_THINGS`` names.
    triplets : path-like, optional
        A file that `read_triplets` reads, as a path or as a name within `root`; by default the first found. Choices
        from elsewhere, or of players, are not THINGS' own: `repeated` then holds the repeats among them.
    captions : path-like, optional
        A file of captions by name, see `load_folder`. By default the concepts' definitions serve.
    images : {"object_images", "images", "object_images_CC0", "."}, optional
        The folder within `root` to take the images from; by default the first of these that holds any.
    embeddings : mapping of str to path-like, optional
        Further vectors of all concepts in canonical order, e.g. ``{"CLIP": "clip_vit_b32_things.npy"}``.

    Returns
    -------
    Dataset
        Stimuli in the canonical order of their concepts; `notes` state how many concepts and
        triplets are left.

    Raises
    ------
    BadInputError
        If there is no such folder, no list of concepts or no image, or a file is not what it should be.
    UnknownNameError
        If there is no such folder of images.

    References
    ----------
    Hebart et al. (2019), PLOS ONE 14(10), e0223792; Hebart et al. (2023), eLife 12, e82580;
    Stoinski et al. (2023), Behavior Research Methods 56, 1583 (THINGSplus).

    Examples
    --------
    >>> from PIL import Image
    >>> Path("images").mkdir()
    >>> for concept in ("acorn", "airbag"):
    ...     Image.new("RGB", (8, 8)).save(f"images/{concept}.png")
    >>> _ = Path("unique_id.txt").write_text("acorn\nairbag\n")
    >>> load_things(".").stimuli.names
    ('acorn.png', 'airbag.png')
    """
    root = _root(root)
    listed = _locate(root, *TABLES, PLAIN)
    concepts = read_concepts(root if listed is None else listed.parent)
    order = list(concepts.index)
    folder, names = _find_images(root, order, images)
    shown = concepts.loc[list(names)]
    stimuli = Stimuli(
        names=tuple(names.values()),
        concepts=tuple(names),
        labels=tuple(shown["label"]),
        captions=tuple(shown["definition"]),
        root=str(folder),
        dataset="things",
    )
    if captions is not None:
        stimuli = replace(stimuli, captions=captioned(stimuli, within(root, captions)))
    notes = [f"{len(stimuli):,} of {len(order):,} concepts have an image in {folder.name!r}."]
    if folder.name == "object_images_CC0":
        notes.append("People judged another photograph of each concept than this one of THINGSplus (CC0).")
    file = within(root, triplets) if triplets is not None else _locate(root, *TRIPLETS)
    choices, published = None, _locate(root, "noise_ceiling_triplets.csv")
    if file is not None:
        judged = _judged(file, order, names)
        choices = judged.among(stimuli.names)
        notes.append(f"{len(choices):,} of {len(judged):,} triplets in {file.name!r} have all three images.")
        if holds_choices(file) or not file.resolve().is_relative_to(root.resolve()):
            published = None  # it is about THINGS' own choices
    else:
        notes.append("There is no file of triplets: pass one with `triplets=`, or see `fetch_things`.")
    if published is None:
        repeated = None if choices is None else aggregate_repeated(choices)
    else:
        repeated = _repeated(published, order, names)
    return Dataset(
        "things",
        stimuli,
        choices,
        repeated=None if repeated is None or repeated.empty else repeated,
        embeddings=_embeddings(root, order, names, embeddings or {}),
        embedding_sources=dict.fromkeys(_EMBEDDINGS, "human model"),
        categories=_categories(root, names),
        rdm=_rdm(root, names),
        notes=tuple(notes),
    )


def choices_about(root: str | os.PathLike[str], names: Mapping[str, str]) -> Triplets:
    """Return people's own choices about some concepts: those of THINGS whose three concepts are among them.

    Parameters
    ----------
    root : path-like
        The folder of THINGS, with a file of triplets; images are not needed.
    names : mapping of str to str
        Concept to the name of its stimulus.

    Returns
    -------
    Triplets
        Over the stimuli, in the order of `names`.

    Raises
    ------
    BadInputError
        If there is no such folder, no list of concepts or no file of triplets.
    """
    folder = _root(root)
    listed, file = _locate(folder, *TABLES, PLAIN), _locate(folder, *TRIPLETS)
    if file is None:
        raise BadInputError(
            f"There is no file of triplets in {str(folder)!r}. Put one there, or see `ldm_kit.fetch_things`."
        )
    order = list(read_concepts(folder if listed is None else listed.parent).index)
    return _judged(file, order, names).among(tuple(names.values()))


def _judged(file: Path, order: list[str], names: Mapping[str, str]) -> Triplets:
    """Read a file that counts concepts, or names them; a concept without a stimulus has a name that no stimulus has."""
    every = Stimuli(tuple(names.get(concept, f"({concept})") for concept in order), tuple(order))
    return read_triplets(file, every, dataset="things")


def _root(root: str | os.PathLike[str] | None) -> Path:
    """The folder of THINGS: `root`, or the environment's."""
    root = root or os.environ.get(_ENVIRONMENT)
    folder = Path(root or "").expanduser()
    if not root or not folder.is_dir():
        raise BadInputError(
            f"There is no folder of THINGS at {str(root)!r}. Pass `root=`, set the environment variable {_ENVIRONMENT}, or "
            "download what is free with `ldm_kit.fetch_things()`, which returns the folder."
        )
    return folder


def _locate(root: Path, *patterns: str) -> Path | None:
    """The first file that matches, patterns in order, in `root` and the folders that THINGS uses."""
    for pattern in patterns:
        for folder in _FOLDERS:
            matches = sorted(path for path in (root / folder).glob(pattern) if path.is_file())
            if matches:
                return matches[0]
    return None


def _find_images(root: Path, concepts: list[str], layout: str | None) -> tuple[Path, dict[str, str]]:
    """The folder of the images, and concept -> path within it, of the concepts that have one."""
    if layout is not None:
        one_of("folder of images", layout, _LAYOUTS, "Leave `images` out to take the first that holds any.")
    for place in _LAYOUTS if layout is None else [layout]:
        folder, patterns = root / place, _LAYOUTS[place]
        # One listing instead of thousands of look-ups: on a cluster's file system it saves minutes.
        entries = {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
        found: dict[str, str] = {}
        for concept, pattern in itertools.product(concepts, patterns):
            name = pattern.format(concept)
            if name.split("/")[0] in entries and ("/" not in name or (folder / name).is_file()):
                found.setdefault(concept, name)
        if found:
            return folder, found
    raise BadInputError(
        f"There is no image of any of the {len(concepts)} concepts under {str(root)!r}. Looked for "
        "'object_images/NAME/NAME_01b.jpg', 'images/NAME.jpg' (or .png), 'object_images_CC0/NAME.jpg', NAME being a "
        "concept such as 'ice_cream'. Put the images there, or fetch them: see `ldm_kit.fetch_things`."
    )


def _embeddings(
    root: Path, order: list[str], names: Mapping[str, str], further: Mapping[str, str | os.PathLike[str]]
) -> dict[str, pd.DataFrame]:
    """SPoSE, VICE and `further` vectors; the rows in `names` (concept to stimulus), renamed."""
    files = {key: _locate(root, pattern) for key, pattern in _EMBEDDINGS.items()}
    files |= {key: within(root, file) for key, file in further.items()}
    tables = {key: read_embedding(file, order) for key, file in files.items() if file is not None}
    return {key: table.loc[list(names)].rename(index=names) for key, table in tables.items()}


def _categories(root: Path, names: Mapping[str, str]) -> pd.DataFrame | None:
    """Membership in the 27 categories, rows renamed from concepts to stimuli; None without a file."""
    file = _locate(root, *CATEGORIES)
    if file is None:
        return None
    table = named_rows(file, "It should have a row a concept, and a column of 0 and 1 a category.")
    columns = [column for column in _CLASSIC if column in table]
    known = [concept for concept in names if concept in table.index]
    if not (columns and known):
        found = f"{len(columns)} of the {len(_CLASSIC)} categories, {len(known)} of the {len(names)} concepts"
        raise BadInputError(f"{str(file)!r} holds {found}. Put THINGS' own table there, or remove it.")
    member: pd.DataFrame = table.loc[known, columns].apply(pd.to_numeric).astype(bool)
    return member.rename(index=names)


def _rdm(root: Path, names: Mapping[str, str]) -> pd.DataFrame | None:
    """People's dissimilarities of 48 objects, those with an image, renamed; None without the files."""
    file, listed = _locate(root, "rdm48_human.npy"), _locate(root, "names48.tsv")
    if file is None or listed is None:
        return None
    concepts = list(named_rows(listed, f"It names the objects of {file.name!r}, in their order.").index)
    expected = f"{file.name!r} is a matrix of the objects that {listed.name!r} names, both THINGS' own."
    values = read_array(file, expected)
    if values.shape != (len(concepts), len(concepts)):
        raise BadInputError(f"{str(file)!r} is no matrix of the {len(concepts)} objects. {expected}")
    shown = [concept for concept in concepts if concept in names]
    matrix = pd.DataFrame(values, index=concepts, columns=concepts)
    return matrix.loc[shown, shown].rename(index=names, columns=names)


def _repeated(path: Path, concepts: list[str], names: Mapping[str, str]) -> pd.DataFrame:
    """Triplets judged repeatedly as THINGS published them, in the columns of `aggregate_repeated`."""
    wanted = ["id_lo", "id_mid", "id_hi", "n_per_triplet", "prop_max"]
    expected = f"Triplets judged repeatedly have {', '.join(wanted)}."
    table = read_table(path, expected)
    for column in wanted:
        one_of(f"column of {path.name}", column, table.columns, expected)
    with reading(path, expected):
        ids = checked_indices(whole_numbers(table[wanted[:3]].to_numpy(), path, expected), len(concepts))
    stimuli = np.array([names.get(concept) for concept in concepts], dtype=object)[ids]
    frame = pd.DataFrame(stimuli, columns=["i", "j", "k"]).assign(n=table[wanted[3]], share=table[wanted[4]])
    return frame.dropna().reset_index(drop=True)
