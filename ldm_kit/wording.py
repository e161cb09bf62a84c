"""Numbers as sentences, with their interval, and with what the interval allows to be said."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def accuracy_said(row: Mapping[str, Any]) -> str:
    """Say an accuracy with its interval, and whether it differs from chance.

    Parameters
    ----------
    row : mapping
        A row of the tidy table: ``accuracy``, ``ci_low``, ``ci_high``, ``chance``.

    Returns
    -------
    str
        "above" or "below chance" only if the 95 % interval excludes chance.

    Examples
    --------
    >>> accuracy_said({"accuracy": 0.41, "ci_low": 0.38, "ci_high": 0.44, "chance": 1 / 3})
    '0.410 [0.380, 0.440], above chance (0.333)'
    """
    low, high, chance = float(row["ci_low"]), float(row["ci_high"]), float(row["chance"])
    told = f"{float(row['accuracy']):.3f} [{low:.3f}, {high:.3f}]"
    if low > chance:
        return f"{told}, above chance ({chance:.3f})"
    if high < chance:
        return f"{told}, below chance ({chance:.3f})"
    return f"{told}, not distinguishable from chance ({chance:.3f})"


def difference_said(difference: float, low: float, high: float) -> str:
    """Say a difference with its interval, and whether it differs from zero.

    Examples
    --------
    >>> difference_said(0.02, -0.01, 0.05)
    '+0.020 [-0.010, +0.050], which covers zero: no difference is shown'
    """
    told = f"{difference:+.3f} [{low:+.3f}, {high:+.3f}]"
    if low > 0:
        return f"{told}, a gain"
    if high < 0:
        return f"{told}, a loss"
    return f"{told}, which covers zero: no difference is shown"
