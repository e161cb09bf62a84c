"""Read captions, one a stimulus, from CSV, TSV or JSON."""

from __future__ import annotations

import json
import os
from pathlib import Path

from ldm_kit.datasets.stimuli import Stimuli
from ldm_kit.datasets.text_tables import read_table
from ldm_kit.errors import BadInputError, unknown_name

EXPECTED = (
    "Captions are a JSON object {name: caption}, or a CSV or TSV of two columns, name and caption, "
    "with or without a header that says so; names are the stimuli's (or their concepts')."
)


def read_captions(path: str | os.PathLike[str]) -> dict[str, str]:
    """Read a mapping of names to captions.

    Parameters
    ----------
    path : path-like
        ``.json``: an object of strings. ``.csv`` or ``.tsv``: the columns ``name`` and ``caption``, or two
        columns without a header. UTF-8.

    Returns
    -------
    dict of str to str
        In the file's order.

    Raises
    ------
    BadInputError
        If the file is missing, empty, not of these shapes, or names something twice.

    Examples
    --------
    >>> read_captions("pictures/captions.csv")["apple.jpg"]  # doctest: +SKIP
    'a red apple on a table'
    """
    path = Path(path)
    if not path.is_file():
        raise BadInputError(f"There are no captions at {str(path)!r}. {EXPECTED}")
    if path.suffix == ".json":
        try:
            pairs = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=list)
        except (ValueError, OSError) as error:
            raise BadInputError(f"{str(path)!r} cannot be read as captions ({error}). {EXPECTED}") from error
    else:
        pairs = _read_two_columns(path)
    if not isinstance(pairs, list) or not all(
        isinstance(pair, (list, tuple)) and len(pair) == 2 and all(isinstance(x, str) for x in pair)
        for pair in pairs
    ):
        raise BadInputError(f"{str(path)!r} is no mapping of names to captions. {EXPECTED}")
    if not pairs:
        raise BadInputError(f"{str(path)!r} holds no caption. {EXPECTED}")
    captions = dict(pairs)
    if len(captions) != len(pairs):
        raise BadInputError(
            f"{str(path)!r} has {len(pairs) - len(captions)} names twice. Keep one caption each."
        )
    return captions


def match_captions(captions: dict[str, str], stimuli: Stimuli, source: str) -> tuple[str | None, ...]:
    """Give each stimulus its caption, by its name or else by its concept.

    Raises
    ------
    UnknownNameError
        If a caption's name is neither; what has no caption gets None.

    Examples
    --------
    >>> match_captions({"cat": "a cat"}, Stimuli(("cat.png", "dog.png")), "captions.csv")
    ('a cat', None)
    """
    known = {*stimuli.names, *stimuli.concepts}
    for name in captions:
        if name not in known:
            raise unknown_name(
                f"stimulus in {source}",
                name,
                dict.fromkeys([*stimuli.names, *stimuli.concepts]),
                "Correct the name, or remove the line.",
            )
    return tuple(
        captions.get(name, captions.get(concept))
        for name, concept in zip(stimuli.names, stimuli.concepts, strict=True)
    )


def _read_two_columns(path: Path) -> list[tuple[str, str]]:
    table = read_table(
        path,
        EXPECTED,
        sep="\t" if path.suffix == ".tsv" else ",",
        header=None,
        dtype=str,
        keep_default_na=False,
        skipinitialspace=True,
    )
    header = [str(cell).strip().lower() for cell in table.iloc[0]]
    if "caption" in header and "name" in header:
        name, caption = table[header.index("name")][1:], table[header.index("caption")][1:]
    elif table.shape[1] == 2:
        name, caption = table[0], table[1]
    else:
        raise BadInputError(
            f"{str(path)!r} has {table.shape[1]} columns: {', '.join(header[:6])}. {EXPECTED}"
        )
    return list(zip(name.str.strip(), caption.str.strip(), strict=True))
