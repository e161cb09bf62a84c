"""Find files that belong to the repository, not to the installed package."""

from __future__ import annotations

from pathlib import Path

import ldm_kit
from ldm_kit.errors import BadInputError


def find_notebook(name: str, instead: str) -> Path:
    """Find a file of ``notebooks/``, in the working folder or in the checkout that the package lies in.

    Parameters
    ----------
    name : str
    instead : str
        What the error advises.

    Raises
    ------
    BadInputError
        If neither has it.

    Examples
    --------
    >>> find_notebook("demo.yaml", "Run the demo from a clone.").name
    'demo.yaml'
    """
    places = [Path("notebooks"), Path(ldm_kit.__path__[0]).parent / "notebooks"]
    for place in places:
        if (place / name).is_file():
            return place / name
    raise BadInputError(
        f"No {name} in {' or '.join(map(str, places))}. The notebooks are part of the repository, not of the "
        f"installed package. {instead}"
    )
