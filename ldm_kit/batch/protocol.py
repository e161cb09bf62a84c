"""A frozen protocol: what is to be run and asked, written down with a hash before it runs, and every deviation from it.

A protocol is a series' YAML that also names hypotheses. `freeze` keeps a copy of it beside the file, with the runs that it
makes, the hash of each notebook's code and of ldm_kit's. A run of the protocol hands that copy to the report, which compares it with
what each run recorded of itself. Deviations are named there, never refused: a researcher may have good reasons.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ldm_kit
from ldm_kit.batch.series import read_content, read_series
from ldm_kit.errors import BadInputError
from ldm_kit.files import write_text

ENDING = ".frozen.json"
# What the hash is of. The day is not: the same protocol has the same hash whenever it is frozen.
HASHED = ("content", "runs", "notebooks", "ldm_kit")
NOT_SET = object()


def freeze(path: str | os.PathLike[str]) -> Path:
    """Freeze a protocol: write a copy with a hash beside it.

    The hash (SHA-256) is of the parameters, hypotheses and exclusions, the code cells of the notebooks, and the version and
    code of ldm_kit. It is not of data, weights and other packages, which the report names by themselves; nor of
    ``registered``, which is known only afterwards. Register the hash where it gets a date that others can check.

    Parameters
    ----------
    path : path-like
        A series' YAML (see `read_series`) with ``hypotheses``: a list of ``name``, ``statement``, ``run``, and either
        ``finding`` or ``table``, the name under which that run will record the answer; optionally ``margin``, a number.
        ``exclusions`` is an optional list of sentences; ``registered`` may say ``date``, ``where`` and ``sha256``.

    Returns
    -------
    pathlib.Path
        The copy, ``NAME.frozen.json``.

    Raises
    ------
    UnknownNameError, BadInputError
        If the series cannot be used or names no hypotheses, or if another version of it is frozen already.

    Examples
    --------
    >>> freeze("notebooks/mine.yaml")  # doctest: +SKIP
    PosixPath('notebooks/mine.frozen.json')
    """
    path = Path(path)
    frozen = _as_is(path)
    copy = _copy_of(path)
    if copy.exists():
        before = _read_copy(path)
        if before["sha256"] == frozen["sha256"]:
            return copy
        raise BadInputError(
            f"{str(path)!r} was frozen on {before['on']} and is another by now. To run it, its deviations named, use --protocol. "
            f"To freeze it anew, as another protocol, rename it, or move {copy.name} away first."
        )
    frozen["on"] = datetime.now(UTC).isoformat(timespec="seconds")
    return write_text(copy, json.dumps(frozen, indent=1, ensure_ascii=False) + "\n")


def read_protocol(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a frozen protocol, and what was changed in its file since.

    Returns
    -------
    dict
        The frozen copy, with ``registered`` as the file has it now and ``changed``, a list of sentences.

    Raises
    ------
    BadInputError
        If the file was not frozen, or its copy is damaged.

    Examples
    --------
    >>> from ldm_kit.files import find_notebook
    >>> read_protocol(find_notebook("demo.yaml", ""))
    Traceback (most recent call last):
    ...
    ldm_kit.errors.BadInputError: ...demo.yaml' is not frozen. ...
    """
    path = Path(path)
    if path.suffix == ".ipynb" or (path.is_file() and not _copy_of(path).exists()):
        raise BadInputError(
            f"{str(path)!r} is not frozen. A protocol is the YAML of a series with `hypotheses:`; freeze it before it runs, "
            f"by `python -m ldm_kit.batch --freeze {path}`. Without --protocol it runs as any series does."
        )
    content, frozen = read_content(path), _read_copy(path)
    return {
        **frozen,
        "registered": {key: str(value) for key, value in (content.get("registered") or {}).items() if value},
        "changed": list(_changes(frozen["content"], _frozen_part(content))),
    }


def code_digests(notebook: Path) -> dict[str, str]:
    """Digest the code that a run executes: the notebook's code cells, and ldm_kit's modules beside its version.

    Outputs, text and line endings do not count, so that a notebook may be opened and saved.

    Examples
    --------
    >>> from ldm_kit.files import find_notebook
    >>> sorted(code_digests(find_notebook("02_probing.ipynb", "")))
    ['ldm_kit', 'notebook', 'version']
    """
    import nbformat

    package = Path(ldm_kit.__path__[0])
    modules = sorted(package.rglob("*.py"), key=lambda module: module.relative_to(package).as_posix())
    read = nbformat.read(notebook, as_version=4)  # type: ignore[no-untyped-call]
    return {
        "notebook": _sha256([cell.source for cell in read.cells if cell.cell_type == "code"]),
        "ldm_kit": _sha256(
            [[one.relative_to(package).as_posix(), one.read_text(encoding="utf-8")] for one in modules]
        ),
        "version": ldm_kit.__version__,
    }


