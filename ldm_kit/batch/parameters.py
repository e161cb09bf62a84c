"""The parameters of a notebook: which there are, and whether a value fits one."""

from __future__ import annotations

import ast
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from ldm_kit.errors import BadInputError, unknown_name
from ldm_kit.files import load_yaml

SCALARS: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "None": (type(None),),
}
CONTAINERS: dict[str, type] = {"list": list, "tuple": list, "sequence": list, "dict": dict, "mapping": dict}


class Parameter(NamedTuple):
    """One line of a notebook's parameters cell: ``name: type = default  # help``."""

    name: str
    type: str
    default: str
    help: str


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
    BadInputError
        If there is no such notebook, or it cannot be read as one.

    Examples
    --------
    >>> list(read_parameters("notebooks/02_probing.ipynb"))  # doctest: +SKIP
    ['model', 'dataset', 'noise_levels', 'out']
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


def check_parameters(
    given: Mapping[str, Any], parameters: Mapping[str, Parameter], notebook: str | os.PathLike[str]
) -> None:
    """Refuse parameters that the notebook does not have, and values of another type.

    Parameters
    ----------
    given : mapping of str to value
    parameters : mapping of str to Parameter
        As `read_parameters` returns them.
    notebook : path-like
        Named in the errors.

    Raises
    ------
    UnknownNameError
        If a name is not a parameter of the notebook (papermill itself only warns).
    BadInputError
        If a value does not fit the annotation.

    Examples
    --------
    >>> check_parameters({"sed": 1}, {"seed": Parameter("seed", "int", "0", "")}, "a.ipynb")
    Traceback (most recent call last):
    ...
    ldm_kit.errors.UnknownNameError: Unknown parameter of a.ipynb 'sed'. Did you mean 'seed'? ...
    """
    name = Path(notebook).name
    for key, value in given.items():
        if key not in parameters:
            raise unknown_name(
                f"parameter of {name}",
                key,
                parameters,
                "Correct the name, or add it to the cell tagged `parameters`.",
                most=40,
            )
        try:
            json.dumps(value)
        except TypeError as error:
            raise BadInputError(
                f"Parameter {key} of {name} is {value!r}, of type {type(value).__name__}, which no parameter file "
                "holds. Give text, a number, true or false, null, or a list or mapping of these."
            ) from error
        if not fits(value, parameters[key].type):
            raise BadInputError(
                f"Parameter {key} of {name} is {value!r}, of type {type(value).__name__}; the notebook wants "
                f"{parameters[key].type} (its default: {parameters[key].default}). Give it a value of that "
                "type: in YAML a list is written [a, b] and nothing at all null."
            )


def fits(value: object, annotation: str) -> bool:
    """Tell whether a value fits an annotation; an annotation that says nothing we know fits all.

    Examples
    --------
    >>> fits([0.1, 1], "list[float]"), fits(None, "Optional[int]"), fits("0.1", "float")
    (True, True, False)
    """
    if annotation == "None":  # papermill's word for a parameter without annotation
        return True
    try:
        tree = ast.parse(annotation.strip(), mode="eval").body
    except SyntaxError:
        return True
    return _fits(value, tree)


def _fits(value: object, node: ast.expr) -> bool:
    match node:
        case ast.Constant(value=None):
            return value is None
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _fits(value, left) or _fits(value, right)
        case ast.Name(id=name) if name in SCALARS:
            # bool is an int to Python, never to a reader of a parameter file
            return isinstance(value, SCALARS[name]) and (name == "bool" or not isinstance(value, bool))
        case ast.Name(id=name) if name.lower() in CONTAINERS:
            return isinstance(value, CONTAINERS[name.lower()])
        case ast.Subscript(value=ast.Name(id="Optional"), slice=inner):
            return value is None or _fits(value, inner)
        case ast.Subscript(value=ast.Name(id="Union"), slice=ast.Tuple(elts=inners)):
            return any(_fits(value, inner) for inner in inners)
        case ast.Subscript(value=ast.Name(id="Literal"), slice=inner):
            allowed = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            return value in [one.value for one in allowed if isinstance(one, ast.Constant)]
        case ast.Subscript(value=ast.Name() as outer, slice=inner):
            if not _fits(value, outer):
                return False
            return (
                not isinstance(value, list)
                or isinstance(inner, ast.Tuple)
                or all(_fits(v, inner) for v in value)
            )
    return True


def parse_value(text: str, annotation: str = "") -> Any:
    """Read a value typed on the command line: as YAML, unless the parameter wants a string.

    Parameters
    ----------
    text : str
    annotation : str
        The parameter's type, as `Parameter.type` has it.

    Examples
    --------
    >>> parse_value("[0.1, 0.5]"), parse_value("None"), parse_value("2.1", "str")
    ([0.1, 0.5], None, '2.1')
    """
    if annotation == "str":
        return text
    if text == "None":
        return None
    try:
        return load_yaml(text)
    except yaml.YAMLError:
        return text
