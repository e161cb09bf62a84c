"""The denoiser's blocks as a table, and how a user names some of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
import torch
from torch import nn

from ldm_kit.errors import BadInputError, unknown_name
from ldm_kit.models.outputs import DECLARED, image_part

# A layer of an encoder, but for one within another or within a stage.
LAYER = r"(?!.*(?:stages|layers?)\.\d+\.)(?:.*\.)?layers?\.\d+"

# What a path says of a block. The first pattern that fits names its kind; stages come first because
# they are what the paper compares and what is taken when nothing is asked for. A transformer's stages are its
# blocks; Flux's are "transformer" where text and image have weights of their own (double-stream) and
# "single" where they share them. A U-Net's transformer blocks lie within its stages.
KINDS: tuple[tuple[str, str], ...] = (
    (r"down_blocks\.\d+", "down"),
    (r"mid_block", "mid"),
    (r"up_blocks\.\d+", "up"),
    (r"transformer_blocks\.\d+", "transformer"),
    (r"single_transformer_blocks\.\d+", "single"),
    (r"conv_in|conv_out", "convolution"),
    (r".*\.resnets\.\d+", "resnet"),
    (r".*\.attentions\.\d+", "attention"),
    (r".*\.transformer_blocks\.\d+", "transformer"),
    (r".*\.(down|up)samplers\.\d+", "resampling"),
    # of encoders
    (r"(.*\.)?stages\.\d+", "stage"),
    (LAYER, "layer"),
    (r"layers\.\d+\.(last_token|mean)", "text_layer"),
    (r"last_token|mean", "text"),
    (r"embedding|latent|pixels", "readout"),
)
STAGE = re.compile(
    r"(down_blocks|up_blocks|(single_)?transformer_blocks)\.\d+|mid_block"
    rf"|(.*\.)?stages\.\d+|{LAYER}|last_token|mean|embedding|latent|pixels"
)


def kind_of(path: str) -> str | None:
    """Name the kind of the block at `path`; None for modules that are not offered as blocks.

    Examples
    --------
    >>> kind_of("up_blocks.1"), kind_of("up_blocks.1.resnets.0"), kind_of("time_embedding")
    ('up', 'resnet', None)
    """
    for pattern, kind in KINDS:
        if re.fullmatch(pattern, path):
            return kind
    return None


def block_table(twin: nn.Module, run: Callable[[nn.Module], Any]) -> pd.DataFrame:
    """List a denoiser's blocks in the order in which they finish.

    Parameters
    ----------
    twin : torch.nn.Module
        The denoiser, or a copy of it without weights on the meta device: nothing is computed then.
    run : callable
        Runs one forward pass of the module it is given, batch size 1.

    Returns
    -------
    pandas.DataFrame
        Columns ``block`` (module path), ``kind``, ``depth`` (0 for the block that finishes first),
        ``layout``, ``shape`` (of one picture), ``channels``, ``parameters``, ``stage`` (whether it is
        one of the stages that are watched by default).

    Raises
    ------
    BadInputError
        If the output of a stage is not declared.

    Examples
    --------
    >>> model.blocks()  # doctest: +SKIP
    """
    rows: list[dict[str, Any]] = []

    def hook_for(path: str, kind: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, _inputs: Any, output: Any) -> None:
            tensor, layout = image_part(module, output, path)
            shape = tuple(tensor.shape[1:])
            rows.append(
                {
                    "block": path,
                    "kind": kind,
                    "layout": layout,
                    "shape": shape,
                    "channels": shape[0] if layout == "map" else shape[-1],
                    "parameters": sum(p.numel() for p in module.parameters()),
                    "stage": STAGE.fullmatch(path) is not None,
                }
            )

        return hook

    handles = []
    for path, module in twin.named_modules():
        kind = kind_of(path)
        # An undeclared stage must not drop out of the table unseen: its hook raises, and shows the shapes.
        if kind is not None and (type(module).__name__ in DECLARED or STAGE.fullmatch(path)):
            handles.append(module.register_forward_hook(hook_for(path, kind)))
    try:
        with torch.no_grad():
            run(twin)
    finally:
        for handle in handles:
            handle.remove()
    if not rows:
        raise BadInputError(
            f"None of the modules of {type(twin).__name__} is declared in ldm_kit.models.outputs.DECLARED. "
            "Add its block classes there."
        )
    table = pd.DataFrame(rows).drop_duplicates("block", keep="first").reset_index(drop=True)
    table.insert(2, "depth", range(len(table)))
    return table


def select_blocks(table: pd.DataFrame, wanted: str | Sequence[str] | None) -> list[str]:
    """Turn what a user asked for into module paths, in network order.

    Parameters
    ----------
    table : pandas.DataFrame
        From `block_table`.
    wanted : str or sequence of str, optional
        Paths (``"mid_block"``), patterns (``"up_blocks.*"``: a ``*`` stands for one part between
        dots, at the front for all that comes before, as in ``"*.resnets.1"``) or kinds (``"up"``,
        ``"resnet"``; of a transformer ``"transformer"``, and ``"single"`` for Flux's single-stream blocks). None: the stages.

    Returns
    -------
    list of str

    Raises
    ------
    UnknownNameError
        For every name that matches nothing; a pattern never passes silently.

    Examples
    --------
    >>> table = pd.DataFrame({"block": ["down_blocks.0", "mid_block"], "kind": ["down", "mid"], "stage": True})
    >>> select_blocks(table, "down_blocks.*")
    ['down_blocks.0']
    """
    if wanted is None:
        return list(table.loc[table["stage"], "block"])
    names = [wanted] if isinstance(wanted, str) else list(wanted)
    if not names:
        raise BadInputError("No block was asked for. Give paths, patterns or kinds, or None for all stages.")
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
