"""Kandinsky 2.2 (unCLIP) and DeepFloyd IF (a U-Net over pixels), against forward passes written by hand."""

from __future__ import annotations

import json
import socket

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_encoders import save_blobs
from tiny_unclip import (
    save_tiny_combined,
    save_tiny_if,
    save_tiny_kandinsky,
    save_tiny_prior,
)

import ldm_kit as lk
from ldm_kit.errors import BadInputError, ModelNotFoundError
from ldm_kit.models.noise import draw_noise
from ldm_kit.models.unclip import named_in_card, prompt_seed

pytestmark = pytest.mark.slow

STAGES = ["down_blocks.0", "down_blocks.1", "mid_block", "up_blocks.0", "up_blocks.1"]


@pytest.fixture(scope="module")
def stimuli(tmp_path_factory):
    return save_blobs(tmp_path_factory.mktemp("blobs"))


@pytest.fixture(scope="module")
def kandinsky_folder(tmp_path_factory):
    folder = save_tiny_kandinsky(tmp_path_factory.mktemp("kandinsky"))
    save_tiny_prior(folder / "prior")
    return folder


@pytest.fixture(scope="module")
def kandinsky(kandinsky_folder):
    return lk.load_model(kandinsky_folder, device="cpu")


@pytest.fixture(scope="module")
def if_folder(tmp_path_factory):
    return save_tiny_if(tmp_path_factory.mktemp("if"))


@pytest.fixture(scope="module")
def deepfloyd(if_folder):
    return lk.load_model(if_folder, device="cpu")


def assert_same(got, expected, tolerance=1e-5):
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() <= tolerance * np.abs(expected).max()


def stages_by_hand(unet, x, time_embedding, context, mask=None):
    """The U-Nets' stages one after the other, without hooks."""
    seen = {}
    inputs = {"encoder_hidden_states": context, "attention_mask": mask}
    x = unet.conv_in(x)
    residuals = (x,)
    for i, block in enumerate(unet.down_blocks):
        extra = inputs if "Attn" in type(block).__name__ else {}
        x, outputs = block(hidden_states=x, temb=time_embedding, **extra)
        residuals += outputs
        seen[f"down_blocks.{i}"] = x
    x = seen["mid_block"] = unet.mid_block(x, time_embedding, **inputs)
    for i, block in enumerate(unet.up_blocks):
        used, residuals = residuals[-len(block.resnets) :], residuals[: -len(block.resnets)]
        extra = inputs if "Attn" in type(block).__name__ else {}
        x = block(hidden_states=x, temb=time_embedding, res_hidden_states_tuple=used, **extra)
        seen[f"up_blocks.{i}"] = x
    return seen


def pixels_of(stimuli, name, size):
    opened_image = stimuli.open(name)  # 83 × 50, so cut at the sides
    width = round(83 * size / 50)
    left = (width - size) // 2
    opened_image = opened_image.resize((width, size), Image.Resampling.LANCZOS).crop(
        (left, 0, left + size, size)
    )
    return torch.tensor(np.array(opened_image), dtype=torch.float32).permute(2, 0, 1)[None] / 255 * 2 - 1


def noised_by_hand(scheduler, clean, name, timestep):
    noise = torch.from_numpy(draw_noise(name, clean.shape[1:], seed=0))[None]
    return scheduler.add_noise(clean, noise, torch.tensor([timestep]))


def embedding_by_hand(folder, prompt):
    """The prior's sampling, written out from diffusers' KandinskyV22PriorPipeline without guidance."""
    from diffusers import KandinskyV22PriorPipeline

    pipeline = KandinskyV22PriorPipeline.from_pretrained(folder)
    tokens = pipeline.tokenizer(prompt, padding="max_length", max_length=16, return_tensors="pt")
    text = pipeline.text_encoder(tokens.input_ids)
    mask = tokens.attention_mask.bool()
    prior, scheduler = pipeline.prior, pipeline.scheduler
    scheduler.set_timesteps(25)
    steps = scheduler.timesteps
    generator = torch.Generator().manual_seed(prompt_seed(prompt))
    x = torch.randn(1, 12, generator=generator)
    for i, t in enumerate(steps):
        predicted = prior(
            x,
            timestep=t,
            proj_embedding=text.text_embeds,
            encoder_hidden_states=text.last_hidden_state,
            attention_mask=mask,
        ).predicted_image_embedding
        after = steps[i + 1] if i + 1 < len(steps) else None
        x = scheduler.step(predicted, t, x, prev_timestep=after, generator=generator).prev_sample
    return x * prior.clip_std + prior.clip_mean


