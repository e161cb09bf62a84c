"""Training: resumable to the bit, never on the evaluation style, ending in a model that diffusers opens."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import ldm_kit as lk
from ldm_kit import training
from ldm_kit.batch import run_series
from ldm_kit.datasets import emoji
from ldm_kit.errors import BadInputError, MismatchError, ModelNotFoundError, NonFiniteError, UnknownNameError
from ldm_kit.models.registry import packaged
from ldm_kit.training import data, loop, text
from ldm_kit.training.data import as_input, training_captions
from ldm_kit.training.loop import cool_down_begins, train
from ldm_kit.training.networks import build_autoencoder, build_unet, level_channels, noise_schedule
from ldm_kit.training.text import build_text_encoder, contrast, encode_text, thin_out, tokens_of

NOTEBOOK = Path(__file__).parent.parent / "notebooks" / "90_train_tiny_ldm.ipynb"
CONCEPTS = ["apple", "bus"]
CAPTIONS = [training_captions(name) for name in CONCEPTS]


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
    return training.draw(6, concepts=CONCEPTS)


@pytest.fixture(scope="module")
def latents() -> torch.Tensor:
    return torch.randn((12, 4, 16, 16), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return training.build_tokenizer([text for several in CAPTIONS for text in several])


@pytest.fixture(scope="module")
def pipe(tokenizer: Any) -> Any:
    """The components of a model that has learnt nothing, and what sets them in motion."""
    from diffusers import StableDiffusionPipeline

    components = {
        "vae": build_autoencoder((8, 16, 16)).eval(),
        "unet": build_unet((32, 32, 32, 32)).eval(),
        "text_encoder": build_text_encoder(tokenizer).eval(),
    }
    return StableDiffusionPipeline(
        **components, tokenizer=tokenizer, scheduler=noise_schedule(), safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def same(one: torch.nn.Module, two: torch.nn.Module) -> bool:
    mine, theirs = one.state_dict(), two.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[key], theirs[key]) for key in mine)


# --- images ------------------------------------------------------------------------------------------------------


def test_the_evaluation_style_is_never_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[str, str]] = []
    picture = emoji.picture

    def watched(name: str, style: str = emoji.EVALUATION_STYLE) -> Image.Image:
        opened.append((name, style))
        return picture(name, style)

    monkeypatch.setattr(emoji, "picture", watched)
    data._source.cache_clear()
    training.draw(4, concepts=["cat", "key"])
    # styles in turn, each drawing read once
    assert opened == [
        (name, style) for style in ("fluent_flat", "fluent", "twemoji") for name in ("cat", "key")
    ]
    assert emoji.EVALUATION_STYLE == "noto" and "noto" not in emoji.TRAINING_STYLES
    data._source.cache_clear()


def test_no_training_image_is_an_evaluation_image(images: training.TrainingImages) -> None:
    evaluation = training.evaluation_images(CONCEPTS).astype(int)
    difference = np.abs(images.pixels[:, None].astype(int) - evaluation).mean(axis=(2, 3, 4))
    assert difference.min() > 5
    # how near they come where it is the same drawing, unvaried
    unvaried = training.evaluation_images(CONCEPTS, "twemoji")
    assert np.abs(unvaried[:, None].astype(int) - evaluation).mean(axis=(2, 3, 4)).min() > 5


def test_evaluation_images_are_those_of_the_data_set() -> None:
    stimuli = lk.load_dataset("emoji", n_triplets=40).stimuli
    model = lk.load_model("tiny-ldm", device="cpu")
    for name, pixels in zip(("apple", "zebra"), training.evaluation_images(["apple", "zebra"]), strict=True):
        shown = stimuli.open(name)
        assert pixels.dtype == np.uint8 and pixels.shape == (64, 64, 3)
        assert np.array_equal(pixels, np.asarray(shown.resize((64, 64), Image.Resampling.BICUBIC)))
        # a model's own preparation makes them smaller by another filter
        assert np.abs(pixels.astype(int) - np.asarray(model.preprocess(shown))).mean() < 2.5


def test_images_and_captions_belong_together(images: training.TrainingImages) -> None:
    assert images.pixels.shape == (12, 64, 64, 3) and len(images.captions) == len(images) == 12
    assert images.concepts == tuple(CONCEPTS * 6)
    for name, captions in zip(images.concepts, images.captions, strict=True):
        assert captions == training_captions(name)
        assert captions.count(emoji.prompt(name)) == 8 and set(emoji.captions(name)) < set(captions)
    assert training_captions("apple")[8:10] == ("a drawing of an apple", "apple")
    assert training_captions("bus")[8] == "a drawing of a bus"


def test_an_image_is_determined_by_seed_concept_and_exemplar(images: training.TrainingImages) -> None:
    alone = training.draw(6, concepts=["bus"]).pixels
    assert np.array_equal(alone, images.pixels[1::2])
    assert len({image.tobytes() for image in images.pixels}) == 12
    other = training.draw(6, seed=1, concepts=["bus"]).pixels
    assert not any(np.array_equal(one, two) for one, two in zip(alone, other, strict=True))
    assert alone.std(axis=(1, 2, 3)).min() > 20, "an image is nearly blank"
    with pytest.raises(UnknownNameError, match="'aple'.*Did you mean 'apple'"):
        training.draw(1, concepts=["aple"])
    with pytest.raises(BadInputError, match="exemplars=0"):
        training.draw(0)


# --- the loop ----------------------------------------------------------------------------------------------------


def small_run(path: Path, steps: int = 20, **options: object) -> tuple[torch.nn.Module, pd.DataFrame]:
    """Fit a line; takes milliseconds."""
    torch.manual_seed(0)
    line = torch.nn.Linear(2, 1)

    def loss_of_step(_step: int, _rng: np.random.Generator, torch_rng: torch.Generator) -> torch.Tensor:
        x = torch.randn((16, 2), generator=torch_rng)
        return (line(x)[:, 0] - x[:, 0]).square().mean()

    settings = {"learning_rate": 0.1, "warm_up": 2, "save_every": 4, "seed": 0, "identity": {}, **options}
    averages, losses = train("line", {"line": line}, loss_of_step, steps=steps, out=path, **settings)
    return averages["line"], losses


@pytest.fixture
def rates(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The learning rate of every step of the optimiser."""
    used: list[float] = []

    class Watched(torch.optim.AdamW):
        def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
            used.append(float(self.param_groups[0]["lr"]))
            return super().step(closure)

    monkeypatch.setattr(torch.optim, "AdamW", Watched)
    return used


