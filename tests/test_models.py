"""Opening models: what is loaded, which blocks there are, and the errors."""

from __future__ import annotations

import json
import os
import re
import socket
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import save_tiny_stable_diffusion

import ldm_kit as lk
from ldm_kit.errors import BadInputError, ModelNotFoundError, UnknownNameError
from ldm_kit.features.conditioning import prompts_for, shuffled_concepts
from ldm_kit.models import blocks, hub
from ldm_kit.models.blocks import image_output, pool, watching
from ldm_kit.models.noise import draw_noise, variance_preserving_level


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_stable_diffusion(tmp_path_factory.mktemp("sd"))


@pytest.fixture(scope="module")
def model(folder):
    return lk.load_model(folder, device="cpu")


def test_importing_the_kit_imports_no_torch():
    import subprocess

    code = "import sys, ldm_kit; sys.exit('torch' in sys.modules or 'pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_public_name_resolves():
    for name in lk.__all__:
        assert getattr(lk, name) is not None


def test_identity_names_the_folder_and_its_weights(model, folder, tmp_path):
    assert model.identity.model == "model"
    assert model.identity.dtype == "float32"
    other = lk.load_model(save_tiny_stable_diffusion(tmp_path, seed=1), device="cpu")
    assert other.identity.revision != model.identity.revision


def test_blocks_come_in_network_order_with_shapes(model):
    table = model.blocks().query("stage")
    assert list(table["block"]) == [
        "down_blocks.0",
        "down_blocks.1",
        "mid_block",
        "up_blocks.0",
        "up_blocks.1",
    ]
    assert list(table["kind"]) == ["down", "down", "mid", "up", "up"]
    assert list(table["shape"]) == [(16, 4, 4), (32, 4, 4), (32, 4, 4), (32, 8, 8), (16, 8, 8)]
    assert model.blocks()["depth"].is_monotonic_increasing
    mid = table.set_index("block").loc["mid_block", "parameters"]
    assert mid == sum(p.numel() for p in model.denoiser.mid_block.parameters())


@pytest.mark.parametrize(
    ("wanted", "blocks"),
    [
        (None, ["down_blocks.0", "down_blocks.1", "mid_block", "up_blocks.0", "up_blocks.1"]),
        ("mid_block", ["mid_block"]),
        (["up_blocks.*", "mid_block"], ["mid_block", "up_blocks.0", "up_blocks.1"]),
        ("*.resnets.1", ["mid_block.resnets.1", "up_blocks.0.resnets.1", "up_blocks.1.resnets.1"]),
        ("up", ["up_blocks.0", "up_blocks.1"]),
    ],
)
def test_blocks_are_chosen_by_path_pattern_or_kind(model, wanted, blocks):
    assert model.select_blocks(wanted) == blocks


@pytest.mark.parametrize("wanted", ["mid_blok", ["mid_block", "up_blocks.7"], "nothing.*"])
def test_a_block_that_matches_nothing_is_an_error(model, wanted):
    with pytest.raises(UnknownNameError, match=r"Unknown block .* Did you mean .*model\.blocks\(\)"):
        model.select_blocks(wanted)


def test_an_undeclared_output_is_an_error_that_shows_the_shapes():
    with pytest.raises(BadInputError, match=r"Linear, whose output is not declared. It returned \(2, 3\)"):
        image_output(torch.nn.Linear(1, 3), torch.zeros(2, 3), "x")


