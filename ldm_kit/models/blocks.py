"""A denoiser's blocks: their table and names, where each returns the image, and watching them in one pass."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from ldm_kit.errors import BadInputError, one_of, unknown_name, whole_number

# Which element of a module's output is the image's representation ---------------------------------------


@dataclass(frozen=True)
class Layout:
    """Where a module class returns the image's representation; see `register_output_layout`."""

    layout: str
    element: int | None = None
    prefix: int = 0


_MAP, _MAP_FIRST = Layout("map"), Layout("map", element=0)
_TOKENS, _TOKENS_FIRST, _TOKENS_SECOND = (Layout("tokens", element=n) for n in (None, 0, 1))
# A class token stands in front of the patches; registers after it, whose default number is 4; DeiT's distillation token.
_AFTER_ONE, _AFTER_TWO, _AFTER_FIVE = (Layout("tokens", element=0, prefix=n) for n in (1, 2, 5))

_LAYOUTS: dict[str, Layout] = {
    # diffusers' down blocks return (hidden state, the residuals for the up blocks): the hidden state is
    # what the next block gets, after this block's own downsampler. Up blocks return it after the upsampler.
    **dict.fromkeys(("DownBlock2D", "CrossAttnDownBlock2D", "AttnDownBlock2D"), _MAP_FIRST),
    **dict.fromkeys(("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"), _MAP_FIRST),
    **dict.fromkeys(("UNetMidBlock2D", "UNetMidBlock2DCrossAttn", "UNetMidBlock2DSimpleCrossAttn"), _MAP),
    **dict.fromkeys(("UpBlock2D", "CrossAttnUpBlock2D", "AttnUpBlock2D"), _MAP),
    **dict.fromkeys(("ResnetUpsampleBlock2D", "SimpleCrossAttnUpBlock2D"), _MAP),
    **dict.fromkeys(("ResnetBlock2D", "Downsample2D", "Upsample2D", "Conv2d"), _MAP),
    "Attention": _MAP,  # at `attentions.N`: it flattens the map and folds it back
    "Transformer2DModel": _MAP_FIRST,
    "BasicTransformerBlock": _TOKENS,
    # (text, image); the text of SD3's last block is None. Flux's single blocks run over both in one sequence
    # and split them again; where a diffusers version does not, that is an error, not a mixture.
    "JointTransformerBlock": _TOKENS_SECOND,
    **dict.fromkeys(("FluxTransformerBlock", "FluxSingleTransformerBlock"), _TOKENS_SECOND),
    # transformers' vision models
    **dict.fromkeys(("ViTLayer", "ViTMSNLayer", "CLIPEncoderLayer", "Dinov2Layer"), _AFTER_ONE),
    **dict.fromkeys(("BeitLayer", "Data2VecVisionLayer"), _AFTER_ONE),
    "DeiTLayer": _AFTER_TWO,
    **dict.fromkeys(("Dinov2WithRegistersLayer", "DINOv3ViTLayer"), _AFTER_FIVE),
    **dict.fromkeys(("SiglipEncoderLayer", "IJepaLayer", "SwinStage", "Swinv2Stage"), _TOKENS_FIRST),
    **dict.fromkeys(("ConvNextStage", "ConvNextV2Stage", "DINOv3ConvNextStage"), _MAP),
    **dict.fromkeys(("ResNetStage", "RegNetStage", "MobileNetV2InvertedResidual"), _MAP),
    # the controls' own
    "MapReadout": _MAP,
    "VectorReadout": Layout("vector"),
}
_DIMENSIONS = {"map": 4, "tokens": 3, "vector": 2}


def register_output_layout(
    module_class: str, layout: str, *, element: int | None = None, prefix: int = 0
) -> None:
    """Declare where a module class returns the image's representation, so that its modules can be watched.

    There is no guessing: a block whose class is not declared is an error that shows the shapes it returned. A
    second declaration of a class replaces the first.

    Parameters
    ----------
    module_class : str
        Name of the class, such as ``"CrossAttnDownBlock2D"``.
    layout : {"map", "tokens", "vector"}
        ``"map"``: (n, channels, height, width); ``"tokens"``: (n, tokens, channels); ``"vector"``: (n, channels).
    element : int, optional
        Position in the tuple that the module returns; None if it returns the tensor itself. With 0 the tensor itself
        is accepted too, as versions of a library differ in this.
    prefix : int
        Number of leading tokens that stand for no position of the image (class token, registers); they are left
        out. A module's attribute ``prefix_tokens`` takes precedence: some models choose their number.

    Raises
    ------
    UnknownNameError
        For another layout.
    BadInputError
        If `element` or `prefix` is no whole number of 0 or more.

    Examples
    --------
    >>> register_output_layout("MyBlock", "tokens", element=1)
    """
    one_of("layout", layout, _DIMENSIONS)
    if element is not None:
        whole_number("element", element, 0)
    _LAYOUTS[module_class] = Layout(layout, element, whole_number("prefix", prefix, 0))