def test_learning_rate_rises_stays_and_falls(tmp_path: Path, rates: list[float]) -> None:
    small_run(tmp_path, steps=200, warm_up=15)
    factors, fall = np.array(rates) / 0.1, cool_down_begins(200)
    assert len(factors) == 200 and fall == 130
    np.testing.assert_allclose(factors[:16], np.arange(16) / 15)
    np.testing.assert_allclose(factors[15:fall], 1)
    expected = [(1 + math.cos(math.pi * step / 70)) / 2 for step in range(70)]
    np.testing.assert_allclose(factors[fall:], expected, atol=1e-9)


def test_a_resumed_run_has_the_learning_rates_of_a_whole_one(tmp_path: Path, rates: list[float]) -> None:
    small_run(tmp_path / "whole")
    whole = rates.copy()
    rates.clear()
    with stopped_after_a_checkpoint():
        small_run(tmp_path / "cut")
    small_run(tmp_path / "cut")
    assert rates == whole


def test_resumed_run_ends_as_one_that_was_never_stopped(tmp_path: Path) -> None:
    whole, losses = small_run(tmp_path / "whole")
    for _ in range(3):
        with stopped_after_a_checkpoint():
            small_run(tmp_path / "cut")
    resumed, again = small_run(tmp_path / "cut")
    assert same(whole, resumed)
    pd.testing.assert_frame_equal(losses, again)
    assert losses["loss"].iloc[-1] < losses["loss"].iloc[0] and losses["step"].tolist() == list(range(1, 21))
    assert [file.name for file in (tmp_path / "cut").iterdir()] == ["line.safetensors"]
    files = [tmp_path / run / "line.safetensors" for run in ("whole", "cut")]
    assert files[0].read_bytes() == files[1].read_bytes()
    finished, _ = small_run(tmp_path / "cut")  # nothing is left to do
    assert same(finished, whole) and files[0].read_bytes() == files[1].read_bytes()