# Kandinsky 2.2 ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_kandinsky_equals_a_forward_pass_by_hand(kandinsky, kandinsky_folder, stimuli):
    store = lk.extract(
        kandinsky,
        stimuli,
        noise_levels=[0.5],
        conditionings=["none", "label"],
        template="{name}",
        progress=False,
    )
    assert list(store.blocks) == STAGES
    unet, movq = kandinsky.denoiser, kandinsky.components["movq"]
    name = stimuli.names[3]
    with torch.no_grad():
        clean = movq.encode(pixels_of(stimuli, name, 32)).latents  # neither quantised nor scaled
        x = noised_by_hand(kandinsky.components["scheduler"], clean, name, 500)
        nothing = (
            kandinsky.components["prior"].images_only.image_encoder(torch.zeros(1, 3, 24, 24)).image_embeds
        )
        for conditioning, embedding in (
            ("label", embedding_by_hand(kandinsky_folder / "prior", "thing 3")),
            ("none", nothing),
        ):
            time = unet.time_embedding(unet.time_proj(torch.tensor([500]))) + unet.add_embedding(embedding)
            for block, maps in stages_by_hand(unet, x, time, unet.encoder_hid_proj(embedding)).items():
                assert_same(store[block, 0.5, conditioning][3], maps.mean(dim=(2, 3))[0])


def test_the_priors_noise_hangs_on_the_prompt_alone(kandinsky, kandinsky_folder):
    first = kandinsky.texts(["a cat", "a dog"])["image_embedding"]
    torch.manual_seed(5)
    again = lk.load_model(kandinsky_folder, device="cpu")
    second = again.texts(["x", "a dog", "a cat"])["image_embedding"]
    assert torch.equal(first[0], second[2])
    assert torch.equal(first[1], second[1])
    assert not torch.allclose(first[0], first[1], atol=1e-3)


