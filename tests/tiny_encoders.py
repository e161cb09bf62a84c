"""Tiny vision models with random weights, of the same classes as the real ones."""

from __future__ import annotations

from pathlib import Path

import torch

# name: (config class, model class, what makes it tiny, tokens in front of the patches)
SMALL = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
PATCHES = {**SMALL, "image_size": 32, "patch_size": 8}
STAGES = {"hidden_sizes": [8, 12, 16, 20], "depths": [1, 1, 2, 1]}
SWIN = {
    "image_size": 32,
    "patch_size": 2,
    "embed_dim": 8,
    "depths": [1, 2],
    "num_heads": [2, 2],
    "window_size": 4,
}
KINDS = {
    "vit": ("ViTConfig", "ViTModel", PATCHES, 1),
    "deit": ("DeiTConfig", "DeiTModel", PATCHES, 2),
    "beit": ("BeitConfig", "BeitModel", PATCHES, 1),
    "dinov2": ("Dinov2Config", "Dinov2Model", {**PATCHES, "image_size": 56}, 1),
    "dinov2-registers": (
        "Dinov2WithRegistersConfig",
        "Dinov2WithRegistersModel",
        {**PATCHES, "num_register_tokens": 3},
        4,
    ),
    "dinov3": ("DINOv3ViTConfig", "DINOv3ViTModel", {**PATCHES, "num_register_tokens": 2}, 3),
    "clip-vision": ("CLIPVisionConfig", "CLIPVisionModel", PATCHES, 1),
    "siglip-vision": ("SiglipVisionConfig", "SiglipVisionModel", PATCHES, 0),
    "ijepa": ("IJepaConfig", "IJepaModel", PATCHES, 0),
    "data2vec": ("Data2VecVisionConfig", "Data2VecVisionModel", PATCHES, 1),
    "vit-msn": ("ViTMSNConfig", "ViTMSNModel", PATCHES, 1),
    "convnext": ("ConvNextConfig", "ConvNextModel", STAGES, None),
    "convnextv2": ("ConvNextV2Config", "ConvNextV2Model", STAGES, None),
    "dinov3-convnext": ("DINOv3ConvNextConfig", "DINOv3ConvNextModel", STAGES, None),
    "resnet": ("ResNetConfig", "ResNetModel", {**STAGES, "embedding_size": 8, "layer_type": "basic"}, None),
    "regnet": ("RegNetConfig", "RegNetModel", {**STAGES, "embedding_size": 8, "groups_width": 4}, None),
    "mobilenetv2": ("MobileNetV2Config", "MobileNetV2Model", {"depth_multiplier": 0.25}, None),
    "swin": ("SwinConfig", "SwinModel", SWIN, 0),
    "swinv2": ("Swinv2Config", "Swinv2Model", SWIN, 0),
}


def save_tiny_vision(folder: Path, kind: str, *, seed: int = 0, processor: object = None) -> Path:
    """Save a vision model of 32 × 32 pixels, loadable by AutoModel, and a processor of its own if given."""
    import transformers

    config_class, model_class, small, _ = KINDS[kind]
    torch.manual_seed(seed)
    model = getattr(transformers, model_class)(getattr(transformers, config_class)(**small))
    livened(model)
    if any(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules()):
        with torch.no_grad():  # without statistics of their own, layer by layer less is left of the image
            model.train()(torch.randn(8, 3, 64, 64))
    model.save_pretrained(folder)
    if processor is not None:
        processor.save_pretrained(folder)
    return folder


def save_tiny_clip(folder: Path, *, seed: int = 0) -> Path:
    """Save a whole CLIP: text and vision, with the projections into the space that they share."""
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(seed)
    text = {**SMALL, "vocab_size": 50, "max_position_embeddings": 16}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=PATCHES, projection_dim=12))
    livened(model).save_pretrained(folder)
    return folder


def livened(model: torch.nn.Module) -> torch.nn.Module:
    """Give random values to what starts at zero or one, so that leaving it out would show."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def save_blobs(folder: Path, n: int = 9):
    """Save images of coloured blobs, wider than high, as stimuli."""
    import numpy as np
    from PIL import Image

    import ldm_kit as lk

    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    names = tuple(f"thing{i}.png" for i in range(n))
    for name in names:
        blobs = rng.integers(0, 255, (4, 5, 3), dtype=np.uint8)
        Image.fromarray(blobs).resize((83, 50), Image.Resampling.BICUBIC).save(folder / name)
    return lk.Stimuli(names, root=str(folder), dataset="blobs", labels=tuple(f"thing {i}" for i in range(n)))
