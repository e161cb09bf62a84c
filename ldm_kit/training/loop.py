"""The training loop that the networks share: warm-up, cool-down, averaged weights, checkpoints.

Accelerate brings mixed precision, diffusers the averaging of weights, transformers the schedule of the learning rate. Ours are two
things. Every step draws its randomness from ``(seed, stage, step)`` alone; and weights, averages, optimiser state and losses lie
in one safetensors file that is moved into place whole. So a run that was killed at any instant and resumed sees the same
batches and ends with the same weights as one that was not.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from safetensors import safe_open
from safetensors.torch import save_file
from tqdm.auto import tqdm
from transformers import get_wsd_schedule

from ldm_kit.datasets.emoji import generator
from ldm_kit.errors import BadInputError, MismatchError, NonFiniteError
from ldm_kit.files import written_aside

_COOL_DOWN = 0.35  # share of the steps, at the end, over which the learning rate falls to nothing
_AVERAGE = 0.999  # how slowly the averaged weights forget


def pick_device(name: str) -> torch.device:
    """Return the device to train on.

    Parameters
    ----------
    name : str
        ``"auto"`` is a GPU where there is one; else a name of torch's.

    Returns
    -------
    torch.device

    Raises
    ------
    BadInputError
        If torch knows no such device.

    Examples
    --------
    >>> pick_device("cpu")
    device(type='cpu')
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise BadInputError(
            f"torch knows no device {name!r}. Choose 'auto', 'cpu', 'cuda' or 'mps'."
        ) from error


def cool_down_begins(steps: int) -> int:
    """Return the first step at which the learning rate falls."""
    return round(steps * (1 - _COOL_DOWN))