def test_a_blocks_output_can_be_declared(monkeypatch):
    class Doubled(torch.nn.Module):
        def forward(self, tokens):
            return tokens, 2 * tokens

    monkeypatch.setattr(blocks, "_LAYOUTS", dict(blocks._LAYOUTS))
    net, tokens = torch.nn.Sequential(Doubled()), torch.ones(2, 5, 3)
    with pytest.raises(BadInputError, match=r"register_output_layout\('Doubled'"), watching(net, ["0"]):
        net(tokens)
    lk.models.register_output_layout("Doubled", "tokens", element=1, prefix=2)
    with watching(net, ["0"]) as watch:
        net(tokens)
    assert torch.equal(watch.seen["0"], torch.full((2, 3, 3), 2.0))
    lk.models.register_output_layout("Doubled", "map", element=1)
    with pytest.raises(BadInputError, match=r"not the map that is declared"), watching(net, ["0"]):
        net(tokens)
    with pytest.raises(UnknownNameError, match="Did you mean 'tokens'"):
        lk.models.register_output_layout("Doubled", "token")
    for wrong in ({"element": -1}, {"prefix": 1.5}):
        with pytest.raises(BadInputError, match="give a whole number from 0"):
            lk.models.register_output_layout("Doubled", "tokens", **wrong)


def test_pooling_is_over_both_spatial_axes():
    maps = torch.arange(2 * 3 * 4 * 5, dtype=torch.float32).reshape(2, 3, 4, 5)
    expected = [[maps[n, c].sum().item() / 20 for c in range(3)] for n in range(2)]
    np.testing.assert_allclose(pool(maps, "map", "mean"), expected)
    np.testing.assert_allclose(pool(maps.flatten(2).transpose(1, 2), "tokens", "mean"), expected)
    assert pool(maps, "map", "max")[1, 2] == maps[1, 2].max()


def test_watching_stops_after_the_deepest_block_and_removes_its_hooks(model):
    calls: list[str] = []
    counters = [
        module.register_forward_hook(lambda m, i, o, name=name: calls.append(name))
        for name, module in model.denoiser.named_modules()
        if name in ("down_blocks.0", "down_blocks.1", "mid_block", "up_blocks.1")
    ]
    before = sum(len(m._forward_hooks) for m in model.denoiser.modules())
    noised = torch.zeros(1, *model.latent_shape)
    model.watch(noised, model.level(0.5), model.texts([""]), ["down_blocks.0", "down_blocks.1"])
    assert calls == ["down_blocks.0", "down_blocks.1"]  # neither the middle nor the way up
    with pytest.raises(RuntimeError, match="shape|size|channels"), watching(model.denoiser, ["mid_block"]):
        model.denoiser(torch.zeros(1, 3, 8, 8), 1, torch.zeros(1, 8, 16))
    assert sum(len(m._forward_hooks) for m in model.denoiser.modules()) == before
    for counter in counters:
        counter.remove()


def test_levels_follow_the_schedule(model):
    alphas = model.components["scheduler"].alphas_cumprod.double().numpy()
    for level in (0, 0.001, 0.3, 0.9996, 1):
        placed = model.level(level)
        assert placed.timestep == min(999, round(level * 1000))
        assert placed.signal**2 + placed.noise**2 == pytest.approx(1)
        assert placed.sigma == pytest.approx(np.sqrt(1 / alphas[placed.timestep] - 1))
    with pytest.raises(BadInputError, match="outside 0 to 1"):
        variance_preserving_level(1.2, alphas)
    with pytest.raises(BadInputError, match="not a number"):
        variance_preserving_level("0.3", alphas)


def test_add_noise_is_that_of_diffusers(model):
    latents, noise = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    level = model.level(0.4)
    theirs = model.components["scheduler"].add_noise(latents, noise, torch.tensor([400, 400]))
    torch.testing.assert_close(model.add_noise(latents, noise, level), theirs)


def test_euler_sees_the_same_input():
    from diffusers import EulerDiscreteScheduler

    euler = EulerDiscreteScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    euler.set_timesteps(1000)
    latents, noise = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8)
    for timestep in (10, 400, 990):
        at = torch.tensor([float(timestep)])
        theirs = euler.scale_model_input(euler.add_noise(latents, noise, at), at[0])
        euler._step_index = None
        level = variance_preserving_level(timestep / 1000, euler.alphas_cumprod.double().numpy())
        torch.testing.assert_close(level.signal * latents + level.noise * noise, theirs, rtol=1e-4, atol=1e-4)


