"""How a vision model wants its pictures: size, crop and range, read from its preprocessor_config.json."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ldm_kit.errors import BadInputError, ModelNotFoundError
from ldm_kit.models.parts import Place, find_file

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Processors that take a lone number for the shorter side; the others take it for both sides.
SHORTER_SIDE = ("CLIP", "ChineseCLIP", "ConvNext", "Bit", "LevitImage", "MobileNetV", "PoolFormer")


@dataclass(frozen=True)
class ImageSettings:
    """What is done to a picture before a vision model sees it.

    Parameters
    ----------
    crop : tuple of int
        (height, width) that is cut out of the middle at the end: what the model gets.
    shorter_side : int, optional
        The shorter side is first scaled to this many pixels, the longer one in proportion.
    exact : tuple of int, optional
        Or the picture is first squeezed into this (height, width).
    resample : int
        Pillow's number of the filter: 2 bilinear, 3 bicubic.
    factor : float
        Bytes are multiplied with it.
    mean, std : tuple of float
        Then taken away, and divided by, a channel.

    Examples
    --------
    >>> ImageSettings(crop=(224, 224), shorter_side=256).crop
    (224, 224)
    """

    crop: tuple[int, int]
    shorter_side: int | None = None
    exact: tuple[int, int] | None = None
    resample: int = int(Image.Resampling.BICUBIC)
    factor: float = 1 / 255
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def as_dict(self) -> dict[str, Any]:
        """Give the settings as plain data, for a store's request."""
        plain = {
            key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()
        }
        return {**plain, "resample": Image.Resampling(self.resample).name.lower()}

    def apply(self, picture: Image.Image) -> Image.Image:
        """Scale and cut a picture; what lies outside of it is black."""
        picture = picture.convert("RGB")
        if self.exact is not None:
            picture = picture.resize(self.exact[::-1], Image.Resampling(self.resample))
        elif self.shorter_side is not None:
            side, (width, height) = self.shorter_side, picture.size
            if width <= height:
                size = side, int(side * height / width)
            else:
                size = int(side * width / height), side
            picture = picture.resize(size, Image.Resampling(self.resample))
        height, width = self.crop
        left, top = (picture.width - width) // 2, (picture.height - height) // 2
        return picture.crop((left, top, left + width, top + height))

    def to_values(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Turn pictures that were cut into what the model gets, (n, 3, height, width), float32."""
        stacked = np.stack([np.asarray(picture) for picture in pictures])
        values = torch.from_numpy(stacked).permute(0, 3, 1, 2).to(torch.float32) * self.factor
        return (values - self._channels(self.mean)) / self._channels(self.std)

    def to_pictures(self, values: Tensor) -> list[Image.Image]:
        """Turn them back into pictures."""
        values = (values.float().cpu() * self._channels(self.std) + self._channels(self.mean)) / self.factor
        pixels = values.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
        return [Image.fromarray(array) for array in pixels]

    @staticmethod
    def _channels(numbers: Sequence[float]) -> Tensor:
        return torch.tensor(numbers, dtype=torch.float32)[:, None, None]


def image_settings(config: Mapping[str, Any] | None, image_size: int | Sequence[int] | None) -> ImageSettings:
    """Read the settings that a preprocessor_config.json holds.

    Parameters
    ----------
    config : mapping, optional
        The file. None or an absent entry gives: the shorter side scaled to the model's size (bicubic), the
        middle cut out, bytes to 0…1, ImageNet's mean and standard deviation.
    image_size : int or pair of int, optional
        The size that the model's own config names; 224 if it names none.

    Returns
    -------
    ImageSettings

    Raises
    ------
    BadInputError
        For a way of scaling that is not known here, rather than another one in its place.

    Examples
    --------
    >>> image_settings({"size": {"shortest_edge": 256}, "crop_size": 224, "resample": 3}, None).shorter_side
    256
    """
    # A null is as good as nothing, but for a step: null means that it is left out.
    given = (config or {}).items()
    config = {key: value for key, value in given if value is not None or key.startswith("do_")}
    kind = str(config.get("image_processor_type") or config.get("feature_extractor_type") or "")
    native = _pair(image_size or 224)
    shorter: int | None = None
    exact: tuple[int, int] | None = None
    if config.get("do_resize", True):
        shorter, exact = _resizing(config.get("size"), kind, native)
    crop = _pair(config["crop_size"]) if _crops(config) else exact or native
    if not _crops(config) and shorter is not None:
        crop = (shorter, shorter)  # a batch needs one size: the middle of what is left
        if kind.startswith("ConvNext"):  # its own way: a margin below 384 pixels, squeezed from there on
            exact = crop if shorter >= 384 else None
            shorter = None if exact else int(shorter / float(config.get("crop_pct") or 224 / 256))
    return ImageSettings(
        crop=crop,
        shorter_side=shorter,
        exact=exact,
        resample=int(config.get("resample", Image.Resampling.BICUBIC)),
        factor=float(config.get("rescale_factor", 1 / 255)) if config.get("do_rescale", True) else 1.0,
        mean=_numbers(config, "image_mean", IMAGENET_MEAN, 0.0),
        std=_numbers(config, "image_std", IMAGENET_STD, 1.0),
    )


def _crops(config: Mapping[str, Any]) -> bool:
    return bool(config.get("crop_size")) and bool(config.get("do_center_crop", True))


def _resizing(size: Any, kind: str, native: tuple[int, int]) -> tuple[int | None, tuple[int, int] | None]:
    """Give the shorter side, or the exact (height, width), that pictures are scaled to."""
    if size is None:
        return min(native), None
    if isinstance(size, Mapping):
        given = {key for key, value in size.items() if value is not None}
        if given == {"shortest_edge"}:
            return int(size["shortest_edge"]), None
        if given == {"height", "width"}:
            return None, _pair(size)
    elif isinstance(size, int):
        return (size, None) if kind.startswith(SHORTER_SIDE) else (None, (size, size))
    elif isinstance(size, Sequence) and not isinstance(size, str) and len(size) == 2:
        return None, _pair(size)
    raise BadInputError(
        f"The preprocessor_config.json says size = {size!r}, which is not known here. Known are a number, height "
        "and width, and shortest_edge. Write one of these into a local copy of the model."
    )


def _pair(size: Any) -> tuple[int, int]:
    if isinstance(size, Mapping):
        if "height" not in size:
            return int(size["shortest_edge"]), int(size["shortest_edge"])
        return int(size["height"]), int(size["width"])
    if isinstance(size, Sequence):
        return int(size[0]), int(size[1])
    return int(size), int(size)


def _numbers(
    config: Mapping[str, Any], key: str, default: tuple[float, ...], off: float
) -> tuple[float, ...]:
    if not config.get("do_normalize", True):
        return (off,) * 3
    given = config.get(key)
    if given is None:
        return default
    return tuple(float(x) for x in given) if isinstance(given, Sequence) else (float(given),) * 3


def find_processor(place: Place, folder: str = "") -> dict[str, Any] | None:
    """Read a model's preprocessor_config.json, or its newer form within processor_config.json.

    Parameters
    ----------
    place : Place
    folder : str
        Subfolder of the model that holds it.

    Returns
    -------
    dict or None
        None if the model brings neither.

    Raises
    ------
    ModelNotFoundError
        If the file is damaged.

    Examples
    --------
    >>> find_processor(Place("facebook/dinov2-base", None, False))["crop_size"]  # doctest: +SKIP
    {'height': 224, 'width': 224}
    """
    for name in ("preprocessor_config.json", "processor_config.json"):
        path = find_file(place, f"{folder}/{name}" if folder else name)
        if path is None:
            continue
        try:
            config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ModelNotFoundError(
                f"The {name} of {place.source!r} is damaged ({error}). Download or save it again."
            ) from error
        if name.startswith("pre"):
            return config
        if isinstance(config.get("image_processor"), dict):
            inner: dict[str, Any] = config["image_processor"]
            return inner
    return None
