"""What must hold of the files themselves: notebooks, package, README, and `import ldm_kit`."""

from __future__ import annotations

import ast
import json
import re
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ldm_kit.batch import read_parameters, read_series

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MODULES = sorted((ROOT / "ldm_kit").rglob("*.py"))
TEXTS = {".py", ".md", ".ipynb", ".toml", ".yml", ".yaml", ".j2", ".css", ".json", ".lock", ".cff", ""}
OUTPUT_WIDGET = re.compile(
    r"interactive_output|\bOutput\(|\binteract\(|interactive\(|^\s*with out\b", re.MULTILINE
)


def tracked() -> list[Path]:
    """Name the files that git keeps; all files, where there is no git."""
    try:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return [path for path in ROOT.rglob("*") if path.is_file() and ".venv" not in path.parts]
    return [ROOT / name for name in listed.decode().split("\0") if name and (ROOT / name).is_file()]


def cells(notebook: Path) -> list[dict[str, Any]]:
    read: list[dict[str, Any]] = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return read


def code(notebook: Path) -> list[str]:
    return ["".join(cell["source"]) for cell in cells(notebook) if cell["cell_type"] == "code"]


def lines(source: str) -> int:
    return len([line for line in source.splitlines() if line.strip()])


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def test_a_notebook_is_kept_without_outputs(notebook: Path) -> None:
    for cell in cells(notebook):
        if cell["cell_type"] == "code":
            assert not cell["outputs"] and cell["execution_count"] is None, (
                "run python -m nbstripout --keep-id on it"
            )
    metadata = json.loads(notebook.read_text())["metadata"]
    assert "widgets" not in metadata
    assert metadata["kernelspec"]["name"] == "python3"  # which every environment has


def test_a_notebook_has_one_parameters_cell_that_papermill_reads(notebook: Path) -> None:
    tagged = [cell for cell in cells(notebook) if "parameters" in cell["metadata"].get("tags", [])]
    assert len(tagged) == 1
    tree = ast.parse("".join(tagged[0]["source"]))
    assigned = [node for node in tree.body if not isinstance(node, (ast.Import, ast.ImportFrom))]
    names = [
        node.target.id
        for node in assigned
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    ]
    assert len(names) == len(assigned), "each line of the parameters cell is `name: type = literal  # help`"
    found = read_parameters(notebook)
    assert list(found) == names, "papermill reads Optional[int], not int | None"
    assert "out" in names
    for parameter in found.values():
        ast.literal_eval(parameter.default)
        assert parameter.help, f"{parameter.name} has no `# help`"


def test_a_notebook_tells_a_story_and_defines_nothing(notebook: Path) -> None:
    for source in code(notebook):
        plain = "\n".join(line for line in source.splitlines() if not line.lstrip().startswith(("%", "!")))
        for node in ast.walk(ast.parse(plain)):
            assert not isinstance(node, (ast.FunctionDef, ast.ClassDef)), f"it belongs in ldm_kit:\n{source}"
        assert not OUTPUT_WIDGET.search(source), f"an Output widget can stall papermill for ever:\n{source}"
        assert lines(source) <= 20, source
    assert statistics.median([lines(source) for source in code(notebook) if source.strip()]) <= 6
    assert cells(notebook)[0]["cell_type"] == "markdown"
    last = cells(notebook)[-1]
    assert last["cell_type"] == "markdown" and "## How to read" in "".join(last["source"])


@pytest.mark.parametrize("series", sorted((ROOT / "notebooks").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_series_could_start(series: Path) -> None:
    if "runs" not in yaml.safe_load(series.read_text()):
        pytest.skip("parameters of one notebook, not a series")
    assert read_series(series).runs


def test_no_code_from_data() -> None:
    for node in (node for module in MODULES for node in ast.walk(ast.parse(module.read_text()))):
        if isinstance(node, ast.Import):
            assert not {"pickle", "dill", "cloudpickle", "marshal"} & {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.module not in {"pickle", "dill", "cloudpickle", "marshal"}
        if isinstance(node, ast.Call):
            called = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            assert not (isinstance(node.func, ast.Name) and called in {"eval", "exec"})
            for keyword in node.keywords:
                on = isinstance(keyword.value, ast.Constant) and keyword.value.value is True
                assert not (keyword.arg in {"trust_remote_code", "allow_pickle"} and on), ast.unparse(node)
            if called in {"load", "torch.load"} and ast.unparse(node.func) == "torch.load":
                raise AssertionError("torch.load reads pickles: use safetensors")
            if ast.unparse(node.func) == "np.load":
                assert any(keyword.arg == "allow_pickle" for keyword in node.keywords), ast.unparse(node)


# Command lines, and the batch runner's progress.
PRINTS = {"render_emoji.py", "__main__.py", "run.py"}


def test_library_code_logs_and_does_not_print() -> None:
    printing = [
        f"{module.relative_to(ROOT)}:{node.lineno}"
        for module in MODULES
        if module.name not in PRINTS
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert printing == []


def test_no_file_names_a_place_of_one_machine() -> None:
    private = [str(place) + "/" for place in (ROOT, Path.home()) if len(place.parts) > 1]
    private += ["/" + "work/", "/" + "root/", "/" + "tmp/venv"]
    for path in tracked():
        if path.suffix in TEXTS:
            text = path.read_text(encoding="utf-8", errors="ignore")
            assert not [place for place in private if place in text], path.relative_to(ROOT)


def test_nothing_large_or_made_by_a_run_is_kept() -> None:
    for path in tracked():
        assert path.stat().st_size < 30 * 2**20, path
        relative = path.relative_to(ROOT)
        assert relative.parts[0] != "outputs" or relative.name == "README.md", relative


def test_the_readme_promises_what_the_makefile_has() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "outputs" / "README.md"):
        blocks = re.findall(r"^(?: {4}|```.*?\n|)make ((?:[a-z-]+ ?)+)", page.read_text(), re.MULTILINE)
        inline = re.findall(r"`make ([a-z-]+)", page.read_text())
        for target in {word for block in blocks for word in block.split()} | set(inline):
            assert target in targets, f"{page.name}: make {target}"


def test_links_within_the_repository_resolve() -> None:
    for page in (path for path in tracked() if path.suffix == ".md"):
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
            if not re.match(r"[a-z]+:", target):
                assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_import_is_light_and_asks_nobody() -> None:
    script = (
        "import socket, sys\n"
        "def no(*_): raise SystemExit('import ldm_kit opens a socket')\n"
        "socket.socket.connect = no\n"
        "import ldm_kit\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'pandas', 'plotly', 'ipywidgets', 'numba'} & set(sys.modules)\n"
        "sys.exit(f'import ldm_kit imports {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