def train(
    stage: str,
    modules: Mapping[str, torch.nn.Module],
    loss_of_step: Callable[[int, np.random.Generator, torch.Generator], torch.Tensor],
    *,
    out: Path,
    steps: int,
    learning_rate: float,
    seed: int,
    identity: Mapping[str, Any],
    warm_up: int = 100,
    save_every: int = 200,
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Train modules together, resuming from a checkpoint where there is one.

    Parameters
    ----------
    stage : str
        Names the progress bar and the checkpoint ``OUT/STAGE.safetensors``.
    modules : mapping of str to torch.nn.Module
        What is trained, on the device to train on; changed in place.
    loss_of_step : callable
        Returns the loss (a scalar tensor) of a step from its number and its random generators.
    out : pathlib.Path
    steps : int
        How many steps the whole run has.
    learning_rate : float
        AdamW's, on the plateau.
    seed : int
        Of the steps' randomness.
    identity : mapping
        Further settings that make this run what it is; a checkpoint of another run is refused.
    warm_up : int, default 100
        Steps over which the learning rate rises; a tenth of all steps at the most.
    save_every : int, default 200
        Steps between checkpoints.

    Returns
    -------
    averages : dict of str to torch.nn.Module
        Exponential moving averages of the modules, in evaluation mode, on the CPU: use these.
    losses : pandas.DataFrame, shape (steps, 2)
        Columns ``step`` and ``loss``.

    Raises
    ------
    MismatchError
        If the checkpoint has other settings, or its length can no longer be changed.
    NonFiniteError
        If a loss is not finite; the last checkpoint stays.
    """
    everything = torch.nn.ModuleDict(modules)
    parameters = list(everything.parameters())
    optimizer = torch.optim.AdamW(
        parameters, lr=learning_rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True
    )
    average = EMAModel(parameters, decay=_AVERAGE)
    path = out / f"{stage}.safetensors"
    identity = {**identity, "seed": seed, "learning_rate": learning_rate, "warm_up": warm_up, "steps": steps}
    losses, before = _load(path, everything, average, optimizer, identity)
    if before != steps and len(losses) > min(map(cool_down_begins, (before, steps))):
        raise MismatchError(
            f"{path.name} was to have {before} steps and is at step {len(losses)}, past the plateau of the "
            f"learning rate; its length cannot become {steps}. Choose {before} steps, or start afresh."
        )
    # A plateau rather than one long cosine: until the fall begins, a run does not depend on how long it is going to be.
    decay = steps - cool_down_begins(steps)
    schedule = get_wsd_schedule(
        optimizer, min(warm_up, steps // 10), decay, num_training_steps=steps, decay_type="cosine"
    )
    (factor_of,) = schedule.lr_lambdas  # asked step by step: a schedule's own count would have to be resumed
    on_gpu = parameters[0].device.type == "cuda"
    accelerator = Accelerator(
        cpu=parameters[0].device.type == "cpu", mixed_precision="bf16" if on_gpu else "no"
    )
    everything.train()
    bar = tqdm(range(len(losses), steps), initial=len(losses), total=steps, desc=stage, mininterval=2.0)
    for step in bar:
        rng = generator("training", seed, stage, step)
        with accelerator.autocast():
            loss = loss_of_step(step, rng, torch.Generator().manual_seed(int(rng.integers(2**62))))
        losses.append(float(loss.detach()))
        if not np.isfinite(losses[-1]):
            raise NonFiniteError(
                f"The loss of {stage} became {losses[-1]} at step {step}. Lower the learning rate "
                f"(it was {learning_rate}) and start afresh in another folder."
            )
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * factor_of(step)
        optimizer.zero_grad(set_to_none=True)
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        average.step(parameters)
        if (step + 1) % 20 == 0:
            bar.set_postfix(loss=f"{np.mean(losses[-100:]):.4f}")
        if (step + 1) % save_every == 0 or step + 1 == steps:
            save(path, everything, average, optimizer, losses, identity)
    averaged = copy.deepcopy(everything).requires_grad_(False).eval()
    average.copy_to(averaged.parameters())
    frame = pd.DataFrame({"step": np.arange(1, len(losses) + 1), "loss": losses})
    return {key: averaged[key].cpu() for key in modules}, frame


def save(
    path: Path,
    modules: torch.nn.Module,
    average: EMAModel,
    optimizer: torch.optim.Optimizer,
    losses: list[float],
    identity: Mapping[str, Any],
) -> None:
    """Write a checkpoint aside and move it into place.

    Not accelerate's `save_state` nor torch's own: they pickle the optimiser, and write in place.
    """
    tensors = {f"modules/{key}": value for key, value in modules.state_dict().items()}
    tensors |= {f"average/{index}": value for index, value in enumerate(average.shadow_params)}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{key}": torch.as_tensor(value) for key, value in state.items()}
    tensors["losses"] = torch.tensor(losses, dtype=torch.float64)
    # safetensors refuses tensors that share memory, and saves contiguous ones only
    tensors = {key: value.detach().cpu().clone().contiguous() for key, value in tensors.items()}
    with written_aside(path) as aside:
        save_file(tensors, aside, metadata={"identity": json.dumps(identity)})


def _load(
    path: Path,
    modules: torch.nn.Module,
    average: EMAModel,
    optimizer: torch.optim.Optimizer,
    identity: Mapping[str, Any],
) -> tuple[list[float], int]:
    """Fill modules and optimiser from a checkpoint, if there is one; its losses, and how many steps it was to have."""
    if not path.exists():
        return [], identity["steps"]
    with safe_open(path, framework="pt") as file:
        saved = json.loads(file.metadata()["identity"])
        requested = json.loads(json.dumps(identity))  # as JSON has it: tuples are lists
        unlike = [
            f"{key} was {saved.get(key)!r}, now {requested.get(key)!r}"
            for key in sorted({*saved, *requested} - {"steps"})
            if saved.get(key) != requested.get(key)
        ]
        if unlike:
            raise MismatchError(
                f"The checkpoint {path.name} was made with other settings: {'; '.join(unlike)}. "
                "Use its settings to go on with it, or another `out` folder to start afresh."
            )
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
    weights: dict[str, torch.Tensor] = {}
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        kind, _, key = name.partition("/")
        if kind == "modules":
            weights[key] = tensor
        elif kind == "optimizer":
            index, field = key.split("/")
            state.setdefault(int(index), {})[field] = tensor
    modules.load_state_dict(weights)
    for index, shadow in enumerate(average.shadow_params):
        shadow.copy_(tensors[f"average/{index}"])
    average.optimization_step = len(tensors["losses"])
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    # A fused step pairs numbers as they lie in memory: moments must lie as their parameters do, which may be channels last.
    for parameter, moments in optimizer.state.items():
        for key, value in moments.items():
            if value.shape == parameter.shape:
                moments[key] = torch.empty_like(parameter).copy_(value)
    return tensors["losses"].tolist(), int(saved["steps"])