def test_noise_depends_on_seed_draw_and_name_alone():
    a = draw_noise("apple.png", (4, 16, 16))
    assert a.dtype == np.float32
    np.testing.assert_array_equal(a, draw_noise("apple.png", (4, 16, 16)))
    for other in (
        draw_noise("apple.pnh", (4, 16, 16)),
        draw_noise("apple.png", (4, 16, 16), seed=1),
        draw_noise("apple.png", (4, 16, 16), draw=1),
    ):
        assert abs(np.corrcoef(a.ravel(), other.ravel())[0, 1]) < 0.1
    many = np.stack([draw_noise(str(i), (4, 16, 16)) for i in range(200)])
    assert abs(many.mean()) < 0.01
    assert many.std() == pytest.approx(1, abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_the_clean_estimate_inverts_a_perfect_prediction(tmp_path, kind):
    model = lk.load_model(save_tiny_stable_diffusion(tmp_path, prediction_type=kind), device="cpu")
    clean, noise, level = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8), model.level(0.6)
    noised = model.add_noise(clean, noise, level)
    target = {"epsilon": noise, "sample": clean}.get(
        kind, model.components["scheduler"].get_velocity(clean, noise, torch.tensor([600]))
    )
    torch.testing.assert_close(model.clean_estimate(noised, target, level), clean, rtol=1e-3, atol=1e-3)


@pytest.fixture(scope="module")
def distilled(tmp_path_factory):
    """A Stable Diffusion whose autoencoder is a distilled one, with six latent channels and a scale of its own."""
    from diffusers import AutoencoderTiny

    torch.manual_seed(1)  # not that of the untrained control
    sizes = {f"{half}_block_out_channels": (8, 8, 8) for half in ("encoder", "decoder")}
    layers = {f"num_{half}_blocks": (1, 1, 1) for half in ("encoder", "decoder")}
    vae = AutoencoderTiny(**sizes, **layers, latent_channels=6, scaling_factor=0.7)
    return save_tiny_stable_diffusion(tmp_path_factory.mktemp("distilled"), vae=vae)


def test_a_distilled_autoencoder_gives_the_latents_of_diffusers_own_pipeline(distilled):
    from diffusers import StableDiffusionImg2ImgPipeline

    model, control = (lk.load_model(f"{kind}{distilled}", device="cpu") for kind in ("", "latent:"))
    pipe = StableDiffusionImg2ImgPipeline.from_pretrained(distilled, safety_checker=None)
    assert model.latent_shape == (6, 8, 8)
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8))
    latent = model.encode([image])
    level = model.level(0.3)
    with torch.no_grad():
        clean = (
            pipe.vae.encode(pipe.image_processor.preprocess(image)).latents * pipe.vae.config.scaling_factor
        )
        noised = pipe.scheduler.add_noise(clean, model.noise(["a.png"]), torch.tensor([300]))
        theirs = pipe.image_processor.postprocess(pipe.vae.decode(noised / 0.7).sample)[0]
    torch.testing.assert_close(latent, clean)
    torch.testing.assert_close(model.add_noise(latent, model.noise(["a.png"]), level), noised)
    (view,) = lk.features.looks_at(model, image, "a.png", [0.3], "mid_block")
    # one step of 255 where rounding falls the other way
    assert np.abs(np.asarray(view.noised, int) - np.asarray(theirs, int)).max() <= 1
    assert np.ptp(np.asarray(view.estimate)) > 0
    assert torch.equal(control.encode([image]), latent)
    assert np.array_equal(control.decode(latent)[0], model.decode(latent)[0])
    assert model.preprocessing == control.preprocessing
    untrained = lk.load_model(f"untrained:latent:{distilled}", device="cpu").encode([image])
    assert untrained.shape == latent.shape
    assert not torch.equal(untrained, latent)


