"""Checks of the numbers that extraction, measures and probes are set up with, before any work is done."""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np

from ldm_kit.errors import BadInputError


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