def test_the_pictures_own_embedding_is_a_control_that_must_be_asked_for(kandinsky, stimuli):
    from transformers import CLIPImageProcessorPil

    opened = [stimuli.open(name) for name in stimuli.names[:3]]
    text = kandinsky.text_of_pictures(opened)
    processor = CLIPImageProcessorPil(size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24})
    values = processor(opened, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        expected = kandinsky.components["prior"].images_only.image_encoder(values).image_embeds
    assert_same(text["image_embedding"], expected)
    level = kandinsky.level(0.5)
    latents = kandinsky.encode(opened)
    seen = kandinsky.watch(latents, level, text, ["mid_block"]).seen["mid_block"]
    other = kandinsky.watch(latents, level, kandinsky.texts([None] * 3), ["mid_block"]).seen["mid_block"]
    assert not torch.allclose(seen, other, atol=1e-3)


def test_without_words_the_image_encoder_alone_is_loaded(kandinsky_folder):
    model = lk.load_model(kandinsky_folder, device="cpu")
    prior = model.components["prior"]
    assert "images_only" not in vars(prior)
    model.text(None)
    assert "pipeline" not in vars(prior)
    networks = [one for one in prior.images_only.components.values() if isinstance(one, torch.nn.Module)]
    assert networks == [prior.images_only.image_encoder]


def test_a_combined_pipeline_brings_its_own_prior(tmp_path, kandinsky):
    model = lk.load_model(save_tiny_combined(tmp_path), device="cpu")
    for prompt in (None, "", "a cat"):
        assert_same(model.text(prompt)["image_embedding"], kandinsky.text(prompt)["image_embedding"])
    opened_image = [Image.linear_gradient("L").convert("RGB")]
    assert_same(
        model.text_of_pictures(opened_image)["image_embedding"],
        kandinsky.text_of_pictures(opened_image)["image_embedding"],
    )


def test_a_prior_is_found_by_the_card_and_by_the_registry(tmp_path, monkeypatch, kandinsky):
    folder = save_tiny_kandinsky(tmp_path / "k")
    prior = save_tiny_prior(tmp_path / "k" / "sibling")
    (folder / "README.md").write_text("---\nlicense: apache-2.0\nprior:\n- ../sibling\n---\n# A model\n")
    by_card = lk.load_model(folder, device="cpu")
    (folder / "README.md").unlink()
    own = tmp_path / "models.yaml"
    own.write_text(f"mine:\n  source: {folder}\n  prior: {prior}\n")
    monkeypatch.setenv("LDM_KIT_MODELS", str(own))
    by_registry = lk.load_model("mine", device="cpu")
    for model in (by_card, by_registry):
        assert_same(model.text("a cat")["image_embedding"], kandinsky.text("a cat")["image_embedding"])
        assert model.preprocessing["prior"].startswith("sha256:")
    other = save_tiny_prior(tmp_path / "other" / "prior", seed=9)
    own.write_text(f"mine:\n  source: {folder}\n  prior: {other}\n")
    assert lk.load_model("mine", device="cpu").preprocessing != by_registry.preprocessing


@pytest.mark.parametrize(
    "head", ["", "no head", "---\nprior: [\n---\n", "---\n- a\n---\n", "---\nprior: []\n---\n"]
)
def test_a_card_that_names_no_prior(tmp_path, head):
    (tmp_path / "README.md").write_text(head)
    assert named_in_card(tmp_path / "README.md") is None


def test_without_a_prior_words_are_an_error_that_says_where_it_goes(tmp_path):
    model = lk.load_model(save_tiny_kandinsky(tmp_path), device="cpu")
    assert model.select_blocks() == STAGES
    for ask in (lambda: model.text("a cat"), lambda: model.text(None), lambda: model.text_of_pictures([])):
        with pytest.raises(ModelNotFoundError, match="came without a prior.*LDM_KIT_MODELS.*'prior'"):
            ask()


def test_a_damaged_prior_is_an_error(tmp_path):
    folder = save_tiny_kandinsky(tmp_path)
    save_tiny_prior(folder / "prior")
    next((folder / "prior" / "prior").glob("*.safetensors")).unlink()
    model = lk.load_model(folder, device="cpu")
    with pytest.raises(ModelNotFoundError, match="could not be loaded"):
        model.text("a cat")


def test_the_movq_decodes_what_it_encoded(kandinsky):
    from diffusers.image_processor import VaeImageProcessor

    latents = kandinsky.encode([Image.linear_gradient("L").convert("RGB")])
    with torch.no_grad():
        decoded = kandinsky.components["movq"].decode(latents, force_not_quantize=True).sample
    theirs = VaeImageProcessor().postprocess(decoded, "np")[0]
    assert np.abs(np.asarray(kandinsky.decode(latents)[0]) / 255 - theirs).max() <= 0.5 / 255 + 1e-6
    with pytest.raises(BadInputError, match="VQModel, has none.*Leave out `posterior`"):
        kandinsky.encode([Image.new("RGB", (32, 32))], posterior=latents)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("KandinskyV22PriorPipeline", "a prior alone"),
        ("IFSuperResolutionPipeline", "later stage.*deepfloyd-if"),
    ],
)
def test_pipelines_that_cannot_be_opened_say_why(tmp_path, name, message):
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": name}))
    with pytest.raises(BadInputError, match=message):
        lk.load_model(tmp_path)


# DeepFloyd IF -----------------------------------------------------------------------------------------


