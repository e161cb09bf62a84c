"""Figures, each drawn from the tidy table, all in one template."""

from ldm_kit.plots.alignment import block_curves, block_noise_heatmap, in_network_order, noise_curves, only
from ldm_kit.plots.differences import category_dots, dimension_heatmap, gain_curves, grouped_bars
from ldm_kit.plots.matrices import matrices
from ldm_kit.plots.pictures import film_strip, picture_grid, space_colours
from ldm_kit.plots.template import COLOURS, figure
from ldm_kit.plots.tokens import token_maps, token_norms, token_similarity

__all__ = [
    "COLOURS",
    "block_curves",
    "block_noise_heatmap",
    "category_dots",
    "dimension_heatmap",
    "figure",
    "film_strip",
    "gain_curves",
    "grouped_bars",
    "in_network_order",
    "matrices",
    "noise_curves",
    "only",
    "picture_grid",
    "space_colours",
    "token_maps",
    "token_norms",
    "token_similarity",
]
