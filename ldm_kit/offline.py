"""One switch that keeps every socket closed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

# The libraries' own switches. Most are read once, when a library is imported; kernels and other children inherit.
SWITCHES = (
    "HF_HUB_OFFLINE",
    "TRANSFORMERS_OFFLINE",
    "HF_DATASETS_OFFLINE",
    "HF_HUB_DISABLE_TELEMETRY",
    "HF_HUB_DISABLE_UPDATE_CHECK",
    "DO_NOT_TRACK",
)
_ON = {"1", "true", "yes", "on"}


def is_offline() -> bool:
    """Say whether the offline switch is on.

    Returns
    -------
    bool
        True if one of the environment variables ``LDM_KIT_OFFLINE`` and ``HF_HUB_OFFLINE`` is 1, true, yes
        or on.

    Examples
    --------
    >>> import os; os.environ["LDM_KIT_OFFLINE"] = "1"; is_offline()  # doctest: +SKIP
    True
    """
    names = ("LDM_KIT_OFFLINE", "HF_HUB_OFFLINE")
    return any(os.environ.get(name, "").strip().lower() in _ON for name in names)


def set_library_switches() -> None:
    """Set the libraries' own switches if ours is on; `import ldm_kit` does so, before it imports any of them.

    Examples
    --------
    >>> set_library_switches()  # doctest: +SKIP
    """
    if is_offline():
        os.environ.update(dict.fromkeys(SWITCHES, "1"))


@contextmanager
def hub_shut(offline: bool) -> Iterator[None]:
    """Keep the hub's client from the network for the length of a block, also where it was imported before.

    Examples
    --------
    >>> from huggingface_hub import constants
    >>> with hub_shut(True):
    ...     constants.HF_HUB_OFFLINE
    True
    """
    if not offline:
        yield
        return
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE, constants.HF_HUB_DISABLE_TELEMETRY
    constants.HF_HUB_OFFLINE = constants.HF_HUB_DISABLE_TELEMETRY = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, constants.HF_HUB_DISABLE_TELEMETRY = before
