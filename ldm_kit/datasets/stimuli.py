"""Stimuli: the images of a study, in order, each known by its name and never by its row; and how an image is opened."""

from __future__ import annotations

import hashlib
import os
import re
import struct
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, overload

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from ldm_kit.errors import BadInputError, UnreadableImageError, unknown_name

_COLUMNS = ("names", "concepts", "labels", "captions")
# Control characters, and what Python makes of bytes in a file name that are not UTF-8.
_UNFIT = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")

# What a folder is searched for. The content decides how a file is decoded, not its extension.
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
# Decoders that only decode. Pillow knows more, some of which start other programs (EPS runs Ghostscript).
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
_MAX_PIXELS = 178_956_970  # 2 ** 31 / 12, where Pillow takes an image for a decompression bomb
_MAX_RATIO = 100  # longer to shorter side: a model sees the middle square, under 1 % of a longer strip
MAX_SIDE = 4096  # longer sides are reduced while decoding; no model sees more than 1,024 pixels
_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # tags of TIFF
_RESCALE = "Replace it by a copy whose values fill 8 bits, or by a 16-bit PNG, full range by definition"
# What Pillow's decoders raise on damaged files.
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, struct.error, zlib.error)


@dataclass(frozen=True)
class Stimulus:
    """One image: its name, the concept it shows, the label and caption for prompts.

    Parameters
    ----------
    name : str
        The file's path relative to its root, with forward slashes, e.g. ``"apple/apple_01b.jpg"``.
    concept : str
        The object shown, e.g. ``"ice_cream"`` (a THINGS `uniqueID` where the images are from THINGS).
    label : str
        The concept as a prompt names it, e.g. ``"ice cream"``.
    caption : str or None
        A description, where there is one.

    Examples
    --------
    >>> Stimulus("ice_cream/ice_cream_01b.jpg", "ice_cream", "ice cream").label
    'ice cream'
    """

    name: str
    concept: str
    label: str
    caption: str | None = None


