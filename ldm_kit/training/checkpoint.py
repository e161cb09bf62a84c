"""Checkpoints of a training: everything needed to go on, in one file that is never half-written.

Weights, moving averages, optimiser state and the losses so far share one safetensors file, moved into place whole.
A run killed at any instant finds either the previous checkpoint or the next one; nothing is unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ldm_kit.errors import MismatchError
from ldm_kit.files import written_aside

__all__ = ["load", "save"]

Tensors = dict[str, torch.Tensor]


def save(
    path: Path,
    modules: Mapping[str, torch.nn.Module],
    optimizer: torch.optim.Optimizer,
    *,
    step: int,
    losses: list[float],
    identity: Mapping[str, Any],
) -> None:
    """Write a checkpoint aside and move it into place.

    Parameters
    ----------
    path : pathlib.Path
        The safetensors file to replace.
    modules : mapping of str to torch.nn.Module
        What is trained, and its averages; the keys prefix the tensors' names.
    optimizer : torch.optim.Optimizer
        An Adam-like optimiser whose state is tensors.
    step : int
        Steps done so far.
    losses : list of float, length step
        The loss of every step.
    identity : mapping
        The settings that a resumed run must share; stored as JSON.

    Examples
    --------
    >>> save(Path("run/denoiser.safetensors"), {"unet": unet}, optimizer, step=5, losses=five,
    ...      identity={"seed": 0})  # doctest: +SKIP
    """
    tensors: Tensors = {
        f"{name}/{key}": value
        for name, module in modules.items()
        for key, value in module.state_dict().items()
    }
    for index, state in optimizer.state_dict()["state"].items():
        tensors.update({f"optimizer/{index}/{key}": torch.as_tensor(value) for key, value in state.items()})
    tensors["losses"] = torch.tensor(losses, dtype=torch.float64)
    # safetensors refuses tensors that share memory, and saves contiguous ones only
    tensors = {key: value.detach().cpu().clone().contiguous() for key, value in tensors.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(path) as aside:
        save_file(
            tensors,
            aside,
            metadata={"step": str(step), "identity": json.dumps(dict(identity), sort_keys=True)},
        )


def _differences(saved: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    keys = sorted(key for key in {*saved, *asked} if saved.get(key) != asked.get(key))
    return "; ".join(f"{key} was {saved.get(key)!r}, now {asked.get(key)!r}" for key in keys)


def load(
    path: Path,
    modules: Mapping[str, torch.nn.Module],
    optimizer: torch.optim.Optimizer,
    *,
    identity: Mapping[str, Any],
    free: frozenset[str] = frozenset(),
) -> tuple[int, list[float], dict[str, Any]]:
    """Load a checkpoint into the modules and the optimiser, if there is one.

    Parameters
    ----------
    path : pathlib.Path
        Where `save` wrote.
    modules, optimizer
        Filled in place.
    identity : mapping
        This run's settings.
    free : frozenset of str, default empty
        Settings that may differ from the saved ones.

    Returns
    -------
    step : int
        Steps already done, 0 without a checkpoint.
    losses : list of float
        Their losses.
    saved : dict
        The settings stored in the file, empty without a checkpoint.

    Raises
    ------
    MismatchError
        If the checkpoint was made with other settings; each difference is named.

    Examples
    --------
    >>> load(Path("run/denoiser.safetensors"), {"unet": unet}, optimizer, identity={"seed": 0})  # doctest: +SKIP
    (5, [0.9, 0.8, 0.8, 0.7, 0.6], {'seed': 0})
    """
    if not path.exists():
        return 0, [], {}
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        saved: dict[str, Any] = json.loads(metadata["identity"])
        asked: dict[str, Any] = json.loads(
            json.dumps(dict(identity))
        )  # as JSON would have it: tuples are lists
        unlike = _differences(
            {k: v for k, v in saved.items() if k not in free},
            {k: v for k, v in asked.items() if k not in free},
        )
        if unlike:
            raise MismatchError(
                f"The checkpoint {path.name} was made with other settings: {unlike}. "
                "Use its settings to go on with it, or another `out` folder to start afresh."
            )
        tensors: Tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
    for name, module in modules.items():
        prefix = f"{name}/"
        module.load_state_dict(
            {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        )
    state: dict[int, Tensors] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer/"):
            _, index, part = key.split("/")
            state.setdefault(int(index), {})[part] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return int(metadata["step"]), tensors["losses"].tolist(), saved
