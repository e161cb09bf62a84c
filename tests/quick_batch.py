"""Batch runs without kernels, and a series that is killed at each of its file moves, one after the other."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import itables
import nbformat
import pandas as pd
import papermill
import PIL.Image
import plotly.offline
import pyarrow.parquet
from nbformat.v4 import new_code_cell, new_notebook

import ldm_kit.batch.report
import ldm_kit.models.registry
import ldm_kit.run_record
from ldm_kit.batch import build_report, run_series
from ldm_kit.batch.report import _template
from ldm_kit.batch.run import versions
from ldm_kit.files import write_text

# What a forked process needs, imported once for all.
NEEDED = (itables, pd, PIL.Image, plotly.offline, pyarrow.parquet, ldm_kit.models.registry)
PARAMETERS = "seed: int = 0\nout: str = ''"
WRITES = """
import pandas as pd
from PIL import Image
from ldm_kit.run_record import RunRecord
results = RunRecord(out, title="T")
results.table(pd.DataFrame({"seed": [seed, 7]}), "numbers")
results.figure(Image.new("RGB", (3, 2)), "drawn")
results.finding(f"Found with seed {seed}.")
"""
VERSIONS, TEMPLATE = versions(), _template()
MOVES = {"replace": os.replace, "rename": os.rename}


def run_here(source: str, target: str, parameters: dict[str, Any] | None = None, **_: Any) -> None:
    """Stand in for papermill.execute_notebook: run the code cells in this process."""
    notebook = nbformat.read(source, as_version=4)
    names: dict[str, Any] = {"__name__": "__main__", "display": str}  # of IPython
    for cell in notebook.cells:
        if cell.cell_type == "code":
            nbformat.write(notebook, target)
            exec(cell.source, names)
            if "parameters" in cell.metadata.get("tags", []):
                names |= parameters or {}
    nbformat.write(notebook, target)


def write_series(folder: Path, runs: int) -> Path:
    """Write a series of notebooks that each leave a table, a figure and a finding."""
    names = [f"{chr(ord('a') + number)}.ipynb" for number in range(runs)]
    for name in names:
        cells = [new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}), new_code_cell(WRITES)]
        nbformat.write(new_notebook(cells=cells), folder / name)
    path = folder / "s.yaml"
    path.write_text(json.dumps({"runs": [{"notebook": name} for name in names]}))
    return path


def files_of(out: Path) -> set[str]:
    return {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}


def in_child(work: Callable[[], Any], *, killed_at_move: int = 0, notebooks_too: bool = False) -> int:
    """Do it in a forked process, killed before its n-th file move; its exit status as os.waitpid gives it."""
    if child := os.fork():
        return os.waitpid(child, 0)[1]
    status = 1
    try:
        moves = itertools.count(1)

        def counted(move: Callable[..., Any]) -> Callable[..., Any]:
            def at(*paths: Any, **options: Any) -> Any:
                if next(moves) == killed_at_move:
                    os.kill(os.getpid(), signal.SIGKILL)
                return move(*paths, **options)

            return at

        def uncounted(*given: Any, **options: Any) -> None:
            counting = os.replace, os.rename
            os.replace, os.rename = MOVES.values()
            run_here(*given, **options)
            os.replace, os.rename = counting

        os.replace, os.rename = map(counted, MOVES.values())
        papermill.execute_notebook = run_here if notebooks_too else uncounted
        ldm_kit.run_record.find_browser = lambda: None
        # What takes as long as all else together, and moves nothing.
        ldm_kit.batch.run.versions = ldm_kit.batch.report.versions = lambda: VERSIONS
        ldm_kit.batch.report._template = lambda: TEMPLATE
        ldm_kit.batch.report.write_page = lambda notebook, target, **_: write_text(target, "a page")
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 - until this process ends
        work()
        status = 0
    finally:
        os._exit(status)


def old_under_new(out: Path) -> bool:
    """Whether a card of the report shows a finding of one seed under the parameters of another."""
    cards = (out / "index.html").read_text().split('<article id="')[1:]
    seeds = [
        {"".join(pair) for pair in re.findall(r"seed</dt><dd>\s*(\d)|with seed (\d)", card)} for card in cards
    ]
    return any(len(shown) > 1 for shown in seeds)


def killed_at_each_move(
    folder: Path, *, runs: int = 1, notebooks_too: bool = False
) -> Iterator[dict[str, Any]]:
    """Kill a series before each file move, made anew and made again with another seed, and run it again.

    Yields for each kill what was wrong. It forks: call it in a process without threads.
    """
    series = write_series(folder, runs)

    def made(out: Path, seed: int) -> None:
        run_series(series, out, parameters={"seed": seed})
        build_report(out)

    def again(out: Path) -> None:
        if any(out.glob("*/run.json")):
            build_report(out)
            assert not old_under_new(out)
        made(out, 1)

    whole, old = folder / "whole", folder / "old"
    assert in_child(lambda: made(whole, 1)) == in_child(lambda: made(old, 0)) == 0
    for start in ("nothing", "old"):
        for move in itertools.count(1):
            out = folder / f"{start}-{move}"
            if start == "old":
                shutil.copytree(old, out)
            if in_child(lambda out=out: made(out, 1), killed_at_move=move, notebooks_too=notebooks_too) == 0:
                break
            wrong = ["cannot be run again, or reported"] if in_child(lambda out=out: again(out)) else []
            wrong += sorted(files_of(out) ^ files_of(whole))
            index = out / "index.html"
            text = index.read_text() if index.exists() else ""
            if text.count("Found with seed 1") < runs or "Found with seed 0" in text:
                wrong.append("the report is not that of the new run")
            yield {"start": start, "move": move, "wrong": wrong}
            shutil.rmtree(out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument(
        "--notebooks-too", action="store_true", help="kill at what the notebooks move as well"
    )
    given = parser.parse_args()
    for kill in killed_at_each_move(given.folder, runs=given.runs, notebooks_too=given.notebooks_too):
        print(json.dumps(kill), flush=True)
