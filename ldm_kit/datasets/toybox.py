"""Toybox: 56 everyday objects, drawn by code.

The drawings are data (`objects.yaml`, SVG fragments); this file turns one into an image whose pose, colours and background
vary. An image is determined by three things, ``(seed, object, exemplar)``: the same request gives the same pixels on
every machine, in any order.

Exemplar 0 is the *evaluation image*, the one that judgements are about. Training uses exemplars from 1 on, so that no
model of ours was trained on the images on which it is compared with people.
"""

from __future__ import annotations

import colorsys
import hashlib
import io
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
import resvg_py
from PIL import Image

from ldm_kit.errors import BadInputError, unknown_name
from ldm_kit.files import load_yaml

__all__ = ["caption", "category", "label", "names", "prompt", "render"]

OUTLINE = "#2a2430"
# Muted, so that an object's own colours stand out; none is the main colour of an object.
BACKGROUNDS = (
    "#f3ead9",
    "#dfe9ee",
    "#cfe3cf",
    "#f4d9d0",
    "#ddd3ea",
    "#c8d6e6",
    "#e9e2b8",
    "#ffffff",
    "#b9c4c0",
    "#d9c7b0",
)


@cache
def _objects() -> dict[str, dict[str, Any]]:
    text = (resources.files("ldm_kit") / "data" / "toybox" / "objects.yaml").read_text(encoding="utf-8")
    loaded: dict[str, dict[str, Any]] = load_yaml(text)
    return loaded


def names() -> list[str]:
    """Return the names of the objects, in the order of the drawings (by category).

    Returns
    -------
    list of str
        56 names, each spelled as the concept's ``uniqueID`` in THINGS.

    Examples
    --------
    >>> names()[:3]
    ['apple', 'banana', 'grape']
    """
    return list(_objects())


def _entry(name: str) -> dict[str, Any]:
    try:
        return _objects()[name]
    except KeyError:
        raise unknown_name("object of Toybox", name, names(), "Choose one of these.") from None


def category(name: str) -> str:
    """Return the category of an object.

    Parameters
    ----------
    name : str
        An object of `names`.

    Returns
    -------
    str
        One of 14 names, four objects each.

    Raises
    ------
    UnknownNameError
        If there is no such object.

    Examples
    --------
    >>> category("apple")
    'fruit'
    """
    return str(_entry(name)["category"])


def label(name: str) -> str:
    """Return an object's name as people write it.

    Examples
    --------
    >>> label("ice_cream")
    'ice cream'
    """
    _entry(name)
    return name.replace("_", " ")


def prompt(name: str) -> str:
    """Return the prompt of label conditioning; always "a", as the template of the whole package is.

    Examples
    --------
    >>> prompt("apple")
    'a photo of a apple'
    """
    return f"a photo of a {label(name)}"


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


def _shift(colour: str, hue: float, saturation: float, value: float) -> str:
    """Turn a colour a little: hue in turns, the other two as factors. Black outlines and white stay as they are."""
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    h, s, v = colorsys.rgb_to_hsv(red, green, blue)
    turned = colorsys.hsv_to_rgb((h + hue) % 1.0, min(1.0, s * saturation), min(1.0, v * value))
    return "#" + "".join(f"{round(channel * 255):02x}" for channel in turned)


def _background(rng: np.random.Generator) -> str:
    first, second = (
        _shift(str(c), rng.uniform(-0.03, 0.03), 1.0, rng.uniform(0.88, 1.03))
        for c in rng.choice(BACKGROUNDS, size=2, replace=False)
    )
    kind = rng.choice(["flat", "floor", "two-tone", "gradient"], p=[0.4, 0.25, 0.15, 0.2])
    plain = f'<rect width="100" height="100" fill="{first}"/>'
    if kind == "floor":
        edge = rng.uniform(62, 80)
        return plain + f'<rect y="{edge:.2f}" width="100" height="40" fill="{second}"/>'
    if kind == "two-tone":
        left, right = rng.uniform(10, 90, size=2)
        return plain + f'<path d="M0 0 L{left:.2f} 0 L{right:.2f} 100 L0 100Z" fill="{second}"/>'
    if kind == "gradient":
        return (
            f'<linearGradient id="g" x1="0" y1="0" x2="{rng.uniform(0, 1):.2f}" y2="1"><stop offset="0" '
            f'stop-color="{first}"/><stop offset="1" stop-color="{second}"/></linearGradient>'
            '<rect width="100" height="100" fill="url(#g)"/>'
        )
    return plain