@pytest.mark.parametrize("requested", ["", "latent:"])
def test_a_distilled_autoencoder_has_no_posterior_to_sample(distilled, requested):
    model = lk.load_model(f"{requested}{distilled}", device="cpu")
    with pytest.raises(BadInputError, match="AutoencoderTiny, has none.*Leave out `posterior`"):
        model.encode([Image.new("RGB", (32, 32))], posterior=torch.zeros(1, 6, 8, 8))
    stimuli = lk.load_dataset("emoji").stimuli[:1]
    with pytest.raises(BadInputError, match="no autoencoder with a posterior to sample.*'mean'"):
        lk.extract(model, stimuli, noise_levels=[0.0], posterior="sample", progress=False)


def test_shuffled_labels_are_a_derangement_that_subsets_keep():
    concepts = [f"c{i}" for i in range(50)]
    partner = shuffled_concepts(concepts, seed=3)
    assert sorted(partner.values()) == sorted(concepts)
    assert all(key != value for key, value in partner.items())
    stimuli = lk.Stimuli(tuple(f"{c}.png" for c in concepts))
    whole = dict(zip(stimuli.names, prompts_for("shuffled", stimuli, seed=3), strict=True))
    part = stimuli[[7, 3]]
    assert prompts_for("shuffled", part, seed=3) == [whole[name] for name in part.names]


def test_none_and_empty_are_both_the_encoded_empty_prompt_as_in_diffusers_guidance(model, folder):
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    with torch.no_grad():
        _, theirs = pipe.encode_prompt("a cat", "cpu", 1, True)
    for prompt in (None, ""):
        torch.testing.assert_close(model.text(prompt)["sequence"], theirs)
    assert model.unconditional == ""


def test_prompts_say_what_they_should():
    stimuli = lk.Stimuli(("ice_cream.png",), captions=("a cone",), labels=("ice cream",))
    assert prompts_for("none", stimuli) == prompts_for("empty", stimuli) == [""]
    assert prompts_for("label", stimuli) == ["a photo of a ice cream"]
    assert prompts_for("label", stimuli, template="{name}!") == ["ice cream!"]
    assert prompts_for("caption", stimuli) == ["a cone"]
    with pytest.raises(BadInputError, match=r"no \{name\}"):
        prompts_for("label", stimuli, template="a photo")
    with pytest.raises(UnknownNameError, match="Did you mean 'caption'"):
        prompts_for("captions", stimuli)
    with pytest.raises(BadInputError, match="no caption, the first is 'a.png'"):
        prompts_for("caption", lk.Stimuli(("a.png",)))


def test_untrained_control_is_seeded_and_random(folder, model):
    a = lk.load_model(folder, device="cpu", pretrained=False, seed=1)
    b = lk.load_model(folder, device="cpu", pretrained=False, seed=1)
    weight = "conv_in.weight"
    assert torch.equal(a.denoiser.state_dict()[weight], b.denoiser.state_dict()[weight])
    assert not torch.equal(a.denoiser.state_dict()[weight], model.denoiser.state_dict()[weight])
    assert a.identity.model == "model-untrained"