def layout_of(module: nn.Module) -> Layout | None:
    """Return the declared layout of a module's class, or None."""
    return _LAYOUTS.get(type(module).__name__)


def image_output(module: nn.Module, output: Any, block: str) -> tuple[Tensor, str]:
    """Select the image's representation from what `module` returned, with its layout."""
    name, declared = type(module).__name__, layout_of(module)
    advice = f"`lk.models.register_output_layout({name!r}, ...)`"
    if declared is None:
        raise BadInputError(
            f"Block {block!r} is a {name}, whose output is not declared. It returned {_shapes(output)}. Declare it by "
            f"{advice}, or watch its parent."
        )
    tensor = output
    if declared.element is not None and not (declared.element == 0 and isinstance(output, Tensor)):
        several = isinstance(output, (tuple, list)) and len(output) > declared.element
        tensor = output[declared.element] if several else None
    if not isinstance(tensor, Tensor) or tensor.ndim != _DIMENSIONS[declared.layout]:
        raise BadInputError(
            f"Block {block!r} ({name}) returned {_shapes(output)}, not the {declared.layout} that is declared for it. "
            f"Correct the declaration for this version of the library by {advice}."
        )
    prefix: int = getattr(module, "prefix_tokens", declared.prefix)
    return tensor[:, prefix:] if prefix else tensor, declared.layout


def _shapes(output: Any) -> str:
    """Describe the shapes in a (nested) output."""
    if isinstance(output, Tensor):
        return str(tuple(output.shape))
    if isinstance(output, (tuple, list)):
        return "(" + ", ".join(_shapes(element) for element in output) + ")"
    return "None" if output is None else type(output).__name__


# Pooling ----------------------------------------------------------------------------------------------

POOLINGS = ("mean", "max", "none", "tokens", "flat")


def pool(tensor: Tensor, layout: str, pooling: str) -> Tensor:
    """Pool a block's output to float32.

    ``"mean"`` and ``"max"`` run over all positions, to (n, channels); ``"tokens"`` returns the positions as a sequence
    in reading order, (n, positions, channels); ``"flat"`` unrolls all numbers, (n, numbers); ``"none"`` changes
    nothing. Sums run in float32, since a float16 sum over 4,096 positions loses digits.
    """
    if pooling == "flat":
        return tensor.flatten(1).float()
    if pooling == "none" or layout == "vector":
        values = tensor.float()
        return values[:, None] if pooling == "tokens" else values
    if pooling == "tokens":
        return (tensor.flatten(2).transpose(1, 2) if layout == "map" else tensor).float()
    space = (2, 3) if layout == "map" else (1,)
    if pooling == "mean":
        return tensor.mean(dim=space, dtype=torch.float32)
    return tensor.amax(dim=space).float()


def pooled_shape(shape: Sequence[int], pooling: str) -> tuple[int, ...]:
    """Return the shape that `pool` makes of one stimulus's output, itself without the batch axis."""
    if pooling == "none":
        return tuple(shape)
    if pooling == "flat":
        return (math.prod(shape),)
    channels = shape[0] if len(shape) == 3 else shape[-1]
    positions = math.prod(shape) // channels
    return (positions, channels) if pooling == "tokens" else (channels,)


# The table of blocks, and selecting from it -------------------------------------------------------------

# A layer of an encoder, but for one within another or within a stage.
_LAYER = r"(?!.*(?:stages|layers?)\.\d+\.)(?:.*\.)?layers?\.\d+"

# What a path reveals of a block: its kind, and whether it is a stage, one of the blocks that are watched by default.
# The first pattern that fits decides. A transformer's stages are its blocks; Flux's are "transformer" where text and
# image have weights of their own (double-stream) and "single" where they share them. A U-Net's transformer
# blocks lie within its stages.
_KINDS: tuple[tuple[str, str, bool], ...] = (
    (r"down_blocks\.\d+", "down", True),
    (r"mid_block", "mid", True),
    (r"up_blocks\.\d+", "up", True),
    (r"transformer_blocks\.\d+", "transformer", True),
    (r"single_transformer_blocks\.\d+", "single", True),
    (r"conv_in|conv_out", "convolution", False),
    (r".*\.resnets\.\d+", "resnet", False),
    (r".*\.attentions\.\d+", "attention", False),
    (r".*\.transformer_blocks\.\d+", "transformer", False),
    (r".*\.(down|up)samplers\.\d+", "resampling", False),
    # of encoders
    (r"(.*\.)?stages\.\d+", "stage", True),
    (_LAYER, "layer", True),
    (r"layers\.\d+\.(last_token|mean)", "text_layer", False),
    (r"last_token|mean", "text", True),
    (r"embedding|latent|pixels", "readout", True),
)