def _look(name: str, exemplar: int, seed: int) -> dict[str, str]:
    """Which of its colours an exemplar wears; apart from `svg`, since the caption names it."""
    colours: list[dict[str, str]] = _entry(name)["colours"]
    return colours[int(generator(seed, name, exemplar, "look").integers(len(colours)))]


def svg(name: str, exemplar: int, seed: int = 0) -> str:
    """Return the drawing of one exemplar as SVG text.

    Parameters
    ----------
    name : str
        An object of `names`.
    exemplar : int
        Which image of it; 0 is the evaluation image.
    seed : int, default 0
        Another seed gives another, equally varied, set of images.

    Returns
    -------
    str
        An SVG document with a view box of 100 x 100.

    Raises
    ------
    UnknownNameError
        If there is no such object.
    BadInputError
        If the exemplar is negative.

    Examples
    --------
    >>> svg("apple", 1).startswith("<svg")
    True
    """
    entry = _entry(name)
    if exemplar < 0:
        raise BadInputError(f"exemplar is {exemplar}; exemplars count from 0 (0 is the evaluation image).")
    rng = generator(seed, name, exemplar, "pose")
    background = _background(rng)
    shape: str = entry["svg"]
    hue, saturation, value = rng.uniform(-0.02, 0.02), rng.uniform(0.85, 1.1), rng.uniform(0.88, 1.06)
    for key, colour in _look(name, exemplar, seed).items():
        if key != "word":
            shape = shape.replace("{" + key + "}", _shift(colour, hue, saturation, value))
    size = rng.uniform(0.68, 0.9)
    room = 50 * (1 - size)  # half of what is left over: the object may move, but not out of the image
    x, y = rng.uniform(-0.8, 0.8, size=2) * room
    turn = rng.uniform(-1, 1) * float(entry["rotate"])
    mirror = -1 if entry["flip"] and rng.random() < 0.5 else 1
    place = f"translate({50 + x:.3f} {50 + y:.3f}) rotate({turn:.3f}) scale({mirror * size:.4f} {size:.4f}) translate(-50 -50)"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100 100">{background}<g transform="{place}" '
        f'stroke="{OUTLINE}" stroke-width="4" stroke-linejoin="round" stroke-linecap="round" fill="none">{shape}</g></svg>'
    )


def render(name: str, exemplar: int, seed: int = 0, size: int = 64) -> Image.Image:
    """Draw one exemplar.

    Parameters
    ----------
    name : str
        An object of `names`.
    exemplar : int
        Which image of it; 0 is the evaluation image, never trained on.
    seed : int, default 0
        Another seed gives another set of images.
    size : int, default 64
        Side of the square image, in pixels.

    Returns
    -------
    PIL.Image.Image
        An RGB image of ``size`` x ``size`` pixels, fully determined by the arguments.

    Raises
    ------
    UnknownNameError
        If there is no such object.
    BadInputError
        If the exemplar is negative.

    Examples
    --------
    >>> render("apple", 1).size
    (64, 64)
    """
    png = resvg_py.svg_to_bytes(
        svg_string=svg(name, exemplar, seed), width=size, height=size, skip_system_fonts=True
    )
    return Image.open(io.BytesIO(png)).convert("RGB")


def caption(name: str, exemplar: int, seed: int = 0, variant: int = 0) -> str:
    """Return one of several captions of an image.

    About half of the captions are the plain label prompt ("a photo of a apple"); others name the colour or the category
    ("a kind of fruit"), so that a model trained on them learns what the names of a category have in common.

    Parameters
    ----------
    name : str
        An object of `names`.
    exemplar : int
        Which image of it; its colour may be named.
    seed : int, default 0
        The seed of the image.
    variant : int, default 0
        Draws another wording for the same image.

    Returns
    -------
    str
        The caption, in lower case.

    Examples
    --------
    >>> caption("apple", 0) == caption("apple", 0)
    True
    """
    rng = generator(seed, name, exemplar, "caption", variant)
    if rng.random() < 0.5:
        return prompt(name)
    noun, kind, colour = label(name), category(name), _look(name, exemplar, seed)["word"]
    article = "an" if noun[0] in "aeiou" else "a"
    of_colour = "an" if colour[0] in "aeiou" else "a"
    wordings = (
        f"a photo of {of_colour} {colour} {noun}",
        f"a drawing of {article} {noun}",
        f"a picture of {article} {noun}",
        f"{of_colour} {colour} {noun}",
        f"{article} {noun}",
        noun,
        f"{article} {noun}, a kind of {kind}",
        f"{of_colour} {colour} {noun}, a kind of {kind}",
        f"a kind of {kind}",
        f"a photo of {article} {noun}",
    )
    return str(rng.choice(wordings))
