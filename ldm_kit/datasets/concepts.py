"""The THINGS concepts in their canonical order, with words and definitions."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from ldm_kit.datasets.stimuli import label_of
from ldm_kit.datasets.text_tables import not_utf8, read_table
from ldm_kit.errors import BadInputError, MismatchError

if TYPE_CHECKING:
    import pandas as pd

# The file names under which THINGS and THINGS-data release the list, the richest first.
TABLES = (
    "things_concepts.tsv",
    "concepts-metadata_things.tsv",
    "_concepts-metadata_things.tsv",
    "items1854names.tsv",  # of 2020, whose columns have other names: the sixth is the unique one
)
PLAIN = "unique_id.txt"
# SHA-256 of the 1,854 names in canonical order, parted by line ends, and of the table of 2020, as it was released.
CANONICAL = "ac73a006f56abcd43e0f6e1ec2432e681d1125417c27d67904df1613eee9be42"
OF_2020 = "03dbe77972f9466ff8baa0da604d9f5104f677bf77cc602faebfa03a290fb51c"


def read_concepts(folder: str | os.PathLike[str]) -> pd.DataFrame:
    """Read the canonical list of concepts from a folder.

    Parameters
    ----------
    folder : path-like
        Holds ``things_concepts.tsv`` (with a column ``uniqueID``, perhaps ``Word`` and one that begins
        ``Definition``), or ``unique_id.txt`` (one name a line), or both, which must then agree. A table alone must
        hold THINGS' own 1,854 concepts in their own order: only then is it certain what the rows of triplets and
        embeddings are.

    Returns
    -------
    pandas.DataFrame, shape (1854, 2) for THINGS
        Indexed by concept (``uniqueID``), in canonical order; columns ``label`` (words for prompts) and
        ``definition`` (str, or None where there is none).

    Raises
    ------
    BadInputError
        If no list is there, it is empty, it has no column ``uniqueID``, or a concept comes twice.
    MismatchError
        If the two lists disagree, or a table alone has another order, or other concepts.

    Examples
    --------
    >>> read_concepts("../shared/things").loc["bat1", "label"]  # doctest: +SKIP
    'bat'
    """
    import pandas as pd

    folder = Path(folder)
    tables = [folder / name for name in TABLES if (folder / name).is_file()]
    plain = folder / PLAIN
    names = _read_names(plain) if plain.is_file() else None
    if tables:
        frame = _read_table(tables[0])
        if names is not None and names != list(frame.index):
            row = next((r for r, (a, b) in enumerate(zip(names, frame.index, strict=False)) if a != b), -1)
            raise MismatchError(
                f"{PLAIN!r} ({len(names)} names) and {tables[0].name!r} ({len(frame)}) in {str(folder)!r} "
                f"differ{f' in row {row}' if row >= 0 else ''}. Keep the one that your judgements refer to."
            )
        if names is None:
            _check_order(list(frame.index), tables[0])
    elif names is not None:
        frame = pd.DataFrame({"label": map(label_of, names), "definition": None}, index=names, dtype=object)
    else:
        raise BadInputError(
            f"{str(folder)!r} holds neither {TABLES[0]!r} nor {PLAIN!r}, so nothing tells which row is which "
            "concept. Copy one of them there: they come with THINGS (https://osf.io/jum2f) and THINGS-data "
            "(https://osf.io/f5rn6), and `ldm_kit.fetch_things('concepts')` fetches one."
        )
    if not frame.index.is_unique:
        twice = frame.index[frame.index.duplicated()][0]
        raise BadInputError(f"The concept {twice!r} comes twice in the list in {str(folder)!r}. Remove one.")
    return frame


def _read_names(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise not_utf8(path, error) from error
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise BadInputError(f"{str(path)!r} is empty. It holds the name of a concept a line.")
    return names


def _check_order(names: list[str], path: Path) -> None:
    """A table is easily sorted anew, and every row of triplets and embeddings is then another concept's."""
    if _digest(names) == CANONICAL or hashlib.sha256(path.read_bytes()).hexdigest() == OF_2020:
        return
    canonical = sorted(names, key=lambda name: name.replace("_", " "))
    if _digest(canonical) == CANONICAL:
        row = next(row for row, (a, b) in enumerate(zip(names, canonical, strict=True)) if a != b)
        found = f"the concepts of THINGS in another order than THINGS' own: row {row} is {names[row]!r}, not {canonical[row]!r}"
    else:
        found = f"{len(names):,} concepts, which are not the 1,854 of THINGS"
    raise MismatchError(
        f"{str(path)!r} holds {found}, so nothing tells which concept a row of triplets or embeddings is. Put THINGS' own "
        f"table back, or say by a file {PLAIN!r} beside it (one name a line) in which order your files count, and "
        "sort the table likewise."
    )


def _digest(names: list[str]) -> str:
    return hashlib.sha256("\n".join(names).encode()).hexdigest()


def _read_table(path: Path) -> pd.DataFrame:
    import pandas as pd

    expected = "It should be THINGS' own table of concepts, separated by tabs."
    table = read_table(path, expected, sep="\t", dtype=str, keep_default_na=False)
    if "uniqueID" not in table and path.name == "items1854names.tsv" and table.shape[1] > 5:
        table = table.rename(columns={table.columns[5]: "uniqueID"})
    if "uniqueID" not in table:
        raise BadInputError(
            f"{str(path)!r} has no column 'uniqueID'; it has {', '.join(map(str, table.columns[:6]))}, …. {expected}"
        )
    concepts = table["uniqueID"].str.strip().tolist()
    words = table["Word"].str.strip().tolist() if "Word" in table else [""] * len(table)
    about = next((column for column in table if str(column).startswith("Definition")), None)
    definitions = table[about].str.strip().tolist() if about is not None else [""] * len(table)
    return pd.DataFrame(
        {
            "label": [word or label_of(concept) for word, concept in zip(words, concepts, strict=True)],
            "definition": [text or None for text in definitions],
        },
        index=concepts,
        dtype=object,
    )
