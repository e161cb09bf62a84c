"""A request is data: what makes a store's identity, and how two of them are compared."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from ldm_kit.errors import MismatchError

PACKAGES = ("ldm_kit", "torch", "diffusers", "transformers", "numpy", "zarr")


def package_versions() -> dict[str, str]:
    """Give the versions of the packages that features depend on.

    Examples
    --------
    >>> sorted(package_versions())[:2]
    ['diffusers', 'ldm_kit']
    """
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # a checkout on the path, not installed
            versions[name] = "unknown"
    return versions


def check_same_request(stored: Mapping[str, Any], asked: Mapping[str, Any], where: str) -> None:
    """Raise if a store was made by another request; name every difference.

    Parameters
    ----------
    stored, asked : mapping
        Identities, as plain data.
    where : str
        The store's path, for the message.

    Raises
    ------
    MismatchError
        If any field differs. Nothing of the store is reused or changed.

    Examples
    --------
    >>> check_same_request({"seed": 0}, {"seed": 1}, "out/features")
    Traceback (most recent call last):
        ...
    ldm_kit.errors.MismatchError: The store 'out/features' was made by another request: seed is 0 there \
and 1 here. Choose another `out`, or ask for what is there; nothing was changed.
    """
    fields = [*stored, *(name for name in asked if name not in stored)]
    differences = [
        f"{name} is {stored.get(name)!r} there and {asked.get(name)!r} here"
        for name in fields
        if stored.get(name) != asked.get(name)
    ]
    if differences:
        raise MismatchError(
            f"The store {where!r} was made by another request: {'; '.join(differences)}. "
            "Choose another `out`, or ask for what is there; nothing was changed."
        )


def warn_of_other_versions(stored: Mapping[str, str], where: str) -> None:
    """Warn if a store was begun with other package versions.

    Examples
    --------
    >>> warn_of_other_versions(package_versions(), "out/features")
    """
    now = package_versions()
    changed = [
        f"{name} {stored[name]} there, {now[name]} here"
        for name in stored
        if name in now and stored[name] != now[name]
    ]
    if changed:
        warnings.warn(
            f"The store {where!r} was begun with other package versions: {'; '.join(changed)}. "
            "Numbers may differ in the last digits; for one set of versions use a new `out`.",
            stacklevel=3,
        )
