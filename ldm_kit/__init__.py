"""ldm_kit: see how human the inside of a diffusion model is.

Everything public is here: ``import ldm_kit as lk``. Names are loaded when first used, so that the import
itself takes no time (and no torch).

Examples
--------
>>> import ldm_kit as lk
>>> model = lk.load_model("tiny-ldm")  # doctest: +SKIP
>>> data = lk.load_dataset("toybox")  # doctest: +SKIP
>>> store = lk.extract(model, data.stimuli, conditioning=["none", "label"])  # doctest: +SKIP
>>> table = lk.odd_one_out(store, data.triplets)  # doctest: +SKIP
>>> lk.plots.block_noise_heatmap(table)  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import Any

from ldm_kit.offline import tell_the_libraries

tell_the_libraries()

__version__ = "0.1.0"

# Where each public name lives.
_HOMES: dict[str, str] = {
    "load_model": "models.loading",
    "registered_models": "models.registry",
    "shuffled_concepts": "features.conditioning",
    "load_dataset": "datasets",
    "fetch_things": "datasets",
    "read_triplets": "datasets",
    "read_choices": "datasets",
    "Dataset": "datasets.dataset",
    "Stimuli": "datasets.stimuli",
    "Triplets": "datasets.triplets",
    "extract": "features.extraction",
    "extract_models": "features.extraction",
    "alignment_of_models": "measures",
    "FeatureStore": "features.store",
    "look": "features.looking",
    "vocabulary_coverage": "features.conditioning",
    "relabel_by_prompt": "features.store",
    "odd_one_out": "measures",
    "predicted_odd": "measures",
    "triplet_scores": "measures",
    "noise_ceiling": "measures",
    "ceiling_of": "measures",
    "compare": "measures",
    "best_cell": "measures",
    "split_objects": "measures",
    "cross_validate_probe": "measures",
    "LinearProbe": "measures",
    "KernelProbe": "measures",
    "MLPProbe": "measures",
    "dimension_regression": "measures",
    "rsa": "measures",
    "categorise": "measures",
    "cka": "measures",
    "accuracy_by_concept": "measures",
    "accuracy_by_category": "measures",
    "check_parameters": "notebook_checks",
    "check_enough_triplets": "notebook_checks",
    "format_accuracy": "wording",
    "format_difference": "wording",
    "read_embedding": "datasets",
    "RunRecord": "run_record",
}
_MODULES = ("plots", "widgets", "batch", "datasets", "models", "features", "measures", "training", "game")

__all__ = ["__version__", *_HOMES, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(importlib.import_module(f"ldm_kit.{_HOMES[name]}"), name)
    elif name in _MODULES:
        value = importlib.import_module(f"ldm_kit.{name}")
    else:
        raise AttributeError(f"module 'ldm_kit' has no attribute {name!r}; see dir(ldm_kit)")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
