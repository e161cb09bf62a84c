"""Every family against diffusers' own code: the same features, from components that its pipelines saved."""

from __future__ import annotations

import importlib.util
import inspect
import json
import shutil
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import tiny_families as tiny
import torch
import zarr
from PIL import Image

import ldm_kit as lk
from ldm_kit.errors import BadInputError, MismatchError, ModelNotFoundError, UnknownNameError
from ldm_kit.features.store_files import seal
from ldm_kit.models import blocks
from ldm_kit.models.blocks import image_output
from ldm_kit.models.load import FAMILIES
from ldm_kit.models.noise import draw_noise
from ldm_kit.models.registry import registered_models

pytestmark = pytest.mark.slow

NAMES = ("apple.png", "bicycle.png", "cat.png", "dog.png", "fork.png", "goat.png", "hat.png")
LEVEL = 0.3
UNET = {
    "down_blocks.0": (16, 4, 4),
    "down_blocks.1": (32, 4, 4),
    "mid_block": (32, 4, 4),
    "up_blocks.0": (32, 8, 8),
    "up_blocks.1": (16, 8, 8),
}
DIT = {f"transformer_blocks.{i}": (16, 24) for i in range(3)}
FLUX = {f"{kind}transformer_blocks.{i}": (16, 24) for kind in ("", "single_") for i in range(2)}


# What diffusers' pipelines do in one step, written out, each for one prompt and noised latents ------------


def unet_of_sdxl(pipe, x, prompt):
    sequence, _, pooled, _ = pipe.encode_prompt(prompt, device="cpu", do_classifier_free_guidance=False)
    time_ids = pipe._get_add_time_ids(
        (32, 32), (0, 0), (32, 32), dtype=x.dtype, text_encoder_projection_dim=pooled.shape[-1]
    )
    added = {"text_embeds": pooled, "time_ids": time_ids}
    pipe.unet(x, torch.tensor(300), encoder_hidden_states=sequence, added_cond_kwargs=added)


def unet_of_the_refiner(pipe, x, prompt):
    sequence, _, pooled, _ = pipe.encode_prompt(prompt, device="cpu", do_classifier_free_guidance=False)
    added = {"text_embeds": pooled, "time_ids": torch.tensor([[32.0, 32, 0, 0, 6]])}
    pipe.unet(x, torch.tensor(300), encoder_hidden_states=sequence, added_cond_kwargs=added)


def transformer_of_sd3(pipe, x, prompt):
    sequence, _, pooled, _ = pipe.encode_prompt(
        prompt, prompt, prompt, device="cpu", do_classifier_free_guidance=False
    )
    pipe.transformer(
        hidden_states=x,
        timestep=torch.tensor([300.0]),
        encoder_hidden_states=sequence,
        pooled_projections=pooled,
    )


def transformer_of_flux(pipe, x, prompt):
    guided = pipe.transformer.config.guidance_embeds
    sequence, pooled, text_ids = pipe.encode_prompt(
        prompt, device="cpu", max_sequence_length=512 if guided else 256
    )
    pipe.transformer(
        hidden_states=pipe._pack_latents(x, 1, 4, 8, 8),
        timestep=torch.tensor([300.0]) / 1000,
        guidance=torch.tensor([3.5]) if guided else None,
        pooled_projections=pooled,
        encoder_hidden_states=sequence,
        txt_ids=text_ids,
        img_ids=pipe._prepare_latent_image_ids(1, 4, 4, "cpu", x.dtype),
    )


def transformer_of_pixart(pipe, x, prompt):
    sequence, mask, _, _ = pipe.encode_prompt(prompt, do_classifier_free_guidance=False, device="cpu")
    pipe.transformer(
        x,
        encoder_hidden_states=sequence,
        encoder_attention_mask=mask,
        timestep=torch.tensor([300]),
        added_cond_kwargs={"resolution": torch.tensor([[32.0, 32.0]]), "aspect_ratio": torch.tensor([[1.0]])},
    )