def _as_is(path: Path) -> dict[str, Any]:
    """All that is frozen of a protocol, as it is now."""
    series, content = read_series(path), {} if path.suffix == ".ipynb" else read_content(path)
    if not content.get("hypotheses"):
        raise BadInputError(
            f"{str(path)!r} names no `hypotheses:`. A protocol says what it asks, and which run answers it: "
            "- {name: …, statement: …, run: NAME OF A RUN, finding: NAME}."
        )
    named = {run.name: Path(os.path.relpath(run.notebook, path.parent)).as_posix() for run in series.runs}
    digests = {named[run.name]: code_digests(run.notebook) for run in series.runs}
    one = next(iter(digests.values()))
    frozen: dict[str, Any] = {
        "content": _frozen_part(content),
        "runs": {
            run.name: {"notebook": named[run.name], "parameters": run.parameters} for run in series.runs
        },
        "notebooks": {name: digest["notebook"] for name, digest in digests.items()},
        "ldm_kit": {"version": one["version"], "code": one["ldm_kit"]},
    }
    return {"sha256": _sha256(frozen), "on": "", **frozen}


def _frozen_part(content: Mapping[str, Any]) -> dict[str, Any]:
    """What is frozen of a file, as JSON gives it back: a key without a value counts as left out."""
    kept = {key: value for key, value in content.items() if key != "registered" and value is not None}
    read: dict[str, Any] = json.loads(json.dumps(kept, default=str))
    return read


def _copy_of(path: Path) -> Path:
    return path.with_name(path.stem + ENDING)


def _read_copy(path: Path) -> dict[str, Any]:
    """Read the frozen copy, and check it against its own hash."""
    copy = _copy_of(path)
    try:
        read = json.loads(copy.read_text(encoding="utf-8"))
        whole = read["sha256"] == _sha256({key: read[key] for key in HASHED}) and isinstance(read["on"], str)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise BadInputError(
            f"{str(copy)!r}, the frozen copy of {path.name}, cannot be read: {type(error).__name__}: {error}. "
            "Restore it, for instance from version control."
        ) from error
    if not whole:
        raise BadInputError(
            f"{str(copy)!r} was altered: what it holds does not have the hash that it states, so that nothing can be "
            "compared with it. Restore it, for instance from version control; changes belong into "
            f"{path.name}, where they are named as deviations."
        )
    return dict(read)


