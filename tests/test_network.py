"""Real checkpoints, for those who have the internet: `python -m pytest -m network` (about 5 GB to download)."""

from __future__ import annotations

import numpy as np
import pytest

import ldm_kit as lk

pytestmark = [pytest.mark.network, pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module")
def stimuli() -> lk.Stimuli:
    return lk.load_dataset("toybox").stimuli[:4]


def test_a_real_sd_turbo_gives_the_features_of_a_hand_written_pass(stimuli: lk.Stimuli) -> None:
    import torch

    model = lk.load_model("sd-turbo", device="cpu", dtype="float32")
    ask = {"blocks": "mid_block", "noise_levels": [0.3], "progress": False}
    store = lk.extract(model, stimuli, conditionings=["none", "label"], **ask)

    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained("stabilityai/sd-turbo", torch_dtype=torch.float32)
    timestep = model.level(0.3).timestep
    image = pipe.image_processor.preprocess(stimuli.image(0).resize((model.size, model.size)))
    maps: list[torch.Tensor] = []
    hook = pipe.unet.mid_block.register_forward_hook(lambda module, inputs, output: maps.append(output))
    with torch.no_grad():
        clean = pipe.vae.encode(image).latent_dist.mean * pipe.vae.config.scaling_factor
        noise = model.noise([stimuli.names[0]], seed=0)
        noised = pipe.scheduler.add_noise(clean, noise, torch.tensor([int(timestep)]))
        text, _ = pipe.encode_prompt(store.prompts("label")[0], "cpu", 1, False)
        pipe.unet(noised, int(timestep), encoder_hidden_states=text)
    hook.remove()
    expected = maps[0].mean(dim=(2, 3))[0].numpy()
    assert np.allclose(store["mid_block", 0.3, "label"][0], expected, rtol=1e-3, atol=1e-4)
    assert not np.allclose(store["mid_block", 0.3, "none"], store["mid_block", 0.3, "label"], rtol=1e-2)


def test_a_real_dinov2_small_gives_what_transformers_gives(stimuli: lk.Stimuli) -> None:
    import torch
    from transformers import AutoImageProcessor, AutoModel

    source = "facebook/dinov2-small"
    model = lk.load_model(f"vision:{source}", device="cpu", dtype="float32")
    block = list(model.blocks()["block"])[-1]
    store = lk.extract(model, stimuli, blocks=block, pooling="tokens", progress=False)
    inputs = AutoImageProcessor.from_pretrained(source)(
        images=[stimuli.image(i) for i in range(len(stimuli))], return_tensors="pt"
    )
    with torch.no_grad():
        states = AutoModel.from_pretrained(source)(**inputs, output_hidden_states=True).hidden_states
    tokens = states[-1].numpy()
    assert np.allclose(
        store[block, 0.0, "none"], tokens[:, -store[block, 0.0, "none"].shape[1] :], rtol=1e-3, atol=1e-3
    )
