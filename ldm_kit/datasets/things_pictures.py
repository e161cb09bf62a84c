"""Find the picture of each THINGS concept, as THINGS and THINGSplus lay them out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ldm_kit.errors import BadInputError, unknown_name

# Folder -> where a concept's picture lies in it. The first that holds a picture is taken: `object_images` has
# the photographs that people judged, THINGSplus (CC0) has others of the same concepts.
LAYOUTS: dict[str, tuple[str, ...]] = {
    "object_images": ("{0}/{0}_01b.jpg",),
    "images": ("{0}.jpg", "{0}.png", "{0}/{0}_01b.jpg"),
    "object_images_CC0": ("{0}.jpg",),
    ".": ("{0}/{0}_01b.jpg", "{0}.jpg", "{0}.png"),
}


@dataclass(frozen=True)
class Pictures:
    """Where the pictures lie.

    Parameters
    ----------
    folder : pathlib.Path
        The stimuli's root.
    names : dict of str to str
        Concept to stimulus name (path relative to `folder`), concepts in canonical order.
    """

    folder: Path
    names: dict[str, str]


def find_pictures(root: Path, concepts: Iterable[str], layout: str | None = None) -> Pictures:
    """Find one picture a concept.

    Parameters
    ----------
    root : pathlib.Path
        The folder of the data set.
    concepts : iterable of str
        In canonical order.
    layout : {"object_images", "images", "object_images_CC0", "."}, optional
        The sub-folder to take them from; by default the first of these that holds any.

    Raises
    ------
    BadInputError
        If no concept has a picture.
    UnknownNameError
        If there is no such layout.

    Examples
    --------
    >>> find_pictures(Path("../shared/things"), ["acorn"]).names  # doctest: +SKIP
    {'acorn': 'acorn.jpg'}
    """
    if layout is not None and layout not in LAYOUTS:
        raise unknown_name("layout of pictures", layout, LAYOUTS, "Leave `pictures` out to have it found.")
    concepts = list(concepts)
    for folder in LAYOUTS if layout is None else [layout]:
        names = _in_folder(root / folder, concepts, LAYOUTS[folder])
        if names:
            return Pictures(root / folder, names)
    sought = "'object_images/NAME/NAME_01b.jpg', 'images/NAME.jpg' (or .png), 'object_images_CC0/NAME.jpg'"
    raise BadInputError(
        f"There is no picture of any of the {len(concepts)} concepts under {str(root)!r}. Looked for "
        f"{sought}, NAME being a concept such as 'ice_cream'. Put the pictures there, or fetch them: see "
        "`ldm_kit.fetch_things`."
    )


def _in_folder(folder: Path, concepts: list[str], patterns: tuple[str, ...]) -> dict[str, str]:
    if not folder.is_dir():
        return {}
    # One listing instead of thousands of look-ups: on a cluster's file system it saves minutes.
    entries = {entry.name for entry in folder.iterdir()}
    names: dict[str, str] = {}
    for concept in concepts:
        for pattern in patterns:
            name = pattern.format(concept)
            if name.split("/")[0] in entries and ("/" not in name or (folder / name).is_file()):
                names[concept] = name
                break
    return names
