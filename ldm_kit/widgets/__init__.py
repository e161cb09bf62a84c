"""Widgets: pick a grid, and explore what was computed. No `Output` anywhere."""

from ldm_kit.widgets.explorer import Explorer
from ldm_kit.widgets.grid_picker import GridPicker
from ldm_kit.widgets.into_the_noise import IntoTheNoise
from ldm_kit.widgets.odd_one_out import OddOneOut
from ldm_kit.widgets.probes_view import ProbesView
from ldm_kit.widgets.prompt_gains import PromptGains
from ldm_kit.widgets.where_is_the_human import WhereIsTheHuman

__all__ = [
    "Explorer",
    "GridPicker",
    "IntoTheNoise",
    "OddOneOut",
    "ProbesView",
    "PromptGains",
    "WhereIsTheHuman",
]
