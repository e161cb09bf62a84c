"""What a measure takes (store, mapping, array) as a list of cells, and tables matched to them by name or by row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
from tqdm.auto import tqdm

from ldm_kit.errors import BadInputError, MismatchError, NonFiniteError, one_of

T = TypeVar("T")
Matrix = npt.NDArray[np.floating]
Rows = npt.NDArray[np.int64]
Membership = pd.DataFrame | pd.Series | Mapping[str, str | Sequence[str]]
Groups = pd.Series | Mapping[str, Any] | Sequence[Any] | npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Cell:
    """One array to be measured: its labels in the tidy table, the names and the concepts of its rows where they have any."""

    labels: dict[str, Any]
    read: Callable[[], Any] = field(repr=False)
    names: tuple[str, ...] | None = None
    key: Any = None
    groups: tuple[str, ...] | None = field(default=None, repr=False)

    @property
    def block(self) -> str:
        """What error messages call it."""
        return str(self.labels.get("block", "features"))

    def matrix(self) -> Matrix:
        """Read the array, (n, d), checked to be finite numbers."""
        return checked_matrix(self.read(), self.block, self.names)


def cells_of(features: Any) -> list[Cell]:
    """List the cells of a store, a mapping or an array; each is read only when it is measured.

    A store has `names` (one a row of every array), `cells()` (keys, in network order), `labels(key)` (columns of the
    tidy table) and `store[key]` (the array); `ldm_kit.features.FeatureStore` is one. Where it has `concepts`, one a row,
    they are the rows' groups. The keys of a mapping become the column `block`; a bare array is called ``"features"``.

    Examples
    --------
    >>> [cell.labels for cell in cells_of({"clip": np.ones((3, 2))})]
    [{'block': 'clip'}]
    """
    if isinstance(features, Mapping):
        return [Cell({"block": str(block)}, partial(features.get, block), key=block) for block in features]
    if hasattr(features, "cells"):
        names, concepts = tuple(features.names), getattr(features, "concepts", None)
        groups = None if concepts is None else tuple(concepts)
        return [
            Cell(dict(features.labels(key)), partial(features.__getitem__, key), names, key, groups)
            for key in features.cells()
        ]
    return [Cell({"block": "features"}, lambda: features)]


def progress(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """Iterate over `items`, with a progress bar named `what` after the first second.

    Examples
    --------
    >>> list(progress([1, 2], "counting"))
    [1, 2]
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    if total is not None and total < 2:
        yield from items
        return
    # It stays: a bar that closes leaves "model not found" behind, in Voilà and when the notebook is opened again.
    yield from tqdm(items, desc=what, total=total, delay=1, mininterval=0.5)


def each_cell(features: Any, what: str) -> Iterator[Cell]:
    """Iterate over the cells of a store, a mapping or an array, with a progress bar named `what`."""
    return progress(cells_of(features), what)


def checked_matrix(array: npt.ArrayLike, what: str, names: Sequence[str] | None = None) -> Matrix:
    """Return `array` as a finite float matrix (n, d); anything else is an error that names the rows.

    Examples
    --------
    >>> checked_matrix([[1, 2]], "features").dtype
    dtype('float64')
    """
    matrix = np.asarray(array)
    if matrix.ndim != 2 or matrix.dtype.kind not in "iuf":
        raise BadInputError(
            f"The features of {what!r} have shape {matrix.shape} and type {matrix.dtype}; a matrix of "
            "numbers, (stimuli, dimensions), is needed. Pool maps first (`pooling='mean'`)."
        )
    if matrix.dtype not in (np.float32, np.float64):
        matrix = matrix.astype(np.float32 if matrix.dtype == np.float16 else np.float64)
    bad = np.flatnonzero(~np.isfinite(matrix).all(axis=1))
    if bad.size:
        raise NonFiniteError(
            f"The features of {what!r} are NaN or infinite for {bad.size} of {len(matrix)} stimuli: rows "
            f"{listed(bad, names)}. Extract them again in float32, or drop them."
        )
    return matrix


def listed(rows: Iterable[Any], names: Sequence[str] | None = None) -> str:
    """The first five of some rows (or of their names), for an error message."""
    shown = [str(row if names is None else names[row]) for row in rows]
    return ", ".join(shown[:5]) + (", …" if len(shown) > 5 else "")


def rows_by_name(names: Sequence[str], available: Iterable[Any], complaint: str, advice: str) -> Rows:
    """The row of each name among those available; a missing one is an error: "3 (complaint): a, b, c. (advice)"."""
    position = {str(name): row for row, name in enumerate(available)}
    missing = [name for name in names if name not in position]
    if missing:
        raise MismatchError(f"{len(missing)} {complaint}: {listed(missing)}. {advice}")
    return np.array([position[name] for name in names], dtype=np.int64)


