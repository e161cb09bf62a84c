"""Vision models of transformers (ViT, DINOv2, CLIP, ConvNeXt, ResNet, MobileNetV2, …) as models without noise."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from ldm_kit.errors import BadInputError, ModelNotFoundError
from ldm_kit.models.blocks import kind_of, layout_of
from ldm_kit.models.controls import Encoder, VectorReadout
from ldm_kit.models.hub import Place, find_file, seeded
from ldm_kit.models.model import Text
from ldm_kit.models.noise import NoiseLevel

# Weights that may be missing: nothing of them is used here.
UNUSED = ("pooler.", "mask_token", "num_batches_tracked", "text_", "logit_")
# The settings of an image processor that determine the network's input.
SETTINGS = (
    *("do_resize", "size", "crop_pct", "resample", "do_center_crop", "crop_size"),
    *("do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std"),
)


class VisionEncoder(Encoder):
    """A vision model: blocks are its layers or stages, and ``embedding``, its vector for the image.

    Notes
    -----
    Of a layer's tokens only those of the image's patches are returned: the class token, registers and a
    distillation token are left out, so that a mean is one over the image, as it is for a map. The class
    token's representation is in ``embedding``: the projection into the space shared with text (CLIP), the
    pooler's output, or the class token after the last norm, whichever the weights hold.

    Images are prepared as the model's preprocessor_config.json says, and `preprocessing` shows. To prepare them
    otherwise, change that file in a local copy of the model's folder: ``"size": {"height": 224, "width": 224}``,
    ``"do_center_crop": false`` and ``"resample": 3`` show the whole image, scaled by bicubic interpolation.
    """

    @property
    def _processor(self) -> Any:
        return self.components["processor"]

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Shape of the network's input, (3, height, width)."""
        return self._shape

    @functools.cached_property
    def _shape(self) -> tuple[int, int, int]:
        """Shape of processed images, from two of other proportions."""
        wide, high = (self._values([Image.new("RGB", size)]).shape[1:] for size in ((400, 300), (300, 400)))
        if wide != high:
            raise BadInputError(
                f"The image processor of {self.identity.source!r} makes several sizes, such as {wide} and {high}; a batch needs "
                "one. Write a crop_size into a local copy's preprocessor_config.json."
            )
        return 3, wide[1], wide[2]

    @property
    def preprocessing(self) -> dict[str, Any]:
        """What is done to images, as data."""
        settings = json.loads(self._processor.to_json_string())
        return {name: settings[name] for name in SETTINGS if settings.get(name) is not None}

    def preprocess(self, image: Image.Image) -> Image.Image:
        """Scale and crop an image as the model's image processor does."""
        pixels = self._values([image], do_rescale=False, do_normalize=False)
        return Image.fromarray(pixels[0].permute(1, 2, 0).to(torch.uint8).numpy())

    def encode(self, images: Sequence[Image.Image], *, posterior: Tensor | None = None) -> Tensor:
        """Return the network's input, (n, 3, height, width), float32."""
        return self._values(images).to(self.device, torch.float32)

    def _values(self, images: Sequence[Image.Image], **options: Any) -> Tensor:
        """Run the image processor, to (n, 3, height, width)."""
        rgb = [image.convert("RGB") for image in images]
        values: Tensor = self._processor(rgb, return_tensors="pt", **options)["pixel_values"]
        return values

    def decode(self, latents: Tensor) -> list[Image.Image]:
        """Turn these values into images again."""
        processor, values = self._processor, latents.float().cpu()
        if processor.do_normalize:
            mean, std = (torch.tensor(x)[:, None, None] for x in (processor.image_mean, processor.image_std))
            values = values * std + mean
        if processor.do_rescale:
            values = values / processor.rescale_factor
        pixels = values.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
        return [Image.fromarray(array) for array in pixels]

    def predict(self, denoiser: nn.Module, noised: Tensor, level: NoiseLevel, text: Text) -> Tensor:
        """Run the network once."""
        network: Any = denoiser
        output = network(pixel_values=noised)
        embedding = getattr(output, "pooler_output", None)
        if embedding is None:
            state = output.last_hidden_state
            layouts = [layout_of(module) for module in network.modules()]
            if any(layout is not None and layout.prefix for layout in layouts):
                embedding = state[:, 0]  # the class token
            else:
                embedding = state.mean(dim=(2, 3) if state.ndim == 4 else 1)
        embedding = embedding.flatten(1)
        if hasattr(network, "projection"):
            embedding = network.projection(embedding)
        network.embedding(embedding)
        return noised


