"""Features: representations on disk, one labelled array per block × noise level × conditioning."""

from ldm_kit.features.conditioning import prompts_for, shuffled_concepts, vocabulary_coverage
from ldm_kit.features.extraction import extract, extract_models
from ldm_kit.features.looking import Look, look, looks_at
from ldm_kit.features.store import FeatureStore, SideBySide, relabel_by_prompt
from ldm_kit.features.store_files import CellKey

__all__ = [
    "CellKey",
    "FeatureStore",
    "Look",
    "SideBySide",
    "extract",
    "extract_models",
    "look",
    "looks_at",
    "prompts_for",
    "relabel_by_prompt",
    "shuffled_concepts",
    "vocabulary_coverage",
]
