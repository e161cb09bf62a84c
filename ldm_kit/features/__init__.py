"""Features: representations on disk, one labelled array per block × noise level × conditioning."""

from ldm_kit.features.conditioning import prompts_for, shuffled_concepts
from ldm_kit.features.extraction import extract
from ldm_kit.features.looking import Look, look, looks_at
from ldm_kit.features.store import FeatureStore
from ldm_kit.features.store_files import CellKey

__all__ = [
    "CellKey",
    "FeatureStore",
    "Look",
    "extract",
    "look",
    "looks_at",
    "prompts_for",
    "shuffled_concepts",
]
