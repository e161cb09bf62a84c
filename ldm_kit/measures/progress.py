"""A progress bar for what takes longer than a second."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from tqdm.auto import tqdm

from ldm_kit.measures.cells import n_cells

T = TypeVar("T")


def progress(items: Iterable[T], what: str, features: Any = None, total: int | None = None) -> Iterator[T]:
    """Go through `items`, showing a bar once a second has passed.

    Parameters
    ----------
    items : iterable
    what : str
        Shown before the bar.
    features : store, mapping or array, optional
        Whose number of cells is the total.
    total : int, optional
        The total itself.

    Examples
    --------
    >>> list(progress([1, 2], "counting"))
    [1, 2]
    """
    if total is None and features is not None:
        total = n_cells(features)
    if total is not None and total < 2:
        yield from items
        return
    # It stays: a bar that closes leaves "model not found" behind, in Voilà and when the notebook is opened again.
    yield from tqdm(items, desc=what, total=total, delay=1, mininterval=0.5)
