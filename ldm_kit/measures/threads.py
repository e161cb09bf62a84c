"""How many threads the compiled loops use, and how work is dealt to them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

# Below this many triplets, starting threads costs more than it saves.
WORTH_THREADS = 200_000

T = TypeVar("T")
R = TypeVar("R")


def n_threads() -> int:
    """Threads to use: NUMBA_NUM_THREADS or OMP_NUM_THREADS where set, else the cores we may run on.

    Examples
    --------
    >>> n_threads() >= 1
    True
    """
    for variable in ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS"):
        value = os.environ.get(variable, "")
        if value.isdigit() and int(value):
            return int(value)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def in_threads(function: Callable[[T], R], parts: Sequence[T]) -> list[R]:
    """Call `function` on every part, each in a thread of its own, and return the results in order.

    Examples
    --------
    >>> in_threads(lambda part: part + 1, [1, 2])
    [2, 3]
    """
    if len(parts) == 1:
        return [function(parts[0])]
    with ThreadPoolExecutor(len(parts)) as pool:
        return list(pool.map(function, parts))
