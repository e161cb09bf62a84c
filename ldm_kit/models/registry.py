"""The names that `load_model` knows, read from a table that a user can edit."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from ldm_kit.errors import BadInputError
from ldm_kit.yaml_text import load_yaml


@dataclass(frozen=True)
class RegisteredModel:
    """One row of the table of models.

    Parameters
    ----------
    name : str
        How it is called.
    source : str
        A hub id, a folder, or ``package:FOLDER`` for a model that ldm_kit brings along; with a prefix such as
        ``vision:`` as in `ldm_kit.models.sources.parse_source`.
    revision : str, optional
        Of the hub repository.
    prior : str, optional
        Of an unCLIP model: the hub id or folder of the prior, which turns text into image embeddings.
    licence, note : str
        Shown by `registered_models`.
    """

    name: str
    source: str
    revision: str | None = None
    prior: str | None = None
    licence: str = ""
    note: str = ""


def registered_models() -> dict[str, RegisteredModel]:
    """Read the table of models.

    Returns
    -------
    dict
        By name. The packaged ``data/models.yaml``, then the file that the environment variable
        ``LDM_KIT_MODELS`` names, whose rows replace or add to it: a mirror needs no new release.

    Raises
    ------
    BadInputError
        If a row has no source or a field that does not exist.

    Examples
    --------
    >>> registered_models()["sd-turbo"].source
    'stabilityai/sd-turbo'
    """
    tables = [(resources.files("ldm_kit") / "data" / "models.yaml").read_text(encoding="utf-8")]
    own = os.environ.get("LDM_KIT_MODELS")
    if own:
        tables.append(Path(own).read_text(encoding="utf-8"))
    models: dict[str, RegisteredModel] = {}
    for text in tables:
        for name, row in (load_yaml(text) or {}).items():
            try:
                models[str(name)] = RegisteredModel(str(name), **row)
            except TypeError as error:
                raise BadInputError(
                    f"The row {name!r} of the table of models cannot be used ({error}). "
                    "A row has source, and optionally revision, prior, licence and note."
                ) from error
    return models


def packaged(folder: str) -> Path:
    """Give the path of a folder that ldm_kit brings along.

    Examples
    --------
    >>> packaged("tiny-ldm").name
    'tiny-ldm'
    """
    return Path(str(resources.files("ldm_kit") / "data" / folder))
