"""Whatever a measure is given (store, mapping, array) becomes a row of cells, matched to names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from ldm_kit.datasets.triplets import Triplets, checked_indices
from ldm_kit.errors import BadInputError, MismatchError, NonFiniteError, unknown_name


@runtime_checkable
class Store(Protocol):
    """What a measure needs of a feature store; `ldm_kit.features.FeatureStore` is one."""

    @property
    def names(self) -> Sequence[str]:
        """Stimulus names, one a row of every array."""

    def cells(self) -> Sequence[Any]:
        """Keys of all arrays, in network order; each is accepted by `store[key]`."""

    def labels(self, key: Any) -> Mapping[str, Any]:
        """Columns of the tidy table that describe the array at `key`."""

    def __getitem__(self, key: Any) -> npt.NDArray[np.floating]:
        """Return the array (n, d) at `key`."""


@dataclass(frozen=True, eq=False)
class Cell:
    """One array to be measured, and what the tidy table says of it."""

    labels: dict[str, Any]
    names: tuple[str, ...] | None
    _read: Any = field(repr=False)
    key: Any = None

    def matrix(self) -> npt.NDArray[np.floating]:
        """Read the array, (n, d), checked to be finite numbers."""
        return checked_matrix(self._read(), str(self.labels.get("block", "features")), self.names)


def cells_of(features: Any) -> Iterator[Cell]:
    """Go through the cells of a store, a mapping or an array.

    Parameters
    ----------
    features : store, mapping of str to ndarray (n, d), or ndarray (n, d)
        The keys of a mapping become the column `block`; a bare array is called ``"features"``.

    Yields
    ------
    Cell
        Read lazily, one at a time, so that a store larger than memory can be measured.

    Examples
    --------
    >>> [cell.labels for cell in cells_of({"clip": np.ones((3, 2))})]
    [{'block': 'clip'}]
    """
    if isinstance(features, Mapping):
        for block, array in features.items():
            yield Cell({"block": str(block)}, None, lambda array=array: array, block)
    elif isinstance(features, Store) and not isinstance(features, np.ndarray):
        for key in features.cells():
            yield Cell(dict(features.labels(key)), tuple(features.names), lambda key=key: features[key], key)
    else:
        yield Cell({"block": "features"}, None, lambda: features)


def n_cells(features: Any) -> int:
    """How many cells `cells_of` will yield.

    Examples
    --------
    >>> n_cells(np.ones((3, 2)))
    1
    """
    if isinstance(features, Mapping):
        return len(features)
    if isinstance(features, Store) and not isinstance(features, np.ndarray):
        return len(features.cells())
    return 1


def table_labels(cell: Cell, triplets: Triplets | npt.ArrayLike | None = None) -> dict[str, Any]:
    """Columns that say what a row is about: the cell's labels, and who judged.

    Examples
    --------
    >>> t = Triplets(np.array([[0, 1, 2]]), names=("a", "b", "c"), dataset="toy")
    >>> table_labels(next(cells_of(np.ones((3, 2)))), t)
    {'judgements': 'human', 'dataset': 'toy', 'block': 'features'}
    """
    labels = dict(cell.labels)
    if isinstance(triplets, Triplets):
        labels = {"judgements": triplets.judgements, "dataset": triplets.dataset} | {
            name: value for name, value in labels.items() if name != "dataset" or value
        }
    return labels


def rows_named(chosen: Any, cell: Cell, n: int | None = None) -> npt.NDArray[np.int64] | None:
    """Turn stimulus names, rows or a mask into rows of the cell's array (of `n` rows); None stays None.

    Examples
    --------
    >>> rows_named([2, 0], next(cells_of(np.ones((3, 2))))).tolist()
    [2, 0]
    """
    if chosen is None:
        return None
    given, chosen = chosen, np.asarray(chosen)
    if chosen.ndim != 1:
        advice = f"Give a list, even of one: [{given!r}]." if chosen.ndim == 0 else "Give a list of them."
        raise BadInputError(
            f"Stimuli were named by {given!r}, which is not a list of names, rows or a mask. {advice}"
        )
    if chosen.dtype == bool:
        if n is not None and len(chosen) != n:
            raise BadInputError(f"The mask has {len(chosen)} entries, the features {n} rows. Give one a row.")
        return np.flatnonzero(chosen)
    if np.issubdtype(chosen.dtype, np.integer) or not chosen.size:
        rows: npt.NDArray[np.int64] = chosen.astype(np.int64)
        if n is not None and rows.size and (rows.min() < 0 or rows.max() >= n):
            raise BadInputError(
                f"The rows run from {rows.min()} to {rows.max()}; there are {n}, 0 to {n - 1}. Count from 0."
            )
        return rows
    if cell.names is None:
        raise MismatchError(
            "Stimuli were named, but a plain array has no names. Give their rows instead, or measure a store."
        )
    position = {name: row for row, name in enumerate(cell.names)}
    for name in chosen:
        if name not in position:
            raise unknown_name("stimulus", str(name), position, "Name stimuli of the store.")
    return np.array([position[name] for name in chosen], dtype=np.int64)


def rows_for(cell: Cell, triplets: Triplets | npt.ArrayLike, n: int) -> npt.NDArray[np.int64]:
    """Give the triplets as rows of the cell's array of `n` rows.

    Stores are matched by name; plain arrays by row, lengths checked against `triplets.names`.

    Raises
    ------
    MismatchError
        If a judged stimulus is absent, or the number of rows is not the number of names.

    Examples
    --------
    >>> cell = next(cells_of(np.ones((3, 2))))
    >>> rows_for(cell, [[0, 1, 2]], 3).tolist()
    [[0, 1, 2]]
    """
    if not isinstance(triplets, Triplets):
        return checked_indices(triplets, n)
    if cell.names is not None:
        return triplets.on(cell.names)
    if n != len(triplets.names):
        raise MismatchError(
            f"The features of {cell.labels.get('block')!r} have {n} rows, the triplets are over "
            f"{len(triplets.names)} stimuli. A plain array must have one row a stimulus, in the order of "
            "`triplets.names`; or re-index with `triplets.among(names_of_the_rows)`."
        )
    return triplets.indices


def checked_matrix(
    array: npt.ArrayLike, what: str, names: Sequence[str] | None = None
) -> npt.NDArray[np.floating]:
    """Return `array` as a finite float matrix (n, d), or say what is wrong with it.

    Raises
    ------
    BadInputError
        If it is not a two-dimensional array of numbers.
    NonFiniteError
        If it holds NaN or infinity; the message names the first rows.

    Examples
    --------
    >>> checked_matrix([[1, 2]], "features").dtype
    dtype('float64')
    """
    matrix = np.asarray(array)
    real = np.issubdtype(matrix.dtype, np.number) and not np.iscomplexobj(matrix)
    if matrix.ndim != 2 or not real:
        raise BadInputError(
            f"The features of {what!r} have shape {matrix.shape} and type {matrix.dtype}; a matrix of "
            "numbers, (stimuli, dimensions), is needed. Pool maps first (`pooling='mean'`)."
        )
    if matrix.dtype not in (np.float32, np.float64):
        matrix = matrix.astype(np.float32 if matrix.dtype == np.float16 else np.float64)
    bad = np.flatnonzero(~np.isfinite(matrix).all(axis=1))
    if bad.size:
        shown = [names[i] if names is not None else str(i) for i in bad[:5]]
        raise NonFiniteError(
            f"The features of {what!r} are NaN or infinite for {bad.size} of {len(matrix)} stimuli: rows "
            f"{', '.join(shown)}{', …' if bad.size > 5 else ''}. Extract them again in float32, or drop them."
        )
    return matrix