def load_processor(place: Place, config: Any, folder: str = "") -> Any:
    """Load a model's own image processor, always the one over PIL, so that numbers do not depend on torchvision.

    Where a model brings none: shorter side to its size (bicubic), centre crop, ImageNet's mean and deviation.
    """
    from transformers import AutoImageProcessor, BitImageProcessorPil, ViTImageProcessorPil

    names = ("preprocessor_config.json", "processor_config.json")
    if all(find_file(place, f"{folder}/{name}".lstrip("/")) is None for name in names):
        size = getattr(config, "image_size", None) or 224
        height, width = (size, size) if isinstance(size, int) else size
        imagenet = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
        crop = {"height": height, "width": width}
        return BitImageProcessorPil(size={"shortest_edge": min(height, width)}, crop_size=crop, **imagenet)
    arguments = {**place.arguments, "subfolder": folder}
    if str(config.model_type).startswith("dinov3"):
        # transformers has DINOv3's over torchvision alone; ViT's differs from it in rounding resized pixels to bytes.
        return ViTImageProcessorPil.from_pretrained(place.source, **arguments)
    return AutoImageProcessor.from_pretrained(
        place.source, backend="pil", trust_remote_code=False, **arguments
    )


def load_vision_network(place: Place, seed: int | None) -> nn.Module:
    """Load a vision network; with a seed the same one with random weights, of which none are downloaded."""
    from transformers import AutoConfig, AutoModel, CLIPVisionModelWithProjection

    if find_file(place, "config.json") is None:
        raise ModelNotFoundError(
            f"{place.source!r} has no config.json: it is no model of transformers. Open a diffusion model without `vision:`."
        )
    config = AutoConfig.from_pretrained(place.source, trust_remote_code=False, **place.arguments)
    # AutoModel would open the vision half of CLIP without the projection that was saved with it.
    projected = "CLIPVisionModelWithProjection" in (config.architectures or [])
    loader: Any = CLIPVisionModelWithProjection if projected else AutoModel
    missing: list[str] = []
    if seed is None:
        whole, report = loader.from_pretrained(
            place.source, use_safetensors=True, output_loading_info=True, **place.arguments
        )
        missing = sorted(str(key) for key in report["missing_keys"])
    else:
        with seeded(seed):
            whole = loader(config) if projected else loader.from_config(config)
    network = getattr(whole, "vision_model", whole)
    if getattr(network, "main_input_name", "pixel_values") != "pixel_values":
        raise BadInputError(
            f"{place.source!r} is a {type(whole).__name__}, which reads no images. A diffusion model's text encoder "
            "opens as 'text:NAME'."
        )
    # A classifier is often saved without the pooler: random weights would pass for learnt ones.
    if any("pooler." in key for key in missing):
        network.pooler = None
    lacking = [key for key in missing if not any(name in key for name in UNUSED)]
    if lacking:
        raise ModelNotFoundError(
            f"The weights of {place.source!r} lack {len(lacking)} entries, the first is {lacking[0]!r}."
        )
    if hasattr(whole, "visual_projection"):
        network.add_module("projection", whole.visual_projection)
    network.add_module("embedding", VectorReadout())
    _check_layers(network, place.source)
    return network  # type: ignore[no-any-return]


def _check_layers(network: Any, source: str) -> None:
    """Check that layers are declared, and correct their leading tokens where a model chooses how many registers it has."""
    registers = getattr(network.config, "num_register_tokens", None)
    layers = [module for path, module in network.named_modules() if kind_of(path)[0] in ("layer", "stage")]
    classes = ", ".join(sorted({type(layer).__name__ for layer in layers}))
    if not any(layout_of(layer) for layer in layers):
        raise BadInputError(
            f"{source!r} is a {type(network).__name__}, whose layers are not declared: {classes or 'none found'}. Declare "
            "their output by `lk.models.register_output_layout`, or load another model."
        )
    for layer in layers:
        layout = layout_of(layer)
        if registers is not None and layout is not None and layout.prefix:
            layer.prefix_tokens = 1 + int(registers)