def test_unknown_and_missing_models_say_what_to_do(tmp_path, folder):
    with pytest.raises(UnknownNameError, match="Did you mean 'tiny-ldm'.*hub id"):
        lk.load_model("tiny-ldn")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ModelNotFoundError, match=r"no model_index\.json.*save_pretrained"):
        lk.load_model(empty)
    (empty / "model_index.json").write_text("{not json")
    with pytest.raises(ModelNotFoundError, match="damaged"):
        lk.load_model(empty)
    (empty / "model_index.json").write_text(json.dumps({"_class_name": "EvilPipeline"}))
    with pytest.raises(UnknownNameError, match="pipeline class 'EvilPipeline'"):
        lk.load_model(empty)
    (empty / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline", "vae": []}))
    with pytest.raises(ModelNotFoundError, match="lacks vae, text_encoder, tokenizer, unet, scheduler"):
        lk.load_model(empty)
    with pytest.raises(UnknownNameError, match="dtype 'float23'.*float32"):
        lk.load_model(folder, dtype="float23")
    with pytest.raises(BadInputError, match="Device 'warp9'"):
        lk.load_model(folder, device="warp9")


def test_options_that_would_be_ignored_are_errors(folder):
    with pytest.raises(BadInputError, match="revision='abc'.*on this machine.*Leave out"):
        lk.load_model(folder, revision="abc")
    with pytest.raises(BadInputError, match="revision='abc'.*'pixels' is on this machine"):
        lk.load_model("pixels", revision="abc")
    with pytest.raises(BadInputError, match="drop=.*'vae'.*one component"):
        lk.load_model(f"latent:{folder}", drop="vae")


def test_a_model_with_a_missing_weight_file_is_an_error(tmp_path):
    folder = save_tiny_stable_diffusion(tmp_path)
    next((folder / "unet").glob("*.safetensors")).unlink()
    with pytest.raises(ModelNotFoundError, match="could not be loaded.*safetensors"):
        lk.load_model(folder)


def test_pickled_weights_are_refused(tmp_path):
    folder = save_tiny_stable_diffusion(tmp_path)
    weights = next((folder / "unet").glob("*.safetensors"))
    torch.save({}, weights.with_name("diffusion_pytorch_model.bin"))
    weights.unlink()
    with pytest.raises(ModelNotFoundError, match="safetensors"):
        lk.load_model(folder)


def test_offline_opens_no_socket(monkeypatch, folder):
    def refuse(*args, **kwargs):
        raise AssertionError("a socket was opened")

    monkeypatch.setenv("LDM_KIT_OFFLINE", "1")
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert lk.load_model(folder, device="cpu").latent_shape == (4, 8, 8)
    with pytest.raises(
        ModelNotFoundError, match="the offline switch is on.*hf download stabilityai/sd-turbo"
    ):
        lk.load_model("sd-turbo")


def test_the_table_of_models_can_be_edited(monkeypatch, tmp_path, folder):
    own = tmp_path / "models.yaml"
    own.write_text(f"sd1.5:\n  source: {folder}\n")
    monkeypatch.setenv("LDM_KIT_MODELS", str(own))
    model = lk.load_model("sd1.5", device="cpu")
    assert (model.identity.model, model.identity.source) == ("sd1.5", "model")
    own.write_text("mine:\n  sauce: x\n")
    with pytest.raises(BadInputError, match="row 'mine'"):
        lk.load_model("mine")


# Identity ---------------------------------------------------------------------------------------------


@pytest.fixture
def large(tmp_path, monkeypatch):
    """A folder with one weight file that is large enough to be remembered, and the memory's own place."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(hub, "SMALL", 1000)
    weights = tmp_path / "model" / "unet" / "diffusion_pytorch_model.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(bytes(range(256)) * 16_384)  # 4 MiB
    os.utime(weights, (1_000_000_000, 1_000_000_000))
    (tmp_path / "model" / "model_index.json").write_text("{}")
    return weights


def reads(monkeypatch):
    """Note which files are hashed."""
    hashed, really = [], hub.hashlib.file_digest

    def noting(file, name):
        hashed.append(Path(file.name).name)
        return really(file, name)

    monkeypatch.setattr(hub.hashlib, "file_digest", noting)
    return hashed


@pytest.mark.parametrize("name", ["model.safetensors", "merges.txt", "bpe.codes", "source.spm", "t.tiktoken"])
def test_a_byte_in_the_middle_of_a_file_is_another_model(large, name):
    path = large.with_name(name)
    path.write_bytes(large.read_bytes())
    before = hub.folder_digest(large.parents[1])
    with path.open("r+b") as file:
        file.seek(2 << 20)
        file.write(b"other")
    assert hub.folder_digest(large.parents[1]) != before


def test_a_component_that_is_a_link_counts(large, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "model.safetensors").write_bytes(b"one")
    (large.parents[1] / "vae").symlink_to(elsewhere, target_is_directory=True)
    (elsewhere / "back").symlink_to(large.parents[1], target_is_directory=True)  # no end of walking
    before = hub.folder_digest(large.parents[1])
    (elsewhere / "model.safetensors").write_bytes(b"two")
    assert hub.folder_digest(large.parents[1]) != before


def test_a_large_file_is_hashed_once_and_again_when_it_was_replaced(large, monkeypatch):
    hashed = reads(monkeypatch)
    first = hub.folder_digest(large.parents[1])
    assert large.name in hashed
    hashed.clear()
    assert hub.folder_digest(large.parents[1]) == first
    assert hashed == ["model_index.json"]  # what is small is read anyway
    # Replaced by a tool that keeps size and time, as `cp -p` does.
    other = bytes(reversed(large.read_bytes()))
    large.write_bytes(other)
    os.utime(large, (1_000_000_000, 1_000_000_000))
    assert hub.folder_digest(large.parents[1]) != first
    # A file written a moment ago may be written again within the clock's tick: it is not remembered.
    os.utime(large)
    hub.folder_digest(large.parents[1])
    hashed.clear()
    hub.folder_digest(large.parents[1])
    assert large.name in hashed


@pytest.mark.parametrize(
    "damage", ["{", "[]", '{"%s": 1}', '{"%s": [4194304, 1, 2, 3, "x"]}', b"\xff\xfe", None]
)
def test_a_damaged_memory_is_not_believed(large, damage, tmp_path, monkeypatch):
    right = hub.folder_digest(large.parents[1])
    (memory,) = (tmp_path / "cache").rglob("*.json")
    if damage is None:
        memory.unlink()
        memory.mkdir()  # cannot be read, nor written
    elif isinstance(damage, bytes):
        memory.write_bytes(damage)
    else:
        memory.write_text(damage.replace("%s", str(large.resolve())))
    hashed = reads(monkeypatch)
    assert hub.folder_digest(large.parents[1]) == right
    assert large.name in hashed


def test_a_memory_that_cannot_be_written_costs_only_time(large, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert hub.folder_digest(large.parents[1]) == hub.folder_digest(large.parents[1])


def test_a_file_that_cannot_be_read_is_named(large, monkeypatch):
    def refuse(file, name):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(hub.hashlib, "file_digest", refuse)
    with pytest.raises(ModelNotFoundError, match=r"'.*model_index\.json'.*Input/output error"):
        hub.folder_digest(large.parents[1])


# What a user sees -------------------------------------------------------------------------------------


def test_a_model_is_shown_in_ten_lines(model, folder):
    shown = repr(model)
    assert len(shown.splitlines()) <= 10
    total = sum(
        parameter.numel()
        for part in ("unet", "vae", "text_encoder")
        for parameter in model.components[part].parameters()
    )
    for line in (
        "StableDiffusion",
        "source: model (sha256:",
        f"{total:,} parameters",
        "float32 on cpu",
        "stages: 2 down, 1 mid, 2 up",
    ):
        assert line in shown
    assert str(model) == shown


@pytest.mark.parametrize("prefix", ["latent:", "text:", "untrained:"])
def test_an_encoder_is_shown_in_ten_lines(prefix, folder):
    shown = repr(lk.load_model(f"{prefix}{folder}", device="cpu"))
    assert len(shown.splitlines()) <= 10 and "float32 on cpu" in shown and "stages: " in shown


def test_a_model_that_cannot_be_looked_into_is_shown_all_the_same(model):
    odd = replace(model, components={**model.components, "scheduler": None})
    assert "stages: The scheduler NoneType has no" in repr(odd)
    assert "0 parameters" in repr(lk.load_model("pixels:8"))


def progress_bars():
    import diffusers.utils.logging
    import transformers.utils.logging

    return diffusers.utils.logging, transformers.utils.logging


@pytest.fixture
def libraries():
    """Both libraries' logging, left as it was."""
    both = progress_bars()
    were = [(one.get_verbosity(), one.is_progress_bar_enabled()) for one in both]
    yield both
    for one, (verbosity, enabled) in zip(both, were, strict=True):
        one.set_verbosity(verbosity)
        (one.enable_progress_bar if enabled else one.disable_progress_bar)()


def state_of(both):
    return [(one.get_verbosity(), one.is_progress_bar_enabled()) for one in both]


@pytest.mark.parametrize("disabled", [(), (0,), (1,), (0, 1)])
@pytest.mark.parametrize("local", [True, False])
def test_loading_leaves_the_libraries_as_the_user_had_them(libraries, disabled, local):
    for i, one in enumerate(libraries):
        one.set_verbosity_info() if i else one.set_verbosity_debug()
        (one.disable_progress_bar if i in disabled else one.enable_progress_bar)()
    before = state_of(libraries)
    with pytest.raises(KeyError), hub.quiet(local):
        for i, one in enumerate(libraries):
            assert one.is_progress_bar_enabled() == (i not in disabled and not local)
        within = state_of(libraries)
        with hub.quiet(True):
            pass
        assert state_of(libraries) == within
        raise KeyError
    assert state_of(libraries) == before


def test_a_bar_that_the_user_disabled_stays_disabled_after_loading(libraries, folder):
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    for one in libraries:
        one.disable_progress_bar()
    disable_progress_bars()
    try:
        lk.load_model(folder, device="cpu")
        assert [one.is_progress_bar_enabled() for one in libraries] == [False, False]
        assert are_progress_bars_disabled()
    finally:
        enable_progress_bars()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"LDM_KIT_MODELS.*'{path}'.*No such file"),
        ("folder", r"LDM_KIT_MODELS.*'{path}'.*Is a directory"),
        (b"mine:\n  source: [x\n", r"LDM_KIT_MODELS.*'{path}'.*line 3"),
        (b"mine: {source: x}\nmine: {source: y}\n", r"LDM_KIT_MODELS.*'{path}'.*line 2.*'mine'.*twice"),
        (b"mine:\n  source: x\n\xff\n", r"LDM_KIT_MODELS.*'{path}'.*line 3.*UTF-8"),
        (b"- mine\n", r"LDM_KIT_MODELS.*'{path}'.*list.*name:"),
        (b"text\n", r"LDM_KIT_MODELS.*'{path}'.*str.*name:"),
        (b"\nmine: x\n", r"LDM_KIT_MODELS.*'{path}'.*row 'mine'.*source"),
        (b"a: {source: x}\nmine:\n", r"LDM_KIT_MODELS.*'{path}'.*row 'mine'.*source"),
        (
            b"mine:\n  sauce: x\n",
            r"LDM_KIT_MODELS.*'{path}'.*row 'mine'.*'sauce'.*Did you mean 'source'",
        ),
        (b"mine:\n  licence: x\n", r"LDM_KIT_MODELS.*'{path}'.*row 'mine'.*source"),
        (b"mine:\n  source: 5\n", r"LDM_KIT_MODELS.*'{path}'.*row 'mine'.*source.*5.*text"),
    ],
)
def test_a_table_of_models_that_cannot_be_used_says_where_and_why(content, message, tmp_path, monkeypatch):
    own = tmp_path / "models.yaml"
    if content == "folder":
        own.mkdir()
    elif content is not None:
        own.write_bytes(content)
    monkeypatch.setenv("LDM_KIT_MODELS", str(own))
    with pytest.raises(BadInputError, match="(?s)" + message.replace("{path}", re.escape(str(own)))):
        lk.load_model("tiny-ldm")
