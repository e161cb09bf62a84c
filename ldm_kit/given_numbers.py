"""Checks of what extraction, measures and notebooks are given, before any work is done."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np

from ldm_kit.errors import BadInputError, unknown_name


def whole_number(name: str, value: Any, least: int) -> int:
    """Return a whole number that is at least `least`; anything else is an error.

    Examples
    --------
    >>> whole_number("patience", np.int64(6), 1)
    6
    """
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Integral) or value < least:
        raise BadInputError(f"{name}={value!r}: give a whole number from {least}.")
    return int(value)


def real_number(name: str, value: Any, *, positive: bool = False) -> float:
    """Return a finite number of 0 or more (or above 0); anything else is an error.

    Examples
    --------
    >>> real_number("lam", 0)
    0.0
    """
    given = isinstance(value, numbers.Real) and not isinstance(value, (bool, np.bool_))
    if not given or not np.isfinite(value) or value < 0 or (positive and value == 0):
        raise BadInputError(f"{name}={value!r}: give a number {'above 0' if positive else 'of 0 or more'}.")
    return float(value)


def number_of_folds(n_folds: Any) -> int:
    """Return a number of folds of 2 or more; anything else is an error.

    Examples
    --------
    >>> number_of_folds(3)
    3
    """
    if isinstance(n_folds, (int, np.integer)) and not isinstance(n_folds, bool) and n_folds < 2:
        raise BadInputError(f"n_folds={n_folds}: at least 2 are needed, so that some objects are held out.")
    return whole_number("n_folds", n_folds, 2)


# How the parameters that only a late cell reads begin or end -> the least whole number that they may be.
LEAST = {
    "n_catch": 0,
    "judge_samples": 0,
    "threads": 0,
    "seed": 0,
    "n_": 1,
    "exemplars": 1,
    "save_every": 1,
    "_steps": 1,
    "_batch": 1,
}


def check_parameters(*, blocks: Sequence[str] = (), noise_levels: Sequence[float] = (), **given: Any) -> None:
    """Check a notebook's parameters at its top, not where the cell that needs them stands, hours later.

    Parameters
    ----------
    blocks, noise_levels : sequence, optional
        What `autoplay` and `shown` may name.
    **given
        Parameters by their names: `metric`, `n_folds`, `trials`, `shown`, `autoplay`, `seed`, numbers of things,
        steps, rates, channels.

    Raises
    ------
    BadInputError, UnknownNameError
        For the first that cannot be used.

    Examples
    --------
    >>> check_parameters(metric="cosin")
    Traceback (most recent call last):
    ldm_kit.errors.UnknownNameError: Unknown metric 'cosin'. Did you mean 'cosine'? ...
    """
    from ldm_kit.game.simulated import PLAYERS
    from ldm_kit.game.trials import HOW
    from ldm_kit.measures.metrics import METRICS

    names = {"metric": METRICS, "trials": HOW, "autoplay": (*PLAYERS, *blocks), "shown": tuple(noise_levels)}
    for name, value in given.items():
        least = next(
            (least for part, least in LEAST.items() if name.startswith(part) or name.endswith(part)), None
        )
        if name in names:
            if value not in names[name]:
                raise unknown_name(name, str(value), [str(one) for one in names[name]], "Pick one of these.")
        elif name == "n_folds":
            number_of_folds(value)
        elif name.endswith("_channels"):
            multiple = 32 if name.startswith("denoiser") else 8
            if not value or any(whole_number(f"each of {name}", one, 1) % multiple for one in value):
                raise BadInputError(f"{name}={value!r}: give multiples of {multiple}, one a level.")
        elif least is not None:
            whole_number(name, value, least)
        else:
            real_number(name, value, positive=name.endswith("_rate"))
