"""What an interval says: above, below, within a margin, or that it cannot be told; and estimates as sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from ldm_kit.errors import BadInputError, one_of, real_number

OF = ("difference", "gain", "accuracy")
# The widest claim first: an interval for all cells at once, one corrected for several differences, one alone.
INTERVALS = (("low_simultaneous", "high_simultaneous"), ("low_corrected", "high_corrected"))
CANNOT_TELL, WITHIN = "cannot be told", "within the margin"


def verdict(row: Mapping[str, Any], of: str | None = None, *, margin: float | None = None) -> str:
    """Say what the interval of a difference, a gain or an accuracy shows.

    Parameters
    ----------
    row : mapping
        A row of `compare`, `max_t_test`, `odd_one_out` or `ProbeResult.summary`. The simultaneous or corrected interval
        counts where there is one.
    of : {"difference", "gain", "accuracy"}, optional
        A difference or gain is compared with 0, an accuracy with `chance`. By default the first that the row has.
    margin : float, optional
        Differences smaller than this are as good as none. Without one, nothing is ever said to be equal.

    Returns
    -------
    str
        "above" or "below" where the interval lies on one side; "within the margin" where it lies wholly within it, even on one side;
        else "cannot be told".

    References
    ----------
    Schuirmann 1987, doi:10.1007/BF01068419 (equivalence is shown by an interval within the margin).

    Examples
    --------
    >>> row = {"difference": 0.01, "low_corrected": -0.01, "high_corrected": 0.03}
    >>> verdict(row), verdict(row, margin=0.05)
    ('cannot be told', 'within the margin')
    """
    low, high, zero, _ = _read(row, of)
    if margin is not None and real_number("margin", margin, positive=True) > max(high - zero, zero - low):
        return WITHIN
    return "above" if low > zero else "below" if high < zero else CANNOT_TELL


def to_tell(row: Mapping[str, Any], of: str | None = None, *, margin: float | None = None) -> int | None:
    """How many objects would tell, with choices and people in proportion, if the estimate stayed where it is.

    Parameters
    ----------
    row, of, margin
        As for `verdict`.

    Returns
    -------
    int or None
        None where it is told already, the row does not say how many objects there were, or no number would do, as where the
        estimate is zero and there is no margin. The half-width falls with the root of the number of objects.

    Examples
    --------
    >>> to_tell({"difference": 0.01, "low_corrected": -0.01, "high_corrected": 0.03, "n_objects": 100})
    401
    """
    low, high, zero, estimate = _read(row, of)
    n = row.get("n_objects")
    if verdict(row, of, margin=margin) != CANNOT_TELL or n is None or pd.isna(n) or low != low:
        return None
    distance, half = abs(estimate - zero), (high - low) / 2
    wanted = distance if margin is None else max(distance, margin - distance)
    if wanted <= 0:
        return None
    return math.floor(int(n) * (half / wanted) ** 2) + 1


def verdicts(table: pd.DataFrame, of: str | None = None, *, margin: float | None = None) -> pd.DataFrame:
    """Add the columns `verdict` and `objects_to_tell` to a table.

    Parameters
    ----------
    table : DataFrame
    of, margin
        As for `verdict`.

    Examples
    --------
    >>> table = pd.DataFrame({"difference": [0.02], "low_corrected": [0.01], "high_corrected": [0.03]})
    >>> verdicts(table)["verdict"].tolist()
    ['above']
    """
    rows: list[dict[str, Any]] = [
        dict(zip(table.columns, row, strict=True)) for row in table.itertuples(index=False)
    ]
    said = [verdict(row, of, margin=margin) for row in rows]
    needed = pd.Series([to_tell(row, of, margin=margin) for row in rows], table.index, dtype="Int64")
    return table.assign(verdict=said, objects_to_tell=needed)


def format_accuracy(row: Mapping[str, Any]) -> str:
    """Write an accuracy with its interval, and whether it differs from chance.

    Parameters
    ----------
    row : mapping
        A row of the tidy table: ``accuracy``, ``ci_low``, ``ci_high``, ``chance``; of `max_t_test`, the simultaneous interval.

    Returns
    -------
    str
        "above" or "below chance" only if the 95 % interval excludes chance.

    Examples
    --------
    >>> format_accuracy({"accuracy": 0.41, "ci_low": 0.38, "ci_high": 0.44, "chance": 1 / 3})
    '0.410 [0.380, 0.440], above chance (0.333)'
    """
    low, high, chance, accuracy = _read(row, "accuracy")
    if low != low:
        return f"{accuracy:.3f}, without an interval"
    said = verdict(row, "accuracy")
    side = f"which covers chance ({chance:.3f})" if said == CANNOT_TELL else f"{said} chance ({chance:.3f})"
    at_once = f", simultaneous over {int(row['n_cells'])} cells" if _has(row, "low_simultaneous") else ""
    return f"{accuracy:.3f} [{low:.3f}, {high:.3f}]{at_once}, {side}"


def format_difference(row: Mapping[str, Any], of: str = "difference", *, margin: float | None = None) -> str:
    """Write a difference with its corrected or simultaneous interval, and what that shows.

    Parameters
    ----------
    row : mapping
        A row of `compare` or `max_t_test`, or, for the `gain` of a probe, of `ProbeResult.summary`.
    of : {"difference", "gain"}
    margin : float, optional
        As for `verdict`.

    Returns
    -------
    str
        "a gain", "a loss" or "within the margin" only where the interval shows it; else that it cannot be told, and how
        many objects would tell.

    Examples
    --------
    >>> row = {"difference": 0.02, "low_corrected": -0.01, "high_corrected": 0.05, "n_compared": 8, "n_objects": 100}
    >>> format_difference(row)
    '+0.020 [-0.010, +0.050], corrected for 8 comparisons: cannot be told from zero (about 226 objects would tell)'
    """
    one_of("of", of, OF[:2])
    low, high, _, estimate = _read(row, of)
    if low != low:
        return f"{estimate:+.3f}, without an interval"
    text = f"{estimate:+.3f} [{low:+.3f}, {high:+.3f}]"
    if _has(row, "low_simultaneous"):
        text += f", simultaneous over {int(row['n_cells'])} cells"
    elif int(row["n_compared"]) > 1:
        text += f", corrected for {int(row['n_compared'])} comparisons"
    said = verdict(row, of, margin=margin)
    if said == WITHIN:
        return f"{text}: within the margin of ±{margin:g}"
    if said != CANNOT_TELL:
        return f"{text}: {'a gain' if said == 'above' else 'a loss'}"
    needed = to_tell(row, of, margin=margin)
    more = f" (about {needed:,} objects would tell)" if needed is not None and needed < 1e6 else ""
    return f"{text}: cannot be told from zero{more}"


def _has(row: Mapping[str, Any], name: str) -> bool:
    return name in row and not pd.isna(row[name])


def _read(row: Mapping[str, Any], of: str | None) -> tuple[float, float, float, float]:
    """The ends of a row's interval, what they are compared with, and the estimate."""
    if of is None:
        of = next((name for name in OF if _has(row, name)), None)
        if of is None:
            raise BadInputError(f"The row has none of {', '.join(OF)}. Pass a row of a measure's table.")
    one_of("of", of, OF)
    prefix = "gain_" if of == "gain" else ""
    plain = ("gain_low", "gain_high") if of == "gain" else ("ci_low", "ci_high")
    for low, high in (*INTERVALS, plain):
        name = low if (low, high) == plain else prefix + low
        if _has(row, name):
            other = high if (low, high) == plain else prefix + high
            ends = float(row[name]), float(row[other])
            break
    else:
        ends = float("nan"), float("nan")
    zero = float(row["chance"]) if of == "accuracy" else 0.0
    return *ends, zero, float(row[of])
