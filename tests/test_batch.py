"""The batch runner: strict before it starts, and losing nothing afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from queue import Empty

import pytest
import yaml

from ldm_kit.batch import build_report, read_parameters, read_series, run_notebook, run_series
from ldm_kit.batch.__main__ import main
from ldm_kit.batch.execution import _kernel_manager
from ldm_kit.batch.series import fits, parse_value, run_name
from ldm_kit.errors import BadInputError, UnknownNameError
from tests.quick_batch import WRITES, run_here

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


@pytest.fixture
def without_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run notebooks in this process."""
    monkeypatch.setattr("papermill.execute_notebook", run_here)


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
        (
            {"runs": [{"notebook": "a.ipynb", "name": 5}]},
            BadInputError,
            r"a\.ipynb: `name:` is 5, of type int",
        ),
        *(
            ({"runs": [{"notebook": "a.ipynb", "name": name}]}, BadInputError, "cannot name a run")
            for name in ("..", ".", "", "/elsewhere/x", "../x", "a/b", "a\\b", ".hidden")
        ),
        *(
            (
                {"timeout": given, "runs": [{"notebook": "a.ipynb"}]},
                BadInputError,
                r"s\.yaml: `timeout:`.*whole",
            )
            for given in ("abc", -1, 0, 1.5, True)
        ),
        ({"runs": [{"notebook": "a.ipynb", "timeout": "1h"}]}, BadInputError, "`timeout:`.*'1h'"),
        ({"defaults": ["seed"], "runs": [{"notebook": "a.ipynb"}]}, BadInputError, "`defaults:`.*must map"),
        ({"title": ["x"], "runs": [{"notebook": "a.ipynb"}]}, BadInputError, "`title:`.*of type list"),
        ({"runs": [{"notebook": "a.ipynb", "parameters": []}]}, BadInputError, "`parameters:`.*must map"),
        (
            {"runs": [{"notebook": "a.ipynb", "parameters": {5: 1}}]},
            UnknownNameError,
            r"parameter of a\.ipynb 5",
        ),
        ({"runs": ["a.ipynb", None]}, BadInputError, "names no `notebook:`"),
        ({"runs": [{"notebook": 5}]}, BadInputError, "names no `notebook:`"),
        (
            {"runs": [{"notebook": "a.ipynb", "grid": {"seed": [1, 2]}, "parameters": {"out": "x"}}]},
            BadInputError,
            "write to the same folder",
        ),
        (
            {
                "runs": [
                    {"notebook": "a.ipynb", "name": "one", "parameters": {"out": "{out}/b"}},
                    {"notebook": "a.ipynb", "name": "b", "parameters": {"out": "{out}/x/../y"}},
                ]
            },
            BadInputError,
            "'one' and 'b' write to the same folder",
        ),
        ({"runs": [{"notebook": "a.ipynb", "name": "index.html"}]}, BadInputError, "cannot name a run"),
        ({"runs": [{"notebook": "a.ipynb", "name": "名" * 100}]}, BadInputError, "cannot name a run"),
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


