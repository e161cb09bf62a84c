"""Diffusion models, opened at any depth."""

from ldm_kit.models.blocks import register_output_layout
from ldm_kit.models.load import load_model
from ldm_kit.models.model import OpenedModel
from ldm_kit.models.registry import registered_models

__all__ = ["OpenedModel", "load_model", "register_output_layout", "registered_models"]
