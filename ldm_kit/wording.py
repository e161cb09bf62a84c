"""Numbers as sentences, with their interval, and with what the interval allows to be said."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def format_accuracy(row: Mapping[str, Any]) -> str:
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
    >>> format_accuracy({"accuracy": 0.41, "ci_low": 0.38, "ci_high": 0.44, "chance": 1 / 3})
    '0.410 [0.380, 0.440], above chance (0.333)'
    """
    low, high, chance = float(row["ci_low"]), float(row["ci_high"]), float(row["chance"])
    if low != low:
        return f"{float(row['accuracy']):.3f}, without an interval"
    told = f"{float(row['accuracy']):.3f} [{low:.3f}, {high:.3f}]"
    if low > chance:
        return f"{told}, above chance ({chance:.3f})"
    if high < chance:
        return f"{told}, below chance ({chance:.3f})"
    return f"{told}, not distinguishable from chance ({chance:.3f})"


def format_difference(row: Mapping[str, Any], of: str = "difference") -> str:
    """Say a difference with its corrected interval, and whether that differs from zero.

    Parameters
    ----------
    row : mapping
        A row of `compare`, or, for the `gain` of a probe, of `ProbeResult.summary`.
    of : {"difference", "gain"}

    Returns
    -------
    str
        "a gain" or "a loss" only where the corrected test shows one.

    Examples
    --------
    >>> row = {"difference": 0.02, "low_corrected": -0.01, "high_corrected": 0.05, "n_compared": 8}
    >>> format_difference(row)
    '+0.020 [-0.010, +0.050], corrected for 8 comparisons, which covers zero: no difference is shown'
    """
    prefix = "" if of == "difference" else f"{of}_"
    low, high = float(row[f"{prefix}low_corrected"]), float(row[f"{prefix}high_corrected"])
    told = f"{float(row[of]):+.3f}"
    if low != low:
        return f"{told}, without an interval"
    told += f" [{low:+.3f}, {high:+.3f}]"
    if int(row["n_compared"]) > 1:
        told += f", corrected for {int(row['n_compared'])} comparisons"
    if low > 0:
        return f"{told}, a gain"
    if high < 0:
        return f"{told}, a loss"
    return f"{told}, which covers zero: no difference is shown"