def test_a_key_that_stands_twice_in_yaml_is_an_error_that_names_key_and_line(
    make_notebook: MakeNotebook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_notebook("a", parameters=PARAMETERS)
    path = tmp_path / "s.yaml"
    path.write_text("runs: [{notebook: a.ipynb}]\ntitle: x\nruns: [{notebook: a.ipynb}]")
    with pytest.raises(BadInputError, match=r"'runs' stands twice, in line 1 and here(.|\n)*line 3"):
        read_series(path)
    path.write_text("runs:\n- notebook: a.ipynb\n  parameters: {seed: 1, model: x, seed: 2}")
    with pytest.raises(BadInputError, match=r"'seed' stands twice(.|\n)*line 3"):
        read_series(path)
    path.write_text("defaults: &d {seed: 1}\nruns: [{notebook: a.ipynb, parameters: {<<: *d, seed: 2}}]")
    assert read_series(path).runs[0].parameters["seed"] == 2  # what YAML itself calls overriding

    from ldm_kit.datasets.fetch import read_urls
    from ldm_kit.models.registry import registered_models

    path.write_text("mine: {source: a}\nmine: {source: b}")
    monkeypatch.setenv("LDM_KIT_MODELS", str(path))
    for read in (registered_models, lambda: read_urls(path)):
        with pytest.raises((BadInputError, yaml.YAMLError), match="'mine' stands twice"):
            read()


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "not JSON",
        '{"nbformat": 4, "nbformat_minor": 5, "metadata": {}}',
        '{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [{"cell_type": "code", "source": ""}]}',
        '{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [{"cell_type": "code", "source": "", '
        '"metadata": {"tags": 5}, "outputs": [], "execution_count": null, "id": "a"}]}',
        '{"nbformat": 3, "nbformat_minor": 0, "metadata": {}}',
        '{"nbformat": "four", "nbformat_minor": 0, "metadata": {}, "cells": []}',
        '{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": 5}',
        '{"nbformat": 4, "nbformat_minor": 5, "cells": [null]}',
    ],
)
def test_a_notebook_with_odd_parts_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.ipynb").write_text(content)
    with pytest.raises(BadInputError, match=r"a\.ipynb' cannot be read as a notebook: \w+"):
        run_notebook(tmp_path / "a.ipynb", tmp_path / "out")


def test_the_odd_part_of_a_notebook_is_pointed_at(make_notebook: MakeNotebook) -> None:
    path = make_notebook("a", parameters="seed: int = 0")
    path.write_text(path.read_text().replace('"tags": [', '"tags": 5, "others": ['))
    with pytest.raises(
        BadInputError, match="5 is not of type 'array' in 'tags' in 'metadata' in 0 in 'cells'"
    ):
        read_parameters(path)


def test_an_old_notebook_without_kernelspec_is_read(tmp_path: Path) -> None:
    import nbformat

    node = nbformat.v3.new_notebook(
        worksheets=[nbformat.v3.new_worksheet(cells=[nbformat.v3.new_code_cell("1")])]
    )
    (tmp_path / "a.ipynb").write_text(json.dumps(node))
    assert read_parameters(tmp_path / "a.ipynb") == {}


def test_a_missing_series_and_a_broken_notebook_are_named(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"demo\.yaml"):
        read_series(ROOT / "notebooks" / "dmo.yaml")
    (tmp_path / "a.ipynb").write_text("{")
    with pytest.raises(BadInputError, match="cannot be read as a notebook"):
        read_series(tmp_path / "a.ipynb")


# --- runs


