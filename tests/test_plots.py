"""What is written into figures can be read: nothing overlaps, and ink differs enough from its ground."""

from __future__ import annotations

import re

import pandas as pd
import pytest
from plotly.colors import hex_to_rgb, sample_colorscale

import ldm_kit as lk
from ldm_kit.plots.template import DIVERGING


def luminance(colour: tuple[float, ...]) -> float:
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_gains_can_be_read_on_every_colour() -> None:
    gains = [-0.1, -0.07, -0.03, 0.0, 0.03, 0.07, 0.1]
    rows = {"block": "mid_block", "depth": 0, "noise_level": range(7), "difference": gains}
    table = pd.DataFrame(rows).assign(ci_low=-0.2, ci_high=0.2, judgements="simulated")
    (told,) = lk.plots.gain_heatmap(table).data[0].text
    for gain, text in zip(gains, told, strict=True):
        ink = tuple(one / 255 for one in hex_to_rgb(re.search("color:(#......)", text)[1]))
        (ground,) = sample_colorscale(DIVERGING, [(gain / 0.1 + 1) / 2], colortype="tuple")
        low, high = sorted([luminance(ink), luminance(ground)])
        assert (high + 0.05) / (low + 0.05) >= 4.5, gain


@pytest.mark.browser
@pytest.mark.parametrize("ceiling", [(0.66, 0.81), None])
def test_the_games_figure_has_no_overlapping_words(browser: object, tmp_path, ceiling) -> None:
    from tests.browser.driver import watched_page

    rows = {"other": ["simulated observers", "down_blocks.1"], "block": ["", "down_blocks.1"]}
    table = pd.DataFrame(rows).assign(
        accuracy=[0.8, 0.3], ci_low=[0.2, 0.07], ci_high=[0.97, 0.65], n_triplets=10, agreed=8, chance=1 / 3
    )
    page_file = tmp_path / "figure.html"
    lk.plots.agreement_dots(table, ceiling).write_html(page_file)
    with watched_page(browser) as visit:
        visit.page.goto(page_file.as_uri())
        visit.page.locator(".annotation-text").first.wait_for()
        box = {
            name: visit.page.locator(name).first.bounding_box()
            for name in (".annotation-text", ".gtitle", ".xerror")
        }
    chance, title, bars = box[".annotation-text"], box[".gtitle"], box[".xerror"]
    assert title["y"] + title["height"] <= chance["y"]
    assert chance["y"] + chance["height"] <= bars["y"]
