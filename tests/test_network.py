"""Real checkpoints, for those who have the internet: `python -m pytest -m network` (about 5 GB to download)."""

from __future__ import annotations

import os

import numpy as np
import pytest

import ldm_kit as lk

pytestmark = [pytest.mark.network, pytest.mark.slow, pytest.mark.timeout(3600)]
# Folders of one's own may stand in for them.
SD_TURBO = os.environ.get("LDM_KIT_TEST_SD_TURBO", "stabilityai/sd-turbo")
DINOV2 = os.environ.get("LDM_KIT_TEST_DINOV2", "facebook/dinov2-small")


@pytest.fixture(scope="module")
def stimuli() -> lk.Stimuli:
    return lk.load_dataset("emoji").stimuli[:4]


def test_a_real_sd_turbo_gives_the_features_of_a_pass_written_by_hand(stimuli: lk.Stimuli) -> None:
    import torch
    from diffusers import DDPMScheduler, StableDiffusionPipeline

    model = lk.load_model(SD_TURBO, device="cpu", dtype="float32")
    store = lk.extract(
        model,
        stimuli,
        blocks="mid_block",
        noise_levels=[0.3],
        conditionings=["none", "label"],
        progress=False,
    )
    pipe = StableDiffusionPipeline.from_pretrained(SD_TURBO, torch_dtype=torch.float32)
    timestep = torch.tensor([round(0.3 * pipe.scheduler.config.num_train_timesteps)])
    image = pipe.image_processor.preprocess(model.preprocess(stimuli.open(0)))
    maps: list[torch.Tensor] = []
    hook = pipe.unet.mid_block.register_forward_hook(lambda module, inputs, output: maps.append(output))
    with torch.no_grad():
        clean = pipe.vae.encode(image).latent_dist.mean * pipe.vae.config.scaling_factor
        noise = model.noise([stimuli.names[0]], seed=0)
        # Whatever scheduler samples it, the network was trained on this forward process.
        noised = DDPMScheduler.from_config(pipe.scheduler.config).add_noise(clean, noise, timestep)
        text, _ = pipe.encode_prompt(store.prompts("label")[0], "cpu", 1, False)
        pipe.unet(noised, timestep, encoder_hidden_states=text)
    hook.remove()
    expected = maps[0].mean(dim=(2, 3))[0].numpy()
    np.testing.assert_allclose(store["mid_block", 0.3, "label"][0], expected, rtol=1e-3, atol=1e-4)
    assert not np.allclose(store["mid_block", 0.3, "none"], store["mid_block", 0.3, "label"], rtol=1e-2)


def test_a_real_dinov2_small_gives_what_transformers_gives(stimuli: lk.Stimuli) -> None:
    import torch
    from transformers import AutoImageProcessor, AutoModel

    model = lk.load_model(f"vision:{DINOV2}", device="cpu", dtype="float32")
    *_, last, embedding = model.select_blocks()
    assert embedding == "embedding"
    store = lk.extract(model, stimuli, blocks=last, pooling="tokens", progress=False)
    processor = AutoImageProcessor.from_pretrained(DINOV2, backend="pil")
    inputs = processor(images=[stimuli.open(i) for i in range(len(stimuli))], return_tensors="pt")
    with torch.no_grad():
        states = AutoModel.from_pretrained(DINOV2)(**inputs, output_hidden_states=True).hidden_states
    expected = states[-1].numpy()[:, 1:]  # without the class token
    found = store[last, 0.0, "none"]
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
