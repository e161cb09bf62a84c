"""The same stimuli without words and with, as one store that a measure takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ldm_kit.features.store import CellKey, FeatureStore


class SideBySide:
    """Cells of several stores under new conditionings; see `ldm_kit.measures.cells.cells_of`.

    Parameters
    ----------
    parts : mapping of str to FeatureStore
        Each of one conditioning, which is shown under the key. All hold the first one's stimuli.

    Examples
    --------
    >>> both = SideBySide({"none": plain, "my words": worded})  # doctest: +SKIP
    >>> lk.compare(both, data.triplets, by="conditioning", reference="none")  # doctest: +SKIP
    """

    def __init__(self, parts: Mapping[str, FeatureStore]) -> None:
        self.names = next(iter(parts.values())).names
        self._parts = {name: part.select(names=self.names) for name, part in parts.items()}

    def cells(self) -> list[tuple[str, CellKey]]:
        """Keys of all arrays."""
        return [(name, key) for name, part in self._parts.items() for key in part.cells()]

    def labels(self, key: tuple[str, CellKey]) -> dict[str, Any]:
        """Give the columns of the tidy table that describe the array at `key`."""
        name, cell = key
        return {**self._parts[name].labels(cell), "conditioning": name}

    def __getitem__(self, key: tuple[str, CellKey]) -> npt.NDArray[np.floating]:
        name, cell = key
        return self._parts[name][cell]
