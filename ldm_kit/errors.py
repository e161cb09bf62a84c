"""Errors that say what was given, what is allowed (nearest first) and what to do next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


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
    """A picture that cannot be opened; the message names the file."""


class ModelNotFoundError(LdmKitError, OSError):
    """A model that is missing, gated, incomplete or not to be had offline."""


def nearest_first(given: str, allowed: Iterable[str]) -> list[str]:
    """Sort `allowed` so that the names most like `given` come first.

    Parameters
    ----------
    given : str
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
    low = str(given).lower()
    return sorted(
        allowed,
        key=lambda name: -difflib.SequenceMatcher(None, low, str(name).lower()).ratio(),
    )


def unknown_name(
    kind: str, given: object, allowed: Iterable[object], advice: str, *, most: int = 12
) -> UnknownNameError:
    """Build (not raise) the error for a name that does not exist.

    Parameters
    ----------
    kind : str
        What the name should have named, e.g. ``"block"``.
    given : object
        What was given.
    allowed : iterable
        Every name that would have worked.
    advice : str
        What to do next, a full sentence.
    most : int
        How many of the allowed names the message lists.

    Returns
    -------
    UnknownNameError

    Examples
    --------
    >>> print(unknown_name("metric", "cosin", ["dot", "cosine"], "Pick one of these."))
    Unknown metric 'cosin'. Did you mean 'cosine'? Allowed: cosine, dot. Pick one of these.
    """
    names = nearest_first(str(given), [str(name) for name in allowed])
    if not names:
        return UnknownNameError(f"Unknown {kind} {given!r}: there is none at all. {advice}")
    listed = ", ".join(names[:most])
    if len(names) > most:
        listed += f", … ({len(names) - most} more)"
    return UnknownNameError(
        f"Unknown {kind} {given!r}. Did you mean {names[0]!r}? Allowed: {listed}. {advice}"
    )
