"""Which part of a module's output is the image's representation: declared per class, never guessed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ldm_kit.errors import BadInputError


@dataclass(frozen=True)
class Output:
    """Where a module class keeps the image's representation.

    Parameters
    ----------
    layout : {"map", "tokens"}
        ``"map"``: (n, channels, height, width); ``"tokens"``: (n, tokens, channels).
    element : int, optional
        Position in the tuple that the module must return; None if it returns the tensor itself.
    """

    layout: str
    element: int | None = None


MAP, TOKENS = Output("map"), Output("tokens")
MAP_FIRST = Output("map", element=0)
TOKENS_SECOND = Output("tokens", element=1)

# diffusers' down blocks return (hidden state, the residuals for the up blocks): the hidden state is
# what the next block gets, after this block's own downsampler. Up blocks give it after the upsampler.
DECLARED: dict[str, Output] = {
    "DownBlock2D": MAP_FIRST,
    "CrossAttnDownBlock2D": MAP_FIRST,
    "AttnDownBlock2D": MAP_FIRST,
    "UNetMidBlock2D": MAP,
    "UNetMidBlock2DCrossAttn": MAP,
    "UpBlock2D": MAP,
    "CrossAttnUpBlock2D": MAP,
    "AttnUpBlock2D": MAP,
    "ResnetBlock2D": MAP,
    "Downsample2D": MAP,
    "Upsample2D": MAP,
    "Transformer2DModel": MAP_FIRST,
    "Conv2d": MAP,
    # (text, image); the text of SD3's last block is None. Flux's single blocks run over both in one sequence
    # and part them again; where an older diffusers does not, that is an error, not a mixture.
    "JointTransformerBlock": TOKENS_SECOND,
    "FluxTransformerBlock": TOKENS_SECOND,
    "FluxSingleTransformerBlock": TOKENS_SECOND,
    "BasicTransformerBlock": TOKENS,
}


def image_part(module: nn.Module, output: Any, block: str) -> tuple[Tensor, str]:
    """Take the image's representation out of what `module` returned.

    Parameters
    ----------
    module : torch.nn.Module
        The block.
    output : Any
        What its forward returned.
    block : str
        The block's path, for the error.

    Returns
    -------
    tensor : Tensor
        (n, channels, height, width) or (n, tokens, channels).
    layout : {"map", "tokens"}

    Raises
    ------
    BadInputError
        If the class is not declared, or returned something other than what is declared. The message
        shows the shapes, so that a declaration can be added to `DECLARED`.

    Examples
    --------
    >>> import torch
    >>> image_part(nn.Conv2d(1, 2, 1), torch.zeros(3, 2, 4, 4), "conv_in")[1]
    'map'
    """
    name = type(module).__name__
    declared = DECLARED.get(name)
    if declared is None:
        raise BadInputError(
            f"Block {block!r} is a {name}, whose output is not declared. It returned {shapes(output)}. Say "
            f"which element is the image's in `ldm_kit.models.outputs.DECLARED[{name!r}]`, or watch its parent."
        )
    tensor = output
    if declared.element is not None:
        several = isinstance(output, (tuple, list)) and len(output) > declared.element
        tensor = output[declared.element] if several else None
    dims = 4 if declared.layout == "map" else 3
    if not isinstance(tensor, Tensor) or tensor.ndim != dims:
        raise BadInputError(
            f"Block {block!r} ({name}) returned {shapes(output)}, not the {declared.layout} that is declared "
            f"for it in `ldm_kit.models.outputs.DECLARED`. Correct the declaration for this diffusers version."
        )
    return tensor, declared.layout


def shapes(output: Any) -> str:
    """Describe the shapes in a (nested) output.

    Examples
    --------
    >>> import torch
    >>> shapes((torch.zeros(1, 2), None))
    '((1, 2), None)'
    """
    if isinstance(output, Tensor):
        return str(tuple(output.shape))
    if isinstance(output, (tuple, list)):
        return "(" + ", ".join(shapes(part) for part in output) + ")"
    if isinstance(output, dict):
        return "{" + ", ".join(f"{key}: {shapes(part)}" for key, part in output.items()) + "}"
    return "None" if output is None else type(output).__name__


POOLINGS = ("mean", "max", "none")


def pool(tensor: Tensor, layout: str, pooling: str) -> Tensor:
    """Pool a block's output over space.

    Parameters
    ----------
    tensor : Tensor
        (n, channels, height, width) for layout ``"map"``, (n, tokens, channels) for ``"tokens"``.
    layout : {"map", "tokens"}
    pooling : {"mean", "max", "none"}
        Over all positions; ``"none"`` keeps them.

    Returns
    -------
    Tensor
        (n, channels) in float32; for ``"none"`` as it came. Sums run in float32, since a float16
        sum over 4,096 positions loses digits.

    Examples
    --------
    >>> import torch
    >>> pool(torch.ones(2, 3, 4, 4), "map", "mean").shape
    torch.Size([2, 3])
    """
    if pooling == "none":
        return tensor.float()
    flat = tensor.flatten(2).float() if layout == "map" else tensor.transpose(1, 2).float()
    return flat.mean(dim=2) if pooling == "mean" else flat.amax(dim=2)
