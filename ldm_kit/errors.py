"""Errors that name the value, what is allowed (nearest first) and what to do next; and checks of values."""

from __future__ import annotations

import difflib
import math
import numbers
from collections.abc import Iterable
from typing import Any, TypeVar

T = TypeVar("T")
LISTED = 12  # names that a message lists


class LdmKitError(Exception):
    """Base of every error that ldm_kit raises on purpose; catch it to tell ours from others'."""


class UnknownNameError(LdmKitError, ValueError):
    """A block, model, dataset, concept, column or parameter that does not exist."""


class BadInputError(LdmKitError, ValueError):
    """Input that was understood but cannot be used: wrong shape, range or content."""


class MismatchError(LdmKitError, ValueError):
    """Two things that must agree do not: a store and a request, names and rows."""


class NonFiniteError(LdmKitError, FloatingPointError):
    """A NaN or infinity where a number was needed."""


class UnreadableImageError(LdmKitError, OSError):
    """An image that cannot be opened; the message names the file."""


class ModelNotFoundError(LdmKitError, OSError):
    """A model that is missing, gated, incomplete or unavailable offline."""


def nearest_first(name: str, allowed: Iterable[str]) -> list[str]:
    """Sort `allowed` so that the names most like `name` come first.

    Parameters
    ----------
    name : str
        What the user typed.
    allowed : iterable of str
        The names that exist.

    Returns
    -------
    list of str
        All of `allowed`, closest match first; ties keep their order.

    Examples
    --------
    >>> nearest_first("mid_blok", ["up_blocks.0", "mid_block"])
    ['mid_block', 'up_blocks.0']
    """
    low = name.lower()
    return sorted(allowed, key=lambda one: -difflib.SequenceMatcher(None, low, one.lower()).ratio())


def unknown_name(kind: str, value: object, allowed: Iterable[object], advice: str) -> UnknownNameError:
    """Build (not raise) the error for a name that does not exist.

    Parameters
    ----------
    kind : str
        What the name should have named, e.g. ``"block"``.
    value : object
        What it was.
    allowed : iterable
        Every name that would have worked; the message lists the nearest.
    advice : str
        What to do next, a full sentence.

    Returns
    -------
    UnknownNameError

    Examples
    --------
    >>> print(unknown_name("metric", "cosin", ["dot", "cosine"], "Pick one of these."))
    Unknown metric 'cosin'. Did you mean 'cosine'? Allowed: cosine, dot. Pick one of these.
    """
    names = nearest_first(str(value), map(str, allowed))
    if not names:
        return UnknownNameError(f"Unknown {kind} {value!r}: there is none at all. {advice}")
    listed = ", ".join(names[:LISTED])
    if len(names) > LISTED:
        listed += f", … ({len(names) - LISTED} more)"
    return UnknownNameError(
        f"Unknown {kind} {value!r}. Did you mean {names[0]!r}? Allowed: {listed}. {advice}"
    )


def one_of(kind: str, value: T, allowed: Iterable[object], advice: str = "Choose one of these.") -> T:
    """Return a name that exists; anything else is an error.

    Examples
    --------
    >>> one_of("metric", "dot", ("cosine", "dot"))
    'dot'
    """
    allowed = list(allowed)
    if not isinstance(value, str) or value not in allowed:
        raise unknown_name(kind, value, allowed, advice)
    return value


def whole_number(name: str, value: Any, least: int) -> int:
    """Return a whole number that is at least `least`; anything else is an error.

    Examples
    --------
    >>> whole_number("patience", 6, 1)
    6
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise BadInputError(f"{name}={value!r}: give a whole number from {least}.")
    return int(value)


def real_number(name: str, value: Any, *, positive: bool = False) -> float:
    """Return a finite number of 0 or more (or above 0); anything else is an error.

    Examples
    --------
    >>> real_number("alpha", 0)
    0.0
    """
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value < 0 or (positive and value == 0):
        raise BadInputError(f"{name}={value!r}: give a number {'above 0' if positive else 'of 0 or more'}.")
    return float(value)


def number_of_folds(value: Any, name: str = "cv") -> int:
    """Return a number of folds of 2 or more; anything else is an error.

    Examples
    --------
    >>> number_of_folds(3)
    3
    """
    if not isinstance(value, bool) and isinstance(value, numbers.Integral) and value < 2:
        raise BadInputError(f"{name}={value}: at least 2 are needed, so that some objects are held out.")
    return whole_number(name, value, 2)
