"""Vision models of transformers (ViT, DINOv2, CLIP, ConvNeXt, ResNet, …) as models without noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image
from torch import Tensor, nn

from ldm_kit.errors import BadInputError, ModelNotFoundError
from ldm_kit.models.blocks import kind_of
from ldm_kit.models.encoder import Encoder, VectorReadout
from ldm_kit.models.image_settings import ImageSettings
from ldm_kit.models.noise import NoiseLevel
from ldm_kit.models.opened import Text
from ldm_kit.models.outputs import DECLARED
from ldm_kit.models.parts import Place, find_file, seeded

# Weights that may be missing: nothing of them is used here.
UNUSED = ("pooler.", "mask_token", "num_batches_tracked", "text_", "logit_")


@dataclass(frozen=True, eq=False, repr=False)
class VisionEncoder(Encoder):
    """A vision model: blocks are its layers or stages, and ``embedding``, its vector for the picture.

    Notes
    -----
    Of a layer's tokens only those of the picture's patches count: the class token, registers and a
    distillation token are left out, so that a mean is one over the picture, as it is for a map. What the
    class token gathered is in ``embedding``: the projection into the space shared with text (CLIP), the
    pooler's output, or the class token after the last norm, whichever the weights hold.
    """

    @property
    def settings(self) -> ImageSettings:
        """What is done to pictures."""
        settings: ImageSettings = self.parts["settings"]
        return settings

    @property
    def picture_size(self) -> int:
        """Height of the pictures that the network gets, in pixels."""
        return self.settings.crop[0]

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Shape of what the network gets, (3, height, width)."""
        return 3, *self.settings.crop

    @property
    def preprocessing(self) -> dict[str, Any]:
        """What is done to pictures, as data."""
        return self.settings.as_dict()

    def preprocess(self, picture: Image.Image) -> Image.Image:
        """Scale and cut a picture as the model's preprocessor_config.json says."""
        return self.settings.apply(picture)

    def encode(self, pictures: Sequence[Image.Image], *, posterior: Tensor | None = None) -> Tensor:
        """Give the values that the network gets, (n, 3, height, width), float32."""
        return self.settings.to_values([self.preprocess(picture) for picture in pictures]).to(self.device)

    def decode(self, latents: Tensor) -> list[Image.Image]:
        """Make these values pictures again."""
        return self.settings.to_pictures(latents)

    def predict(self, denoiser: nn.Module, noised: Tensor, level: NoiseLevel, text: Text) -> Tensor:
        """Run the network once."""
        network: Any = denoiser
        output = network(pixel_values=noised)
        embedding = getattr(output, "pooler_output", None)
        if embedding is None:
            state = output.last_hidden_state
            if state.ndim == 4:
                embedding = state.mean(dim=(2, 3))
            else:
                embedding = state[:, 0] if _has_class_token(network) else state.mean(dim=1)
        embedding = embedding.flatten(1)
        if hasattr(network, "projection"):
            embedding = network.projection(embedding)
        network.embedding(embedding)
        return noised


def load_vision_network(place: Place, pretrained: bool, seed: int) -> nn.Module:
    """Load a vision network, or make the same one anew.

    Parameters
    ----------
    place : Place
    pretrained : bool
        False: random weights from the config; no weights are downloaded.
    seed : int
        Of the random weights.

    Raises
    ------
    ModelNotFoundError
        If weights are missing.
    BadInputError
        If it is no vision model, or its layers are not declared.

    Examples
    --------
    >>> network = load_vision_network(Place("facebook/dinov2-base", None, False), True, 0)  # doctest: +SKIP
    """
    from transformers import AutoConfig, AutoModel, CLIPVisionModelWithProjection

    if find_file(place, "config.json") is None:
        raise ModelNotFoundError(
            f"{place.source!r} has no config.json: it is no model of transformers. `vision:` opens models such as "
            "'vision:facebook/dinov2-base'; a diffusion model is opened without it."
        )
    config = AutoConfig.from_pretrained(place.source, trust_remote_code=False, **place.arguments())
    # AutoModel would open the vision half of CLIP without the projection that was saved with it.
    projected = "CLIPVisionModelWithProjection" in (config.architectures or [])
    loader: Any = CLIPVisionModelWithProjection if projected else AutoModel
    if pretrained:
        whole, told = loader.from_pretrained(
            place.source, use_safetensors=True, output_loading_info=True, **place.arguments()
        )
        missing = sorted(str(key) for key in told["missing_keys"])
    else:
        missing = []
        with seeded(seed):
            whole = loader(config) if projected else loader.from_config(config)
    return _prepared(whole, missing, place.source)


def _prepared(whole: Any, missing: list[str], source: str) -> nn.Module:
    """Take the vision half of a model, and give it what blocks need."""
    network = getattr(whole, "vision_model", whole)
    if getattr(network, "main_input_name", "pixel_values") != "pixel_values":
        raise BadInputError(
            f"{source!r} is a {type(whole).__name__}, which does not read pictures. `vision:` opens models such as "
            "'vision:facebook/dinov2-base'; for the text encoder of a diffusion model write 'text:NAME'."
        )
    # A classifier is often saved without the pooler: random weights would pass for learnt ones.
    if any("pooler." in key for key in missing):
        network.pooler = None
    lacking = [key for key in missing if not any(part in key for part in UNUSED)]
    if lacking:
        raise ModelNotFoundError(
            f"The weights of {source!r} lack {len(lacking)} entries, the first is {lacking[0]!r}. "
            "Download or save the model again, whole."
        )
    projection = getattr(whole, "visual_projection", None)
    if projection is not None:
        network.add_module("projection", projection)
    network.add_module("embedding", VectorReadout())
    _count_prefix_tokens(network)
    _check_declared(network, source)
    return network  # type: ignore[no-any-return]


def _count_prefix_tokens(network: Any) -> None:
    """Correct the number of tokens in front where a model chooses how many registers it has."""
    registers = getattr(network.config, "num_register_tokens", None)
    if registers is not None:
        for module in network.modules():
            declared = DECLARED.get(type(module).__name__)
            if declared is not None and declared.prefix:
                module.prefix_tokens = 1 + int(registers)


def _has_class_token(network: nn.Module) -> bool:
    return any(
        bool(declared.prefix)
        for declared in (DECLARED.get(type(module).__name__) for module in network.modules())
        if declared is not None
    )


def _check_declared(network: nn.Module, source: str) -> None:
    found = {
        type(module).__name__: type(module).__name__ in DECLARED
        for path, module in network.named_modules()
        if kind_of(path) in ("layer", "stage")
    }
    if not any(found.values()):
        layers = (
            f"its layers are of class {', '.join(sorted(found))}" if found else "no layers were found in it"
        )
        raise BadInputError(
            f"{source!r} is a {type(network).__name__}, which is not known: {layers}. Say how their output is laid "
            "out in `ldm_kit.models.outputs.DECLARED`, or take another model."
        )
