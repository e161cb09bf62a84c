"""Stimuli: the pictures of a study, in order, each known by its name and never by its row."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import overload

import numpy as np
import numpy.typing as npt
from PIL import Image

from ldm_kit.datasets.images import file_fingerprint, open_image
from ldm_kit.errors import BadInputError, unknown_name

# Control characters, and what Python makes of bytes in a file name that are not UTF-8.
UNFIT = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True)
class Stimulus:
    """One picture: its name, the concept it shows, the words for prompts.

    Parameters
    ----------
    name : str
        The file's path relative to its root, with forward slashes, e.g. ``"apple/apple_01b.jpg"``.
    concept : str
        The object shown, e.g. ``"ice_cream"`` (a THINGS `uniqueID` where the pictures are from THINGS).
    label : str
        The concept as words, e.g. ``"ice cream"``.
    caption : str or None
        A description, where there is one.
    """

    name: str
    concept: str
    label: str
    caption: str | None = None


@dataclass(frozen=True, eq=False)
class Stimuli:
    """A frozen sequence of pictures; iterating gives their names.

    Parameters
    ----------
    names : sequence of str
        Unique; a file's path relative to `root`.
    concepts, labels : sequence of str, optional
        One a name. By default the file's stem, and the words of the concept.
    captions : sequence of str or None, optional
        One a name. By default none has any.
    root : str
        The folder that the names start from. Not part of what the stimuli *are*: the same pictures in
        another folder are the same stimuli.
    dataset : str
        Where they come from, for the tables.
    opener : callable, optional
        ``name -> PIL.Image`` for pictures that are drawn instead of read from `root`.
    fingerprinter : callable, optional
        ``name -> str`` for such pictures: a hash of everything that determines the picture.
    by_concept : dict of str to list of int
        The positions of each concept's images; not given, but made from `concepts`.
    all_concepts, all_labels : sequence of str, optional
        Every concept of the dataset and its words, kept by subsets: a stimulus's shuffled label must not
        depend on which other stimuli it is asked for with. By default those of the stimuli given.

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
        columns = {
            "names": names,
            "concepts": concepts,
            "labels": tuple(self.labels) or tuple(map(label_of, concepts)),
            "captions": tuple(self.captions) or (None,) * len(names),
        }
        if bad := next((name for name in names if UNFIT.search(name)), None):
            raise BadInputError(
                f"The file name {bad!r} is not UTF-8 text or holds a line end, so no table or store can hold it. Rename the "
                "file (`convmv -f latin1 -t utf8 -r --notest FOLDER` does so for a whole folder in Latin-1)."
            )
        for column, values in columns.items():
            if len(values) != len(names):
                raise BadInputError(
                    f"{len(values)} {column} were given for {len(names)} stimuli. Give one a stimulus."
                )
            object.__setattr__(self, column, values)
        if not self.all_concepts:
            words = dict(zip(self.concepts, self.labels, strict=True))
            object.__setattr__(self, "all_concepts", tuple(words))
            object.__setattr__(self, "all_labels", tuple(words.values()))
        by_concept: dict[str, list[int]] = {}
        for row, concept in enumerate(self.concepts):
            by_concept.setdefault(concept, []).append(row)
        object.__setattr__(self, "by_concept", by_concept)
        object.__setattr__(self, "_position", {name: row for row, name in enumerate(names)})
        if len(self._position) != len(names):
            twice = sorted({name for row, name in enumerate(names) if self._position[name] != row})
            raise BadInputError(
                f"{len(twice)} stimulus names come more than once, the first is {twice[0]!r}. "
                "A stimulus is known by its name alone: give each picture its own."
            )

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __contains__(self, name: object) -> bool:
        return name in self._position

    def __repr__(self) -> str:
        shown = ", ".join(self.names[:3]) + (", …" if len(self) > 3 else "")
        return f"Stimuli({len(self):,} pictures{' of ' + self.dataset if self.dataset else ''}: {shown})"

    @overload
    def __getitem__(self, which: int | np.integer) -> Stimulus: ...
    @overload
    def __getitem__(self, which: slice | Sequence[int] | npt.NDArray[np.generic]) -> Stimuli: ...
    def __getitem__(
        self, which: int | np.integer | slice | Sequence[int] | npt.NDArray[np.generic]
    ) -> Stimulus | Stimuli:
        if isinstance(which, (int, np.integer)):
            row = int(which)
            return Stimulus(self.names[row], self.concepts[row], self.labels[row], self.captions[row])
        return self._rows(self._positions(which))

    def index(self, name: str) -> int:
        """Return the position of a stimulus, by its name or by a concept with one picture.

        Examples
        --------
        >>> Stimuli(("apple.jpg", "bat1.jpg")).index("bat1.jpg")
        1
        """
        rows = self._find(name)
        if len(rows) > 1:
            raise BadInputError(
                f"{name!r} has {len(rows)} pictures: {', '.join(self.names[row] for row in rows[:5])}. "
                "Name one of them."
            )
        return rows[0]

    def select(self, names: Iterable[str]) -> Stimuli:
        """Keep the stimuli named, in the order given; a concept stands for all its pictures.

        Parameters
        ----------
        names : iterable of str
            Stimulus names or concepts, mixed as you like. What is named twice is kept once.

        Raises
        ------
        UnknownNameError
            If a name is neither; the nearest ones come first in the message.

        Examples
        --------
        >>> Stimuli(("apple.jpg", "bat1.jpg", "cat.jpg")).select(["cat", "apple.jpg"]).names
        ('cat.jpg', 'apple.jpg')
        """
        if isinstance(names, str):
            names = [names]
        return self._rows(list(dict.fromkeys(row for name in names for row in self._find(name))))

    def open(self, which: str | int | np.integer) -> Image.Image:
        """Open one picture, now, as 8-bit RGB.

        Parameters
        ----------
        which : str or int
            A name, a concept with one picture, or a position.

        Raises
        ------
        UnreadableImageError
            If the picture is missing, damaged or too large; the message names the file.

        Examples
        --------
        >>> data.stimuli.open("apple.jpg").size  # doctest: +SKIP
        (256, 256)
        """
        name = self._name(which)
        return self.opener(name) if self.opener else open_image(Path(self.root) / name)

    def fingerprint(self, which: str | int | np.integer) -> str:
        """Return a SHA-256 that changes when the picture does.

        Of the file's bytes, or of what determines a drawn picture. Stores record it, so that features of
        a picture that was since replaced are noticed.

        Examples
        --------
        >>> len(data.stimuli.fingerprint("apple.jpg"))  # doctest: +SKIP
        64
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
            # Concepts would do too, but a list of both would say everything twice.
            known = self.names if "." in str(name) or "/" in str(name) else dict.fromkeys(self.concepts)
            raise unknown_name(
                "stimulus", name, known, "Use a stimulus's name or its concept; `stimuli.names` lists them."
            )
        return rows

    def _positions(self, which: slice | Sequence[int] | npt.NDArray[np.generic]) -> list[int]:
        if isinstance(which, slice):
            return list(range(*which.indices(len(self))))
        array = np.asarray(which)
        if array.dtype == bool:
            if array.shape != (len(self),):
                raise BadInputError(
                    f"A mask of shape {array.shape} was given for {len(self)} stimuli. "
                    "Give one True or False a stimulus."
                )
            return [int(row) for row in np.flatnonzero(array)]
        if array.size and (array.ndim != 1 or not np.issubdtype(array.dtype, np.integer)):
            raise BadInputError(
                f"Stimuli are indexed by whole numbers, a slice or a mask, not by {array.dtype} of shape "
                f"{array.shape}. To pick by name, use `stimuli.select(names)`."
            )
        outside = array[(array < -len(self)) | (array >= len(self))] if array.size else array
        if outside.size:
            raise BadInputError(
                f"Position {outside[0]} is outside the {len(self)} stimuli (0 to {len(self) - 1}). "
                "Pick by name with `stimuli.select(names)`."
            )
        return [int(row) % len(self) for row in array]

    def _rows(self, rows: list[int]) -> Stimuli:
        if not rows:
            return replace(self, names=(), concepts=(), labels=(), captions=())
        return replace(
            self,
            names=tuple(self.names[row] for row in rows),
            concepts=tuple(self.concepts[row] for row in rows),
            labels=tuple(self.labels[row] for row in rows),
            captions=tuple(self.captions[row] for row in rows),
        )


def label_of(concept: str) -> str:
    """Turn a concept's name into words for a prompt.

    Underscores and hyphens become spaces; the digit by which THINGS tells homonyms apart is dropped.

    Examples
    --------
    >>> label_of("ice_cream"), label_of("bat1"), label_of("t-shirt")
    ('ice cream', 'bat', 't shirt')
    """
    return re.sub(r"(?<=[^\W\d_])\d+$", "", concept.replace("_", " ").replace("-", " ").strip())