def test_what_is_returned_are_averaged_weights(tmp_path: Path) -> None:
    """By the rule of diffusers' `EMAModel`, written out: slow to forget, and quicker while there is little to remember."""
    weights: list[torch.Tensor] = []
    line = torch.nn.Linear(2, 1, bias=False)

    def loss_of_step(_step: int, _rng: np.random.Generator, torch_rng: torch.Generator) -> torch.Tensor:
        weights.append(line.weight.detach().clone())
        return (line(torch.randn((16, 2), generator=torch_rng)) - 1).square().mean()

    settings: dict[str, Any] = {"learning_rate": 0.1, "warm_up": 2, "seed": 0, "identity": {}}
    averages, _ = train("line", {"line": line}, loss_of_step, steps=20, out=tmp_path, **settings)
    average = weights[0]
    for step, after in enumerate([*weights[1:], line.weight.detach()]):
        decay = 0.0 if step == 0 else min(0.999, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * after
    torch.testing.assert_close(averages["line"].weight, average, rtol=1e-5, atol=1e-7)
    assert not averages["line"].training and not averages["line"].weight.requires_grad


def test_a_run_can_be_lengthened_on_the_plateau_only(tmp_path: Path) -> None:
    with stopped_after_a_checkpoint():
        small_run(tmp_path / "cut", steps=20)  # at step 4; the fall begins at 13
    longer, _ = small_run(tmp_path / "cut", steps=40)
    assert same(longer, small_run(tmp_path / "whole", steps=40)[0])
    with pytest.raises(MismatchError, match="40 steps and is at step 40.*cannot become 60"):
        small_run(tmp_path / "cut", steps=60)


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    small_run(tmp_path)
    before = (tmp_path / "line.safetensors").read_bytes()
    with pytest.raises(MismatchError, match=r"learning_rate was 0\.1, now 0\.2; seed was 0, now 1"):
        small_run(tmp_path, learning_rate=0.2, seed=1)
    with pytest.raises(MismatchError, match=r"images was None, now \[2, 3\]"):
        small_run(tmp_path, identity={"images": (2, 3)})
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


# --- the autoencoder ---------------------------------------------------------------------------------------------


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


@pytest.mark.slow
def test_autoencoder_resumes_to_the_same_weights(images: training.TrainingImages, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"steps": 4, "batch_size": 2, "channels": (8, 16, 16), "save_every": 2}
    whole = training.train_autoencoder(images.pixels, out=tmp_path / "a", **settings)
    with stopped_after_a_checkpoint():
        training.train_autoencoder(images.pixels, out=tmp_path / "b", **settings)
    resumed = training.train_autoencoder(images.pixels, out=tmp_path / "b", **settings)
    assert same(whole[0], resumed[0])
    pd.testing.assert_frame_equal(whole[1], resumed[1])
    assert training.encode(whole[0], images.pixels).std() == pytest.approx(1, abs=1e-3)


# --- the text encoder --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_tokenizer_spells_anything_and_knows_the_captions_words() -> None:
    captions = [caption for name in emoji.names() for caption in training_captions(name)]
    tokenizer = training.build_tokenizer(captions)
    for word in training.training_vocabulary(captions):
        assert len(tokenizer(word).input_ids) == 3, f"{word!r} should be one token between start and end"
    strange = "qwxz é 漢 ¿"
    ids = tokenizer(strange).input_ids
    assert tokenizer.decode(ids, skip_special_tokens=True).replace(" ", "") == strange.replace(" ", "")
    assert tokenizer("x " * 99, truncation=True).input_ids.__len__() == tokenizer.model_max_length == 32
    again = training.build_tokenizer(captions)
    assert again.get_vocab() == tokenizer.get_vocab()


def test_the_contrastive_loss_is_clips() -> None:
    one, two = torch.randn((2, 7, 5), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    cosine = [[float(a @ b / a.norm() / b.norm()) for b in two] for a in one]
    total = 0.0
    for i in range(7):  # the right partner among all, seen from either side
        row = [math.exp(cosine[i][j] / text._TEMPERATURE) for j in range(7)]
        column = [math.exp(cosine[j][i] / text._TEMPERATURE) for j in range(7)]
        total -= math.log(row[i] / sum(row)) + math.log(column[i] / sum(column))
    assert float(contrast(one, two)) == pytest.approx(total / 14, rel=1e-12)
    assert contrast(one, one) < contrast(one, two)


def test_thinned_captions_keep_their_order_and_names_stay_whole() -> None:
    caption = "a wooden frame with rows of coloured beads for counting"
    words = caption.split()
    kept = []
    for seed in range(300):
        left = thin_out(caption, np.random.default_rng(seed)).split()
        remaining = iter(words)
        assert left and all(word in remaining for word in left)  # in order
        kept.append(len(left) / len(words))
    assert np.mean(kept) == pytest.approx(1 - text._DROPPED / 2, abs=0.05) and max(kept) == 1
    for name in emoji.names():
        for prompt in (emoji.prompt(name), emoji.label(name), training_captions(name)[8]):
            assert thin_out(prompt, np.random.default_rng(0)) == prompt


@pytest.mark.slow
def test_text_encoder_resumes_to_the_same_weights_and_learns(
    images: training.TrainingImages, tokenizer: Any, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"steps": 20, "batch_size": 8, "save_every": 8}
    whole = training.train_text_encoder(images, tokenizer, out=tmp_path / "a", **settings)
    with stopped_after_a_checkpoint():
        training.train_text_encoder(images, tokenizer, out=tmp_path / "b", **settings)
    resumed = training.train_text_encoder(images, tokenizer, out=tmp_path / "b", **settings)
    assert same(whole[0], resumed[0]) and same(whole[1], resumed[1])
    pd.testing.assert_frame_equal(whole[2], resumed[2])
    assert whole[2]["loss"].iloc[-5:].mean() < 0.5 * whole[2]["loss"].iloc[:2].mean()
    with torch.no_grad():
        said = whole[0](tokens_of(tokenizer, [emoji.prompt(name) for name in images.concepts])).pooler_output
        seen = whole[1](as_input(images.pixels))
    nearest = (torch.nn.functional.normalize(seen) @ torch.nn.functional.normalize(said[:2]).T).argmax(dim=1)
    assert (nearest == torch.tensor([0, 1] * 6)).float().mean() > 0.8
    with pytest.raises(MismatchError, match="batch_size was 8, now 4"):
        training.train_text_encoder(images, tokenizer, out=tmp_path / "b", **{**settings, "batch_size": 4})


def test_text_is_encoded_as_a_pipeline_encodes_it(pipe: Any) -> None:
    prompts = ["a photo of a apple", "", "a bus " * 40]
    plain, _ = pipe.encode_prompt(prompts, "cpu", 1, False)
    torch.testing.assert_close(encode_text(pipe.text_encoder, pipe.tokenizer, prompts), plain)


# --- the denoiser ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_denoiser_resumes_to_the_same_weights_and_leaves_the_text_encoder_alone(
    latents: torch.Tensor, tokenizer: Any, tmp_path: Path
) -> None:
    text_encoder = build_text_encoder(tokenizer)
    before = {key: value.clone() for key, value in text_encoder.state_dict().items()}
    settings: dict[str, Any] = {"steps": 4, "batch_size": 3, "channels": (32, 32, 32, 32), "save_every": 2}
    given = (latents, CAPTIONS * 6, text_encoder, tokenizer)
    whole = training.train_denoiser(*given, out=tmp_path / "a", **settings)
    with stopped_after_a_checkpoint():
        training.train_denoiser(*given, out=tmp_path / "b", **settings)
    resumed = training.train_denoiser(*given, out=tmp_path / "b", **settings)
    assert same(whole[0], resumed[0])
    pd.testing.assert_frame_equal(whole[1], resumed[1])
    assert all(torch.equal(before[key], value) for key, value in text_encoder.state_dict().items())
    assert all(parameter.grad is None for parameter in text_encoder.parameters())
    kinds = [type(block).__name__ for block in whole[0].down_blocks]
    assert kinds == ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"]


# --- what is made of them ----------------------------------------------------------------------------------------


def test_open_model_says_what_a_folder_lacks(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"no model_index\.json"):
        training.open_model(tmp_path)


@pytest.mark.slow
def test_an_exported_model_is_what_was_trained(pipe: Any, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "README.md").write_text("a card")
    parts = {name: getattr(pipe, name) for name in ("vae", "unet", "text_encoder", "tokenizer")}
    captions = [caption for several in CAPTIONS for caption in several]
    for _ in range(2):  # the second time over the first
        opened = training.export(folder, **parts, captions=captions)
    assert (folder / "README.md").read_text() == "a card" and not list(tmp_path.glob(".*partial*"))
    assert (folder / "words.txt").read_text().split() == training.training_vocabulary(captions)
    for name in ("vae", "unet", "text_encoder"):
        mine, theirs = getattr(pipe, name).state_dict(), getattr(opened, name).state_dict()
        for key, value in mine.items():
            assert theirs[key].dtype == torch.float32
            torch.testing.assert_close(theirs[key], value.half().float(), rtol=0, atol=0)
    model = lk.load_model(folder, device="cpu")
    assert model.image_size == 64 and set(model.select_blocks()) >= {"mid_block", "up_blocks.3"}


@pytest.mark.slow
def test_a_sample_depends_on_its_place_and_not_on_the_batch(pipe: Any) -> None:
    prompts = ["a photo of a apple", "a photo of a apple", "a photo of a bus"]
    together = training.sample(pipe, prompts, steps=2).astype(int)
    alone = training.sample(pipe, prompts, steps=2, batch_size=1).astype(int)
    assert np.abs(together - alone).max() <= 1 and together.shape == (3, 64, 64, 3)
    assert not np.array_equal(together[0], together[1])
    with pytest.raises(BadInputError, match="no prompt"):
        training.sample(pipe, [])


@pytest.mark.slow
def test_a_classifier_learns_its_concepts_and_resumes(
    images: training.TrainingImages, tmp_path: Path
) -> None:
    trained = training.train_classifier(images, tmp_path / "a", steps=40, batch_size=8)
    seen = training.classify(trained, images.pixels, images.concepts)
    assert seen["correct"].mean() > 0.9 and set(seen["predicted"]) <= set(emoji.names())
    assert trained(torch.zeros((2, 3, 64, 64))).shape == (2, 335)
    again = training.train_classifier(images, tmp_path / "a", steps=40, batch_size=8)  # from its checkpoint
    assert same(trained, again)


def test_images_are_classified_by_the_greatest_logit() -> None:
    """A classifier by hand: it reads off the number of the concept that is written into the first pixels."""
    names = emoji.names()
    wanted = [names[index] for index in (0, 300, 7, 334)] * 40  # more than one batch
    pixels = np.zeros((160, 64, 64, 3), np.uint8)
    for image, name in zip(pixels, wanted, strict=True):
        image[0, 0, :2] = divmod(names.index(name), 256)

    def classifier(batch: torch.Tensor) -> torch.Tensor:
        high, low = ((batch[:, :2, 0, 0] + 1) * 127.5).round().T
        return -(torch.arange(335) - (256 * high + low)[:, None]).abs()

    concepts = [*wanted[:-1], "zebra" if wanted[-1] != "zebra" else "yarn"]
    table = training.classify(classifier, pixels, concepts)  # type: ignore[arg-type]
    assert table["predicted"].tolist() == wanted and table["concept"].tolist() == concepts
    assert table["correct"].tolist() == [True] * 159 + [False]


def test_the_loss_by_prompt_is_that_of_a_loop(pipe: Any, images: training.TrainingImages) -> None:
    pixels = images.pixels[:3]
    prompts = {"none": [""] * 3, "label": ["a photo of a apple", "a photo of a bus", "a photo of a apple"]}
    table = training.loss_by_prompt(pipe, pixels, prompts, noise_levels=(0.2, 1.0), n_noise=2, seed=5)
    assert len(table) == 2 * 2 * 3
    latents = training.encode(pipe.vae, pixels)
    noise = torch.randn((6, 4, 16, 16), generator=torch.Generator().manual_seed(5))
    signal = noise_schedule().alphas_cumprod
    for (conditioning, level), rows in table.groupby(["conditioning", "noise_level"]):
        step = min(999, round(level * 1000))
        for image, loss in zip(rows["image"], rows["loss"], strict=True):
            errors = []
            for one in noise[2 * image : 2 * image + 2]:
                noisy = signal[step].sqrt() * latents[image] + (1 - signal[step]).sqrt() * one
                said = encode_text(pipe.text_encoder, pipe.tokenizer, [prompts[conditioning][image]])
                with torch.no_grad():
                    predicted = pipe.unet(noisy[None], torch.tensor([step]), said).sample[0]
                errors.append(float(((predicted - one) ** 2).mean()))
            assert loss == pytest.approx(np.mean(errors), rel=1e-4)


# --- all of it ---------------------------------------------------------------------------------------------------


SMALL_TRAINING = {
    "concepts": CONCEPTS,
    "exemplars": 8,
    "autoencoder_steps": 40,
    "autoencoder_batch": 8,
    "autoencoder_channels": [8, 16, 16],
    "text_steps": 20,
    "denoiser_steps": 40,
    "denoiser_batch": 8,
    "denoiser_channels": [32, 32, 32, 32],
    "save_every": 20,
    "sampling_steps": 3,
    "device": "cpu",
    "threads": 1,
}


@pytest.mark.slow
def test_notebook_trains_a_model_that_draws(tmp_path: Path) -> None:
    out = tmp_path / "runs"
    (outcome,) = run_series(NOTEBOOK, out, parameters=SMALL_TRAINING, timeout=300)
    assert outcome.status == "done", outcome.error
    losses = pd.read_parquet(outcome.folder / "tables" / "losses.parquet")
    assert np.isfinite(losses["loss"]).all()
    for network, steps in (("autoencoder", 40), ("text encoder", 20), ("denoiser", 40)):
        loss = losses.loc[losses["network"] == network, "loss"].to_numpy()
        assert len(loss) == steps and loss[-8:].mean() < 0.9 * loss[:8].mean(), network
    pipe = training.open_model(outcome.folder / "model")
    pixels = training.sample(pipe, ["a photo of a apple"] * 2, steps=2)
    assert pixels.shape == (2, 64, 64, 3) and pixels.std() > 1 and not np.array_equal(*pixels)
    assert (outcome.folder / "model" / "words.txt").read_text().split()[0] == "a"
    index = json.loads((outcome.folder / "model" / "model_index.json").read_text())
    assert index["_class_name"] == "StableDiffusionPipeline"
    assert not [file for file in outcome.folder.rglob("*") if file.suffix in {".bin", ".pt", ".pkl", ".ckpt"}]


# --- the model that is shipped -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_bundled_denoiser_uses_its_text_on_drawings_that_it_never_saw() -> None:
    pipe, names = training.open_model(packaged("tiny-ldm")), emoji.names()[::4]
    labels = [emoji.prompt(name) for name in names]
    prompts = {"none": [""] * len(names), "label": labels, "shuffled": labels[7:] + labels[:7]}
    table = training.loss_by_prompt(
        pipe, training.evaluation_images(names), prompts, noise_levels=(0.5, 0.9), n_noise=2
    )
    wide = table.pivot(index=["noise_level", "image"], columns="conditioning", values="loss")
    for other in ("none", "shuffled"):
        for level, rows in (wide[other] - wide["label"]).groupby("noise_level"):
            assert rows.mean() > 1.96 * rows.std(ddof=1) / math.sqrt(len(rows)), (other, level)
