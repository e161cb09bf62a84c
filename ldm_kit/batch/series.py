"""A series of notebook runs and their parameters, checked before the first kernel starts."""

from __future__ import annotations

import ast
import fnmatch
import hashlib
import itertools
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from ldm_kit.errors import BadInputError, one_of, real_number, unknown_name, whole_number
from ldm_kit.files import load_yaml

# Seconds a cell may take by default: longer than any cell should, shorter than a night.
CELL_TIMEOUT = 3600
OF_THE_SERIES = ("index.html", "series.json", "plotly.min.js")  # files that lie beside the runs' folders
# What a series may say, and what a run of it may, with the type of each value.
SERIES_KEYS = {
    "title": str, "question": str, "timeout": int, "defaults": dict, "runs": list,
    "hypotheses": list, "exclusions": list, "registered": dict,
}  # fmt: skip
RUN_KEYS = {"notebook": str, "name": str, "parameters": dict, "grid": dict, "timeout": int}
# What a protocol says of a hypothesis, and of where its hash was registered; see `protocol.py`.
HYPOTHESIS_KEYS = {"name": str, "statement": str, "run": str, "finding": str, "table": str, "margin": float}
REGISTERED_KEYS = ("date", "where", "sha256")  # YAML takes a bare `on` for true
MUST: dict[type, str] = {
    str: "be text: put it in quotes",
    dict: "map names to values: {seed: 1}",
    list: "be a list",
}
TYPES: dict[str, Any] = {
    "str": str,
    "int": int,
    "float": (int, float),
    "bool": bool,
    "list": list,
    "dict": dict,
}


class Parameter(NamedTuple):
    """One line of a notebook's parameters cell: ``name: type = default  # help``."""

    name: str
    type: str
    default: str
    help: str


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


def read_parameters(path: str | os.PathLike[str]) -> dict[str, Parameter]:
    """Read the parameters cell of a notebook, without running it.

    Parameters
    ----------
    path : path-like
        The notebook.

    Returns
    -------
    dict of str to Parameter
        In the order of the cell; empty if no cell is tagged ``parameters``.

    Raises
    ------
    UnknownNameError
        If there is no such notebook.
    BadInputError
        If it cannot be read as one.

    Examples
    --------
    >>> from ldm_kit.files import find_notebook
    >>> read_parameters(find_notebook("02_probing.ipynb", ""))["n_folds"]
    Parameter(name='n_folds', type='int', default='3', help='of the objects')
    """
    import nbformat
    from papermill.translators import papermill_translators

    path = Path(path)
    if not path.is_file():
        siblings = sorted(file.name for file in path.parent.glob("*.ipynb"))
        raise unknown_name("notebook", str(path), siblings, f"These lie in {str(path.parent)!r}.")
    try:
        notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
        nbformat.validate(notebook)  # reading only logs what is wrong
    except Exception as error:  # old formats are read by code that takes all keys for granted
        first = str(error).strip().partition("\n")[0]
        first += "".join(f" in {part!r}" for part in reversed(getattr(error, "absolute_path", ())))
        raise BadInputError(
            f"{str(path)!r} cannot be read as a notebook: {type(error).__name__}: {first}. Open it in JupyterLab "
            "and save it anew."
        ) from error
    tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if not tagged:
        return {}
    # papermill's own reading, so that what we list is what it would set
    found = papermill_translators.find_translator("python3", "python").inspect(tagged[0])
    return {one.name: Parameter(one.name, one.inferred_type_name, one.default, one.help) for one in found}


def check_parameter_types(
    values: Mapping[str, Any], parameters: Mapping[str, Parameter], notebook: str | os.PathLike[str]
) -> None:
    """Refuse parameters that the notebook does not have (papermill only warns), and values of another type.

    Examples
    --------
    >>> check_parameter_types({"sed": 1}, {"seed": Parameter("seed", "int", "0", "")}, "a.ipynb")
    Traceback (most recent call last):
    ...
    ldm_kit.errors.UnknownNameError: Unknown parameter of a.ipynb 'sed'. Did you mean 'seed'? ...
    """
    name = Path(notebook).name
    advice = "Correct the name, or add it to the cell tagged `parameters`."
    for key, value in values.items():
        one_of(f"parameter of {name}", key, parameters, advice)
        try:
            json.dumps(value)
            wanted = "" if fits(value, parameters[key].type) else parameters[key].type
        except TypeError:
            wanted = "text, a number, true or false, null, or a list or mapping of these"
        if wanted:
            raise BadInputError(
                f"Parameter {key} of {name} is {value!r}, of type {type(value).__name__}; the notebook wants {wanted} "
                f"(its default: {parameters[key].default}). In YAML a list is written [a, b] and nothing at all null."
            )