@dataclass(frozen=True, eq=False)
class Stimuli:
    """A frozen sequence of images; iterating yields their names.

    Parameters
    ----------
    names : sequence of str
        Unique; a file's path relative to `root`.
    concepts, labels : sequence of str, optional
        One a name. By default the file's stem, and `label_of` the concept.
    captions : sequence of str or None, optional
        One a name. By default no stimulus has one.
    root : str
        The folder that the names start from. Not part of what the stimuli *are*: the same images in
        another folder are the same stimuli.
    dataset : str
        Where they come from, for the tables.
    opener : callable, optional
        ``name -> PIL.Image`` for images that are drawn instead of read from `root`.
    fingerprinter : callable, optional
        ``name -> str`` for such images: a hash of everything that determines the image.
    all_concepts, all_labels : sequence of str, optional
        Every concept of the dataset and its label, which subsets retain: a stimulus's shuffled label must not
        depend on the other stimuli of a subset. By default those of the stimuli themselves.

    Attributes
    ----------
    by_concept : dict of str to list of int
        The positions of each concept's images.

    Raises
    ------
    BadInputError
        If a name comes twice, is not UTF-8 or holds a line end, or the lengths differ.

    Examples
    --------
    >>> s = Stimuli(("apple.jpg", "bat1.jpg", "ice_cream.jpg"))
    >>> len(s), s.labels, s[1].concept
    (3, ('apple', 'bat', 'ice cream'), 'bat1')
    >>> s[[2, 0]].names, s.select(["ice_cream"]).names
    (('ice_cream.jpg', 'apple.jpg'), ('ice_cream.jpg',))
    """

    names: tuple[str, ...]
    concepts: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    captions: tuple[str | None, ...] = ()
    root: str = ""
    dataset: str = ""
    opener: Callable[[str], Image.Image] | None = field(default=None, repr=False)
    fingerprinter: Callable[[str], str] | None = field(default=None, repr=False)
    all_concepts: tuple[str, ...] = field(default=(), repr=False)
    all_labels: tuple[str, ...] = field(default=(), repr=False)
    by_concept: dict[str, list[int]] = field(init=False, repr=False)
    _position: dict[str, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        names = tuple(self.names)
        concepts = tuple(self.concepts) or tuple(PurePosixPath(name).stem for name in names)
        labels = tuple(self.labels) or tuple(map(label_of, concepts))
        captions = tuple(self.captions) or (None,) * len(names)
        if bad := next((name for name in names if _UNFIT.search(name)), None):
            raise BadInputError(f"The file name {bad!r} is not UTF-8 or holds a line end. Rename the file.")
        for column, values in zip(_COLUMNS, (names, concepts, labels, captions), strict=True):
            if len(values) != len(names):
                raise BadInputError(
                    f"{len(values)} {column} for {len(names)} stimuli: pass one for each stimulus."
                )
            object.__setattr__(self, column, values)
        if not self.all_concepts:
            label = dict(zip(concepts, labels, strict=True))
            object.__setattr__(self, "all_concepts", tuple(label))
            object.__setattr__(self, "all_labels", tuple(label.values()))
        by_concept: dict[str, list[int]] = {}
        for row, concept in enumerate(concepts):
            by_concept.setdefault(concept, []).append(row)
        object.__setattr__(self, "by_concept", by_concept)
        object.__setattr__(self, "_position", {name: row for row, name in enumerate(names)})
        if len(self._position) != len(names):
            twice = sorted({name for row, name in enumerate(names) if self._position[name] != row})
            raise BadInputError(f"{len(twice)} names come more than once, e.g. {twice[0]!r}. Rename them.")

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __contains__(self, name: object) -> bool:
        return name in self._position

    def __repr__(self) -> str:
        shown = ", ".join(self.names[:3]) + (", …" if len(self) > 3 else "")
        return f"Stimuli({len(self):,} images{' of ' + self.dataset if self.dataset else ''}: {shown})"

    @overload
    def __getitem__(self, which: int | np.integer) -> Stimulus: ...
    @overload
    def __getitem__(self, which: slice | Sequence[int] | npt.NDArray[np.generic]) -> Stimuli: ...
    def __getitem__(
        self, which: int | np.integer | slice | Sequence[int] | npt.NDArray[np.generic]
    ) -> Stimulus | Stimuli:
        if isinstance(which, (int, np.integer)):
            return Stimulus(*(getattr(self, column)[int(which)] for column in _COLUMNS))
        try:
            rows = np.arange(len(self))[which if isinstance(which, slice) else list(which)]
            return self._rows(rows.tolist())
        except (IndexError, TypeError) as error:
            raise BadInputError(
                f"Stimuli 0 to {len(self) - 1} are indexed by whole numbers, a slice, or a mask of one True or False a "
                f"stimulus ({error}). To pick by name, use `stimuli.select(names)`."
            ) from error

    def index(self, name: str) -> int:
        """Return the position of a stimulus, by its name or by a concept with one image.

        Parameters
        ----------
        name : str

        Raises
        ------
        UnknownNameError
            If it is neither a name nor a concept.
        BadInputError
            If the concept has several images.

        Examples
        --------
        >>> Stimuli(("apple.jpg", "bat1.jpg")).index("bat1.jpg")
        1
        """
        rows = self._find(name)
        if len(rows) > 1:
            several = ", ".join(self.names[row] for row in rows[:5])
            raise BadInputError(f"{name!r} has {len(rows)} images: {several}. Name one of them.")
        return rows[0]

    def select(self, names: Iterable[str]) -> Stimuli:
        """Select the named stimuli, in this order; a concept stands for all its images.

        Parameters
        ----------
        names : iterable of str
            Stimulus names or concepts, in any mixture; duplicates are dropped.

        Raises
        ------
        UnknownNameError
            If a name is neither; the nearest ones come first in the message.

        Examples
        --------
        >>> Stimuli(("apple.jpg", "bat1.jpg", "cat.jpg")).select(["cat", "apple.jpg"]).names
        ('cat.jpg', 'apple.jpg')
        """
        names = [names] if isinstance(names, str) else names
        return self._rows(list(dict.fromkeys(row for name in names for row in self._find(name))))

    def open(self, which: str | int | np.integer) -> Image.Image:
        """Open one image as 8-bit RGB; see `open_image`.

        Parameters
        ----------
        which : str or int
            A name, a concept with one image, or a position.

        Raises
        ------
        UnreadableImageError
            If the image is missing, damaged or too large; the message names the file.

        Examples
        --------
        >>> Stimuli(("red",), opener=lambda name: Image.new("RGB", (256, 256), name)).open("red").size
        (256, 256)
        """
        name = self._name(which)
        return self.opener(name) if self.opener else open_image(Path(self.root) / name)

    def fingerprint(self, which: str | int | np.integer) -> str:
        """Return a SHA-256 that changes when the image does.

        It covers the file's bytes, or what determines a drawn image. Stores record it, so that features
        of an image that has since been replaced are noticed.

        Examples
        --------
        >>> Stimuli(("red",), fingerprinter=lambda name: hashlib.sha256(name.encode()).hexdigest()).fingerprint(0)[:8]
        'b1f51a51'
        """
        name = self._name(which)
        return self.fingerprinter(name) if self.fingerprinter else file_fingerprint(Path(self.root) / name)

    def _name(self, which: str | int | np.integer) -> str:
        return self.names[self.index(which) if isinstance(which, str) else int(which)]

    def _find(self, name: str) -> list[int]:
        if name in self._position:
            return [self._position[name]]
        rows = self.by_concept.get(name, [])
        if not rows:
            # A list of names and concepts would list everything twice.
            known = self.names if "." in str(name) or "/" in str(name) else dict.fromkeys(self.concepts)
            advice = "Use a stimulus's name or its concept; `stimuli.names` lists them."
            raise unknown_name("stimulus", name, known, advice)
        return rows

    def _rows(self, rows: list[int]) -> Stimuli:
        columns: dict[str, Any] = {name: tuple(getattr(self, name)[row] for row in rows) for name in _COLUMNS}
        return replace(self, **columns)


def label_of(concept: str) -> str:
    """Turn a concept's name into text for a prompt.

    Underscores and hyphens become spaces; the digit by which THINGS distinguishes homonyms is dropped.

    Examples
    --------
    >>> label_of("ice_cream"), label_of("bat1"), label_of("t-shirt")
    ('ice cream', 'bat', 't shirt')
    """
    return re.sub(r"(?<=[^\W\d_])\d+$", "", concept.replace("_", " ").replace("-", " ").strip())


def open_image(path: str | os.PathLike[str]) -> Image.Image:
    """Open an image as 8-bit RGB, upright, transparency laid on white.

    Parameters
    ----------
    path : path-like
        A JPEG, PNG, WebP, BMP, GIF (first frame), TIFF (first page) or PPM file; its extension does not
        matter. Greyscale, palette, CMYK and 16-bit images are converted, EXIF rotation is applied,
        colour profiles are ignored. A side over 4,096 pixels is reduced by a whole factor.

    Returns
    -------
    PIL.Image.Image
        Mode ``"RGB"``, fully loaded; the file is closed.

    Raises
    ------
    UnreadableImageError
        If the file is missing, empty, truncated or no image; if its values have no agreed range (floating point,
        signed or 32-bit integers, a 16-bit TIFF whose values end below 16,384 and may be of 12 bits); if it has more
        than 178,956,970 pixels, or one side is over 100 times the other. The message names the file.

    Examples
    --------
    >>> Image.new("L", (20, 10), 255).save("white.png")
    >>> open_image("white.png").getpixel((0, 0))
    (255, 255, 255)
    """
    path = Path(path)
    _check_file(path)
    try:
        with warnings.catch_warnings():
            # Pillow already warns at half of the size at which it refuses.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            opened = Image.open(path, formats=_FORMATS)
        with opened as image:
            if max(image.size) > _MAX_RATIO * min(image.size):
                side, strip = min(image.size), f"{image.width:,} × {image.height:,} pixels"
                reason = f"it is a strip of {strip}, of which a model would see the middle {side} × {side}"
                advice = f"Cut out or pad it, so that no side is over {_MAX_RATIO} times the other"
                raise unreadable(path, reason, advice)
            return _upright_rgb(image, path)
    except UnreadableImageError:
        raise
    except Image.DecompressionBombError as error:
        advice = "Save a smaller copy (models see at most 1,024 pixels a side)"
        raise unreadable(path, f"it has over {_MAX_PIXELS:,} pixels", advice) from error
    except _DAMAGED as error:
        raise unreadable(path, f"it is damaged, cut short or no image ({error})") from error


def file_fingerprint(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of an image file's bytes, in hexadecimal.

    Raises
    ------
    UnreadableImageError
        If the file is missing, empty or cannot be read.

    Examples
    --------
    >>> _ = Path("a.png").write_bytes(b"one")
    >>> file_fingerprint("a.png")[:8]
    '7692c3ad'
    """
    path = Path(path)
    _check_file(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def unreadable(
    path: str | os.PathLike[str],
    reason: str,
    advice: str = "Replace the file by a whole one (JPEG, PNG, WebP, BMP, GIF, TIFF or PPM)",
) -> UnreadableImageError:
    """Build the error for an image that cannot be opened.

    Examples
    --------
    >>> str(unreadable("a.jpg", "it is empty (0 bytes)"))[:52]
    "Cannot read the image 'a.jpg': it is empty (0 bytes)"
    """
    return UnreadableImageError(f"Cannot read the image {str(path)!r}: {reason}. {advice}, or leave it out.")


def _check_file(path: Path) -> None:
    """Raise the error for a file that cannot be read or holds nothing."""
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise unreadable(path, f"the system refuses it ({error.strerror})") from error
    if empty:
        raise unreadable(path, "it is empty (0 bytes)")


def _upright_rgb(image: Image.Image, path: Path) -> Image.Image:
    """Decode an opened image and bring it to RGB, at most `MAX_SIDE` a side."""
    factor = _factor(image)
    if factor > 1:  # a JPEG can be decoded at 1/2, 1/4 or 1/8; other formats ignore this
        image.draft("RGB", (image.width // factor, image.height // factor))
    image.load()
    top, white_is_zero = _range(image, path)
    ImageOps.exif_transpose(image, in_place=True)
    rgb = _to_rgb(image, top)
    if white_is_zero:
        rgb = ImageOps.invert(rgb)
    factor = _factor(rgb)
    return rgb.reduce(factor) if factor > 1 else rgb


def _factor(image: Image.Image) -> int:
    return -(-max(image.size) // MAX_SIDE)


def _range(image: Image.Image, path: Path) -> tuple[int, bool]:
    """The greatest value of pixels over 8 bits, and whether it is black; an error where that is not known."""
    tags = getattr(image, "tag_v2", {})  # a TIFF's
    bits = max(tags.get(_BITS_PER_SAMPLE, (0,)))
    unit = {2: "signed integers", 3: "floating-point numbers"}.get(max(tags.get(_SAMPLE_FORMAT, (1,))))
    if unit is None and (image.mode == "F" or bits > 16):
        unit = "floating-point numbers" if image.mode == "F" else f"{bits}-bit integers"
    if unit is not None:
        raise unreadable(path, f"its pixels are {unit}, which have no agreed range", _RESCALE)
    deep = image.mode.startswith("I;16")
    if bits == 16:  # of other modes Pillow returns the upper eight alone
        most = int(np.asarray(image).max()) if deep else 256 * int(np.asarray(image)[..., :3].max())
        if most < 2**14 and (most or not deep):
            reason = f"its 16-bit values end at {most:,}: it is very dark, or of 12 or 14 bits, which the file does not record"
            raise unreadable(path, reason, f"{_RESCALE} (multiply by 16 if they are of 12 bits)")
    # Pillow inverts an image whose white is 0 if it has 8 bits, but not if it has 16.
    return 2 ** (bits if 8 < bits < 16 else 16) - 1, deep and tags.get(_PHOTOMETRIC) == 0


def _to_rgb(image: Image.Image, top: int) -> Image.Image:
    """Bring a decoded image to RGB."""
    if image.mode.startswith("I"):  # over 8 bits; Pillow's own conversion would clip at 255
        wide = np.clip(np.asarray(image), 0, top).astype(np.uint32)
        image = Image.fromarray(((wide * 255 + top // 2) // top).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")
