"""Where THINGS keeps its files, and how the ones about concepts are read and renamed to stimuli."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ldm_kit.datasets.embeddings import read_embedding
from ldm_kit.datasets.text_tables import read_table
from ldm_kit.errors import BadInputError

if TYPE_CHECKING:
    import pandas as pd

ENVIRONMENT = "LDM_KIT_THINGS"
# Where THINGS and THINGS-data keep their files, relative to the root.
FOLDERS = ("", "data", "variables", "triplet_dataset", "data/triplet_dataset", "03_category-level")
TRIPLETS = (
    "triplets_large_final_correctednc_correctedorder.csv",
    *("triplets.csv", "triplets.tsv", "triplets.txt", "triplets.npy"),
    *("human_triplets*.txt", "human_triplets*.npy"),
    "data1854_batch5_test10.txt",
)
EMBEDDINGS = {
    "SPoSE-66": "spose_embedding_66d_sorted.txt",
    "SPoSE-49": "spose_embedding_49d_sorted.txt",
    "VICE": "vice_embedding_*d.npy",
}
CATEGORIES = ("categories53_things_order.tsv", "category53_wide-format.tsv")
# The 27 of THINGS (2019); THINGSplus added 26 finer ones.
CLASSIC = (
    *("animal", "bird", "body part", "clothing", "clothing accessory", "container", "dessert", "drink"),
    *("electronic device", "food", "fruit", "furniture", "home decor", "insect", "kitchen appliance"),
    *("kitchen tool", "medical equipment", "musical instrument", "office supply", "part of car", "plant"),
    *("sports equipment", "tool", "toy", "vegetable", "vehicle", "weapon"),
)


def things_root(root: str | os.PathLike[str] | None) -> Path:
    """Return the folder of THINGS: as given, or as the environment says.

    Examples
    --------
    >>> things_root("../shared/things")  # doctest: +SKIP
    PosixPath('../shared/things')
    """
    given = root if root is not None else os.environ.get(ENVIRONMENT)
    if not given:
        raise BadInputError(
            f"THINGS needs a folder and none was given. Pass `root=`, set the environment variable "
            f"{ENVIRONMENT}, or download what may be with `ldm_kit.fetch_things()`, which returns the folder."
        )
    folder = Path(given).expanduser()
    if not folder.is_dir():
        origin = "" if root is not None else f" (from {ENVIRONMENT})"
        raise BadInputError(f"There is no folder {str(folder)!r}{origin}. Give the folder that holds THINGS.")
    return folder


def locate(root: Path, *patterns: str) -> Path | None:
    """Return the first file that matches, patterns in order, in `root` and the folders THINGS uses.

    Examples
    --------
    >>> locate(Path("../shared/things"), "vice_embedding_*d.npy").name  # doctest: +SKIP
    'vice_embedding_42d.npy'
    """
    for pattern in patterns:
        for folder in FOLDERS:
            matches = sorted(path for path in (root / folder).glob(pattern) if path.is_file())
            if matches:
                return matches[0]
    return None


def within(root: Path, file: str | os.PathLike[str]) -> Path:
    """Return a path as given, or within `root` if it is only there.

    Examples
    --------
    >>> within(Path("../shared/things"), "labels_66.txt")  # doctest: +SKIP
    PosixPath('../shared/things/labels_66.txt')
    """
    path = Path(file).expanduser()
    return path if path.is_absolute() or path.is_file() or not (root / path).is_file() else root / path


def things_embeddings(
    root: Path, order: list[str], names: Mapping[str, str], further: Mapping[str, str | os.PathLike[str]]
) -> dict[str, pd.DataFrame]:
    """Read SPoSE, VICE and `further` vectors; keep the rows in `names` (concept to stimulus), renamed.

    Examples
    --------
    >>> things_embeddings(root, order, {"apple": "apple.jpg"}, {})["VICE"].shape  # doctest: +SKIP
    (1, 42)
    """
    files = {key: file for key, pattern in EMBEDDINGS.items() if (file := locate(root, pattern)) is not None}
    files |= {key: within(root, file) for key, file in further.items()}
    return {
        key: read_embedding(file, order).loc[list(names)].rename(index=names) for key, file in files.items()
    }


def things_categories(root: Path, names: Mapping[str, str]) -> pd.DataFrame | None:
    """Read membership in the 27 categories, rows renamed from concepts to stimuli; None without a file.

    Examples
    --------
    >>> things_categories(root, {"apple": "apple.jpg"}).loc["apple.jpg", "fruit"]  # doctest: +SKIP
    True
    """
    file = locate(root, *CATEGORIES)
    if file is None:
        return None
    table = _named_rows(file, "It should have a row a concept, and a column of 0 and 1 a category.")
    columns = [column for column in CLASSIC if column in table]
    known = [concept for concept in names if concept in table.index]
    if not (columns and known):
        raise BadInputError(
            f"{str(file)!r} holds {len(columns)} of the {len(CLASSIC)} categories of THINGS and {len(known)} of the "
            f"{len(names)} concepts that have an image. Put THINGS' own table there, or remove it."
        )
    return table.loc[known, columns].astype(bool).rename(index=names)


def things_rdm(root: Path, names: Mapping[str, str]) -> pd.DataFrame | None:
    """Read people's dissimilarities of 48 objects, those with a picture, renamed; None without the files.

    Examples
    --------
    >>> things_rdm(root, {"pizza": "pizza.jpg", "beaver": "beaver.jpg"}).shape  # doctest: +SKIP
    (2, 2)
    """
    import pandas as pd

    file, listed = locate(root, "rdm48_human.npy"), locate(root, "names48.tsv")
    if file is None or listed is None:
        return None
    concepts = list(
        _named_rows(listed, "It should name the objects of 'rdm48_human.npy', in their order.").index
    )
    try:
        values = np.load(file, allow_pickle=False)
        matrix = pd.DataFrame(values, index=concepts, columns=concepts)
    except (ValueError, OSError, EOFError) as error:
        raise BadInputError(
            f"{str(file)!r} is no matrix of the {len(concepts)} objects that {listed.name!r} names ({error}). Put both "
            "of THINGS' own files there, or remove them."
        ) from error
    there = [concept for concept in concepts if concept in names]
    return matrix.loc[there, there].rename(index=names, columns=names)


def _named_rows(file: Path, expected: str) -> pd.DataFrame:
    """A table of THINGS whose rows are named by a column `uniqueID`."""
    table = read_table(file, expected, sep="\t", dtype={"uniqueID": str})
    if "uniqueID" not in table:
        raise BadInputError(
            f"{str(file)!r} has no column 'uniqueID'; it has {', '.join(map(str, table.columns[:6]))}. {expected}"
        )
    return table.set_index("uniqueID")