def fits(value: object, annotation: str) -> bool:
    """Tell whether a value fits an annotation; one that says nothing we know fits all.

    Examples
    --------
    >>> fits([0.1, 1], "list[float]"), fits(None, "Optional[int]"), fits("0.1", "float")
    (True, True, False)
    """
    if annotation == "None":  # papermill's word for a parameter without annotation
        return True
    try:
        return _fits(value, ast.parse(annotation.strip(), mode="eval").body)
    except SyntaxError:
        return True


def _fits(value: object, node: ast.expr) -> bool:
    match node:
        case ast.Constant(value=None):
            return value is None
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _fits(value, left) or _fits(value, right)
        case ast.Name(id=name) if name in TYPES:
            # bool is an int to Python, never to a reader of a parameter file
            return isinstance(value, TYPES[name]) and (name == "bool" or not isinstance(value, bool))
        case ast.Subscript(value=ast.Name(id="Optional"), slice=inner):
            return value is None or _fits(value, inner)
        case ast.Subscript(value=ast.Name(id="Literal"), slice=inner):
            return any(isinstance(one, ast.Constant) and one.value == value for one in ast.walk(inner))
        case ast.Subscript(value=ast.Name() as outer, slice=inner):
            return _fits(value, outer) and (
                not isinstance(value, list) or all(_fits(one, inner) for one in value)
            )
    return True


def parse_value(text: str, annotation: str = "") -> Any:
    """Read a value typed on the command line: as YAML, unless the parameter wants a string.

    Examples
    --------
    >>> parse_value("[0.1, 0.5]"), parse_value("None"), parse_value("2.1", "str")
    ([0.1, 0.5], None, '2.1')
    """
    if annotation == "str":
        return text
    try:
        return None if text == "None" else load_yaml(text)
    except yaml.YAMLError:
        return text


def read_series(
    path: str | os.PathLike[str], *, parameters: Mapping[str, Any] | None = None, only: str | None = None
) -> Series:
    """Read a series from YAML, or make one of a single notebook.

    Parameters
    ----------
    path : path-like
        A YAML file with ``runs`` (a list of ``notebook``, and optionally ``name``, ``parameters``, ``grid``,
        ``timeout``), and optionally ``title``, ``question``, ``timeout`` (seconds a cell) and ``defaults``
        (parameters for each notebook that has them); or a notebook. Notebooks are looked for beside the YAML. A protocol
        (see `freeze`) has ``hypotheses`` as well, and optionally ``exclusions`` and ``registered``.
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
        If a key, a notebook, a parameter or a run that matches `only` does not exist.

    Examples
    --------
    >>> from ldm_kit.files import find_notebook
    >>> [run.name for run in read_series(find_notebook("demo.yaml", ""), only="02*").runs]
    ['02_probing']
    """
    path = Path(path)
    read: dict[str, Any] = (
        {"runs": [{"notebook": path.name}]} if path.suffix == ".ipynb" else read_content(path)
    )
    known = {entry["notebook"]: read_parameters(path.parent / entry["notebook"]) for entry in read["runs"]}
    defaults, first = read.get("defaults") or {}, parameters or {}
    everywhere = dict.fromkeys(itertools.chain.from_iterable(known.values()))
    for shared, where in ((defaults, f"`defaults` of {path.name}"), (first, "the command line")):
        for key in shared:
            one_of(f"parameter in {where}", key, everywhere, "No notebook of the series has it.")
    runs: list[Run] = []
    for entry in read["runs"]:
        names = known[entry["notebook"]]
        base = {key: value for key, value in defaults.items() if key in names}
        base |= entry.get("parameters") or {}
        wins = {
            key: parse_value(value, names[key].type) if isinstance(value, str) else value
            for key, value in first.items()
            if key in names
        }
        for point in _grid(entry.get("grid") or {}, path):
            values = {**base, **point, **wins}
            check_parameter_types(values, names, entry["notebook"])
            name = run_name(entry.get("name") or Path(entry["notebook"]).stem, point)
            if name in [run.name for run in runs]:
                raise BadInputError(f"{path.name}: two runs are called {name!r}. Give one another `name:`.")
            timeout = entry.get("timeout") or read.get("timeout") or CELL_TIMEOUT
            runs.append(Run(name, path.parent / entry["notebook"], values, timeout))
    every = tuple(run.name for run in runs)
    for hypothesis in read.get("hypotheses") or []:
        one_of(f"run of hypothesis {hypothesis['name']!r} in {path.name}", hypothesis["run"], every)
    kept = tuple(run for run in runs if fnmatch.fnmatchcase(run.name, only or "*"))
    if not kept:
        raise unknown_name("run", only, every, "`only` takes a name or a pattern like '02*'.")
    return Series(kept, every, read.get("title") or "", read.get("question") or "", path.name)


