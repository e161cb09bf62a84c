"""Which versions made a result."""

from __future__ import annotations

import platform
from importlib import metadata

# Those whose version can change a number or a figure.
PACKAGES = (
    "ldm-kit", "torch", "diffusers", "transformers", "tokenizers", "safetensors", "numpy", "scipy", "scikit-learn", "numba",
    "pandas", "zarr", "pillow", "resvg-py", "rsatoolbox", "plotly", "papermill",
)  # fmt: skip


def package_versions() -> dict[str, str]:
    """List the versions of Python, the system and the packages that results depend on.

    Returns
    -------
    dict of str to str
        Packages that are not installed are left out.

    Examples
    --------
    >>> sorted(package_versions())[:2]  # doctest: +SKIP
    ['diffusers', 'ldm-kit']
    """
    versions = {"python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}"}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
