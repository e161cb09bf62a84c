"""Features: representations on disk, one labelled array per block × noise level × conditioning."""

from ldm_kit.features.extraction import extract
from ldm_kit.features.store import CellKey, FeatureStore

__all__ = ["CellKey", "FeatureStore", "extract"]