@dataclass
class Case:
    save: Callable[..., Path]
    step: Callable[[Any, torch.Tensor, str], None]
    blocks: dict[str, tuple[int, ...]]
    element: int | None = None  # of what a transformer's block returns
    options: dict[str, Any] | None = None


CASES = {
    "sdxl": Case(tiny.save_tiny_sdxl, unet_of_sdxl, UNET),
    "sdxl-refiner": Case(tiny.save_tiny_sdxl, unet_of_the_refiner, UNET, options={"refiner": True}),
    "sd3": Case(tiny.save_tiny_sd3, transformer_of_sd3, DIT, element=1),
    "sd3-no-t5": Case(tiny.save_tiny_sd3, transformer_of_sd3, DIT, element=1, options={"t5": False}),
    "flux-dev": Case(tiny.save_tiny_flux, transformer_of_flux, FLUX, element=1),
    "flux-schnell": Case(
        tiny.save_tiny_flux, transformer_of_flux, FLUX, element=1, options={"guidance": False}
    ),
    "pixart-alpha": Case(tiny.save_tiny_pixart, transformer_of_pixart, DIT),
    "pixart-sigma": Case(tiny.save_tiny_pixart, transformer_of_pixart, DIT, options={"sigma": True}),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made: dict[str, Path] = {}

    def folder(family: str) -> Path:
        if family not in made:
            case = CASES[family]
            made[family] = case.save(tmp_path_factory.mktemp(family), **(case.options or {}))
        return made[family]

    return folder


@pytest.fixture(scope="module", params=CASES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def model(family, folders):
    return lk.load_model(folders(family), device="cpu")


@pytest.fixture(scope="module")
def flux(folders):
    return lk.load_model(folders("flux-dev"), device="cpu")


@pytest.fixture(scope="module")
def stimuli(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for name in NAMES:  # of the models' own size: nothing is scaled or cropped
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(root / name)
    captions = [f"A {name[:-4]} " for name in NAMES]
    captions[4] += "with prongs " * 14  # more than CLIP and PixArt-α read, less than PixArt-Σ does
    return lk.Stimuli(NAMES, root=str(root), dataset="noise", captions=tuple(captions))


def assert_same(got, expected):
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() <= 1e-5 * np.abs(expected).max()


def by_hand(family, folder, stimuli, name, prompt):
    """Pooled outputs of every stage for one image, from the pipeline's components; only the noise sample is ours."""
    case = CASES[family]
    pipe = getattr(diffusers, diffusers.DiffusionPipeline.load_config(folder)["_class_name"])
    absent = {"text_encoder_3": None, "tokenizer_3": None} if (case.options or {}).get("t5") is False else {}
    pipe = pipe.from_pretrained(folder, **absent)
    pixels = torch.tensor(np.array(Image.open(Path(stimuli.root) / name)), dtype=torch.float32)
    pixels = pixels.permute(2, 0, 1)[None] / 255 * 2 - 1
    noise = torch.from_numpy(draw_noise(name, (4, 8, 8)))[None]
    denoiser = getattr(pipe, "transformer", None) or pipe.unet
    seen = {}

    def hook(path):
        def keep(_module, _inputs, output):
            if path.startswith("down"):
                output = output[0]
            elif case.element is not None:
                output = output[case.element]
            seen[path] = output.mean(dim=(2, 3) if output.ndim == 4 else 1).numpy()

        return keep

    for path in case.blocks:
        denoiser.get_submodule(path).register_forward_hook(hook(path))
    with torch.no_grad():
        config = pipe.vae.config
        latents = pipe.vae.encode(pixels).latent_dist.mode()
        latents = (latents - (config.shift_factor or 0)) * config.scaling_factor
        if "FlowMatch" in type(pipe.scheduler).__name__:
            x = (1 - LEVEL) * latents + LEVEL * noise
        else:
            alpha = pipe.scheduler.alphas_cumprod[300]
            x = alpha**0.5 * latents + (1 - alpha) ** 0.5 * noise
        case.step(pipe, x, prompt)
    return seen


# Right ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(model, stimuli):
    """All images in one batch, at two levels, with and without a prompt."""
    levels, conditionings = [LEVEL, 0.6], ["none", "caption"]
    return lk.extract(
        model, stimuli, noise_levels=levels, conditionings=conditionings, batch_size=7, progress=False
    )


def test_features_equal_a_plain_forward_pass_of_diffusers(family, whole, folders, stimuli):
    for index in (0, 4):
        expected = by_hand(family, folders(family), stimuli, NAMES[index], stimuli.captions[index])
        assert list(expected) == list(CASES[family].blocks)
        for block, values in expected.items():
            assert_same(whole[block, LEVEL, "caption"][index], values[0])


def test_features_do_not_depend_on_the_batch_size_nor_on_the_selected_blocks(family, model, whole, stimuli):
    request = {"noise_levels": [LEVEL], "conditionings": "caption", "progress": False}
    last = list(CASES[family].blocks)[-1]
    single = lk.extract(model, stimuli, batch_size=1, **request)
    for block in CASES[family].blocks:
        assert_same(single[block, LEVEL, "caption"], whole[block, LEVEL, "caption"])
    alone = lk.extract(model, stimuli[[5, 2]], blocks=last, **request)
    assert_same(alone[last, LEVEL, "caption"], whole[last, LEVEL, "caption"][[5, 2]])


def test_features_depend_on_prompt_level_and_image(family, whole):
    last = list(CASES[family].blocks)[-1]
    base = whole[last, LEVEL, "caption"]
    for other in (whole[last, LEVEL, "none"], whole[last, 0.6, "caption"], np.roll(base, 1, axis=0)):
        assert np.abs(base - other).max() > 1e-3 * np.abs(base).max()


def test_images_that_lack_a_level_are_computed_beside_those_that_have_it(model, whole, stimuli, tmp_path):
    ask = {"conditionings": "caption", "out": tmp_path / "out", "progress": False}
    lk.extract(model, stimuli[[1]], noise_levels=[LEVEL], **ask)
    grown = lk.extract(model, stimuli, noise_levels=[LEVEL, 0.6], **ask).select(names=whole.names)
    assert len(list(grown.cells())) == 2 * len(whole.blocks)
    for key in grown.cells():
        assert_same(grown[key], whole[key])


def test_the_block_table_has_the_stages_in_order_with_their_shapes(family, model):
    table = model.blocks().query("stage")
    assert dict(zip(table["block"], table["shape"], strict=True)) == CASES[family].blocks
    assert list(table["block"]) == list(CASES[family].blocks)
    assert model.select_blocks(None) == list(CASES[family].blocks)
    assert table["depth"].is_monotonic_increasing
    for row in table.itertuples():
        parameters = model.denoiser.get_submodule(row.block).parameters()
        assert row.parameters == sum(p.numel() for p in parameters)
        assert row.layout == ("tokens" if "transformer" in row.block else "map")
        assert row.channels == (row.shape[1] if row.layout == "tokens" else row.shape[0])


def test_the_kinds_of_a_transformers_blocks(flux, folders):
    assert flux.select_blocks("single") == ["single_transformer_blocks.0", "single_transformer_blocks.1"]
    assert flux.select_blocks("transformer") == ["transformer_blocks.0", "transformer_blocks.1"]
    xl = lk.load_model(folders("sdxl"), device="cpu").blocks().set_index("block")
    nested = "down_blocks.1.attentions.0.transformer_blocks.1"
    assert (xl.loc[nested, "kind"], xl.loc[nested, "stage"]) == ("transformer", False)


def test_nothing_deeper_than_the_last_block_runs(family, model, stimuli):
    paths = list(CASES[family].blocks)
    calls: list[str] = []
    counters = [
        model.denoiser.get_submodule(path).register_forward_hook(
            lambda m, i, o, path=path: calls.append(path)
        )
        for path in paths
    ]
    noised = torch.zeros(1, *model.latent_shape)
    model.watch(noised, model.level(0.5), model.texts([""]), paths[:2])
    for counter in counters:
        counter.remove()
    assert calls == paths[:2]


@pytest.mark.slow
def test_text_is_encoded_once_a_distinct_prompt(family, folders, stimuli):
    model = lk.load_model(folders(family), device="cpu")
    encoders = {key: part for key, part in model.components.items() if key.startswith("text_encoder")}
    calls = dict.fromkeys(encoders, 0)

    def count(key):
        def hook(_module, _inputs, output):
            calls[key] += 1

        return hook

    for key, encoder in encoders.items():
        encoder.register_forward_hook(count(key))
    lk.extract(model, stimuli, noise_levels=[0.2, 0.8], conditionings=["none", "caption"], progress=False)
    assert encoders
    assert calls == dict.fromkeys(encoders, len(NAMES) + 1)


def test_the_texts_that_are_kept_fit_in_a_fixed_memory(monkeypatch, folders):
    model = lk.load_model(folders("flux-schnell"), device="cpu")
    size = (256 * 32 + 16) * 4
    monkeypatch.setattr("ldm_kit.models.model.TEXT_BYTES", 3 * size)
    prompts = ["a", "b", "c", "d", "a"]
    texts = model.texts(prompts)
    assert list(model._prompts) == ["c", "d", "a"]
    assert torch.equal(texts["sequence"][0], texts["sequence"][4])
    assert torch.equal(texts["sequence"][1:2], model.encode_prompt("b")["sequence"])


def test_latents_decode_back_to_what_the_vae_makes_of_them(model, stimuli):
    opened_image = stimuli.open(NAMES[0])
    vae = model.components["vae"]
    pixels = torch.tensor(np.array(opened_image), dtype=torch.float32).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        expected = vae.decode(vae.encode(pixels).latent_dist.mode()).sample[0].permute(1, 2, 0)
    got = np.asarray(model.decode(model.encode([opened_image]))[0])
    assert np.abs(got - ((expected + 1) * 127.5).clamp(0, 255).numpy()).max() <= 0.51


def test_a_denoised_latent_has_the_latents_shape(model):
    noised = torch.randn(2, *model.latent_shape)
    level = model.level(0.4)
    prediction = model.denoise(noised, level, model.texts(["a cat", ""]))
    assert prediction.shape == noised.shape == model.clean_estimate(noised, prediction, level).shape


# No prompt ---------------------------------------------------------------------------------------------


def for_guidance(family, pipe):
    """What the pipeline gives its denoiser beside the prompt, for classifier-free guidance: sequence, pooled, mask."""
    if family.startswith(
        "flux"
    ):  # distilled; its true guidance encodes a negative prompt, which must be passed
        sequence, pooled, _ = pipe.encode_prompt("", device="cpu", max_sequence_length=pipe.tokens_read)
        return sequence, pooled, None
    if family.startswith("pixart"):
        _, _, sequence, mask = pipe.encode_prompt("a cat", do_classifier_free_guidance=True, device="cpu")
        return sequence, None, mask
    more = ("a cat", "a cat") if family.startswith("sd3") else ()
    _, sequence, _, pooled = pipe.encode_prompt(
        "a cat", *more, device="cpu", do_classifier_free_guidance=True
    )
    return sequence, pooled, None


def of_the_empty_prompt(family, pipe):
    """What the pipeline gives its denoiser for a prompt that is empty."""
    if family.startswith("flux"):
        return for_guidance(family, pipe)
    if family.startswith("pixart"):
        sequence, mask, _, _ = pipe.encode_prompt("", do_classifier_free_guidance=False, device="cpu")
        return sequence, None, mask
    more = ("", "") if family.startswith("sd3") else ()
    sequence, _, pooled, _ = pipe.encode_prompt("", *more, device="cpu", do_classifier_free_guidance=False)
    return sequence, pooled, None


def opened_by_diffusers(family, folder):
    pipe = getattr(diffusers, diffusers.DiffusionPipeline.load_config(folder)["_class_name"])
    absent = {"text_encoder_3": None, "tokenizer_3": None} if family == "sd3-no-t5" else {}
    pipe = pipe.from_pretrained(folder, **absent)
    if family.startswith("flux"):
        pipe.tokens_read = 512 if pipe.transformer.config.guidance_embeds else 256
    return pipe


def inputs_of_the_denoiser(model, stimuli, conditioning):
    """What extraction gives the denoiser, for one image: sequence, pooled, mask."""
    calls = []
    hook = model.denoiser.register_forward_pre_hook(lambda m, a, k: calls.append(k), with_kwargs=True)
    store = lk.extract(model, stimuli[:1], noise_levels=[0.3], conditionings=conditioning, progress=False)
    hook.remove()
    (inputs,) = calls
    pooled = inputs.get("pooled_projections", (inputs.get("added_cond_kwargs") or {}).get("text_embeds"))
    return store, (inputs["encoder_hidden_states"], pooled, inputs.get("encoder_attention_mask"))


def assert_same_text(got, expected):
    for ours, theirs in zip(got, expected, strict=True):
        if theirs is None:
            assert ours is None
        else:
            torch.testing.assert_close(ours.float(), theirs.float(), rtol=1e-5, atol=1e-5)


def test_none_is_what_diffusers_takes_for_guidance_and_empty_is_the_empty_prompt(
    family, model, folders, stimuli
):
    pipe = opened_by_diffusers(family, folders(family))
    with torch.no_grad():
        guidance, empty = for_guidance(family, pipe), of_the_empty_prompt(family, pipe)
    store, inputs = inputs_of_the_denoiser(model, stimuli, "none")
    assert_same_text(inputs, guidance)
    # The store says what `none` was: no prompt that was encoded, or the empty one.
    assert store.prompts("none") == (("(zeros)",) if family.startswith("sdxl") else ("",))
    store, inputs = inputs_of_the_denoiser(model, stimuli, "empty")
    assert_same_text(inputs, empty)
    assert store.prompts("empty") == ("",)


@pytest.mark.parametrize("configured", [False, None, "nothing"])
def test_sdxls_own_configuration_says_what_none_is(configured, folders, tmp_path, stimuli):
    folder = shutil.copytree(folders("sdxl"), tmp_path / "model")
    index = json.loads((folder / "model_index.json").read_text())
    index["force_zeros_for_empty_prompt"] = configured
    if configured == "nothing":  # then the pipeline's own default stands
        del index["force_zeros_for_empty_prompt"]
    (folder / "model_index.json").write_text(json.dumps(index))
    with torch.no_grad():
        guidance = for_guidance("sdxl", opened_by_diffusers("sdxl", folder))
    store, inputs = inputs_of_the_denoiser(lk.load_model(folder, device="cpu"), stimuli, "none")
    assert_same_text(inputs, guidance)
    assert store.prompts("none") == (("(zeros)",) if configured == "nothing" else ("",))


def test_a_store_in_which_none_meant_the_empty_prompt_is_not_added_to(folders, stimuli, tmp_path):
    model = lk.load_model(folders("sdxl"), device="cpu")
    ask = {"noise_levels": [0.3], "out": tmp_path / "out", "progress": False}
    lk.extract(model, stimuli[:2], **ask)
    root = zarr.open_group(str(tmp_path / "out"))
    about = dict(root.attrs["ldm_kit"])
    about["prompts"] = {"none": ["", ""]}  # as version 0.1 made it
    root.attrs["ldm_kit"] = seal(about)
    with pytest.raises(MismatchError, match=r"for 'none' is '' in the store .* and '\(zeros\)' here"):
        lk.extract(model, stimuli, **ask)


def test_a_picture_is_looked_at_without_a_prompt_as_it_is_extracted(folders, stimuli):
    model = lk.load_model(folders("sdxl"), device="cpu")
    block = "up_blocks.1"
    store = lk.extract(
        model, stimuli[:1], blocks=block, noise_levels=[0.3], conditionings=["none", "empty"], progress=False
    )
    for prompt, conditioning in ((None, "none"), ("", "empty")):
        (view,) = lk.look(model, stimuli, NAMES[0], [0.3], block, prompt=prompt)
        assert_same(view.maps.mean(axis=(1, 2)), store[block, 0.3, conditioning][0])
    (view,) = lk.look(model, stimuli, NAMES[0], [0.3], block)
    assert_same(view.maps.mean(axis=(1, 2)), store[block, 0.3, "none"][0])


# Levels -----------------------------------------------------------------------------------------------


def test_in_flow_matching_the_level_is_sigma_whatever_the_schedulers_shift(flux, folders):
    sd3 = lk.load_model(folders("sd3"), device="cpu")
    assert sd3.components["scheduler"].config.shift == 3
    for model in (flux, sd3):
        for level in (0, 0.123, 0.5, 1):
            placed = model.level(level)
            assert (placed.sigma, placed.noise, placed.signal) == (level, level, 1 - level)
            assert placed.timestep == pytest.approx(1000 * level)
        with pytest.raises(BadInputError, match="outside 0 to 1"):
            model.level(1.5)


def test_the_clean_estimate_inverts_a_perfect_velocity(flux):
    clean, noise, level = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8), flux.level(0.6)
    noised = flux.add_noise(clean, noise, level)
    torch.testing.assert_close(flux.clean_estimate(noised, noise - clean, level), clean)
    # and one Euler step of diffusers from sigma to 0 goes to the same place
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(sigmas=[0.6])
    stepped = scheduler.step(noise - clean, scheduler.timesteps[0], noised).prev_sample
    torch.testing.assert_close(stepped, clean, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["flux-dev", "sd3", "pixart-alpha"])
def test_the_papers_timesteps_are_an_error_where_there_is_no_such_call(folders, name):
    model = lk.load_model(folders(name), device="cpu")
    with pytest.raises(BadInputError, match=r"img2img call .* no such thing. Use timesteps='exact'"):
        model.level(0.3, timesteps="linhardt2024")


# Options ----------------------------------------------------------------------------------------------


def test_sd3_opens_without_t5_when_asked(folders, stimuli):
    folder = folders("sd3")
    model = lk.load_model(folder, device="cpu", drop=("text_encoder_3", "tokenizer_3"))
    assert "text_encoder_3" not in model.components
    assert model.identity.model == "model-without-text_encoder_3"
    text, whole = model.text("a cat"), lk.load_model(folder, device="cpu").text("a cat")
    assert torch.equal(text["sequence"][:, 16:], torch.zeros(1, 256, 40))
    assert torch.equal(text["sequence"][:, :16], whole["sequence"][:, :16])
    assert whole["sequence"][:, 16:].abs().max() > 0
    pipe = diffusers.StableDiffusion3Pipeline.from_pretrained(folder, text_encoder_3=None, tokenizer_3=None)
    with torch.no_grad():
        theirs = pipe.encode_prompt("a cat", None, None, device="cpu", do_classifier_free_guidance=False)
    torch.testing.assert_close(text["sequence"], theirs[0])
    torch.testing.assert_close(text["pooled"], theirs[2])


def test_what_a_family_needs_cannot_be_dropped(folders):
    with pytest.raises(UnknownNameError, match="component to drop 'vae'.*StableDiffusion3"):
        lk.load_model(folders("sd3"), drop=["vae"])
    with pytest.raises(UnknownNameError, match="component to drop 'text_encoder'.*StableDiffusionXL"):
        lk.load_model(folders("sdxl"), drop="text_encoder")


def test_the_posterior_is_sampled_on_request(model, stimuli):
    opened = [stimuli.open(name) for name in NAMES[:2]]
    mean = model.encode(opened)
    draw = torch.randn(mean.shape)
    vae = model.components["vae"]
    pixels = torch.tensor(np.stack([np.array(p) for p in opened]), dtype=torch.float32)
    with torch.no_grad():
        posterior = vae.encode(pixels.permute(0, 3, 1, 2) / 127.5 - 1).latent_dist
    sampled = model.encode(opened, posterior=draw)
    expected = mean + vae.config.scaling_factor * torch.exp(0.5 * posterior.logvar) * draw
    torch.testing.assert_close(sampled, expected)
    torch.testing.assert_close(model.encode(opened, posterior=torch.zeros_like(draw)), mean)
    with pytest.raises(
        BadInputError, match=r"sample has shape \(1, 4, 8, 8\), the latents have \(2, 4, 8, 8\)"
    ):
        model.encode(opened, posterior=draw[:1])


def test_flux_over_a_distilled_autoencoder_takes_the_size_of_diffusers_own_pipeline(tmp_path):
    folder = tiny.save_tiny_flux(tmp_path, vae=diffusers.AutoencoderTiny())
    model, pipe = lk.load_model(folder, device="cpu"), diffusers.FluxPipeline.from_pretrained(folder)
    assert model.image_size == pipe.default_sample_size * pipe.vae_scale_factor == 1024
    assert model.encode([Image.new("RGB", (32, 32))]).shape == (1, 4, 128, 128)


def test_an_embedding_takes_the_place_of_the_text(model):
    text = model.text("a cat")
    channels = text["sequence"].shape[-1]
    vectors = np.random.default_rng(0).normal(size=(3, channels)).astype(np.float32)
    embedded = model.embedded(vectors)
    np.testing.assert_array_equal(embedded["sequence"][0], vectors)
    assert set(embedded) == set(text)
    if "pooled" in embedded:
        assert torch.equal(embedded["pooled"], model.text("")["pooled"])
    if "mask" in embedded:
        assert embedded["mask"].tolist() == [[1, 1, 1]]
    level, noised = model.level(0.3), torch.randn(1, *model.latent_shape)
    assert not torch.equal(model.denoise(noised, level, embedded), model.denoise(noised, level, text))
    for wrong in (vectors[:, 1:], vectors[0], vectors[:0], vectors[None]):
        with pytest.raises(BadInputError, match=rf"this model takes \(tokens, {channels}\)"):
            model.embedded(wrong)
    with pytest.raises(BadInputError, match="NaN or infinity"):
        model.embedded(vectors * np.nan)


def test_a_prompts_own_vectors_given_as_an_embedding_change_nothing(folders):
    """All but the pooled vector is in the sequence, so for PixArt, which has none, the two are one."""
    model = lk.load_model(folders("pixart-alpha"), device="cpu")
    text = model.text("a cat")
    unmasked = text["sequence"][0, text["mask"][0] == 1]
    level, noised = model.level(0.3), torch.randn(1, *model.latent_shape)
    got = model.denoise(noised, level, model.embedded(unmasked))
    assert_same(got.numpy(), model.denoise(noised, level, text).numpy())


def test_the_guidance_of_a_distilled_model_is_part_of_the_request(flux, folders):
    assert flux.preprocessing["guidance"] == 3.5
    assert "guidance" not in lk.load_model(folders("flux-schnell"), device="cpu").preprocessing


@pytest.mark.slow
def test_the_untrained_control_differs_and_is_seeded(family, folders, model):
    first, again, other = (
        lk.load_model(folders(family), device="cpu", pretrained=False, seed=seed).denoiser.state_dict()
        for seed in (1, 1, 2)
    )
    trained = model.denoiser.state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)
    assert any(not torch.equal(first[key], trained[key]) for key in first)


# Loading ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_no_socket_is_opened(monkeypatch, family, folders, stimuli):
    def refuse(*args, **kwargs):
        raise AssertionError("a socket was opened")

    monkeypatch.setenv("LDM_KIT_OFFLINE", "1")
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    model = lk.load_model(folders(family), device="cpu")
    lk.extract(model, stimuli[:1], noise_levels=[0.5], conditionings="caption", progress=False)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_pipeline_class_of_a_family_exists_and_has_its_parts(name):
    parameters = inspect.signature(getattr(diffusers, name).__init__).parameters
    family = FAMILIES[name]
    assert family.DENOISER in family.NEEDED
    assert set(family.DROPPABLE) <= set(family.OPTIONAL)
    assert {*family.NEEDED, *family.OPTIONAL} <= set(parameters)


def test_an_img2img_pipeline_opens_as_its_text_to_image_one(folders, tmp_path):
    """What a user saved from another pipeline of the family."""
    pipe = diffusers.FluxImg2ImgPipeline.from_pretrained(folders("flux-dev"))
    pipe.save_pretrained(tmp_path / "img2img")
    model = lk.load_model(tmp_path / "img2img", device="cpu")
    assert model.identity.family == "Flux"
    assert model.select_blocks() == list(FLUX)


def test_the_registry_names_every_family_with_its_licence():
    for name in (
        *("sdxl", "sdxl-turbo", "sd3-medium", "sd3.5-medium"),
        *("flux-schnell", "flux-dev", "pixart-alpha", "pixart-sigma"),
    ):
        row = registered_models()[name]
        assert row.source.count("/") == 1
        assert row.revision == "main"
        assert row.licence
        assert "gated" in row.note.lower()


def test_an_inpainting_network_is_refused_with_its_channels(tmp_path):
    folder = tiny.save_tiny_sdxl(tmp_path, channels=9)
    with pytest.raises(BadInputError, match=r"takes 9 channels where its autoencoder's latents have 4"):
        lk.load_model(folder, device="cpu").blocks()


def test_sdxl_with_a_text_encoder_missing_says_so(folders, tmp_path):
    pipe = diffusers.StableDiffusionXLPipeline.from_pretrained(
        folders("sdxl"), text_encoder=None, tokenizer=None
    )
    pipe.save_pretrained(tmp_path / "partial")
    model = lk.load_model(tmp_path / "partial", device="cpu")
    with pytest.raises(BadInputError, match=r"give 16 channels, its U-Net takes 32: one of text_encoder"):
        model.text("a cat")


def test_a_t5_tokenizer_that_needs_a_package_says_which(folders, tmp_path):
    """PixArt's repositories bring no tokenizer.json, only sentencepiece's own file."""
    if importlib.util.find_spec("sentencepiece"):
        pytest.skip("sentencepiece is installed: nothing is missing")
    folder = shutil.copytree(folders("pixart-alpha"), tmp_path / "model")
    (folder / "tokenizer" / "tokenizer.json").unlink()
    (folder / "tokenizer" / "spiece.model").write_bytes(b"\x0a\x02\x0a\x00")
    with pytest.raises(ModelNotFoundError, match="needs a package.*`pip install sentencepiece protobuf`"):
        lk.load_model(folder)


# Declarations -----------------------------------------------------------------------------------------


def test_a_block_that_mixes_text_and_image_in_one_tensor_is_an_error_not_a_guess(flux):
    block = flux.denoiser.single_transformer_blocks[0]
    text, image = torch.zeros(1, 5, 24), torch.ones(1, 16, 24)
    assert image_output(block, (text, image), "single")[0] is image
    with pytest.raises(BadInputError, match=r"returned \(1, 21, 24\), not the tokens that is declared"):
        image_output(block, torch.cat([text, image], dim=1), "single")


def test_the_text_of_sd3s_last_block_is_none_and_the_image_is_taken(folders):
    model = lk.load_model(folders("sd3"), device="cpu")
    outputs = []
    handle = model.denoiser.transformer_blocks[2].register_forward_hook(lambda m, i, o: outputs.append(o))
    noised = torch.randn(1, *model.latent_shape)
    seen = model.watch(noised, model.level(0.5), model.texts(["a"]), ["transformer_blocks.2"]).seen
    handle.remove()
    assert outputs[0][0] is None
    assert torch.equal(seen["transformer_blocks.2"], outputs[0][1])


def test_an_undeclared_stage_is_an_error_that_shows_the_shapes(monkeypatch, folders):
    monkeypatch.delitem(blocks._LAYOUTS, "JointTransformerBlock")
    model = lk.load_model(folders("sd3"), device="cpu")
    with pytest.raises(
        BadInputError, match=r"is a JointTransformerBlock.*not declared. It returned \(\(1, 8, 24\), \(1, 16"
    ):
        model.blocks()