@pytest.mark.slow
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
    others = tmp_path / "jupyter" / "kernels" / "python3" / "kernel.json"  # which another project left there
    others.parent.mkdir(parents=True)
    others.write_text(json.dumps({"argv": ["false"], "display_name": "Python 3", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    environment = dict(os.environ)
    assert main([str(path), "--out", "out", "-p", "seed", "7"]) == 1
    assert dict(os.environ) == environment
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_cell_that_takes_too_long_is_a_failure(make_notebook: MakeNotebook, tmp_path: Path) -> None:
    outcome = run_notebook(make_notebook("a", "import time; time.sleep(60)"), tmp_path / "out", timeout=1)
    assert outcome.status == "failed"
    assert "CellTimeoutError" in outcome.error
    assert (outcome.folder / "a.failed.ipynb").exists()


@pytest.mark.slow
def test_a_kernel_that_dies_is_a_failure(make_notebook: MakeNotebook, tmp_path: Path) -> None:
    outcome = run_notebook(make_notebook("a", "import os; os._exit(3)"), tmp_path / "out", timeout=20)
    assert outcome.status == "failed"
    assert "DeadKernelError" in outcome.error


def test_a_place_that_cannot_be_written_to_is_an_error(make_notebook: MakeNotebook, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(BadInputError, match="Cannot write"):
        run_notebook(make_notebook("a", "1"), tmp_path / "out")
    assert main([str(tmp_path / "a.ipynb"), "--out", str(tmp_path / "out")]) == 2


def test_a_wait_for_the_kernel_looks_twice_a_second_until_its_time_is_up() -> None:
    """A message can come between a look and the wait for the next without waking anybody."""
    waits: list[int] = []

    class Socket:
        async def poll(self, milliseconds: int) -> bool:
            waits.append(milliseconds)
            return len(waits) == 3

        async def recv_multipart(self) -> str:
            return "a message"

    class Session:
        def feed_identities(self, message: str) -> tuple[None, str]:
            return None, message

        def deserialize(self, message: str) -> str:
            return message

    kind = _kernel_manager({})().client_factory.iopub_channel_class
    channel = kind.__new__(kind)  # which takes no socket but ZMQ's
    channel.socket, channel.session = Socket(), Session()
    assert asyncio.run(channel.get_msg(timeout=None)) == "a message" and waits == [500, 500, 500]
    with pytest.raises(Empty):
        asyncio.run(channel.get_msg(timeout=0.0))
    assert waits[3:] == [0]


WAITS = """
import os, pathlib, time
print('before the wait')
pathlib.Path(out, 'kernel').write_text(str(os.getpid()))
while pause: time.sleep(0.1)
"""


def begin(command: list[str], kernel: Path) -> tuple[subprocess.Popen[str], int]:
    """Start a run of `WAITS` in a process of its own; return it and its kernel's, once that waits."""
    kernel.unlink(missing_ok=True)
    pipes: dict[str, int] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, cwd=ROOT, text=True, preexec_fn=heed_interrupts, **pipes)
    while not (kernel.exists() and kernel.read_text()):  # as long as it takes: pytest itself has a limit
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    return process, int(kernel.read_text())


def heed_interrupts() -> None:
    """Undo what a shell does to what it starts in the background, and that hands on: SIGINT is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_until_gone(process: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        while True:
            os.kill(process, 0)
            time.sleep(0.05)


@pytest.mark.slow
def test_killed_in_the_middle_nothing_is_half_written_and_a_rerun_finishes(
    make_notebook: MakeNotebook, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    notebook = make_notebook("a", WAITS, parameters="out: str = ''\npause: bool = False")
    out, folder = tmp_path / "out", tmp_path / "out" / "a"
    assert run_notebook(notebook, out).status == "done"
    whole = (folder / "a.ipynb").read_bytes()
    command = [sys.executable, "-m", "ldm_kit.batch", str(notebook), "--out", str(out), "-p", "pause", "true"]
    process, kernel = begin(command, folder / "kernel")
    process.kill()
    process.communicate()
    wait_until_gone(kernel)

    assert (folder / ".previous" / "a.ipynb").read_bytes() == whole  # the earlier one, moved aside
    assert json.loads((folder / "run.json").read_text())["status"] == "running"
    assert list(folder.glob(".*.partial*"))
    # the same request as the first, but the killed one came between; its lock keeps nobody out
    assert "a … runs again: it was not finished" in run_and_tell(notebook, out, capsys)
    assert {file.name for file in folder.iterdir()} == {"run.json", "a.ipynb", "kernel"}


# --- run again, or not


def run_and_tell(notebook: Path, out: Path, capsys: pytest.CaptureFixture[str], **parameters: object) -> str:
    """Run a series of one notebook; what the last of it says."""
    capsys.readouterr()
    run_series(notebook, out, parameters=parameters)
    return capsys.readouterr().out


@pytest.mark.slow
def test_what_changed_since_the_run_is_named_and_nothing_else_runs_again(
    make_notebook: MakeNotebook,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    without_kernel: None,
) -> None:
    def unchanged_time(path: Path, content: bytes) -> None:
        before = path.stat()
        path.write_bytes(content)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    triplets, norms = tmp_path / "triplets.txt", tmp_path / "norms.csv"
    pictures, network, own, things = (tmp_path / name for name in ("pictures", "network", "own", "things"))
    for folder in (pictures / "cat", network, own, things):
        folder.mkdir(parents=True)
    for file in (triplets, norms, pictures / "cat" / "1.png", things / "words.txt", own / "config.json"):
        file.write_bytes(b"0 1 2")
    (network / "weights.safetensors").write_bytes(b"0" * 70_000)
    (tmp_path / "models.yaml").write_text(f"mine: {{source: {own}}}")
    monkeypatch.setenv("LDM_KIT_THINGS", str(things))
    monkeypatch.setenv("LDM_KIT_MODELS", str(tmp_path / "models.yaml"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    lines = [f"norms: str = {str(norms)!r}", "files: list = []", "model: str = ''", "features: str = ''"]
    notebook = make_notebook("a", "1", parameters="\n".join(["seed: int = 0", *lines]))
    given: dict[str, object] = {"files": [str(triplets), str(pictures)], "model": f"untrained:{network}"}
    given["features"] = "{out}/features"
    out = tmp_path / "out"
    assert run_and_tell(notebook, out, capsys, **given).startswith("[1/1] a …\n[1/1] a done")
    (out / "features").mkdir()
    version = importlib.metadata.version

    changes: list[tuple[Callable[[], object], str]] = [
        (lambda: unchanged_time(triplets, b"0 2 1"), f"{triplets} changed"),
        (lambda: unchanged_time(pictures / "cat" / "1.png", b"2 1 0"), f"{pictures} changed"),
        (lambda: (pictures / "cat" / "2.png").touch(), f"{pictures} changed"),
        (lambda: os.utime(network / "weights.safetensors", (1, 1)), f"untrained:{network} changed"),
        (lambda: norms.write_text("a"), f"{norms} changed"),
        (lambda: (things / "words.txt").write_text("a"), f"{things} changed"),
        (lambda: (own / "config.json").write_text("a"), f"{own} changed"),
        (lambda: monkeypatch.setenv("HF_HUB_OFFLINE", "1"), "HF_HUB_OFFLINE not set → 1"),
        (
            lambda: monkeypatch.setattr(
                importlib.metadata, "version", lambda name: "99" if name == "torch" else version(name)
            ),
            f"torch {version('torch')} → 99",
        ),
        (lambda: given.update(seed=1), "seed not set → 1"),
        (norms.unlink, f"{norms} is gone"),
        (
            lambda: monkeypatch.setenv("LDM_KIT_THINGS", str(own)),
            f"{things} is gone; LDM_KIT_THINGS {things} → {own}",
        ),
    ]
    for change, named in changes:
        assert "a is done already" in run_and_tell(notebook, out, capsys, **given)
        change()
        told = run_and_tell(notebook, out, capsys, **given)
        assert told.startswith(f"[1/1] a … runs again: {named}\n[1/1] a done"), told
    assert isinstance(json.loads((out / "a" / "run.json").read_text())["inputs"], dict)
    (out / "a" / "a.ipynb").unlink()
    assert "runs again: a.ipynb is gone" in run_and_tell(notebook, out, capsys, **given)


def test_caches_that_a_first_run_leaves_in_the_package_are_no_change_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from types import SimpleNamespace

    from ldm_kit.batch import run

    monkeypatch.setattr(run, "ldm_kit", SimpleNamespace(__path__=[str(tmp_path)]))
    notebook = tmp_path.with_suffix(".ipynb")
    notebook.write_text("")

    def code() -> str:
        return run.result_inputs(notebook, {}, {}, tmp_path)["file the code of ldm_kit"]

    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "a.py").write_text("1")
    before = code()
    (tmp_path / "__pycache__" / "kernels.f-1.py311.nbi").write_text("numba's")
    assert code() == before
    (tmp_path / "a.py").write_text("2")
    assert code() != before


def test_what_another_run_of_the_series_made_is_an_input_and_what_lies_beside_the_runs_is_none(
    make_notebook: MakeNotebook, tmp_path: Path, without_kernel: None
) -> None:
    make_notebook(
        "a",
        "import pathlib; pathlib.Path(out, 'm.txt').write_text(str(seed))",
        parameters="seed: int = 0\nout: str = ''",
    )
    make_notebook("b", "1", parameters="model: str = ''\nshared: str = ''")
    parameters = {"model": "{out}/a/m.txt", "shared": "{out}/shared"}
    path = write_yaml(
        tmp_path / "s.yaml",
        {"runs": [{"notebook": "a.ipynb"}, {"notebook": "b.ipynb", "parameters": parameters}]},
    )

    def statuses(seed: int) -> list[str]:
        return [outcome.status for outcome in run_series(path, tmp_path / "out", parameters={"seed": seed})]

    assert statuses(0) == ["done", "done"]
    (tmp_path / "out" / "shared").mkdir()
    assert statuses(0) == ["skipped", "skipped"]
    assert statuses(1) == ["done", "done"]


def test_a_file_within_the_series_folder_that_is_read_is_an_input(
    make_notebook: MakeNotebook, tmp_path: Path, without_kernel: None
) -> None:
    out = tmp_path / "out"
    make_notebook("a", "1", parameters="one: str = ''\ntwo: str = ''\nout: str = ''")
    (out / "a").mkdir(parents=True)
    files = [out / "one.txt", out / "a" / "two.txt"]
    for file in files:
        file.write_text("before")
    parameters = {"one": str(files[0]), "two": str(files[1])}
    path = write_yaml(tmp_path / "s.yaml", {"runs": [{"notebook": "a.ipynb", "parameters": parameters}]})
    assert [run_series(path, out)[0].status for _ in range(2)] == ["done", "skipped"]
    for file in files:
        file.write_text("after")
        assert [run_series(path, out)[0].status for _ in range(2)] == ["done", "skipped"]


@pytest.mark.slow
def test_a_run_that_fails_early_shows_nothing_of_the_one_before(
    make_notebook: MakeNotebook,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    without_kernel: None,
) -> None:
    monkeypatch.setattr("ldm_kit.run_record.find_browser", lambda: None)
    notebook = make_notebook(
        "a",
        "assert seed != 1, 'fails early'",
        WRITES,
        "assert seed != 2, 'fails late'",
        parameters="seed: int = 0\nout: str = ''",
    )
    out, folder = tmp_path / "out", tmp_path / "out" / "a"
    assert run_series(notebook, out)[0].status == "done"
    (folder / "features").mkdir()
    (folder / "features" / "zarr.json").touch()

    for _ in range(2):  # the second time, what the first left is in the way
        assert run_series(notebook, out, parameters={"seed": 1})[0].status == "failed"
        text = build_report(out).index.read_text()
        assert "fails early" in text and "Found with seed" not in text and "tables/" not in text
        left = {path.name for path in folder.iterdir()}
        assert left == {".previous", "features", "run.json", "a.failed.ipynb", "a.failed.html", "a.log"}
        kept = {path.name for path in (folder / ".previous").iterdir()}
        assert kept >= {"run.json", "results.json", "tables", "figures", "a.ipynb"}
        assert "Found with seed 0" in (folder / ".previous" / "results.json").read_text()
    assert run_notebook(notebook, out, {"seed": 2}).status == "failed"
    assert "Found with seed 2" in build_report(out).index.read_text()
    assert "Found with seed 0" in (folder / ".previous" / "results.json").read_text()
    assert run_notebook(notebook, out, {"seed": 3}).status == "done"
    assert not (folder / ".previous").exists() and (folder / "features" / "zarr.json").exists()


def test_a_notebook_that_deletes_its_own_folder_fails_and_the_others_go_on(
    make_notebook: MakeNotebook, tmp_path: Path, capsys: pytest.CaptureFixture[str], without_kernel: None
) -> None:
    out = "out: str = ''"
    make_notebook("a", "import shutil; shutil.rmtree(out)", parameters=out)
    make_notebook(
        "b", "import shutil, pathlib; shutil.rmtree(out); pathlib.Path(out).write_text('x')", parameters=out
    )
    make_notebook("c", "1", parameters=out)
    path = write_yaml(tmp_path / "s.yaml", {"runs": [{"notebook": f"{name}.ipynb"} for name in "abc"]})
    assert main([str(path), "--out", str(tmp_path / "out")]) == 1
    told = capsys.readouterr().out
    assert "a failed after 0 s: the notebook deleted its own folder" in told and "c done" in told
    assert "b failed" in told and "Cannot write" in told


@pytest.mark.parametrize("name", ["..", ".", "", "/elsewhere/x", "../x", "a/b", "a\nb"])
def test_a_name_that_leads_out_of_the_folder_is_an_error(
    make_notebook: MakeNotebook, tmp_path: Path, name: str
) -> None:
    with pytest.raises(BadInputError, match="cannot name a run"):
        run_notebook(make_notebook("a", "1"), tmp_path / "out", name=name)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("timeout", [0, -1, True])
def test_a_timeout_that_is_none_is_an_error(
    make_notebook: MakeNotebook, tmp_path: Path, timeout: int
) -> None:
    notebook = make_notebook("a", "1")
    with pytest.raises(BadInputError, match="timeout"):
        run_notebook(notebook, tmp_path / "out", timeout=timeout)
    with pytest.raises(BadInputError, match="timeout"):
        run_series(notebook, tmp_path / "out", timeout=timeout)


@pytest.mark.slow
def test_two_processes_do_not_run_into_one_folder_and_one_that_is_stopped_keeps_what_it_had(
    make_notebook: MakeNotebook,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ldm_kit.run_record.find_browser", lambda: None)
    make_notebook("a", "print('a result')", parameters="out: str = ''")
    make_notebook("b", WAITS, parameters="out: str = ''\npause: bool = True")
    path = write_yaml(tmp_path / "s.yaml", {"runs": [{"notebook": "a.ipynb"}, {"notebook": "b.ipynb"}]})
    out = tmp_path / "out"
    command = [sys.executable, "-m", "ldm_kit.batch", str(path), "--out", str(out)]
    process, kernel = begin(command, out / "b" / "kernel")
    before = (out / "b" / "run.json").read_bytes()
    assert main(command[3:]) == 2
    assert f"in use by process {process.pid} on " in capsys.readouterr().err
    assert (out / "b" / "run.json").read_bytes() == before

    process.send_signal(signal.SIGINT)
    _, error = process.communicate()
    assert process.returncode == 130
    # On a busy machine the interrupt may find the kernel idle, which says so in a line of its own.
    lines = [line for line in error.splitlines() if not line.startswith("[IPKernelApp]")]
    assert len(lines) == 1 and lines[0].startswith("Interrupted. What is done stays"), error
    wait_until_gone(kernel)
    assert json.loads((out / "b" / "run.json").read_text())["status"] == "interrupted"
    assert "before the wait" in outputs_of(out / "b" / "b.failed.ipynb")
    text = build_report(out).index.read_text()
    assert "interrupted" in text and 'href="b/b.failed.ipynb"' in text and 'href="a/a.ipynb"' in text

    assert main([*command[3:], "-p", "pause", "false"]) == 0
    assert "a is done already" in capsys.readouterr().out
    assert {file.name for file in (out / "b").iterdir()} == {"run.json", "b.ipynb", "b.html", "kernel"}


@pytest.mark.slow
def test_killed_at_each_of_its_file_moves_a_rerun_ends_with_the_same_files(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.quick_batch", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    kills = [json.loads(line) for line in done.stdout.splitlines()]
    assert [kill for kill in kills if kill["wrong"]] == []
    assert {start: sum(kill["start"] == start for kill in kills) >= 7 for start in ("nothing", "old")} == {
        "nothing": True,
        "old": True,
    }


def test_the_demo_deletes_nobody_s_features_and_keeps_those_of_each_revision_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ldm_kit.demo
    from ldm_kit.batch.report import Report

    others = tmp_path / "features" / "zarr.json"
    others.parent.mkdir()
    request = {"model": "sd-turbo", "source": "stabilityai/sd-turbo", "revision": "0123"}
    others.write_text(json.dumps({"attributes": {"ldm_kit": {"request": request}}}))
    places = []
    monkeypatch.setattr(
        "ldm_kit.batch.__main__.build_report", lambda out: Report(Path(out) / "index.html", "", [])
    )
    monkeypatch.setattr(
        "ldm_kit.batch.__main__.run_series", lambda *_, parameters=None, **__: places.append(parameters) or []
    )
    assert ldm_kit.demo.main(["--out", str(tmp_path)]) == 0
    assert others.exists()
    monkeypatch.setattr("ldm_kit.models.hub.folder_digest", lambda folder: "sha256:0123456789abcdef")
    assert ldm_kit.demo.main(["--out", str(tmp_path)]) == 0
    first, second = (given["features"] for given in places)
    assert second == "{out}/samples-01234567" and first != second
