"""One switch that keeps every socket closed."""

from __future__ import annotations

import os

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