def read_content(path: Path) -> dict[str, Any]:
    """Read a series' file and check all but the parameters, and whether runs that it names exist."""
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
    _check_keys(read, SERIES_KEYS, path.name)
    for entry in read["runs"]:
        if not isinstance(entry, dict) or not isinstance(entry.get("notebook"), str):
            raise BadInputError(
                f"{path.name}: the run {entry!r} names no `notebook:`. Write {{notebook: NAME.ipynb}}."
            )
        _check_keys(entry, RUN_KEYS, f"{path.name}, {entry['notebook']}")
        if entry.get("name") is not None:
            checked_name(entry["name"])
    _check_hypotheses(read, path.name)
    return read


def _check_hypotheses(read: Mapping[str, Any], where: str) -> None:
    """Refuse what a protocol says of hypotheses, exclusions and a registration if it cannot be used."""
    names: list[str] = []
    for entry in read.get("hypotheses") or []:
        if not isinstance(entry, dict) or not all(entry.get(key) for key in ("name", "statement", "run")):
            raise BadInputError(
                f"{where}: the hypothesis {entry!r} lacks a name, a statement, or the run that answers it. Write "
                "{name: …, statement: …, run: NAME OF A RUN, finding: NAME} (or `table: NAME`)."
            )
        _check_keys(entry, HYPOTHESIS_KEYS, f"{where}, hypothesis {entry['name']!r}", "")
        if bool(entry.get("finding")) == bool(entry.get("table")):
            raise BadInputError(
                f"{where}: the hypothesis {entry['name']!r} must name what answers it: either `finding:` or `table:`, "
                "the name under which the run records it."
            )
        if entry["name"] in names:
            raise BadInputError(f"{where}: two hypotheses are called {entry['name']!r}. Rename one.")
        names.append(entry["name"])
    for entry in read.get("exclusions") or []:
        if not isinstance(entry, str):
            raise BadInputError(f"{where}: the exclusion {entry!r} must be text: put it in quotes.")
    for key in read.get("registered") or {}:
        one_of(f"key in {where}, registered", key, REGISTERED_KEYS)


def _check_keys(
    entry: Mapping[Any, Any],
    types: Mapping[str, type],
    where: str,
    advice: str = "Parameters go under `parameters:` or `defaults:`.",
) -> None:
    """Refuse unknown keys, and values of another type; a key without a value counts as left out."""
    for key, value in entry.items():
        one_of(f"key in {where}", key, types, advice)
        if key == "timeout" and value is not None:
            whole_number(f"{where}: `timeout:` (seconds a cell)", value, 1)
        elif key == "margin" and value is not None:
            real_number(f"{where}: `margin:`", value, positive=True)
        elif value is not None and not isinstance(value, types[key]):
            raise BadInputError(
                f"{where}: `{key}:` is {value!r}, of type {type(value).__name__}; it must {MUST[types[key]]}."
            )


def _grid(grid: Mapping[str, Any], path: Path) -> list[dict[str, Any]]:
    for key, values in grid.items():
        if not isinstance(values, list) or not values:
            raise BadInputError(
                f"{path.name}: `grid: {key}` must be a list of values to try, not {values!r}."
            )
    return [dict(zip(grid, point, strict=True)) for point in itertools.product(*grid.values())]


def checked_name(name: str) -> str:
    """Return the name of a run, if it can be that of a folder within the series' own.

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
        if isinstance(value, list):
            value = "+".join(map(str, value))
        parts.append(f"{key}-{value if isinstance(value, str) else json.dumps(value)}")
    name = re.sub(r"[^\w.+=-]+", "_", "--".join(parts))
    return name if len(name) <= 100 else f"{name[:90]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
