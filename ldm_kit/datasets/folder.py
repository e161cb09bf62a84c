"""A folder of pictures of one's own, with captions and triplets where there are any."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from ldm_kit.datasets.captions import match_captions, read_captions
from ldm_kit.datasets.dataset import Dataset
from ldm_kit.datasets.images import SUFFIXES
from ldm_kit.datasets.stimuli import Stimuli
from ldm_kit.datasets.triplet_files import read_triplets
from ldm_kit.errors import BadInputError

CAPTIONS = ("captions.csv", "captions.tsv", "captions.json")
TRIPLETS = ("triplets.csv", "triplets.tsv", "triplets.txt", "triplets.npy")


def load_folder(
    root: str | os.PathLike[str] | None = None,
    *,
    triplets: str | os.PathLike[str] | None = None,
    captions: str | os.PathLike[str] | None = None,
    judgements: str = "human",
    items: str | None = None,
) -> Dataset:
    """Load any folder of pictures, sub-folders included.

    Parameters
    ----------
    root : path-like
        The folder. A picture's name is its path within it, sorted; its concept is its sub-folder's name if
        it lies in one, else its file's name without the extension. Hidden files are left out.
    triplets : path-like, optional
        A file that `read_triplets` reads, with indices into the sorted names ("10.png" comes before "2.png"), or
        with names (or concepts that have one image). By default ``triplets.csv``, ``.tsv``, ``.txt`` or ``.npy`` in `root`.
    captions : path-like, optional
        A file that `read_captions` reads. By default ``captions.csv``, ``.tsv`` or ``.json`` in `root`.
    judgements : {"human", "human model", "simulated"}
        Who chose.
    items : {"names", "indices"}, optional
        What the numbers in `triplets` are, where the images have numbers for names: see `read_triplets`.

    Returns
    -------
    Dataset

    Raises
    ------
    BadInputError
        If there is no such folder, or no picture in it.

    Examples
    --------
    >>> load_folder("pictures").stimuli.concepts  # doctest: +SKIP
    ('apple', 'apple', 'car')
    """
    if root is None:
        raise BadInputError("The data set 'folder' needs to know which: pass `root=`, a folder of pictures.")
    root = Path(root).expanduser()
    if not root.is_dir():
        raise BadInputError(f"There is no folder {str(root)!r}. Give a folder of pictures.")
    stimuli = _stimuli(root)
    notes = []
    file = _named_or_found(root, captions, CAPTIONS)
    if file is not None:
        stimuli = replace(stimuli, captions=match_captions(read_captions(file), stimuli, file.name))
        n = sum(caption is not None for caption in stimuli.captions)
        notes.append(f"{n:,} of {len(stimuli):,} pictures have a caption in {file.name!r}.")
    file = _named_or_found(root, triplets, TRIPLETS)
    choices = (
        None
        if file is None
        else read_triplets(file, stimuli, items=items, judgements=judgements, dataset="folder")
    )
    if choices is None:
        notes.append("No triplets: give some with `triplets=` to compare a model with people.")
    return Dataset("folder", stimuli, choices, notes=tuple(notes))


def _stimuli(root: Path) -> Stimuli:
    files = (
        path.relative_to(root)
        for path in root.rglob("*")
        if path.suffix.lower() in SUFFIXES and path.is_file()
    )
    found = sorted(
        (path for path in files if not any(part.startswith(".") for part in path.parts)),
        key=lambda path: path.as_posix(),
    )
    if not found:
        raise BadInputError(
            f"There is no picture in {str(root)!r}, sub-folders included. "
            f"Pictures end in {', '.join(SUFFIXES)}."
        )
    return Stimuli(
        names=tuple(path.as_posix() for path in found),
        concepts=tuple(path.parent.name or path.stem for path in found),
        root=str(root),
        dataset="folder",
    )


def _named_or_found(root: Path, given: str | os.PathLike[str] | None, usual: tuple[str, ...]) -> Path | None:
    if given is None:
        return next((root / name for name in usual if (root / name).is_file()), None)
    path = Path(given).expanduser()
    return path if path.is_file() or not (root / path).is_file() else root / path
