"""Triplets: odd-one-out choices, with the names that their indices stand for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from ldm_kit.errors import BadInputError, MismatchError, one_of
from ldm_kit.tables import JUDGEMENTS

Ints = npt.NDArray[np.int64]
_EXPECTED = "Give three columns of 0-based integers, the odd one last; `lk.read_triplets` and `lk.read_choices` read files."


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

    indices: Ints
    names: tuple[str, ...]
    judgements: str = "human"
    dataset: str = ""
    subjects: Ints | None = None
    source: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "indices", checked_indices(self.indices, len(self.names)))
        object.__setattr__(self, "names", tuple(self.names))
        one_of("kind of judgements", self.judgements, JUDGEMENTS, "Name those who chose.")
        if self.subjects is not None and len(self.subjects) != len(self.indices):
            raise BadInputError(
                f"{len(self.subjects)} subjects for {len(self)} triplets: pass one for each row."
            )

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[Ints]:
        return iter(self.indices)

    def __repr__(self) -> str:
        of = f" of {self.dataset}" if self.dataset else ""
        return f"Triplets({len(self):,} {self.judgements} choices over {len(self.names):,} stimuli{of})"

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

    def take(self, rows: Ints | npt.NDArray[np.bool_] | slice) -> Triplets:
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
            Stimulus names, in the order that the new indices refer to.

        Examples
        --------
        >>> t = Triplets(np.array([[0, 1, 2], [1, 2, 3]]), names=("a", "b", "c", "d"))
        >>> t.among(["d", "c", "b"]).indices.tolist()
        [[2, 1, 0]]
        """
        indices = self._rows_of(names)
        inside = (indices >= 0).all(axis=1)
        subjects = None if self.subjects is None else self.subjects[inside]
        return replace(self, indices=indices[inside], names=tuple(names), subjects=subjects)

    def on(self, names: Sequence[str]) -> Ints:
        """Return the indices as rows of `names`; a stimulus of a triplet that is absent is an error.

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
        indices = self._rows_of(names)
        if (indices < 0).any():
            absent = sorted({self.names[i] for i in self.indices[indices < 0]})
            raise MismatchError(
                f"{len(absent)} judged stimuli have no features: {', '.join(absent[:5])}{', …' if len(absent) > 5 else ''}. "
                "Extract them, or keep only the triplets that have all three with `triplets.among(names)`."
            )
        return indices

    def _rows_of(self, names: Sequence[str]) -> Ints:
        """The indices as rows of `names`, -1 for a stimulus that is absent."""
        position = {name: row for row, name in enumerate(names)}
        rows: Ints = np.array([position.get(name, -1) for name in self.names], dtype=np.int64)
        return rows[self.indices]


def checked_indices(indices: npt.ArrayLike, n: int | None) -> Ints:
    """Return `indices` as an int64 array (t, 3), or raise an error that explains what is wrong with it.

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
        raise BadInputError(f"Triplets have rows of different lengths, not (t, 3). {_EXPECTED}") from error
    if array.size == 0 and array.shape in ((0,), (0, 3)):
        return np.empty((0, 3), dtype=np.int64)
    if array.ndim != 2 or array.shape[1] != 3 or not np.issubdtype(array.dtype, np.integer):
        found = f"shape {array.shape} and type {array.dtype}"
        raise BadInputError(f"Triplets have {found}, not (t, 3) of integers. {_EXPECTED}")
    array = array.astype(np.int64, copy=False)
    n = max(int(array.max()) + 1, 3) if n is None else n
    # The least and the greatest first: millions of good triplets take milliseconds.
    if array.min() < 0 or array.max() >= n:
        outside = np.flatnonzero(((array < 0) | (array >= n)).any(axis=1))
        raise BadInputError(
            f"{outside.size} of {len(array)} triplets point outside the {n} stimuli (0 to {n - 1}), the first at row "
            f"{outside[0]}: {array[outside[0]].tolist()}. Are they 1-based, or about other stimuli?"
        )
    i, j, k = array.T
    repeated = np.flatnonzero((i == j) | (i == k) | (j == k))
    if repeated.size:
        raise BadInputError(
            f"{repeated.size} of {len(array)} triplets name an item twice, the first at row "
            f"{repeated[0]}: {array[repeated[0]].tolist()}. Drop them: three different stimuli are compared."
        )
    return array


def aggregate_repeated(triplets: Triplets, at_least: int = 10) -> pd.DataFrame:
    """Count judgements of the same three stimuli, whatever their order.

    Parameters
    ----------
    triplets : Triplets
    at_least : int
        Keep triplets judged at least this often; small numbers bias the majority's share upward.

    Returns
    -------
    pandas.DataFrame
        Columns ``i``, ``j``, ``k`` (stimulus names, in the order of `triplets.names`), ``n`` (judgements),
        ``share`` (share of the majority's answer, 1/3 to 1). Empty if none was judged so often.

    Examples
    --------
    >>> t = Triplets(np.array([[0, 1, 2], [1, 0, 2], [2, 1, 0]]), names=("a", "b", "c"))
    >>> aggregate_repeated(t, at_least=3).round(2).values.tolist()
    [['a', 'b', 'c', 3, 0.67]]
    """
    names = np.array(triplets.names, dtype=object)
    ordered = np.sort(triplets.indices, axis=1)
    key = (ordered[:, 0] * len(names) + ordered[:, 1]) * len(names) + ordered[:, 2]
    _, first, which, n = np.unique(key, return_index=True, return_inverse=True, return_counts=True)
    odd = (ordered == triplets.indices[:, 2:]).argmax(axis=1)
    votes = np.bincount(which * 3 + odd, minlength=3 * len(first)).reshape(-1, 3)
    often = n >= at_least
    frame = pd.DataFrame(names[ordered[first[often]]].reshape(-1, 3), columns=["i", "j", "k"])
    return frame.assign(n=n[often], share=votes[often].max(axis=1, initial=0) / n[often])
