"""What was computed is kept, newest last, up to a number of bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Kept(Generic[Value]):
    """A cache that forgets what was not asked for longest.

    Parameters
    ----------
    most : int
        Bytes to keep in all. The newest value is kept whatever its size.

    Examples
    --------
    >>> kept = Kept(most=10)
    >>> kept.put("a", "first", size=6)
    >>> kept.put("b", "second", size=6)
    >>> "a" in kept, kept["b"]
    (False, 'second')
    """

    def __init__(self, most: int = 256 * 2**20) -> None:
        self.most = most
        self._values: OrderedDict[Hashable, tuple[Value, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._values

    def __getitem__(self, key: Hashable) -> Value:
        self._values.move_to_end(key)
        return self._values[key][0]

    def put(self, key: Hashable, value: Value, size: int) -> None:
        """Keep a value of so many bytes under a key."""
        self._values[key] = (value, size)
        self._values.move_to_end(key)
        while len(self._values) > 1 and sum(held for _, held in self._values.values()) > self.most:
            self._values.popitem(last=False)
