"""Widgets: pick blocks and noise levels, watch a picture drown in noise. No `Output` anywhere."""

from ldm_kit.widgets.grid_picker import GridPicker
from ldm_kit.widgets.noise_view import NoiseView
from ldm_kit.widgets.odd_one_out import OddOneOut

__all__ = ["GridPicker", "NoiseView", "OddOneOut"]
