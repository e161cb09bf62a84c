"""The names that `load_model` knows, read from a table that a user can edit."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import yaml

from ldm_kit.errors import BadInputError, nearest_first
from ldm_kit.files import load_yaml

FIELDS = ("source", "revision", "prior", "licence", "note")
EXPECTED = (
    "Expected is for each model a line `name:` and, indented below it, `source:`, and optionally `revision:`, `prior:`, "
    "`licence:` and `note:`."
)


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
        If the file is missing or malformed, or a row has no source or a field that does not exist; variable, path and
        line are named.

    Examples
    --------
    >>> registered_models()["sd-turbo"].source
    'stabilityai/sd-turbo'
    """
    table = (resources.files("ldm_kit") / "data" / "models.yaml").read_text(encoding="utf-8")
    models = _rows(table, "The packaged table of models")
    if own := os.environ.get("LDM_KIT_MODELS"):
        where = f"The environment variable LDM_KIT_MODELS names {own!r}, which"
        models |= _rows(_text_of(Path(own).expanduser(), where), where)
    return models


def _text_of(path: Path, where: str) -> str:
    """Read a user's table, or say what is wrong with the file."""
    try:
        given = path.read_bytes()
        return given.decode("utf-8-sig")
    except FileNotFoundError as error:
        raise BadInputError(
            f"{where} does not exist. Name a file, or unset the variable. {EXPECTED}"
        ) from error
    except OSError as error:
        raise _unusable(where, str(error.strerror or error)) from error
    except UnicodeDecodeError as error:
        line = given[: error.start].count(b"\n") + 1
        raise _unusable(where, f"line {line} is not UTF-8, in which it must be saved") from error


def _rows(text: str, where: str) -> dict[str, RegisteredModel]:
    """Read a table's rows; what cannot be used is told with its line."""
    try:
        node, content = yaml.compose(text, Loader=yaml.SafeLoader), load_yaml(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = f"line {mark.line + 1}: " if mark else ""
        raise _unusable(where, f"{at}{getattr(error, 'problem', None) or error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict) or not isinstance(node, yaml.MappingNode):
        raise _unusable(
            where, f"it holds a {type(content).__name__} where names with their rows are expected"
        )
    lines = {str(key.value): key.start_mark.line + 1 for key, _ in node.value}
    rows = {}
    for name, row in content.items():
        at = f"line {lines[str(name)]}: " if str(name) in lines else ""
        if wrong := _wrong_with(row):
            raise _unusable(where, f"{at}row {str(name)!r} {wrong}")
        rows[str(name)] = RegisteredModel(str(name), **row)
    return rows


def _wrong_with(row: object) -> str:
    """Say what is wrong with a row; nothing if it can be used."""
    if not isinstance(row, dict):
        return "has no source"
    for field, value in row.items():
        if field not in FIELDS:
            return f"has a {str(field)!r}. Did you mean {nearest_first(str(field), FIELDS)[0]!r}?"
        if not isinstance(value, str) and not (value is None and field in ("revision", "prior")):
            return f"has as {field} {value!r}, which is not text; put it in quotes"
    return "" if "source" in row else "has no source"


def _unusable(where: str, why: str) -> BadInputError:
    return BadInputError(f"{where} cannot be used: {why}{'' if why.endswith('?') else '.'} {EXPECTED}")


def packaged(folder: str) -> Path:
    """Give the path of a folder that ldm_kit brings along.

    Examples
    --------
    >>> packaged("tiny-ldm").name
    'tiny-ldm'
    """
    return Path(str(resources.files("ldm_kit") / "data" / folder))
