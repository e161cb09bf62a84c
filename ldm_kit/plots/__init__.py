"""Figures, each drawn from the tidy table, all in one template."""

from ldm_kit.plots.agreement import agreement_dots
from ldm_kit.plots.alignment import block_curves, block_noise_heatmap, noise_curves
from ldm_kit.plots.differences import (
    category_dots,
    difference_dots,
    dimension_dots,
    dimension_heatmap,
    gain_curves,
    gain_heatmap,
    grouped_bars,
)
from ldm_kit.plots.matrices import matrices
from ldm_kit.plots.models import model_curves
from ldm_kit.plots.pictures import film_strip, picture_grid, space_colours, triplet_sheet
from ldm_kit.plots.template import COLOURS, figure
from ldm_kit.plots.tokens import token_maps, token_norms, token_similarity

__all__ = [
    "COLOURS",
    "agreement_dots",
    "block_curves",
    "block_noise_heatmap",
    "category_dots",
    "difference_dots",
    "dimension_dots",
    "dimension_heatmap",
    "figure",
    "film_strip",
    "gain_curves",
    "gain_heatmap",
    "grouped_bars",
    "matrices",
    "model_curves",
    "noise_curves",
    "picture_grid",
    "space_colours",
    "token_maps",
    "token_norms",
    "token_similarity",
    "triplet_sheet",
]