def test_deepfloyd_equals_a_forward_pass_by_hand(deepfloyd, if_folder, stimuli):
    from diffusers import IFPipeline

    store = lk.extract(
        deepfloyd,
        stimuli,
        noise_levels=[0.3],
        conditionings=["none", "label"],
        template=" A {name} ",
        progress=False,
    )
    assert list(store.blocks) == STAGES
    pipeline = IFPipeline.from_pretrained(if_folder, watermarker=None)
    unet, name = pipeline.unet, stimuli.names[3]
    clean = pixels_of(stimuli, name, 16)
    x = noised_by_hand(pipeline.scheduler, clean, name, 300)
    for conditioning, prompt in (("label", " A thing 3 "), ("none", "")):
        with torch.no_grad():
            sequence, _ = pipeline.encode_prompt(prompt, do_classifier_free_guidance=False)
            time = unet.time_embedding(unet.time_proj(torch.tensor([300]))) + unet.add_embedding(sequence)
            for block, maps in stages_by_hand(unet, x, time, unet.encoder_hid_proj(sequence)).items():
                assert_same(store[block, 0.3, conditioning][3], maps.mean(dim=(2, 3))[0])


def test_deepfloyd_has_no_vae(deepfloyd, if_folder, stimuli):
    assert deepfloyd.latent_shape == (3, 16, 16)
    opened_image = stimuli.open(stimuli.names[0])
    latents = deepfloyd.encode([opened_image])
    assert_same(latents, pixels_of(stimuli, stimuli.names[0], 16))
    assert np.array_equal(deepfloyd.decode(latents)[0], deepfloyd.preprocess(opened_image))
    with pytest.raises(BadInputError, match="works on pixels.*Use 'pixels'"):
        lk.load_model(f"latent:{if_folder}")


def test_a_later_stage_of_deepfloyd_is_refused(tmp_path):
    model = lk.load_model(save_tiny_if(tmp_path, in_channels=6), device="cpu")
    with pytest.raises(BadInputError, match="later stage"):
        model.blocks()


# No prompt ----------------------------------------------------------------------------------------------


def inputs_of_the_denoiser(model, stimuli, conditioning):
    """What extraction gives the denoiser, for one image, and what the store records of it."""
    calls = []
    hook = model.denoiser.register_forward_pre_hook(lambda m, a, k: calls.append(k), with_kwargs=True)
    store = lk.extract(model, stimuli[:1], noise_levels=[0.3], conditionings=conditioning, progress=False)
    hook.remove()
    (inputs,) = calls
    return inputs, store.prompts(conditioning)[0]


def test_kandinskys_none_is_its_priors_negative_embedding_and_empty_an_empty_prompts(
    kandinsky, kandinsky_folder, stimuli
):
    from diffusers import KandinskyV22PriorPipeline

    pipeline = KandinskyV22PriorPipeline.from_pretrained(kandinsky_folder / "prior")
    with torch.no_grad():
        theirs = pipeline("a cat", num_inference_steps=2).negative_image_embeds
        empty = embedding_by_hand(kandinsky_folder / "prior", "")
    inputs, recorded = inputs_of_the_denoiser(kandinsky, stimuli, "none")
    assert_same(inputs["added_cond_kwargs"]["image_embeds"], theirs)
    assert recorded == "(embedding of an image of zeros)"
    inputs, recorded = inputs_of_the_denoiser(kandinsky, stimuli, "empty")
    assert_same(inputs["added_cond_kwargs"]["image_embeds"], empty)
    assert recorded == ""


def test_deepfloyds_none_is_what_its_pipeline_takes_for_guidance(deepfloyd, if_folder, stimuli):
    from diffusers import IFPipeline

    pipeline = IFPipeline.from_pretrained(if_folder, watermarker=None)
    with torch.no_grad():
        _, theirs = pipeline.encode_prompt("a cat", do_classifier_free_guidance=True)
    for conditioning in ("none", "empty"):
        inputs, recorded = inputs_of_the_denoiser(deepfloyd, stimuli, conditioning)
        assert_same(inputs["encoder_hidden_states"], theirs)
        assert recorded == ""


# Several ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["kandinsky", "deepfloyd"])
def test_the_variance_is_dropped_and_the_estimate_inverts_the_noise(which, request):
    model = request.getfixturevalue(which)
    clean, noise = torch.randn(2, *model.latent_shape), torch.randn(2, *model.latent_shape)
    level = model.level(0.4)
    noised = model.add_noise(clean, noise, level)
    assert model.denoise(noised, level, model.texts(["", "a cat"])).shape == clean.shape
    torch.testing.assert_close(model.clean_estimate(noised, noise, level), clean, rtol=1e-3, atol=1e-3)
    theirs = model.components["scheduler"].add_noise(clean, noise, torch.tensor([400, 400]))
    torch.testing.assert_close(noised, theirs)


