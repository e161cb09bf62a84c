"""Diffusion models, opened at any depth."""

from ldm_kit.models.compiling import compiled
from ldm_kit.models.loading import load_model
from ldm_kit.models.opened import OpenedModel
from ldm_kit.models.registry import registered_models

__all__ = ["OpenedModel", "compiled", "load_model", "registered_models"]