def rows_named(chosen: Any, cell: Cell, n: int) -> Rows | None:
    """Turn stimulus names, or rows, into rows of the cell's array (of `n` rows); None stays None.

    Examples
    --------
    >>> rows_named([2, 0], cells_of(np.ones((3, 2)))[0], 3).tolist()
    [2, 0]
    """
    if chosen is None:
        return None
    array = np.asarray(chosen)
    if array.ndim != 1:
        raise BadInputError(
            f"Stimuli were named by {chosen!r}, which is no list. Give a list, even of one: [{chosen!r}]."
        )
    if np.issubdtype(array.dtype, np.integer) or not array.size:
        outside = array[(array < 0) | (array >= n)]
        if outside.size:
            raise BadInputError(f"There is no row {outside[0]}: there are {n}, 0 to {n - 1}. Count from 0.")
        return array.astype(np.int64)
    if cell.names is None:
        raise MismatchError(
            "Stimuli were named, but a plain array has no names. Give their rows instead, or measure a store."
        )
    names = [one_of("stimulus", str(name), cell.names, "Name stimuli of the store.") for name in array]
    return rows_by_name(names, cell.names, "stimuli are missing", "")


def groups_of(groups: Groups | None, cell: Cell, n: int, names: Sequence[str] | None = None) -> Rows:
    """Number the group of each of the cell's `n` rows, by first appearance: 0, 1, … where each row is its own.

    Parameters
    ----------
    groups : mapping or Series (stimulus name → group), or sequence of n labels; optional
        By default the concepts that the cell's rows show, or, where they are not known, each row is its own group.
    cell : Cell
    n : int
        Rows of its array.
    names : sequence of str, optional
        Names of the rows of a cell that has none itself. Without any, a mapping is matched by row.

    Returns
    -------
    ndarray of int64, shape (n,)

    Raises
    ------
    MismatchError
        If a stimulus is not in the mapping, the number of labels is not `n`, or a label is missing.

    Examples
    --------
    >>> groups_of(["cat", "dog", "cat"], cells_of(np.ones((3, 2)))[0], 3).tolist()
    [0, 1, 0]
    """
    given = cell.groups if groups is None else groups
    if given is None:
        return np.arange(n)
    if isinstance(given, str):
        raise BadInputError(
            f"groups={given!r} is a word. Pass a mapping of stimulus name to group, or one label a row."
        )
    if isinstance(given, Mapping | pd.Series):
        column = (
            given.astype(object) if isinstance(given, pd.Series) else pd.Series(dict(given), dtype=object)
        )
        table = pd.DataFrame({"group": column})
        if not table.index.is_unique:
            twice = listed(table.index[table.index.duplicated()].unique())
            raise MismatchError(
                f"Stimuli have more than one group in `groups`: {twice}. Give each of them one."
            )
        table = aligned(table, cell.names if cell.names is not None else names, n, "mapping `groups`")
        labels = table["group"].to_list()
    else:
        labels = list(given)
    if len(labels) != n:
        raise MismatchError(
            f"`groups` has {len(labels)} labels, the features of {cell.block!r} have {n} rows. Give one label a row, or "
            "a mapping of stimulus name to group."
        )
    codes = pd.factorize(pd.Series(labels, dtype=object))[0]
    if (codes < 0).any():
        raise MismatchError(
            f"`groups` has no label for {(codes < 0).sum()} of {n} rows: {listed(np.flatnonzero(codes < 0), cell.names)}. "
            "Give every stimulus a group, even one of its own."
        )
    return codes.astype(np.int64)


def aligned(table: pd.DataFrame, names: Sequence[str] | None, n: int, what: str) -> pd.DataFrame:
    """The rows of a table, called `what`, for `names`; or as they are, for `n` stimuli without names."""
    if names is not None:
        rows = rows_by_name(
            names, table.index, f"stimuli have no row in the {what}", "Add them, or leave them out."
        )
        return table.iloc[rows]
    if len(table) != n:
        raise MismatchError(
            f"The {what} has {len(table)} rows, the features have {n}. Plain arrays are matched by row: give one row a "
            "stimulus, in order."
        )
    return table


def membership(categories: Membership, names: Sequence[str] | None, n: int) -> pd.DataFrame:
    """Which of `n` stimuli (rows, in order, if `names` is None) is in which category; a missing value is none.

    Examples
    --------
    >>> membership({"cat": "animal", "car": "vehicle"}, ["car", "cat"], 2)["animal"].tolist()
    [False, True]
    """
    if isinstance(categories, pd.DataFrame):
        table = categories.where(categories.notna(), 0).astype(bool)  # NaN would count as true
    else:
        kinds = pd.Series(list(dict(categories).values()), dtype=object)
        table = pd.get_dummies(kinds.explode().dropna()).groupby(level=0).any()
        table = table.reindex(index=range(len(kinds)), columns=sorted(table, key=str), fill_value=False)
        table.index = list(dict(categories))
    return aligned(table, names, n, "table of categories")
