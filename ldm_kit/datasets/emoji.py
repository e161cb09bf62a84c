"""The bundled world: 335 concepts of THINGS as emoji, in four drawing styles.

The style `EVALUATION_STYLE` is the one that judgements are about; no training of ours sees it. The others are exemplars, from
which `tiny-ldm` learnt. Texts and images are data (`ldm_kit/data/emoji`); its README has their origin and licences.
"""

from __future__ import annotations

import csv
import hashlib
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from ldm_kit.errors import one_of

__all__ = [
    "EVALUATION_STYLE",
    "STYLES",
    "captions",
    "category",
    "definition",
    "label",
    "names",
    "picture",
    "prompt",
]

STYLES = ("noto", "fluent_flat", "fluent", "twemoji")
EVALUATION_STYLE = "noto"
TRAINING_STYLES = tuple(style for style in STYLES if style != EVALUATION_STYLE)
FOLDER = Path(__file__).parent.parent / "data" / "emoji"


@cache
def _concepts() -> dict[str, dict[str, str]]:
    """The columns of each concept; plain, as a table's cell or index takes a hundred times as long to read."""
    with (FOLDER / "concepts.csv").open(encoding="utf-8", newline="") as file:
        return {row["concept"]: row for row in csv.DictReader(file)}


def names() -> list[str]:
    """Return the concepts, in alphabetical order.

    Returns
    -------
    list of str
        335 names, each spelled as the concept's ``uniqueID`` in THINGS.

    Examples
    --------
    >>> names()[:3]
    ['abacus', 'accordion', 'airplane']
    """
    return list(_concepts())


def _cell(name: str, column: str) -> str:
    return _concepts()[_known(name)][column]


def _known(name: str) -> str:
    """Return a concept's name, or raise an error that lists those there are."""
    return one_of("emoji", name, _concepts(), "Choose one of these.")


def label(name: str) -> str:
    """Return a concept's name as people write it.

    Examples
    --------
    >>> label("ice_cream"), label("bat1")
    ('ice cream', 'bat')
    """
    return _cell(name, "label")


def category(name: str) -> str:
    """Return the category of a concept, one of 23.

    Parameters
    ----------
    name : str
        A concept of `names`.

    Returns
    -------
    str

    Raises
    ------
    UnknownNameError
        If there is no such concept.

    Examples
    --------
    >>> category("apple")
    'fruit'
    """
    return _cell(name, "category")


def definition(name: str) -> str:
    """Return what a concept is, in a few words that do not name it.

    Examples
    --------
    >>> definition("abacus")
    'a frame with beads on rods, used for counting'
    """
    return _cell(name, "definition")


def prompt(name: str) -> str:
    """Return the prompt of label conditioning; always "a", as the template of the whole package is.

    Examples
    --------
    >>> prompt("apple")
    'a photo of a apple'
    """
    return f"a photo of a {label(name)}"


@cache
def _captions() -> dict[str, tuple[str, ...]]:
    table = pd.read_csv(FOLDER / "captions.csv")
    return {str(name): tuple(texts) for name, texts in table.groupby("concept")["caption"]}


def captions(name: str) -> tuple[str, ...]:
    """Return the captions of a concept: three that name it and three that describe it without its name.

    They were written apart from the norms that the simulated observers judge by, so that a text encoder that was
    trained on them cannot have read its answers off the norms.

    Parameters
    ----------
    name : str
        A concept of `names`.

    Returns
    -------
    tuple of str, length 6

    Raises
    ------
    UnknownNameError
        If there is no such concept.

    Examples
    --------
    >>> captions("abacus")[3]
    'a wooden frame with coloured beads for counting'
    """
    return _captions()[_known(name)]


def picture(name: str, style: str = EVALUATION_STYLE) -> Image.Image:
    """Return the drawing of a concept in a style.

    Parameters
    ----------
    name : str
        A concept of `names`.
    style : {"noto", "fluent_flat", "fluent", "twemoji"}

    Returns
    -------
    PIL.Image.Image
        128 x 128 pixels, RGBA with a transparent background.

    Raises
    ------
    UnknownNameError
        If there is no such concept or style.

    Examples
    --------
    >>> picture("apple", "twemoji").size
    (128, 128)
    """
    _known(name)
    one_of("style of the emoji", style, STYLES, "Choose one of these.")
    with Image.open(FOLDER / "images" / style / f"{name}.png") as image:
        return image.convert("RGBA")


def generator(*keys: object) -> np.random.Generator:
    """Return a random generator that depends on the request alone.

    Python's own ``hash`` differs from run to run, and a running generator would make an image depend on those drawn
    before it; a digest of the request does neither.

    Parameters
    ----------
    *keys : object
        What identifies the request; their text is hashed.

    Returns
    -------
    numpy.random.Generator
        A fresh generator, the same for the same keys.

    Examples
    --------
    >>> float(generator(0, "apple", 1).random()) == float(generator(0, "apple", 1).random())
    True
    """
    digest = hashlib.sha256("\x1f".join(map(str, keys)).encode("utf-8")).digest()
    return np.random.Generator(np.random.Philox(int.from_bytes(digest[:16], "little")))
