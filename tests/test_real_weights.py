"""Real weights on real photographs and real human choices: numbers that were measured without ldm_kit."""

from __future__ import annotations

import json
import shutil
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny
from diffusers.models.unets.unet_2d_blocks import AutoencoderTinyBlock
from PIL import Image
from tiny_models import save_tiny_stable_diffusion
from torch import Tensor, nn
from torch.nn import functional as F

import ldm_kit as lk

pytestmark = pytest.mark.slow


def test_a_real_mobilenet_v2_predicts_human_choices_as_transformers_own_does(
    things_root: Path, weights_root: Path, tmp_path: Path
) -> None:
    """The whole photograph, scaled by bicubic interpolation, and not the crop that the model's own processor makes."""
    folder = tmp_path / "mobilenet_v2"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copyfile(weights_root / "mobilenet_v2" / name, folder / name)
    own = json.loads((weights_root / "mobilenet_v2/preprocessor_config.json").read_text())
    plain = {**own, "size": {"height": 224, "width": 224}, "do_center_crop": False, "resample": 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(plain))
    model = lk.load_model(f"vision:{folder}", device="cpu")
    data = lk.load_dataset("things", things_root)
    photograph = data.stimuli.open(data.stimuli.names[0])
    scaled = np.asarray(photograph.resize((224, 224), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    np.testing.assert_allclose(model.encode([photograph])[0], scaled / 127.5 - 1, atol=1e-6)

    ask = {"blocks": "embedding", "noise_levels": [0.0], "batch_size": 4, "progress": False}
    store = lk.extract(model, data.stimuli, **ask)
    assert store["embedding", 0.0, "none"].shape == (880, 1280)
    assert len(data.triplets) == 5422
    for metric, known in (("cosine", 0.4205), ("centred cosine", 0.4443)):
        table = lk.odd_one_out(store, data.triplets, metric=metric)
        assert table["accuracy"].item() == pytest.approx(known, abs=0.003)


class PooledBlock(AutoencoderTinyBlock):
    """A block of FLUX.2's distilled autoencoder, which begins with a normalised branch that diffusers' class lacks."""

    def __init__(self) -> None:
        super().__init__(64, 64, "relu")
        narrow, wide = (nn.Conv2d(*sizes, 1, bias=False) for sizes in ((64, 256), (256, 64)))
        self.pool = nn.Sequential(narrow, nn.GroupNorm(4, 256), nn.ReLU(), wide)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + self.pool(x))


def put_in(weights: dict[str, Tensor], network: nn.Sequential, first: int) -> None:
    """Put the author's weights into a half of diffusers' class, whose layer 0 has number `first` in them."""
    keys = {key: key.split(".", 1) for key in weights}
    for number in {int(number) for number, name in keys.values() if name.startswith("pool.")}:
        network[number - first] = PooledBlock()
    network.load_state_dict(
        {f"{int(number) - first}.{name}": weights[key].float() for key, (number, name) in keys.items()}
    )


def by_hand(weights: dict[str, Tensor], x: Tensor) -> Tensor:
    """What the author's code computes, layer by layer as the file numbers them; those without weights are missing."""
    encodes = "0.weight" in weights
    for number in range(1 + max(int(key.split(".")[0]) for key in weights)):
        own = {
            key.split(".", 1)[1]: weight.float()
            for key, weight in weights.items()
            if key.startswith(f"{number}.")
        }
        if not own:
            x = (
                3 * torch.tanh(x / 3)
                if number == 0
                else x.relu()
                if number == 2
                else F.interpolate(x, None, 2)
            )
        elif "weight" in own:
            stride = 2 if encodes and "bias" not in own else 1
            x = F.conv2d(x, own["weight"], own.get("bias"), stride, padding=1)
        else:
            if "pool.0.weight" in own:
                wide = F.conv2d(x, own["pool.0.weight"])
                wide = F.group_norm(wide, 4, own["pool.1.weight"], own["pool.1.bias"]).relu()
                x = x + F.conv2d(wide, own["pool.3.weight"])
            y = F.conv2d(x, own["conv.0.weight"], own["conv.0.bias"], padding=1).relu()
            y = F.conv2d(y, own["conv.2.weight"], own["conv.2.bias"], padding=1).relu()
            x = (x + F.conv2d(y, own["conv.4.weight"], own["conv.4.bias"], padding=1)).relu()
    return x


def psnr(image: Image.Image, other: Image.Image) -> float:
    difference = (np.asarray(image, float) - np.asarray(other, float)) / 255
    return float(-10 * np.log10(np.mean(difference**2)))


def test_a_real_distilled_autoencoder_gives_photographs_back(
    things_root: Path, weights_root: Path, tmp_path: Path
) -> None:
    """FLUX.2's, of 32 channels, in a pipeline whose other networks are tiny and random."""
    folder = save_tiny_stable_diffusion(tmp_path, vae=AutoencoderTiny(latent_channels=32), sample_size=32)
    model = lk.load_model(folder, device="cpu")
    assert (model.latent_shape, model.image_size) == ((32, 32, 32), 256)
    encoder, decoder = (
        torch.load(weights_root / f"taef2/taef2_{half}.pth", weights_only=True)
        for half in ("encoder", "decoder")
    )
    put_in(encoder, model.components["vae"].encoder.layers, 0)
    put_in(decoder, model.components["vae"].decoder.layers, 1)
    stimuli = lk.load_dataset("things", things_root).stimuli
    opened = (stimuli.open(name) for name in stimuli.names)
    photographs = list(islice((image for image in opened if image.size == (256, 256)), 12))

    latents = model.encode(photographs)
    with torch.inference_mode():
        # The author's images are 0…1, diffusers' −1…1.
        pixels = torch.tensor(np.asarray(photographs[0])).permute(2, 0, 1)[None] / 255
        theirs = by_hand(encoder, pixels)
        back = by_hand(decoder, theirs)[0].clamp(0, 1).mul(255).round().permute(1, 2, 0)
    torch.testing.assert_close(latents[:1], theirs, rtol=1e-4, atol=1e-4)
    shown = model.decode(latents)
    assert np.abs(np.asarray(shown[0], float) - back.numpy()).max() <= 1
    assert np.mean(list(map(psnr, photographs, shown))) == pytest.approx(30.2, abs=0.3)
