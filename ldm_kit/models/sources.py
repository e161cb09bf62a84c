"""What a user may ask `load_model` for: a name, or a prefix before it that says which part is wanted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ldm_kit.errors import BadInputError, unknown_name
from ldm_kit.models.registry import registered_models

KINDS = ("vision", "latent", "text", "pixels")
PREFIXES = (*KINDS, "untrained")


@dataclass(frozen=True)
class Source:
    """What was asked for, taken apart.

    Parameters
    ----------
    kind : {"model", "vision", "latent", "text", "pixels"}
        ``"model"`` is a whole diffusion model, with a denoiser to look into.
    name : str
        What follows the prefixes: a registered name, a hub id, a folder; for pixels their number, or empty.
    untrained : bool
        Whether the network is to have random weights.
    label : str
        What tables call it, if it is no whole diffusion model. It never holds the path of a folder.
    revision : str, optional
        Of the registry's row.
    """

    kind: str
    name: str
    untrained: bool
    label: str
    revision: str | None = None


def parse_source(asked: str) -> Source:
    """Take what `load_model` was asked for apart.

    Parameters
    ----------
    asked : str
        A name, with any of these before it: ``"vision:"`` (a transformers vision model), ``"latent:"`` (the
        VAE's latent alone), ``"text:"`` (the text encoder alone), ``"untrained:"`` (random weights); or
        ``"pixels"``, also with their number on a side, ``"pixels:128"``.

    Returns
    -------
    Source

    Raises
    ------
    UnknownNameError
        For another prefix.
    BadInputError
        If two prefixes contradict each other, or no name follows.

    Examples
    --------
    >>> source = parse_source("untrained:vision:facebook/dinov2-base")
    >>> source.kind, source.name, source.untrained
    ('vision', 'facebook/dinov2-base', True)
    >>> parse_source("tiny-ldm").kind
    'model'
    """
    kinds, name, untrained = _take_prefixes(asked)
    label, revision = ":".join([*kinds, _shown(name)]), None
    row = registered_models().get(name)
    if row is not None and not row.source.startswith("package:"):
        more, source, random = _take_prefixes(row.source)
        if more or random:  # an alias for more than a whole model, such as dinov2-base
            kinds, name, untrained = [*kinds, *more], source, untrained or random
            revision = row.revision
    if len(kinds) > 1:
        raise BadInputError(
            f"{asked!r} asks for {' and '.join(kinds)} at once. Give one of {', '.join(KINDS)} before a name."
        )
    kind = kinds[0] if kinds else "model"
    if not name and kind != "pixels":
        raise BadInputError(f"{asked!r} names no model. Write for example '{asked}tiny-ldm'.")
    if kind == "pixels" and untrained:
        raise BadInputError(
            "Pixels have no weights, so there is no untrained control of them. Ask for 'pixels'."
        )
    return Source(kind, name, untrained, label.rstrip(":"), revision)


def _take_prefixes(asked: str) -> tuple[list[str], str, bool]:
    kinds: list[str] = []
    untrained = False
    rest = asked
    while ":" in rest and not _is_path(rest):
        prefix, _, rest = rest.partition(":")
        if prefix not in PREFIXES:
            raise unknown_name(
                "prefix",
                prefix,
                PREFIXES,
                f"It stands before the colon of {asked!r}; a folder may have a colon in its name if it exists.",
            )
        if prefix == "untrained":
            untrained = True
        else:
            kinds.append(prefix)
    if rest == "pixels" and not kinds:
        return ["pixels"], "", untrained
    return kinds, rest, untrained


def _is_path(name: str) -> bool:
    """Whether a colon belongs to a path: of a folder that exists, or after a drive's letter."""
    return name[1:3] in (":\\", ":/") or Path(name).expanduser().is_dir()


def _shown(name: str) -> str:
    """Name a folder without the way to it."""
    folder = Path(name).expanduser()
    return folder.resolve().name if name and folder.is_dir() else name
