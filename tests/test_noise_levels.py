"""Noise levels: the exact timesteps, the paper's, and that no scheduler remembers a call."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import diffusers
import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    EulerDiscreteScheduler,
    FluxTransformer2DModel,
    PixArtTransformer2DModel,
    PNDMScheduler,
    SD3Transformer2DModel,
    StableDiffusionImg2ImgPipeline,
    UNet2DConditionModel,
)
from tiny_families import save_tiny_sd3
from tiny_models import save_tiny_stable_diffusion

import ldm_kit as lk
from ldm_kit.errors import BadInputError, UnknownNameError
from ldm_kit.models.dit import Flux, PixArt
from ldm_kit.models.model import Identity
from ldm_kit.models.noise import clean_from_prediction, paper_timestep, variance_preserving_level
from ldm_kit.models.stable_diffusion import StableDiffusion3, StableDiffusionXL

BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
SCHEDULERS = {
    # as the repositories of Stable Diffusion 1.5, 2.1 and XL have them
    "PNDM": PNDMScheduler(**BETAS, skip_prk_steps=True, steps_offset=1),
    "DDIM": DDIMScheduler(**BETAS, steps_offset=1),
    "Euler": EulerDiscreteScheduler(**BETAS, steps_offset=1, timestep_spacing="leading"),
    "Euler, trailing": EulerDiscreteScheduler(**BETAS, timestep_spacing="trailing"),
    "Euler, linspace": EulerDiscreteScheduler(**BETAS, timestep_spacing="linspace"),
}
# int(100 * 0.29) is 28: the call itself takes a step less
TRUNCATED = (29, 57, 58)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return lk.load_model(save_tiny_stable_diffusion(tmp_path_factory.mktemp("sd")), device="cpu")


@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_papers_timestep_is_what_diffusers_img2img_starts_from(name):
    scheduler = SCHEDULERS[name]
    for percent in range(1, 101):
        own = copy.deepcopy(scheduler)
        own.set_timesteps(100)
        stand_in = SimpleNamespace(scheduler=own)
        theirs, _ = StableDiffusionImg2ImgPipeline.get_timesteps(stand_in, 100, percent / 100, "cpu")
        assert paper_timestep(percent / 100, scheduler) == float(theirs[0])


@pytest.mark.parametrize(
    ("name", "offset", "exceptions"),
    [("PNDM", 1, {99: 981, 100: 991}), ("DDIM", -9, {}), ("Euler", -9, {})],
)
def test_the_papers_timesteps_follow_the_papers_formula(name, offset, exceptions):
    for percent in range(1, 101):
        expected = exceptions.get(percent, 10 * (percent - (percent in TRUNCATED)) + offset)
        assert paper_timestep(percent / 100, SCHEDULERS[name]) == expected


def test_a_level_at_the_papers_timestep_is_that_timesteps(model):
    exact, paper = model.level(0.3), model.level(0.3, timesteps="linhardt2024")
    assert (exact.timestep, paper.timestep) == (300, 291)
    assert (exact.level, paper.level) == (0.3, 0.3)
    alpha = float(model.components["scheduler"].alphas_cumprod[291])
    assert paper.signal == pytest.approx(alpha**0.5)
    assert paper.noise == pytest.approx((1 - alpha) ** 0.5)
    assert paper.sigma == pytest.approx(((1 - alpha) / alpha) ** 0.5)
    assert model.level(0.1 + 0.2, timesteps="linhardt2024").timestep == 291  # 0.30000000000000004


def test_a_timestep_between_two_is_interpolated_as_euler_does():
    euler = copy.deepcopy(SCHEDULERS["Euler, linspace"])
    timestep = paper_timestep(0.37, euler)
    assert timestep != int(timestep)
    level = variance_preserving_level(0.37, euler.alphas_cumprod.double().numpy(), timestep)
    euler.set_timesteps(100)
    latents, noise = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8)
    at = euler.timesteps[63:64]
    theirs = euler.scale_model_input(euler.add_noise(latents, noise, at), at[0])
    torch.testing.assert_close(level.signal * latents + level.noise * noise, theirs, rtol=1e-4, atol=1e-4)


def test_no_scheduler_remembers_a_call(model):
    def state(scheduler):
        return {key: str(value) for key, value in vars(scheduler).items()}

    scheduler = model.components["scheduler"]
    before = state(scheduler)
    first = model.level(0.3)
    text, noised = model.texts([""]), torch.randn(1, *model.latent_shape)
    alone = model.denoise(noised, first, text)
    model.level(0.9, timesteps="linhardt2024")
    model.denoise(noised, model.level(0.1, timesteps="linhardt2024"), text)
    assert state(scheduler) == before
    assert model.level(0.3) == first
    assert torch.equal(model.denoise(noised, model.level(0.3), text), alone)
    for used in SCHEDULERS.values():
        was = state(used)
        paper_timestep(0.5, used)
        assert state(used) == was


@pytest.mark.parametrize("level", [0, 0.005, 0.123])
def test_the_papers_timesteps_want_whole_percents(model, level):
    with pytest.raises(BadInputError, match=r"give whole percents from 0.01 to 1.*'exact' takes any"):
        model.level(level, timesteps="linhardt2024")


def test_errors_of_levels_say_what_to_do(model, monkeypatch):
    with pytest.raises(UnknownNameError, match="'linhardt2023'. Did you mean 'linhardt2024'"):
        model.level(0.3, timesteps="linhardt2023")
    with pytest.raises(BadInputError, match="outside 0 to 1"):
        model.level(30, timesteps="linhardt2024")
    components = {**model.components, "scheduler": diffusers.FlowMatchEulerDiscreteScheduler()}
    odd = type(model)(model.identity, model.denoiser, components, model.device)
    with pytest.raises(BadInputError, match="FlowMatchEulerDiscreteScheduler has no variance-preserving"):
        odd.level(0.3)
    with pytest.raises(BadInputError, match="predicts 'score'; known are epsilon"):
        clean_from_prediction("score", torch.zeros(1), torch.zeros(1), model.level(0.3))


def share_of_the_signal(model, level):
    """Measured: how much of the variance of noised latents is explained by the clean ones, both of variance 1."""
    rng = torch.Generator().manual_seed(0)
    clean, noise = (torch.randn(4, 200_000, generator=rng, dtype=torch.float64) for _ in range(2))
    noised = model.add_noise(clean, noise, level)
    return float(torch.corrcoef(torch.stack([clean.ravel(), noised.ravel()]))[0, 1] ** 2)


@pytest.mark.slow
def test_the_signals_share_is_that_of_the_variance_in_both_kinds_of_schedule(model, tmp_path):
    flow = lk.load_model(save_tiny_sd3(tmp_path), device="cpu")
    for one in (model, flow):
        for level in (0.0, 0.1, 0.3, 0.5, 0.9, 1.0):
            placed = one.level(level)
            assert placed.signal_share == pytest.approx(share_of_the_signal(one, placed), abs=2e-3)
    # What the words "clean" and "noise" would claim is true of flow matching alone.
    assert (flow.level(0).signal_share, flow.level(1).signal_share) == (1, 0)
    alphas = model.components["scheduler"].alphas_cumprod
    assert model.level(0).signal_share == pytest.approx(float(alphas[0]))
    assert model.level(1).signal_share == pytest.approx(float(alphas[999]))
    assert model.level(0).signal_share < 1 and model.level(1).signal_share > 0.004


def test_tables_tell_the_signals_share(model, tmp_path):
    stimuli = lk.load_dataset("emoji").stimuli[:4]
    ask = {"blocks": ["mid_block", "up_blocks.1"], "noise_levels": [0.1, 0.9], "progress": False}
    store = lk.extract(model, stimuli, out=tmp_path / "out", **ask)
    triplets = lk.Triplets(np.array([[0, 1, 2], [1, 2, 3], [0, 3, 1]]), names=store.names)
    shares = {level: model.level(level).signal_share for level in (0.1, 0.9)}
    table = lk.odd_one_out(store, triplets)
    assert dict(zip(table["noise_level"], table["signal_share"], strict=False)) == shares
    grown = lk.extract(model, stimuli, out=tmp_path / "out", conditionings=["none", "label"], **ask)
    gains = lk.compare(grown, triplets, by="conditioning", reference="none")
    assert len(gains) == 4
    assert len(lk.compare(store, triplets, by="noise_level")) == 2
    assert len(lk.compare(store, triplets, by="block", average=("noise_level",))) == 1


@pytest.mark.parametrize("level", [30, "0.3"])
def test_errors_of_levels_claim_nothing_of_clean_and_noise(model, level):
    with pytest.raises(BadInputError) as caught:
        model.level(level)
    assert "clean" not in str(caught.value)


# The real sizes, without weights ------------------------------------------------------------------------

SDXL_UNET = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
SD35 = {
    "sample_size": 128,
    "num_layers": 24,
    "num_attention_heads": 24,
    "caption_projection_dim": 1536,
    "pos_embed_max_size": 384,
    "qk_norm": "rms_norm",
    "dual_attention_layers": tuple(range(13)),
}
REAL = {
    "sdxl": (StableDiffusionXL, UNet2DConditionModel, SDXL_UNET, 4, 7, (1280, 32, 32)),
    "sd3.5-medium": (StableDiffusion3, SD3Transformer2DModel, SD35, 16, 24, (4096, 1536)),
    "flux-dev": (Flux, FluxTransformer2DModel, {"guidance_embeds": True}, 16, 57, (4096, 3072)),
    "pixart-alpha": (PixArt, PixArtTransformer2DModel, {"caption_channels": 4096}, 4, 28, (4096, 1152)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_the_block_table_of_the_real_size_needs_no_weights(name):
    family, network, config, channels, stages, shape = REAL[name]
    with torch.device("meta"):
        denoiser = network(**config)
    vae = SimpleNamespace(
        config=SimpleNamespace(
            block_out_channels=(128, 256, 512, 512), latent_channels=channels, sample_size=1024
        )
    )
    scheduler = DDIMScheduler(**BETAS)
    clip = SimpleNamespace(config=SimpleNamespace(projection_dim=1280))
    components = {"vae": vae, "scheduler": scheduler, "text_encoder_2": clip}
    identity = Identity(name, name, "none", "float32", family.__name__)
    model = family(identity, denoiser, components, torch.device("cpu"))
    table = model.blocks().query("stage")
    assert model.image_size == 1024
    assert len(table) == stages
    middle = table.iloc[stages // 2]
    assert middle["shape"] == shape
    assert np.all(table["parameters"] > 1e5)