@pytest.mark.parametrize("which", ["kandinsky", "deepfloyd"])
def test_the_batch_size_changes_nothing(which, request, stimuli):
    model = request.getfixturevalue(which)
    one, seven = (
        lk.extract(
            model,
            stimuli,
            noise_levels=[0.2],
            conditionings="label",
            template="{name}",
            batch_size=size,
            progress=False,
        )
        for size in (1, 7)
    )
    for key in one.cells():
        assert_same(seven[key], one[key])
        assert len(np.unique(one[key].round(4), axis=0)) == len(stimuli)


@pytest.mark.parametrize("which", ["kandinsky", "deepfloyd"])
def test_a_pass_stops_at_the_deepest_block_that_is_asked_for(which, request):
    model = request.getfixturevalue(which)
    calls: list[str] = []
    hooks = [
        model.denoiser.get_submodule(name).register_forward_hook(
            lambda m, i, o, name=name: calls.append(name)
        )
        for name in STAGES
    ]
    model.watch(torch.zeros(1, *model.latent_shape), model.level(0.5), model.texts([""]), ["down_blocks.1"])
    for hook in hooks:
        hook.remove()
    assert calls == ["down_blocks.0", "down_blocks.1"]


@pytest.mark.parametrize("which", ["kandinsky", "if"])
def test_an_untrained_denoiser_needs_no_weights(which, tmp_path):
    folder = {"kandinsky": save_tiny_kandinsky, "if": save_tiny_if}[which](tmp_path)
    trained = lk.load_model(folder, device="cpu")
    next((folder / "unet").glob("*.safetensors")).unlink()
    a, b, c = (lk.load_model(f"untrained:{folder}", device="cpu", seed=seed) for seed in (1, 1, 2))
    weights = [model.denoiser.state_dict()["conv_in.weight"] for model in (a, b, c, trained)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert not torch.equal(weights[0], weights[3])
    assert a.identity.model == "model-untrained"


def test_latent_and_text_of_these_families(kandinsky, kandinsky_folder, deepfloyd, if_folder, stimuli):
    opened = [stimuli.open(name) for name in stimuli.names[:2]]
    latent = lk.load_model(f"latent:{kandinsky_folder}", device="cpu")
    store = lk.extract(latent, stimuli[:2], noise_levels=[0.0], pooling="none", progress=False)
    assert_same(store["latent", 0.0, "none"], kandinsky.encode(opened))
    # T5 reads both ways: its padding must not show
    text = lk.load_model(f"text:{if_folder}", device="cpu")
    padded = deepfloyd.text("a cat")["sequence"][0]
    length = len(text.components["tokenizer"]("a cat").input_ids)
    assert_same(text.text("a cat")["mean"][0], padded[:length].mean(0))
    assert_same(text.text("a cat")["last_token"][0], padded[length - 1])


def test_nothing_opens_a_socket(monkeypatch, kandinsky_folder, if_folder):
    def refuse(*args, **kwargs):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("LDM_KIT_OFFLINE", "1")
    for folder in (kandinsky_folder, if_folder):
        model = lk.load_model(folder, device="cpu")
        assert model.texts(["", "a cat"])
    for name in ("kandinsky-2.2", "deepfloyd-if"):
        with pytest.raises(ModelNotFoundError, match="the offline switch is on"):
            lk.load_model(name)


def test_a_prior_from_the_hub_is_not_fetched_offline(monkeypatch, tmp_path):
    def refuse(*args, **kwargs):
        raise AssertionError("a socket was opened")

    folder = save_tiny_kandinsky(tmp_path)
    (folder / "README.md").write_text("---\nprior:\n- kandinsky-community/kandinsky-2-2-prior\n---\n")
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with pytest.raises(ModelNotFoundError, match="kandinsky-2-2-prior.*the offline switch is on"):
        lk.load_model(folder, device="cpu", offline=True)
