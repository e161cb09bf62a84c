"""The names that `load_model` knows, from a table that a user can edit, and what a name stands for."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

import yaml

from ldm_kit.errors import BadInputError, nearest_first, one_of, unknown_name
from ldm_kit.files import load_yaml

FIELDS = ("source", "revision", "prior", "licence", "note")
KINDS = ("vision", "latent", "text", "pixels")
PREFIXES = (*KINDS, "untrained")


@dataclass(frozen=True)
class RegisteredModel:
    """One row of the table of models.

    Parameters
    ----------
    name : str
        The name that `load_model` takes.
    source : str
        A hub id, a folder, or ``package:FOLDER`` for a model that is part of ldm_kit; a prefix such as
        ``vision:`` may stand before it, as in `load_model`.
    revision : str, optional
        Of the hub repository.
    prior : str, optional
        Of an unCLIP model: the hub id or folder of the prior, which turns text into image embeddings.
    licence, note : str
        For the reader.
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
        If the file is missing or malformed, or a row has no source or an unknown field; variable, path, and line
        or row are named.

    Examples
    --------
    >>> registered_models()["sd-turbo"].source
    'stabilityai/sd-turbo'
    """
    table = packaged("models.yaml").read_text(encoding="utf-8")
    models = _rows(table, "The packaged table of models")
    if own := os.environ.get("LDM_KIT_MODELS"):
        where = f"The environment variable LDM_KIT_MODELS names {own!r}, which"
        models |= _rows(_read(Path(own).expanduser(), where), where)
    return models


def packaged(name: str) -> Path:
    """Return the path of a file or folder of ldm_kit's own data.

    Examples
    --------
    >>> packaged("tiny-ldm").name
    'tiny-ldm'
    """
    return Path(str(resources.files("ldm_kit") / "data" / name))


def _read(path: Path, where: str) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise _unusable(where, str(error.strerror or error)) from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise _unusable(where, f"line {line} is not UTF-8, in which it must be saved") from error


def _rows(text: str, where: str) -> dict[str, RegisteredModel]:
    """Read a table's rows; an error names the line or the row."""
    try:
        content = load_yaml(text) or {}
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = f"line {mark.line + 1}: " if mark else ""
        raise _unusable(where, f"{at}{getattr(error, 'problem', None) or error}") from error
    if not isinstance(content, dict):
        raise _unusable(where, f"it is a {type(content).__name__}, not names with their rows")
    for name, row in content.items():
        if problem := _problem_of(row):
            raise _unusable(where, f"row {str(name)!r} {problem}")
    return {str(name): RegisteredModel(str(name), **row) for name, row in content.items()}


def _problem_of(row: object) -> str:
    """Describe what is wrong with a row; empty if it can be used."""
    if not isinstance(row, dict) or ("source" not in row and set(row) <= set(FIELDS)):
        return "has no source"
    for field, value in row.items():
        if field not in FIELDS:
            return f"has a {str(field)!r}. Did you mean {nearest_first(str(field), FIELDS)[0]!r}?"
        if not isinstance(value, str) and not (value is None and field in ("revision", "prior")):
            return f"has as {field} {value!r}, which is not text; put it in quotes"
    return ""


def _unusable(where: str, why: str) -> BadInputError:
    return BadInputError(
        f"{where} cannot be used: {why}{'' if why.endswith('?') else '.'} Expected is for each model a line `name:` and, "
        "indented below it, `source:`, and optionally `revision:`, `prior:`, `licence:` and `note:`."
    )


# What a name stands for -------------------------------------------------------------------------------


@dataclass(frozen=True)
class FoundModel:
    """What `load_model` was called with, looked up.

    Parameters
    ----------
    kind : {"model", "vision", "latent", "text", "pixels"}
        ``"model"`` is a whole diffusion model, with a denoiser.
    source : str
        A hub id or folder; for pixels their number, or empty.
    untrained : bool
        Whether the network is to have random weights.
    label : str
        Its name in tables. It never contains the path of a folder.
    revision, prior : str, optional
        Of the registry's row.
    """

    kind: str
    source: str
    untrained: bool
    label: str
    revision: str | None = None
    prior: str | None = None


def find_model(name: str) -> FoundModel:
    """Look up what a name stands for; see `load_model` for the prefixes.

    Examples
    --------
    >>> found = find_model("untrained:vision:facebook/dinov2-base")
    >>> found.kind, found.source, found.untrained
    ('vision', 'facebook/dinov2-base', True)
    """
    kinds, source, untrained = _split_prefixes(name)
    label = ":".join([*kinds, Path(source).expanduser().resolve().name if _is_folder(source) else source])
    rows = registered_models()
    row = rows.get(source)
    if row is not None and row.source.partition(":")[0] in PREFIXES:  # an alias, such as dinov2-base
        more, source, random = _split_prefixes(row.source)
        kinds, untrained = [*kinds, *more], untrained or random
        row = rows.get(source, replace(row, source=source))
    if len(kinds) > 1:
        raise BadInputError(
            f"{name!r} names {' and '.join(kinds)} at once. Write one of {', '.join(KINDS)} before a name."
        )
    kind = kinds[0] if kinds else "model"
    if kind == "pixels":
        if untrained:
            raise BadInputError("Pixels have no weights, so no untrained control. Use 'pixels'.")
        return FoundModel(kind, source, False, label.rstrip(":"))
    if not source:
        raise BadInputError(f"{name!r} names no model. Write for example '{name}tiny-ldm'.")
    row = row or RegisteredModel(source, source)
    place, _, folder = row.source.partition(":")
    source = row.source
    if place == "package":
        source = str(packaged(folder))
    elif _is_folder(source):
        source = str(Path(source).expanduser())
    elif source.startswith((".", "/", "~")) or source.count("/") != 1:
        advice = "Or name a hub id such as 'stabilityai/sd-turbo', or a folder in diffusers format."
        raise unknown_name("model", source, rows, advice)
    return FoundModel(kind, source, untrained, label, row.revision, row.prior)


def _split_prefixes(name: str) -> tuple[list[str], str, bool]:
    """Split a name into its kinds, what follows them, and whether it is to be untrained."""
    kinds: list[str] = []
    untrained, rest = False, name
    # A colon may belong to a path: of a folder that exists, or after a drive's letter.
    while ":" in rest and not _is_folder(rest) and rest[1:3] not in (":\\", ":/"):
        prefix, _, rest = rest.partition(":")
        advice = f"It stands before the colon of {name!r}; only a folder that exists may have a colon."
        one_of("prefix", prefix, PREFIXES, advice)
        if prefix == "untrained":
            untrained = True
        else:
            kinds.append(prefix)
    if rest == "pixels" and not kinds:
        return ["pixels"], "", untrained
    return kinds, rest, untrained


def _is_folder(name: str) -> bool:
    return bool(name) and Path(name).expanduser().is_dir()
