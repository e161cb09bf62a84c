"""The batch runner: strict before it starts, and losing nothing afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from ldm_kit.batch import read_parameters, read_series, run_notebook, run_series
from ldm_kit.batch.__main__ import main
from ldm_kit.batch.parameters import fits, parse_value
from ldm_kit.batch.series import run_name
from ldm_kit.errors import BadInputError, UnknownNameError

ROOT = Path(__file__).parents[1]
MakeNotebook = Callable[..., Path]
PARAMETERS = """from typing import Optional
model: str = "tiny-ldm"  # which model
seed: int = 0
noise_levels: list[float] = [0.1, 0.5]
blocks: Optional[list[str]] = None  # all, if None
out: str = "outputs/x"
"""


def write_yaml(path: Path, content: object) -> Path:
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def outputs_of(notebook: Path) -> str:
    cells = json.loads(notebook.read_text())["cells"]
    return "".join("".join(out.get("text", "")) for cell in cells for out in cell.get("outputs", []))


# --- parameters


def test_parameters_are_read_in_their_order(make_notebook: MakeNotebook) -> None:
    found = read_parameters(make_notebook("a", parameters=PARAMETERS))
    assert list(found) == ["model", "seed", "noise_levels", "blocks", "out"]
    assert found["model"].help == "which model"


@pytest.mark.parametrize(
    ("value", "annotation", "expected"),
    [
        ("a", "str", True),
        (1, "str", False),
        (True, "int", False),
        (1, "float", True),
        (None, "Optional[int]", True),
        (None, "int", False),
        (["a"], "list[str]", True),
        ("a", "list[str]", False),
        (["a", 1], "list[str]", False),
        ([0.5], "Optional[list[float]]", True),
        (["x"], "list", True),
        ({"a": 1}, "dict[str, int]", True),
        ("b", "Literal['a', 'b']", True),
        ("c", "Literal['a', 'b']", False),
        (1, "int | None", True),
        ("x", "None", True),  # papermill's word for no annotation
        ("x", "Path", True),
    ],
)
def test_fits(value: object, annotation: str, expected: bool) -> None:
    assert fits(value, annotation) is expected


@pytest.mark.parametrize(
    ("text", "annotation", "expected"),
    [
        ("2.1", "str", "2.1"),
        ("2.1", "float", 2.1),
        ("[a, b]", "list[str]", ["a", "b"]),
        ("None", "", None),
        ("null", "", None),
    ],
)
def test_what_is_typed_is_read_by_its_type(text: str, annotation: str, expected: object) -> None:
    assert parse_value(text, annotation) == expected


def test_unknown_parameter_is_an_error_and_nothing_runs(make_notebook: MakeNotebook, tmp_path: Path) -> None:
    notebook = make_notebook("a", parameters=PARAMETERS)
    with pytest.raises(UnknownNameError, match=r"'sed'.*Did you mean 'seed'.*model") as caught:
        run_notebook(notebook, tmp_path / "out", {"sed": 1})
    assert "a.ipynb" in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "given", [{"noise_levels": "[0.1]"}, {"seed": True}, {"model": None}, {"seed": object()}]
)
def test_a_value_of_another_type_is_an_error(
    make_notebook: MakeNotebook, tmp_path: Path, given: dict[str, object]
) -> None:
    with pytest.raises(BadInputError, match=r"Parameter \w+ of a\.ipynb is"):
        run_notebook(make_notebook("a", parameters=PARAMETERS), tmp_path / "out", given)


# --- series


def test_a_grid_is_a_run_a_point_with_defaults_and_overrides(
    make_notebook: MakeNotebook, tmp_path: Path
) -> None:
    make_notebook("a", parameters=PARAMETERS)
    make_notebook("b", parameters="seed: int = 0")
    path = write_yaml(
        tmp_path / "s.yaml",
        {
            "timeout": 60,
            "defaults": {"model": "sd-turbo", "seed": 3},
            "runs": [
                {
                    "notebook": "a.ipynb",
                    "grid": {"seed": [1, 2], "noise_levels": [[0.1], [0.2]]},
                    "timeout": 5,
                },
                {"notebook": "b.ipynb"},
            ],
        },
    )
    series = read_series(path, parameters={"model": "sd1.5"})
    assert [run.name for run in series.runs] == [
        "a--seed-1--noise_levels-0.1",
        "a--seed-1--noise_levels-0.2",
        "a--seed-2--noise_levels-0.1",
        "a--seed-2--noise_levels-0.2",
        "b",
    ]
    assert series.runs[3].parameters == {"model": "sd1.5", "seed": 2, "noise_levels": [0.2]}
    assert series.runs[4].parameters == {"seed": 3}
    assert (series.runs[0].timeout, series.runs[4].timeout) == (5, 60)
    only = read_series(path, only="a--seed-2*")
    assert [run.name for run in only.runs] == [run.name for run in series.runs[2:4]]
    assert only.names == tuple(run.name for run in series.runs)


def test_long_names_are_cut_and_stay_different() -> None:
    names = {run_name("a", {"blocks": ["x" * 200 + end]}) for end in "ab"}
    assert len(names) == 2
    assert max(map(len, names)) <= 100


@pytest.mark.parametrize(
    ("content", "error", "told"),
    [
        ({"runs": []}, BadInputError, "no `runs:`"),
        ({"runs": [{"notebok": "a.ipynb"}]}, BadInputError, "names no `notebook:`"),
        ({"runs": [{"notebook": "c.ipynb"}]}, UnknownNameError, "Did you mean 'a.ipynb'"),
        ({"runs": [{"notebook": "a.ipynb", "params": {}}]}, UnknownNameError, "Did you mean 'parameters'"),
        ({"default": {}, "runs": [{"notebook": "a.ipynb"}]}, UnknownNameError, "Did you mean 'defaults'"),
        (
            {"defaults": {"modle": "x"}, "runs": [{"notebook": "a.ipynb"}]},
            UnknownNameError,
            "Did you mean 'model'",
        ),
        ({"runs": [{"notebook": "a.ipynb", "grid": {"seed": 1}}]}, BadInputError, "list of values"),
        ({"runs": [{"notebook": "a.ipynb", "grid": {"seed": [1, "x"]}}]}, BadInputError, "wants int"),
        (
            {"runs": [{"notebook": "a.ipynb"}, {"notebook": "a.ipynb"}]},
            BadInputError,
            "two runs are called 'a'",
        ),
    ],
)
def test_a_series_that_cannot_run_says_why(
    make_notebook: MakeNotebook, tmp_path: Path, content: object, error: type[Exception], told: str
) -> None:
    make_notebook("a", parameters=PARAMETERS)
    with pytest.raises(error, match=told):
        run_series(write_yaml(tmp_path / "s.yaml", content), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["runs: [", "- a", "\x00"])
def test_a_broken_yaml_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(BadInputError, match=r"s\.yaml"):
        read_series(tmp_path / "s.yaml")


def test_a_missing_series_and_a_broken_notebook_are_named(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"demo\.yaml"):
        read_series(ROOT / "notebooks" / "dmo.yaml")
    (tmp_path / "a.ipynb").write_text("{")
    with pytest.raises(BadInputError, match="cannot be read as a notebook"):
        read_series(tmp_path / "a.ipynb")


# --- runs


def test_a_failure_is_kept_with_its_log_while_the_others_go_on(
    make_notebook: MakeNotebook,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_notebook(
        "a", "import sys; print('on the brink', file=sys.stderr)", "raise ValueError('no such block')"
    )
    make_notebook(
        "b",
        "print(sys.executable, os.getcwd(), seed, blocks, out)",
        parameters="import os, sys\n" + PARAMETERS,
    )
    path = write_yaml(
        tmp_path / "s.yaml",
        {"runs": [{"notebook": "a.ipynb"}, {"notebook": "b.ipynb", "parameters": {"blocks": ["mid_block"]}}]},
    )
    monkeypatch.chdir(tmp_path)
    assert main([str(path), "--out", "out", "-p", "seed", "7"]) == 1
    told = capsys.readouterr().out
    assert "failed" in told and "ValueError: no such block" in told and "out/index.html" in told

    a, b = tmp_path / "out" / "a", tmp_path / "out" / "b"
    assert sorted(file.name for file in a.iterdir()) == [
        "a.failed.html",
        "a.failed.ipynb",
        "a.log",
        "run.json",
    ]
    log = (a / "a.log").read_text()
    assert "no such block" in log and "on the brink" in log and "\x1b" not in log
    # the runner's own Python and folder; real values; a folder of its own
    assert outputs_of(b / "b.ipynb").split("\n")[0] == f"{sys.executable} {tmp_path} 7 ['mid_block'] out/b"

    # mended, it leaves no trace of the failure, and the other is not run again
    before = (b / "b.ipynb").stat().st_mtime_ns
    make_notebook("a", "print('well')")
    assert main([str(path), "--out", "out", "-p", "seed", "7"]) == 0
    assert sorted(file.name for file in a.glob("a*.*")) == ["a.html", "a.ipynb"]
    assert (b / "b.ipynb").stat().st_mtime_ns == before
    assert "is done already" in capsys.readouterr().out


def test_other_parameters_another_notebook_or_force_run_again(
    make_notebook: MakeNotebook, tmp_path: Path
) -> None:
    notebook = make_notebook("a", "print(seed)", parameters="seed: int = 0")
    statuses = [
        run_notebook(notebook, tmp_path / "out", parameters, force=force).status
        for parameters, force in [({}, False), ({}, False), ({"seed": 1}, False), ({"seed": 1}, True)]
    ]
    assert statuses == ["done", "skipped", "done", "done"]
    make_notebook("a", "print(seed + 1)", parameters="seed: int = 0")
    assert run_notebook(notebook, tmp_path / "out", {"seed": 1}).status == "done"


def test_out_is_filled_in_where_it_stands_and_other_braces_are_not(
    make_notebook: MakeNotebook, tmp_path: Path
) -> None:
    notebook = make_notebook(
        "a", "print(features, prompt)", parameters="features: str = ''\nprompt: str = ''"
    )
    outcome = run_notebook(
        notebook, tmp_path / "o", {"features": "{out}/features", "prompt": "a photo of a {name}"}
    )
    assert outputs_of(outcome.folder / "a.ipynb").strip() == f"{tmp_path}/o/features a photo of a {{name}}"


def test_a_cell_that_takes_too_long_is_a_failure(make_notebook: MakeNotebook, tmp_path: Path) -> None:
    outcome = run_notebook(make_notebook("a", "import time; time.sleep(60)"), tmp_path / "out", timeout=1)
    assert outcome.status == "failed"
    assert outcome.seconds < 30
    assert "CellTimeoutError" in outcome.error
    assert (outcome.folder / "a.failed.ipynb").exists()


def test_a_kernel_that_dies_is_a_failure(make_notebook: MakeNotebook, tmp_path: Path) -> None:
    outcome = run_notebook(make_notebook("a", "import os; os._exit(3)"), tmp_path / "out", timeout=20)
    assert outcome.status == "failed"
    assert "DeadKernelError" in outcome.error


def test_a_place_that_cannot_be_written_to_is_an_error(make_notebook: MakeNotebook, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(BadInputError, match="Cannot write"):
        run_notebook(make_notebook("a", "1"), tmp_path / "out")
    assert main([str(tmp_path / "a.ipynb"), "--out", str(tmp_path / "out")]) == 2


def test_the_wait_is_put_back_and_the_environment_as_well(
    make_notebook: MakeNotebook, tmp_path: Path
) -> None:
    from jupyter_client.channels import AsyncZMQSocketChannel

    before, environment = AsyncZMQSocketChannel.get_msg, dict(os.environ)
    run_notebook(make_notebook("a", "1"), tmp_path / "out")
    assert AsyncZMQSocketChannel.get_msg is before
    assert dict(os.environ) == environment


def test_killed_in_the_middle_nothing_is_half_written_and_a_rerun_finishes(
    make_notebook: MakeNotebook, tmp_path: Path
) -> None:
    notebook = make_notebook(
        "a",
        "import pathlib, time; pathlib.Path(flag).touch(); time.sleep(pause); print('end')",
        parameters="flag: str = ''\npause: float = 0",
    )
    flag, folder = tmp_path / "flag", tmp_path / "out" / "a"
    done = run_notebook(notebook, tmp_path / "out", {"flag": str(flag), "pause": 0.0})
    whole = (folder / "a.ipynb").read_bytes()
    assert done.status == "done" and flag.exists()
    flag.unlink()

    command = [sys.executable, "-m", "ldm_kit.batch", str(notebook), "--out", str(tmp_path / "out")]
    command += ["-p", "flag", str(flag), "-p", "pause", "30"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(300):
        if flag.exists():
            break
        time.sleep(0.1)
    assert flag.exists()
    process.send_signal(signal.SIGKILL)
    process.wait()

    assert (folder / "a.ipynb").read_bytes() == whole  # the earlier one, untouched
    assert json.loads((folder / "run.json").read_text())["status"] == "running"
    assert list(folder.glob(".*.partial*"))
    again = run_notebook(notebook, tmp_path / "out", {"flag": str(flag), "pause": 0.0})
    assert again.status == "done"  # the same request as the first, but the killed one came between
    assert not list(folder.glob(".*.partial*"))
