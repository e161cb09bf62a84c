"""What is written into figures can be read: nothing overlaps, and ink differs enough from its ground."""

from __future__ import annotations

import re

import pandas as pd
import pytest
from plotly.colors import hex_to_rgb, sample_colorscale

import ldm_kit as lk
from ldm_kit.plots.template import DIVERGING
from ldm_kit.tables import tidy


def luminance(colour: tuple[float, ...]) -> float:
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_gains_can_be_read_on_every_colour() -> None:
    gains = [-0.1, -0.07, -0.03, 0.0, 0.03, 0.07, 0.1]
    rows = {"block": "mid_block", "depth": 0, "noise_level": range(7), "difference": gains}
    table = pd.DataFrame(rows).assign(ci_low=-0.2, ci_high=0.2, judgements="simulated")
    (texts,) = lk.plots.gain_heatmap(table).data[0].text
    for gain, text in zip(gains, texts, strict=True):
        ink = tuple(one / 255 for one in hex_to_rgb(re.search("color:(#......)", text)[1]))
        (ground,) = sample_colorscale(DIVERGING, [(gain / 0.1 + 1) / 2], colortype="tuple")
        low, high = sorted([luminance(ink), luminance(ground)])
        assert (high + 0.05) / (low + 0.05) >= 4.5, gain


def cells(shares: dict[float, float | None], model: str = "m") -> pd.DataFrame:
    """A table of two blocks over noise levels, each with its signal's share."""
    rows = [
        {"model": model, "block": block, "depth": depth, "noise_level": level, "signal_share": share}
        for depth, block in enumerate(["down_blocks.0", "mid_block"])
        for level, share in shares.items()
    ]
    columns = {"conditioning": "none", "judgements": "simulated", "accuracy": 0.5, "difference": 0.1}
    return tidy([{**row, **columns, "ci_low": 0.4, "ci_high": 0.6, "chance": 1 / 3} for row in rows])


SHARES = {0.0: 0.99915, 0.05: 0.96, 0.1: 0.93, 0.5: 0.28, 1.0: 0.0047}
NOISE_FIGURES = {
    "heatmap": lk.plots.block_noise_heatmap,
    "gains as a map": lk.plots.gain_heatmap,
    "curves": lk.plots.noise_curves,
    "gains": lk.plots.gain_curves,
}


@pytest.mark.parametrize("name", NOISE_FIGURES)
def test_an_axis_of_noise_tells_the_signals_share(name) -> None:
    axis = NOISE_FIGURES[name](cells(SHARES)).layout.xaxis
    labels = dict(zip(map(float, axis.tickvals), axis.ticktext, strict=True))
    expected = {0.0: "99.9", 0.05: "96", 0.1: "93", 0.5: "28", 1.0: "0.47"}
    if "map" not in name:  # a tick that would run into its neighbour is left out
        del expected[0.05]
    assert labels == {level: f"{level:g}<br>{share}" for level, share in expected.items()}
    assert axis.title.text == "noise level<br>signal's share of the variance in %"


@pytest.mark.parametrize("name", NOISE_FIGURES)
def test_an_axis_of_noise_claims_no_share_that_is_not_known_or_not_one(name) -> None:
    unknown = cells(dict.fromkeys(SHARES)).drop(columns="signal_share")
    two_models = pd.concat([cells(SHARES), cells(dict.fromkeys(SHARES, 0.5), "other")], ignore_index=True)
    for table in [unknown, two_models] if name == "curves" else [unknown]:
        axis = NOISE_FIGURES[name](table).layout.xaxis
        assert axis.ticktext is None
        assert axis.title.text == "noise level (position in the training schedule)"


def test_curves_by_noise_level_tell_the_signals_share_in_the_legend() -> None:
    figure = lk.plots.block_curves(cells({0.0: 1.0, 0.3: 0.999996, 0.9: 2e-9, 1.0: 0.0}))
    names = [curve.name for curve in figure.data]
    assert names == ["0 (100 %)", "0.3 (>99.9 %)", "0.9 (<0.1 %)", "1 (0 %)"]
    assert figure.layout.legend.title.text == "noise level<br>(signal's share)"
    plain = lk.plots.block_curves(cells(SHARES).drop(columns="signal_share"))
    assert [curve.name for curve in plain.data] == ["0", "0.05", "0.1", "0.5", "1"]


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
