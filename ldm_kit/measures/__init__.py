"""Measures of human alignment. Names are loaded when first used, so that importing this takes no time."""

from __future__ import annotations

import importlib
from typing import Any

# Where each public name lives.
_HOMES = {
    "METRICS": "metrics",
    "similarity": "metrics",
    "CHANCE": "zero_shot",
    "odd_one_out": "zero_shot",
    "predicted_odd": "zero_shot",
    "triplet_scores": "zero_shot",
    "accuracy_by_concept": "zero_shot",
    "accuracy_by_category": "zero_shot",
    "score_interval": "statistics",
    "compare": "comparison",
    "best_cell": "comparison",
    "alignment_of_models": "comparison",
    "noise_ceiling": "ceiling",
    "ceiling_of": "ceiling",
    "rsa": "geometry",
    "cka": "geometry",
    "dimension_regression": "readout",
    "categorise": "readout",
    "object_folds": "folds",
    "split_objects": "folds",
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
