"""Several models, one store each."""

from __future__ import annotations

import numpy as np
import pytest
from test_extraction import assert_same, some_stimuli
from tiny_models import save_tiny_stable_diffusion

import ldm_kit as lk
from ldm_kit.errors import BadInputError, ModelNotFoundError, UnknownNameError
from ldm_kit.tables import tidy


@pytest.fixture(scope="module")
def stimuli(tmp_path_factory):
    return some_stimuli(tmp_path_factory.mktemp("pictures"), 5)


@pytest.mark.slow
def test_each_model_gets_what_it_takes(stimuli, tmp_path):
    folder = save_tiny_stable_diffusion(tmp_path, seed=7)
    names = [str(folder), f"untrained:{folder}", f"latent:{folder}", "pixels:16", f"text:{folder}"]
    ask = {"noise_levels": [0.1, 0.5], "progress": False, "device": "cpu"}
    stores = lk.extract_models(names, stimuli, out=tmp_path / "stores", **ask)
    assert list(stores) == names
    plain, untrained, latent, pixels, text = stores.values()
    assert plain.noise_levels == untrained.noise_levels == (0.1, 0.5)
    assert np.abs(plain["mid_block", 0.5, "none"] - untrained["mid_block", 0.5, "none"]).max() > 1e-3
    assert latent["latent", 0, "none"].shape == (5, 4 * 8 * 8)
    pictures = np.stack(
        [np.asarray(lk.load_model("pixels:16").preprocess(stimuli.open(n))) for n in stimuli.names]
    )
    assert_same(pixels["pixels", 0, "none"], (pictures / 127.5 - 1).transpose(0, 3, 1, 2).reshape(5, -1))
    assert text.blocks == ("last_token",)
    assert text.conditionings == ("label",)
    again = lk.extract_models(names[:1], stimuli, out=tmp_path / "stores", **ask)
    assert_same(again[names[0]]["mid_block", 0.5, "none"], plain["mid_block", 0.5, "none"], 0)


def test_models_that_are_not_to_be_had(stimuli, tmp_path, caplog):
    (tmp_path / "empty").mkdir()
    names = [str(tmp_path / "empty"), "pixels:16"]
    with pytest.raises(ModelNotFoundError, match="model_index.json"):
        lk.extract_models(names, stimuli, out=tmp_path / "stores", progress=False)
    stores = lk.extract_models(names, stimuli, out=tmp_path / "stores", on_error="skip", progress=False)
    assert list(stores) == ["pixels:16"]
    assert f"Skipped {names[0]}: " in caplog.text
    with pytest.raises(ModelNotFoundError, match="None of the models"):
        lk.extract_models(names[:1], stimuli, out=tmp_path / "stores", on_error="skip", progress=False)
    with pytest.raises(UnknownNameError, match="'ignore'"):
        lk.extract_models(names, stimuli, out=tmp_path / "stores", on_error="ignore")
    with pytest.raises(BadInputError, match="each named once"):
        lk.extract_models(["pixels", "pixels"], stimuli, out=tmp_path / "stores")


def test_curves_over_relative_depth():
    tables = {
        name: tidy(
            [
                {
                    "model": "?",
                    "block": block,
                    "depth": depth,
                    "noise_level": level,
                    "accuracy": 0.4 + 0.05 * depth,
                    "ci_low": 0.35,
                    "ci_high": 0.55,
                    "chance": 1 / 3,
                    "judgements": "simulated",
                }
                for depth, block in enumerate(blocks)
            ]
        )
        for name, blocks, level in (("net", ["down", "mid_block", "up"], 0.1), ("pixels", ["pixels"], 0.0))
    }
    table = lk.alignment_of_models(tables)
    fig = lk.plots.model_curves(table, 0.1)
    drawn = {trace.name: trace for trace in fig.data if trace.name}
    assert list(drawn["net"].y) == [0.4, 0.45, 0.5]
    assert list(drawn["net"].marker.symbol) == ["circle", "star", "circle"]
    assert {"net", "pixels", "bottleneck"} <= set(drawn)
    with pytest.raises(UnknownNameError, match="noise level"):
        lk.plots.model_curves(table, 0.2)
