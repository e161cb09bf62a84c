"""Figures, each drawn from the tidy table, all in one template."""

from ldm_kit.plots.curves import block_curves, gain_curves, model_curves, noise_curves
from ldm_kit.plots.dots import agreement_dots, category_dots, difference_dots, dimension_dots, grouped_bars
from ldm_kit.plots.heatmaps import block_noise_heatmap, dimension_heatmap, gain_heatmap
from ldm_kit.plots.images import film_strip, picture_grid, space_colours, triplet_sheet
from ldm_kit.plots.plans import study_plan
from ldm_kit.plots.similarities import matrices, token_maps, token_norms, token_similarity
from ldm_kit.plots.template import COLOURS, figure

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
    "study_plan",
    "token_maps",
    "token_norms",
    "token_similarity",
    "triplet_sheet",
]
