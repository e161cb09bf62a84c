"""Training: resumable to the bit, never on evaluation images, ending in a model that diffusers opens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from ldm_kit import training
from ldm_kit.batch import run_series
from ldm_kit.datasets import toybox
from ldm_kit.errors import BadInputError, MismatchError, ModelNotFoundError, NonFiniteError
from ldm_kit.training import loop
from ldm_kit.training.loop import cool_down_begins, learning_rate_factor, train
from ldm_kit.training.networks import build_autoencoder, level_channels

NOTEBOOK = Path(__file__).parent.parent / "notebooks" / "90_train_tiny_ldm.ipynb"
OBJECTS = ["apple", "bus"]


class StoppedError(Exception):
    """Raised where a kill would strike."""


@contextmanager
def stopped_after_a_checkpoint() -> Iterator[None]:
    """The first checkpoint is written, and then the training dies."""
    written = loop.save

    def save(*arguments: Any) -> None:
        written(*arguments)
        raise StoppedError

    with pytest.MonkeyPatch.context() as patch, pytest.raises(StoppedError):
        patch.setattr(loop, "save", save)
        yield


@pytest.fixture(scope="module")
def images() -> training.TrainingImages:
    return training.draw(6, objects=OBJECTS)


@pytest.fixture(scope="module")
def latents() -> torch.Tensor:
    return torch.randn((12, 4, 16, 16), generator=torch.Generator().manual_seed(0))


def same(one: torch.nn.Module, two: torch.nn.Module) -> bool:
    mine, theirs = one.state_dict(), two.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[key], theirs[key]) for key in mine)


# --- images ------------------------------------------------------------------------------------------------------


def test_evaluation_images_are_never_trained_on(images: training.TrainingImages) -> None:
    evaluation = [np.asarray(toybox.render(name, 0)) for name in OBJECTS]
    assert not any(np.array_equal(image, other) for image in images.pixels for other in evaluation)
    with pytest.raises(BadInputError, match="evaluation image"):
        training.draw(2, first=0)


def test_images_and_captions_belong_together(images: training.TrainingImages) -> None:
    assert images.pixels.shape == (12, 64, 64, 3) and len(images.captions) == len(images) == 12
    assert images.objects == tuple(OBJECTS * 6)
    for number, (name, pixels, captions) in enumerate(
        zip(images.objects, images.pixels, images.captions, strict=True)
    ):
        assert np.array_equal(pixels, np.asarray(toybox.render(name, 1 + number // 2)))
        assert captions[2] == toybox.caption(name, 1 + number // 2, variant=2)


# --- the loop ----------------------------------------------------------------------------------------------------


def small_run(path: Path, steps: int = 10, **options: object) -> tuple[torch.nn.Module, pd.DataFrame]:
    """Fit a line; takes milliseconds."""
    torch.manual_seed(0)
    line = torch.nn.Linear(2, 1)

    def loss_of_step(_step: int, _rng: np.random.Generator, torch_rng: torch.Generator) -> torch.Tensor:
        x = torch.randn((16, 2), generator=torch_rng)
        return (line(x)[:, 0] - x[:, 0]).square().mean()

    settings = {"learning_rate": 0.1, "warm_up": 2, "save_every": 4, "seed": 0, "identity": {}, **options}
    averages, losses = train("line", {"line": line}, loss_of_step, steps=steps, out=path, **settings)
    return averages["line"], losses


def test_learning_rate_rises_stays_and_falls() -> None:
    factors = np.array([learning_rate_factor(step, 200, 20) for step in range(200)])
    assert (np.diff(factors[:20]) > 0).all() and (factors[19 : cool_down_begins(200)] == 1).all()
    assert (np.diff(factors[cool_down_begins(200) :]) < 0).all() and 0 < factors[-1] < 0.001


def test_resumed_run_ends_as_one_that_was_never_stopped(tmp_path: Path) -> None:
    whole, losses = small_run(tmp_path / "whole")
    with stopped_after_a_checkpoint():
        small_run(tmp_path / "cut")
    resumed, again = small_run(tmp_path / "cut")
    assert same(whole, resumed)
    pd.testing.assert_frame_equal(losses, again)
    assert losses["loss"].iloc[-1] < losses["loss"].iloc[0]
    assert [file.name for file in (tmp_path / "cut").iterdir()] == ["line.safetensors"]


def test_a_run_can_be_lengthened_on_the_plateau_only(tmp_path: Path) -> None:
    with stopped_after_a_checkpoint():
        small_run(tmp_path / "cut", steps=10)  # at step 4; the fall begins at 6
    longer, _ = small_run(tmp_path / "cut", steps=20)
    assert same(longer, small_run(tmp_path / "whole", steps=20)[0])
    with pytest.raises(MismatchError, match="20 steps and is at step 20.*cannot become 30"):
        small_run(tmp_path / "cut", steps=30)


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    small_run(tmp_path)
    before = (tmp_path / "line.safetensors").read_bytes()
    with pytest.raises(MismatchError, match=r"learning_rate was 0\.1, now 0\.2; seed was 0, now 1"):
        small_run(tmp_path, learning_rate=0.2, seed=1)
    assert (tmp_path / "line.safetensors").read_bytes() == before


def test_a_loss_that_explodes_is_an_error_naming_the_step(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError, match="step 3"):
        model = torch.nn.Linear(1, 1)
        train(
            "model",
            {"model": model},
            lambda step, *_: model(torch.full((1, 1), float("nan") if step == 3 else 1.0)).sum(),
            out=tmp_path,
            steps=5,
            learning_rate=0.1,
            seed=0,
            identity={},
        )


# --- the parts ---------------------------------------------------------------------------------------------------


def test_levelling_channels_changes_latents_but_no_image(images: training.TrainingImages) -> None:
    vae = build_autoencoder((8, 16, 16))
    with torch.no_grad():
        vae.quant_conv.weight[:4] *= torch.tensor([1.0, 3.0, 0.1, 1.0]).view(-1, 1, 1, 1)
    before = training.reconstruct(vae, images.pixels).astype(int)
    level_channels(vae, images.pixels)
    assert np.abs(training.reconstruct(vae, images.pixels).astype(int) - before).max() <= 1
    latents = training.encode(vae, images.pixels)
    assert latents.std(dim=(0, 2, 3)).numpy() == pytest.approx(np.ones(4), abs=1e-3)
    assert latents.mean(dim=(0, 2, 3)).numpy() == pytest.approx(np.zeros(4), abs=1e-3)


def test_tokenizer_spells_anything_and_knows_the_captions_words() -> None:
    captions = [toybox.caption(name, 1, variant=v) for name in toybox.names() for v in range(8)]
    tokenizer = training.build_tokenizer(captions)
    for word in training.training_vocabulary(captions):
        assert len(tokenizer(word).input_ids) == 3, f"{word!r} should be one token between start and end"
    strange = "qwxz é 漢 ¿"
    ids = tokenizer(strange).input_ids
    assert tokenizer.decode(ids, skip_special_tokens=True).replace(" ", "") == strange.replace(" ", "")
    assert tokenizer("x " * 99, truncation=True).input_ids.__len__() == tokenizer.model_max_length == 32
    again = training.build_tokenizer(captions)
    assert again.get_vocab() == tokenizer.get_vocab()


@pytest.mark.slow
def test_denoiser_resumes_to_the_same_weights(latents: torch.Tensor, tmp_path: Path) -> None:
    captions = [[toybox.prompt(name), toybox.category(name)] for name in OBJECTS * 6]
    tokenizer = training.build_tokenizer([text for several in captions for text in several])
    settings = {"steps": 4, "batch_size": 3, "channels": (32, 32, 32, 32), "save_every": 2}
    whole = training.train_denoiser(latents, captions, tokenizer, out=tmp_path / "a", **settings)
    with stopped_after_a_checkpoint():
        training.train_denoiser(latents, captions, tokenizer, out=tmp_path / "b", **settings)
    resumed = training.train_denoiser(latents, captions, tokenizer, out=tmp_path / "b", **settings)
    assert same(whole[0], resumed[0]) and same(whole[1], resumed[1])
    pd.testing.assert_frame_equal(whole[2], resumed[2])


def test_open_model_says_what_a_folder_lacks(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"no model_index\.json"):
        training.open_model(tmp_path)


def test_a_classifier_learns_its_objects(tmp_path: Path) -> None:
    trained = training.train_classifier(tmp_path, exemplars=2, steps=6, batch_size=8)
    assert 0 <= training.classifier_accuracy(trained, exemplars=1) <= 1
    assert trained(torch.zeros((2, 3, 64, 64))).shape == (2, 56)


# --- all of it ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_notebook_trains_a_model_that_draws(tmp_path: Path) -> None:
    out = tmp_path / "runs"
    parameters = {
        "objects": OBJECTS,
        "exemplars": 8,
        "autoencoder_steps": 40,
        "autoencoder_batch": 8,
        "autoencoder_channels": [8, 16, 16],
        "denoiser_steps": 40,
        "denoiser_batch": 8,
        "denoiser_channels": [32, 32, 32, 32],
        "save_every": 20,
        "sampling_steps": 3,
        "device": "cpu",
        "threads": 1,
    }
    (outcome,) = run_series(NOTEBOOK, out, parameters=parameters, timeout=300)
    assert outcome.status == "done", outcome.error
    losses = pd.read_parquet(outcome.folder / "tables" / "losses.parquet")
    assert np.isfinite(losses["loss"]).all()
    for network, steps in (("autoencoder", 40), ("denoiser", 40)):
        loss = losses.loc[losses["network"] == network, "loss"].to_numpy()
        assert len(loss) == steps and loss[-8:].mean() < 0.9 * loss[:8].mean(), network
    pipe = training.open_model(outcome.folder / "model")
    pixels = training.sample(pipe, ["a photo of a apple"] * 2, steps=2)
    assert pixels.shape == (2, 64, 64, 3) and pixels.std() > 1 and not np.array_equal(*pixels)
    assert (outcome.folder / "model" / "words.txt").read_text().split()[0] == "a"
    index = json.loads((outcome.folder / "model" / "model_index.json").read_text())
    assert index["_class_name"] == "StableDiffusionPipeline"
    assert not [file for file in outcome.folder.rglob("*") if file.suffix in {".bin", ".pt", ".pkl", ".ckpt"}]
