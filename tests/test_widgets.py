"""The grid's picker as a plain object, and what the explorers stand on; they have tests of their own."""

from __future__ import annotations

import numpy as np
import pytest

import ldm_kit as lk
from ldm_kit.errors import BadInputError, UnknownNameError
from ldm_kit.models.registry import packaged


@pytest.fixture(scope="module")
def model():
    return lk.load_model("tiny-ldm", device="cpu")


@pytest.fixture(scope="module")
def stimuli():
    return lk.load_dataset("emoji").stimuli[:6]


def test_the_picker_starts_at_the_parameters_and_follows_the_user(model):
    picker = lk.widgets.GridPicker(model, ["mid_block", "up_blocks.1"], [0.3, 0.123], ["none", "label"])
    assert picker.blocks == ["mid_block", "up_blocks.1"]
    assert sorted(picker.noise_levels) == [0.123, 0.3]
    assert picker.conditionings == ["none", "label"]
    picker.children[0].value = ("up_blocks.2",)
    assert picker.blocks == ["up_blocks.2"]
    with pytest.raises(UnknownNameError, match="Did you mean 'mid_block'"):
        lk.widgets.GridPicker(model, "mid_blok")


def test_the_picker_refuses_to_go_on_without_the_conditionings_that_are_needed(model):
    needed = ["none", "label", "shuffled"]
    with pytest.raises(BadInputError, match="lacks label; what follows needs none, label, shuffled"):
        lk.widgets.GridPicker(model, None, [0.3], ["none", "shuffled"], needed=needed)
    picker = lk.widgets.GridPicker(model, None, [0.3], needed, needed=needed)
    picker.children[2].value = ("none",)
    with pytest.raises(BadInputError, match="lacks label and shuffled"):
        _ = picker.conditionings


def test_prompt_and_noise_change_what_is_seen(model, stimuli):
    plain, worded = (
        lk.look(
            model,
            stimuli,
            "car.png" if "car.png" in stimuli else stimuli.names[0],
            [0.9],
            "up_blocks.1",
            prompt,
        )[0]
        for prompt in ("", "a photo of a banana")
    )
    assert np.abs(plain.maps - worded.maps).max() > 1e-3
    np.testing.assert_array_equal(np.asarray(plain.noised), np.asarray(worded.noised))


def test_the_bundled_model_is_small_and_opens_as_stable_diffusion():
    from diffusers import StableDiffusionPipeline

    folder = packaged("tiny-ldm")
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 25e6
    pipeline = StableDiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    image = pipeline("a photo of a apple", num_inference_steps=4, guidance_scale=3.0).images[0]
    assert image.size == (64, 64)
    assert np.asarray(image).std() > 5


def test_the_share_of_known_words_is_counted(model):
    share, unknown = lk.vocabulary_coverage(model, ["a photo of a aardvark", "a photo of a cat"])
    assert share == pytest.approx(9 / 10)
    assert unknown == ["aardvark"]


@pytest.mark.slow
def test_a_bar_that_was_shown_is_still_there_at_the_end(monkeypatch):
    """A closed one would be "Error displaying widget: model not found" in Voilà and in a reopened notebook."""
    import time

    import tqdm.notebook

    from ldm_kit.measures.cells import progress

    shown = []
    monkeypatch.setattr("ldm_kit.measures.cells.tqdm", tqdm.notebook.tqdm)
    monkeypatch.setattr("tqdm.notebook.display", lambda *what: shown.extend(what))
    for _ in progress(range(3), "comparing"):
        time.sleep(0.6)
    (bar,) = {id(one): one for one in shown if hasattr(one, "comm")}.values()
    assert bar.comm is not None