def _sha256(value: Any) -> str:
    """Hash what JSON can hold, however its keys are ordered."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _changes(before: Any, now: Any, place: str = "") -> Iterator[str]:
    """Name each key that changed, with what it was and is."""
    old, new = _named(before), _named(now)
    if old is not None and new is not None:
        for key in dict.fromkeys([*old, *new]):
            inner = f"{place} › {key}" if place else str(key)
            yield from _changes(old.get(key, NOT_SET), new.get(key, NOT_SET), inner)
    elif _told(before) != _told(now):
        yield f"{place}: {_told(before)} → {_told(now)}"


def _named(value: Any) -> dict[str, Any] | None:
    """A mapping as it is; a list of mappings by name, so that one more run or hypothesis does not shift the others."""
    if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
        names = [str(one.get("name") or one.get("notebook") or number) for number, one in enumerate(value, 1)]
        unique = [
            name if names.count(name) == 1 else f"{name} ({number})" for number, name in enumerate(names, 1)
        ]
        return dict(zip(unique, value, strict=True))
    return value if isinstance(value, dict) else None


def _told(value: Any) -> str:
    return "not set" if value is NOT_SET else json.dumps(value, ensure_ascii=False)


# --- What the report says of it


def compare(written: Mapping[str, Any], runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Answer a protocol's hypotheses, and name every deviation.

    Parameters
    ----------
    written : mapping
        What `run_series` wrote of the protocol: `read_protocol`, and the names of parameters given on the command line.
    runs : list of dict
        What the report read of each run's folder.

    Returns
    -------
    dict
        ``sha256``, ``on``, ``version``, ``registered``, ``exclusions``, ``hypotheses`` (each with its ``answer``, or the
        reason why it is ``missing``) and ``deviations``, a list of sentences.
    """
    done, content = {run["name"]: run for run in runs}, written["content"]
    hypotheses = [
        {"margin": None, "finding": None, **one, **_answer(one, done)} for one in content["hypotheses"]
    ]
    registered = written["registered"]
    deviations = [f"The protocol's file: {change}" for change in written["changed"]]
    if registered.get("sha256", written["sha256"]) != written["sha256"]:
        deviations.append(
            f"The hash that was registered is {registered['sha256']}; that of the frozen copy is another"
        )
    found = [(text, name) for name in written["runs"] for text in _of_a_run(name, written, done.get(name))]
    found += [("not part of the frozen protocol", name) for name in done if name not in written["runs"]]
    for text in dict.fromkeys(text for text, _ in found):
        names = [name for other, name in found if other == text]
        everywhere = len(names) > 1 and names == list(written["runs"])
        deviations.append(f"{'Every run' if everywhere else ', '.join(names)}: {text}")
    deviations += [
        f"Hypothesis {one['name']} has no answer: {one['missing']}" for one in hypotheses if "missing" in one
    ]
    return {
        "sha256": written["sha256"],
        "on": written["on"],
        "version": written["ldm_kit"]["version"],
        "registered": registered,
        "exclusions": content.get("exclusions", []),
        "hypotheses": hypotheses,
        "deviations": deviations,
    }


def _of_a_run(name: str, written: Mapping[str, Any], run: Mapping[str, Any] | None) -> Iterator[str]:
    """Name how one run deviates."""
    if run is None:
        yield "did not run"
        return
    if run["status"] == "failed":
        yield f"failed: {run['error']}"
    elif run["status"] != "done":
        yield f"{run['status']}, not done"
    if not run["code"]:
        yield "run by an older ldm_kit, which recorded neither code nor parameters to compare"
        return
    frozen, code, kit = written["runs"][name], run["code"], written["ldm_kit"]
    if datetime.fromisoformat(run["started"]) < datetime.fromisoformat(written["on"]):
        yield f"run on {run['started']}, before the protocol was frozen"
    if code.get("notebook") != written["notebooks"][frozen["notebook"]]:
        yield f"the code of {frozen['notebook']} changed"
    if code.get("version") != kit["version"]:
        yield f"ldm_kit {kit['version']} → {code.get('version')}"
    elif code.get("ldm_kit") != kit["code"]:
        yield f"the code of ldm_kit changed (its version, {kit['version']}, did not)"
    for change in _changes(frozen["parameters"], run["given"]):
        typed = change.partition(":")[0].partition(" › ")[0] in written["command_line"]
        yield f"parameter {change}{', on the command line' if typed else ''}"


def _answer(hypothesis: Mapping[str, Any], done: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Find the finding or table that answers a hypothesis, or say why there is none."""
    run, kind = done.get(hypothesis["run"]), "finding" if hypothesis.get("finding") else "table"
    if run is None:
        return {"missing": f"{hypothesis['run']} did not run"}
    # A finding without a name is recorded under its text.
    recorded = {one["name"]: one for one in run[f"{kind}s"] if one["name"] not in ("", one.get("text"))}
    if (entry := recorded.get(hypothesis[kind])) is None:
        has = f"; its {kind}s: {', '.join(recorded)}" if recorded else ""
        return {"missing": f"{run['name']} recorded no {kind} {hypothesis[kind]!r}{has}"}
    return {"answer": entry}


def summary_lines(protocol: Mapping[str, Any]) -> list[str]:
    """Say in a few lines whether what ran is what was frozen.

    Examples
    --------
    >>> list(summary_lines({"sha256": "3f2a9c51d0", "deviations": ["a: did not run"]}))
    ['Protocol 3f2a9c51: 1 deviation.', '  - a: did not run']
    """
    if "problem" in protocol:
        return [protocol["problem"]]
    deviations = protocol["deviations"]
    count = f"{len(deviations) or 'no'} deviation{'' if len(deviations) == 1 else 's'}"
    return [f"Protocol {protocol['sha256'][:8]}: {count}.", *(f"  - {one}" for one in deviations)]