def kind_of(path: str) -> tuple[str, bool]:
    """Return the kind of the block at `path` and whether it is a stage; an empty kind for no block."""
    for pattern, kind, stage in _KINDS:
        if re.fullmatch(pattern, path):
            return kind, stage
    return "", False


def block_table(twin: nn.Module, run: Callable[[nn.Module], Any]) -> pd.DataFrame:
    """List a denoiser's blocks in the order in which they finish; `run` runs one forward pass of `twin`."""
    kinds = {}
    for path, module in twin.named_modules():
        kind, stage = kind_of(path)
        # An undeclared stage must not be missing silently from the table: its hook raises, and shows the shapes.
        if stage or (kind and layout_of(module)):
            kinds[path] = kind, stage
    if not kinds:
        raise BadInputError(
            f"No module of {type(twin).__name__} has a declared output; see `lk.models.register_output_layout`."
        )
    with torch.no_grad(), watching(twin, list(kinds), lambda tensor, layout: (tensor, layout)) as watch:
        run(twin)
    rows = [
        {
            "block": path,
            "kind": kinds[path][0],
            "depth": depth,
            "layout": layout,
            "shape": tuple(tensor.shape[1:]),
            "channels": tensor.shape[1 if layout == "map" else -1],
            "parameters": sum(p.numel() for p in twin.get_submodule(path).parameters()),
            "stage": kinds[path][1],
        }
        for depth, (path, (tensor, layout)) in enumerate(watch.seen.items())
    ]
    return pd.DataFrame(rows)


def select_blocks(table: pd.DataFrame, wanted: str | Sequence[str] | None) -> list[str]:
    """Turn paths, patterns and kinds into module paths, in network order; see `OpenedModel.select_blocks`."""
    if wanted is None:
        return list(table.loc[table["stage"], "block"])
    names = [wanted] if isinstance(wanted, str) else list(wanted)
    if not names:
        raise BadInputError("No block is named. Pass paths, patterns or kinds, or None for all stages.")
    chosen: set[str] = set()
    for name in names:
        pattern = _as_regex(str(name))
        hits = [path for path in table["block"] if re.fullmatch(pattern, path)]
        hits += list(table.loc[table["kind"] == name, "block"])
        if not hits:
            raise unknown_name(
                "block",
                name,
                [*table["block"], *table["kind"].unique()],
                "`model.blocks()` lists them all; patterns such as 'up_blocks.*' work too.",
            )
        chosen.update(hits)
    return [path for path in table["block"] if path in chosen]


def _as_regex(pattern: str) -> str:
    head, rest = ("(?:.*\\.)?", pattern[2:]) if pattern.startswith("*.") else ("", pattern)
    return head + re.escape(rest).replace(r"\*", r"[^.]*")


# Watching ---------------------------------------------------------------------------------------------


class _AllSeenError(Exception):
    """Raised inside a forward pass to leave it early; never reaches the caller."""


class Watch:
    """What `watching` has seen; `seen[block]` is whatever `keep` made of each block's output."""

    def __init__(self) -> None:
        self.seen: dict[str, Any] = {}


@contextmanager
def watching(
    denoiser: nn.Module, blocks: Sequence[str], keep: Callable[[Tensor, str], Any] | None = None
) -> Iterator[Watch]:
    """Watch `blocks` in one forward pass, and leave it as soon as all have been seen; hooks are always removed.

    `keep` (tensor, layout) makes what is stored, at once and on the device; by default the tensor itself. A module
    that runs more than once is seen at its first run. In the manner of baukit's `Trace`.
    """
    watch = Watch()

    def hook_for(block: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, _inputs: Any, output: Any) -> None:
            if block in watch.seen:
                return
            tensor, layout = image_output(module, output, block)
            watch.seen[block] = tensor if keep is None else keep(tensor, layout)
            if len(watch.seen) == len(blocks):
                raise _AllSeenError

        return hook

    handles = [denoiser.get_submodule(block).register_forward_hook(hook_for(block)) for block in blocks]
    try:
        yield watch
    except _AllSeenError:
        pass
    finally:
        for handle in handles:
            handle.remove()
