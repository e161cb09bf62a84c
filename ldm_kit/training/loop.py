"""The training loop that the autoencoder and the denoiser share: warm-up, cool-down, averages, checkpoints.

Every step draws its randomness from ``(seed, stage, step)`` alone, so a run that was interrupted and resumed sees the
same batches and ends with the same weights as one that was not.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from ldm_kit.datasets.toybox import generator
from ldm_kit.errors import BadInputError, MismatchError, NonFiniteError
from ldm_kit.training import checkpoint

__all__ = ["learning_rate_factor", "pick_device", "step_generators", "train"]

COOL_DOWN = 0.35  # share of the steps, at the end, over which the learning rate falls to nothing
AVERAGE = 0.999  # how slowly the averaged weights forget


def step_generators(seed: int, stage: str, step: int) -> tuple[np.random.Generator, torch.Generator]:
    """Randomness of one step, for NumPy and for torch.

    Examples
    --------
    >>> first, second = (int(step_generators(0, "denoiser", 7)[0].integers(1000)) for _ in range(2))
    >>> first == second
    True
    """
    rng = generator("training", seed, stage, step)
    return rng, torch.Generator().manual_seed(int(rng.integers(2**62)))


def pick_device(name: str) -> torch.device:
    """The device to train on; ``"auto"`` is a GPU where there is one.

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
            f"torch knows no device {name!r}. Give 'auto', 'cpu', 'cuda' or 'mps'."
        ) from error


def learning_rate_factor(step: int, steps: int, warm_up: int) -> float:
    """Share of the full learning rate at a step: a linear rise, a plateau, a cosine fall.

    The plateau (rather than one long cosine) means that, until the fall begins, a run does not depend on how long it
    is going to be: it can be lengthened or cut short.

    Examples
    --------
    >>> [round(learning_rate_factor(step, 1000, 100), 2) for step in (0, 49, 99, 500, 825, 999)]
    [0.01, 0.5, 1.0, 1.0, 0.5, 0.0]
    """
    begin = cool_down_begins(steps)
    if step < begin:
        return min(1.0, (step + 1) / max(1, warm_up))
    return 0.5 * (1 + float(np.cos(np.pi * (step - begin) / max(1, steps - begin))))


def cool_down_begins(steps: int) -> int:
    """The first step at which the learning rate falls.

    Examples
    --------
    >>> cool_down_begins(1000)
    650
    """
    return round(steps * (1 - COOL_DOWN))


def _average(
    averages: Mapping[str, torch.nn.Module], modules: Mapping[str, torch.nn.Module], step: int
) -> None:
    decay = min(AVERAGE, (1 + step) / (10 + step))  # early weights are poor: forget them fast
    with torch.no_grad():
        for name, module in modules.items():
            for old, new in zip(averages[name].parameters(), module.parameters(), strict=True):
                old.lerp_(new, 1 - decay)


def train(
    modules: Mapping[str, torch.nn.Module],
    loss_of_step: Callable[[int], torch.Tensor],
    *,
    steps: int,
    learning_rate: float,
    path: Path,
    identity: Mapping[str, Any],
    warm_up: int = 100,
    save_every: int = 200,
    name: str = "training",
    on_checkpoint: Callable[[Mapping[str, torch.nn.Module]], None] | None = None,
) -> tuple[dict[str, torch.nn.Module], pd.DataFrame]:
    """Train modules together, resuming from a checkpoint where there is one.

    Parameters
    ----------
    modules : mapping of str to torch.nn.Module
        What is trained, on the device to train on; changed in place.
    loss_of_step : callable
        Gives the loss (a scalar tensor) of a step from its number alone.
    steps : int
        How many steps the whole run has.
    learning_rate : float
        AdamW's, on the plateau.
    path : pathlib.Path
        The checkpoint file.
    identity : mapping
        The settings that make this run what it is; a checkpoint of another run is refused.
    warm_up : int, default 100
        Steps over which the learning rate rises.
    save_every : int, default 200
        Steps between checkpoints.
    name : str, default "training"
        For the progress bar.
    on_checkpoint : callable, optional
        Called with the averaged modules after each checkpoint but the last.

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

    Examples
    --------
    >>> averages, losses = train({"vae": vae}, loss_of_step, steps=100, learning_rate=1e-3,
    ...                          path=Path("run/vae.safetensors"), identity={"seed": 0})  # doctest: +SKIP
    """
    averages = {key: copy.deepcopy(module).requires_grad_(False).eval() for key, module in modules.items()}
    parameters = [p for module in modules.values() for p in module.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, betas=(0.9, 0.99), weight_decay=0.01)
    identity = {**identity, "steps": steps, "learning_rate": learning_rate, "warm_up": warm_up}
    everything = {**modules, **{f"average of {key}": module for key, module in averages.items()}}
    done, losses, saved = checkpoint.load(
        path, everything, optimizer, identity=identity, free=frozenset({"steps"})
    )
    before = saved.get("steps", steps)
    if before != steps and done > min(map(cool_down_begins, (before, steps))):
        raise MismatchError(
            f"{path.name} was to have {before} steps and is at step {done}, past the plateau of the "
            f"learning rate; its length cannot become {steps}. Ask for {before} steps, or start afresh."
        )
    for module in modules.values():
        module.train()
    bar = tqdm(range(done, steps), initial=done, total=steps, desc=name, mininterval=2.0)
    for step in bar:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * learning_rate_factor(step, steps, warm_up)
        loss = loss_of_step(step)
        if not bool(torch.isfinite(loss)):
            raise NonFiniteError(
                f"The loss of {name} became {float(loss)} at step {step}. Lower the learning rate "
                f"(it was {learning_rate}) and start afresh in another folder."
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        _average(averages, modules, step)
        losses.append(float(loss.detach()))
        if (step + 1) % 20 == 0:
            bar.set_postfix(loss=f"{np.mean(losses[-100:]):.4f}")
        if (step + 1) % save_every == 0 or step + 1 == steps:
            checkpoint.save(path, everything, optimizer, step=step + 1, losses=losses, identity=identity)
            if on_checkpoint is not None and step + 1 < steps:
                on_checkpoint(averages)
    averages = {key: module.cpu() for key, module in averages.items()}
    return averages, pd.DataFrame({"step": np.arange(1, len(losses) + 1), "loss": losses})
