"""Measures of human alignment. Names are loaded when first used, so that importing this takes no time."""

from __future__ import annotations

import importlib
from typing import Any

# Where each public name lives.
_HOMES = {
    "METRICS": "metrics",
    "alignment_of_models": "models",
    "similarity": "metrics",
    "odd_one_out": "zero_shot",
    "predicted_odd": "zero_shot",
    "triplet_scores": "zero_shot",
    "noise_ceiling": "ceiling",
    "ceiling_of": "ceiling",
    "compare": "comparison",
    "cka": "kernel_alignment",
    "categorise": "categories",
    "accuracy_by_concept": "categories",
    "accuracy_by_category": "categories",
    "dimension_regression": "dimensions",
    "rsa": "rdm_comparison",
    "object_folds": "folds",
    "split_objects": "folds",
    "best_cell": "headline",
    "LinearProbe": "probes",
    "KernelProbe": "probes",
    "MLPProbe": "probes",
    "cross_validate_probe": "cross_validation",
    "ProbeResult": "cross_validation",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
