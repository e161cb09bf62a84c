"""A series of notebook runs, read from a YAML file and checked before the first kernel starts."""

from __future__ import annotations

import fnmatch
import hashlib
import itertools
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ldm_kit.batch.parameters import Parameter, check_parameters, parse_value, read_parameters
from ldm_kit.batch.state import OF_THE_SERIES
from ldm_kit.errors import BadInputError, unknown_name, whole_number
from ldm_kit.files import load_yaml

# Seconds a cell may take if nobody says otherwise: longer than any cell should, shorter than a night.
CELL_TIMEOUT = 3600
SERIES_KEYS = ("title", "question", "timeout", "defaults", "runs")
RUN_KEYS = ("notebook", "name", "parameters", "grid", "timeout")


@dataclass(frozen=True)
class Run:
    """One notebook to be run with one set of parameters."""

    name: str
    notebook: Path
    parameters: dict[str, Any]
    timeout: int = CELL_TIMEOUT


@dataclass(frozen=True)
class Series:
    """Runs that belong together and end in one report."""

    runs: tuple[Run, ...]
    names: tuple[str, ...] = ()  # of all runs, those left out by `only` as well
    title: str = ""
    question: str = ""
    source: str = ""


def read_series(
    path: str | os.PathLike[str],
    *,
    parameters: Mapping[str, Any] | None = None,
    only: str | None = None,
) -> Series:
    """Read a series from YAML, or make one of a single notebook.

    Parameters
    ----------
    path : path-like
        A YAML file with ``runs`` (a list of ``notebook``, and optionally ``name``, ``parameters``, ``grid``,
        ``timeout``), and optionally ``title``, ``question``, ``timeout`` (seconds a cell) and ``defaults``
        (parameters for each notebook that has them); or a notebook. Notebooks are looked for beside the YAML.
    parameters : mapping, optional
        They win over those in the file, for each notebook that has them. A string is read as on the
        command line.
    only : str, optional
        Keep the runs whose name matches this pattern, e.g. ``"02*"``.

    Returns
    -------
    Series

    Raises
    ------
    BadInputError
        If the file is not such a YAML, or a value has another type than the notebook wants.
    UnknownNameError
        If a key, a notebook, a parameter or the name asked for by `only` does not exist.

    Examples
    --------
    >>> series = read_series("notebooks/demo.yaml", only="02*")  # doctest: +SKIP
    """
    path = Path(path)
    if path.suffix == ".ipynb":
        read: dict[str, Any] = {"runs": [{"notebook": path.name}]}
    else:
        read = _read_yaml(path)
    known = {entry["notebook"]: read_parameters(path.parent / entry["notebook"]) for entry in read["runs"]}
    defaults = _shared(read.get("defaults") or {}, known, f"`defaults` of {path.name}")
    ahead = _shared(parameters or {}, known, "the command line")
    runs: list[Run] = []
    for entry in read["runs"]:
        names = known[entry["notebook"]]
        base = {**_those(defaults, names), **(entry.get("parameters") or {})}
        for point in _grid(entry.get("grid") or {}, path):
            given = {**base, **point, **_those(ahead, names)}
            given = {key: _typed(value, names.get(key), key in ahead) for key, value in given.items()}
            check_parameters(given, names, entry["notebook"])
            runs.append(
                Run(
                    name=run_name(entry.get("name") or Path(entry["notebook"]).stem, point),
                    notebook=path.parent / entry["notebook"],
                    parameters=given,
                    timeout=int(entry.get("timeout") or read.get("timeout") or CELL_TIMEOUT),
                )
            )
    _refuse_twins(runs, path)
    return Series(
        runs=_only(runs, only),
        names=tuple(run.name for run in runs),
        title=str(read.get("title") or ""),
        question=str(read.get("question") or ""),
        source=path.name,
    )


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        near = sorted(str(file) for file in path.parent.glob("*.yaml"))
        raise unknown_name("series", str(path), near, "Name a YAML file with `runs:`, or a notebook.")
    try:
        read = load_yaml(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInputError(
            f"{str(path)!r} cannot be read as YAML: {error}. Correct it at that place."
        ) from error
    if not isinstance(read, dict) or not isinstance(read.get("runs"), list) or not read["runs"]:
        raise BadInputError(
            f"{str(path)!r} holds no `runs:`, a list of notebooks with their parameters. "
            "Begin from notebooks/demo.yaml."
        )
    _refuse_unknown(read, SERIES_KEYS, path.name)
    _check_values(read, path.name)
    for entry in read["runs"]:
        if not isinstance(entry, dict) or not isinstance(entry.get("notebook"), str):
            raise BadInputError(
                f"{path.name}: the run {entry!r} names no `notebook:`. Write {{notebook: NAME.ipynb}}."
            )
        _refuse_unknown(entry, RUN_KEYS, f"a run of {path.name}")
        _check_values(entry, f"{path.name}, {entry['notebook']}")
    return read


def _check_values(given: Mapping[str, Any], where: str) -> None:
    """Refuse values of another type than their key wants; a key without a value counts as left out."""
    for key, value in given.items():
        if value is None:
            continue
        if key in ("defaults", "parameters", "grid") and not isinstance(value, dict):
            raise BadInputError(f"{where}: `{key}:` is {value!r}. It must map names to values: {{seed: 1}}.")
        if key in ("title", "question", "name") and not isinstance(value, str):
            raise BadInputError(
                f"{where}: `{key}:` is {value!r}, of type {type(value).__name__}. Put text in quotes."
            )
        if key == "timeout":
            whole_number(f"{where}: `timeout:` (seconds a cell)", value, 1)
        if key == "name":
            checked_name(value)


def _refuse_unknown(given: Iterable[object], allowed: tuple[str, ...], where: str) -> None:
    for key in given:
        if key not in allowed:
            raise unknown_name(
                f"key in {where}", key, allowed, "Parameters go under `parameters:` or `defaults:`."
            )


def _shared(
    given: Mapping[str, Any], known: Mapping[str, Mapping[str, Parameter]], where: str
) -> dict[str, Any]:
    """Check that each shared parameter is one of at least one notebook."""
    everywhere = list(dict.fromkeys(name for names in known.values() for name in names))
    for key in given:
        if key not in everywhere:
            raise unknown_name(
                f"parameter in {where}", key, everywhere, "No notebook of the series has it.", most=40
            )
    return dict(given)


def _those(given: Mapping[str, Any], names: Mapping[str, Parameter]) -> dict[str, Any]:
    return {key: value for key, value in given.items() if key in names}


def _typed(value: Any, parameter: Parameter | None, typed: bool) -> Any:
    """Read what was typed on the command line by the parameter's type."""
    return parse_value(value, parameter.type) if typed and parameter and isinstance(value, str) else value


def _grid(grid: Mapping[str, Any], path: Path) -> list[dict[str, Any]]:
    for key, values in grid.items():
        if not isinstance(values, list) or not values:
            raise BadInputError(
                f"{path.name}: `grid: {key}` must be a list of values to try, not {values!r}."
            )
    return [dict(zip(grid, point, strict=True)) for point in itertools.product(*grid.values())]


def checked_name(name: str) -> str:
    """Return the name of a run, if it can be that of a folder within the series' own.

    Raises
    ------
    BadInputError
        If it is empty or long, begins with a dot, leads elsewhere, or is that of a file of the series.

    Examples
    --------
    >>> checked_name("..")
    Traceback (most recent call last):
    ...
    ldm_kit.errors.BadInputError: '..' cannot name a run: it becomes a folder within `out`. Use letters, digits ...
    """
    fits = re.fullmatch(r"[^./\\:\x00-\x1f][^/\\:\x00-\x1f]*", name) and len(os.fsencode(name)) <= 150
    if not fits or name.casefold() in OF_THE_SERIES:
        raise BadInputError(
            f"{name!r} cannot name a run: it becomes a folder within `out`. Use letters, digits and _ . + = -, "
            "beginning with a letter or digit."
        )
    return name


def run_name(stem: str, point: Mapping[str, Any]) -> str:
    """Name a run by its notebook and its place in the grid, fit for a folder.

    Examples
    --------
    >>> run_name("03_layers", {"seed": 1, "blocks": ["mid_block", "up_blocks.1"]})
    '03_layers--seed-1--blocks-mid_block+up_blocks.1'
    """
    parts = [stem]
    for key, value in point.items():
        text = (
            "+".join(map(str, value))
            if isinstance(value, list)
            else value
            if isinstance(value, str)
            else json.dumps(value)
        )
        parts.append(f"{key}-{text}")
    name = re.sub(r"[^\w.+=-]+", "_", "--".join(parts))
    return name if len(name) <= 100 else f"{name[:90]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _refuse_twins(runs: list[Run], path: Path) -> None:
    seen: set[str] = set()
    for run in runs:
        if run.name in seen:
            raise BadInputError(f"{path.name}: two runs are called {run.name!r}. Give one another `name:`.")
        seen.add(run.name)


def _only(runs: list[Run], only: str | None) -> tuple[Run, ...]:
    if only is None:
        return tuple(runs)
    kept = tuple(run for run in runs if fnmatch.fnmatchcase(run.name, only))
    if not kept:
        raise unknown_name(
            "run", only, [run.name for run in runs], "`--only` takes a name or a pattern like '02*'."
        )
    return kept
