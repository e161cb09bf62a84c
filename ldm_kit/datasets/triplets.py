"""Triplets: odd-one-out choices, with the names that their indices stand for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from ldm_kit.errors import BadInputError, MismatchError, unknown_name
from ldm_kit.tables import JUDGEMENTS


@dataclass(frozen=True, eq=False)
class Triplets:
    """Odd-one-out choices over named stimuli.

    Parameters
    ----------
    indices : ndarray of int64, shape (t, 3)
        0-based positions in `names`. Columns 0 and 1 are the pair kept together, **column 2 is the
        odd one out** (the THINGS convention).
    names : tuple of str
        Stimulus names that the indices stand for; measures match stores by them.
    judgements : {"human", "human model", "simulated"}
        Who chose. Written into every table.
    dataset : str
        Where the stimuli come from, for the tables.
    subjects : ndarray of int64, shape (t,), optional
        Who judged each row, where known.
    source : str
        The file or procedure the choices come from.

    Raises
    ------
    BadInputError
        If an index is negative, out of range or repeated within a row, or the shape is not (t, 3).

    Examples
    --------
    >>> t = Triplets(np.array([[0, 1, 2]]), names=("cat.png", "dog.png", "car.png"))
    >>> len(t), t.names[t.indices[0, 2]]
    (1, 'car.png')
    """

    indices: npt.NDArray[np.int64]
    names: tuple[str, ...]
    judgements: str = "human"
    dataset: str = ""
    subjects: npt.NDArray[np.int64] | None = None
    source: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "indices", checked_indices(self.indices, len(self.names)))
        object.__setattr__(self, "names", tuple(self.names))
        if self.judgements not in JUDGEMENTS:
            raise unknown_name(
                "kind of judgements", self.judgements, JUDGEMENTS, "Say what the choices really are."
            )
        if self.subjects is not None and len(self.subjects) != len(self.indices):
            raise BadInputError(
                f"{len(self.subjects)} subjects were given for {len(self.indices)} triplets. "
                "Give one subject a row, or leave `subjects` out."
            )

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[npt.NDArray[np.int64]]:
        return iter(self.indices)

    def __repr__(self) -> str:
        return (
            f"Triplets({len(self):,} {self.judgements} choices over {len(self.names):,} stimuli"
            f"{' of ' + self.dataset if self.dataset else ''})"
        )

    @property
    def judged(self) -> tuple[str, ...]:
        """The names that occur in a triplet, in the order of `names`.

        Examples
        --------
        >>> Triplets(np.array([[0, 1, 3]]), names=("a", "b", "c", "d")).judged
        ('a', 'b', 'd')
        """
        return tuple(self.names[i] for i in np.unique(self.indices))

    def wholly_among(self, names: Sequence[str]) -> Triplets:
        """Keep the triplets whose three stimuli are all in `names`; all names, and so the indices, stay.

        Examples
        --------
        >>> t = Triplets(np.array([[0, 1, 2], [1, 2, 3]]), names=("a", "b", "c", "d"))
        >>> t.wholly_among(["d", "c", "b"]).indices.tolist()
        [[1, 2, 3]]
        """
        wanted = set(names)
        inside = np.array([name in wanted for name in self.names], dtype=bool)
        return self.take(np.flatnonzero(inside[self.indices].all(axis=1)))

    def take(self, rows: npt.NDArray[np.int64] | npt.NDArray[np.bool_] | slice) -> Triplets:
        """Keep some rows (an index array, a mask or a slice); the names stay.

        Examples
        --------
        >>> len(Triplets(np.array([[0, 1, 2], [2, 1, 0]]), names=("a", "b", "c")).take(slice(1)))
        1
        """
        subjects = None if self.subjects is None else self.subjects[rows]
        return replace(self, indices=self.indices[rows], subjects=subjects)

    def among(self, names: Sequence[str]) -> Triplets:
        """Keep the triplets whose three stimuli are all in `names`, re-indexed to `names`.

        Parameters
        ----------
        names : sequence of str
            Stimulus names, in the order that the result's indices shall have.

        Examples
        --------
        >>> t = Triplets(np.array([[0, 1, 2], [1, 2, 3]]), names=("a", "b", "c", "d"))
        >>> t.among(["d", "c", "b"]).indices.tolist()
        [[2, 1, 0]]
        """
        position = {name: row for row, name in enumerate(names)}
        new = np.array([position.get(name, -1) for name in self.names], dtype=np.int64)
        indices = new[self.indices]
        kept = (indices >= 0).all(axis=1)
        subjects = None if self.subjects is None else self.subjects[kept]
        return replace(self, indices=indices[kept], names=tuple(names), subjects=subjects)

    def on(self, names: Sequence[str]) -> npt.NDArray[np.int64]:
        """Give the indices as rows of `names`; a stimulus of a triplet that is absent is an error.

        Parameters
        ----------
        names : sequence of str
            The names of the rows of a feature matrix.

        Returns
        -------
        ndarray of int64, shape (t, 3)

        Raises
        ------
        MismatchError
            If a judged stimulus has no row.

        Examples
        --------
        >>> Triplets(np.array([[0, 1, 2]]), names=("a", "b", "c")).on(["c", "b", "a"]).tolist()
        [[2, 1, 0]]
        """
        position = {name: row for row, name in enumerate(names)}
        new = np.array([position.get(name, -1) for name in self.names], dtype=np.int64)
        indices = new[self.indices]
        if (indices < 0).any():
            judged = sorted({self.names[i] for i in self.indices[indices < 0]})
            raise MismatchError(
                f"{len(judged)} judged stimuli have no features: {', '.join(judged[:5])}"
                f"{', …' if len(judged) > 5 else ''}. Extract them, or keep only the triplets that "
                "have all three with `triplets.among(names)`."
            )
        return indices


def checked_indices(indices: npt.ArrayLike, n: int | None) -> npt.NDArray[np.int64]:
    """Return `indices` as an int64 array (t, 3), or say what is wrong with it.

    Parameters
    ----------
    indices : array-like of int, shape (t, 3)
    n : int or None
        Number of stimuli; indices run from 0 to ``n - 1``. None: there is no such bound.

    Raises
    ------
    BadInputError
        For a wrong shape or type, an index out of range, an item repeated within a triplet.

    Examples
    --------
    >>> checked_indices([[0, 1, 2]], n=3).dtype
    dtype('int64')
    """
    try:
        array = np.asarray(indices)
    except ValueError as error:
        raise BadInputError(
            "Triplets have rows of different lengths, not (t, 3). Give three 0-based columns, the odd one last."
        ) from error
    if array.size == 0 and array.ndim < 2:
        array = array.reshape(0, 3).astype(np.int64)
    if array.ndim != 2 or array.shape[1] != 3:
        raise BadInputError(
            f"Triplets have shape {array.shape}, not (t, 3). Give three 0-based columns, the odd one last."
        )
    if not np.issubdtype(array.dtype, np.integer):
        raise BadInputError(
            f"Triplets have type {array.dtype}; indices are integers. "
            "Convert with `.astype('int64')` if they are whole numbers stored as floats."
        )
    array = array.astype(np.int64, copy=False)
    if n is None:
        n = max(int(array.max(initial=-1)) + 1, 3)
    # The least and the greatest first: millions of good triplets take milliseconds.
    if array.size and (array.min() < 0 or array.max() >= n):
        outside = np.flatnonzero(((array < 0) | (array >= n)).any(axis=1))
        raise BadInputError(
            f"{outside.size} of {len(array)} triplets point outside the {n} stimuli (0 to {n - 1}), "
            f"the first at row {outside[0]}: {array[outside[0]].tolist()}. "
            "Are they 1-based, or meant for another list of stimuli?"
        )
    repeated = np.flatnonzero(
        (array[:, 0] == array[:, 1]) | (array[:, 0] == array[:, 2]) | (array[:, 1] == array[:, 2])
    )
    if repeated.size:
        raise BadInputError(
            f"{repeated.size} of {len(array)} triplets name an item twice, the first at row "
            f"{repeated[0]}: {array[repeated[0]].tolist()}. Drop them: three different stimuli are compared."
        )
    return array
