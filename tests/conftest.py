"""What all tests share: which of them run where, and small notebooks."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

EMOJI_BLOCKS = ["down_blocks.1", "mid_block", "up_blocks.1"]
NO_BROWSER = (
    "No Chromium or Chrome was found, so nothing was tested in a browser. Install one (e.g. apt install "
    "chromium), or set BROWSER_PATH to yours, and run again."
)


# Modules that use JupyterLab: one process runs them all, so that one server is started.
WITH_LAB = re.compile(r"browser/test_(explorers|game|notebooks|training)_in_browser")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Distribute modules, those that use JupyterLab together (`loadgroup` of xdist 3.8 ignores groups in pytest 9.2)."""
    from xdist.scheduler import LoadScopeScheduling

    class ByModule(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            module = nodeid.split("::")[0]
            return "with JupyterLab" if WITH_LAB.search(module) else module

    config.option.loadscopereorder = False  # by `pytest_collection_modifyitems` instead
    return ByModule(config, log) if config.getoption("dist") == "loadscope" else None


# Modules that take longest, longest first: begun last, one of them would keep a single process busy at the end.
LONGEST = (
    "with JupyterLab",
    "test_notebooks",
    "test_report",
    "test_batch",
    "test_real_weights",
    "test_training",
)
LONGEST += ("test_explorers", "test_offline", "test_power", "test_voila", "test_extraction", "test_doctests")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with what takes longest, and leave out what nobody asked for."""

    def place(item: pytest.Item) -> int:
        module = "with JupyterLab" if WITH_LAB.search(item.nodeid) else item.nodeid.split("::")[0]
        return next((i for i, name in enumerate(LONGEST) if name in module), len(LONGEST))

    items.sort(key=place)
    asked = config.getoption("markexpr", "")
    for item in items:
        if item.get_closest_marker("network") and "network" not in asked:
            item.add_marker(pytest.mark.skip(reason="needs the internet: ask for it with -m network"))


@pytest.fixture(autouse=True)
def _needs(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("gpu"):
        import torch

        if not (torch.cuda.is_available() or torch.backends.mps.is_available()):
            pytest.skip("needs a CUDA or MPS device")
    if request.node.get_closest_marker("browser"):
        need_browser()


def need_browser() -> None:
    """Skip where there is no Chromium; in CI, which installs one, a skip would hide that it no longer does."""
    from ldm_kit.run_record import find_browser

    if find_browser() is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(NO_BROWSER)


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    """A Chromium for the tests of a module.

    No longer: while Playwright runs, `asyncio` takes its loop for that of every test in the process.
    """
    need_browser()
    from tests.browser.driver import chromium

    with chromium() as started:
        yield started


@pytest.fixture
def make_notebook(tmp_path: Path) -> Callable[..., Path]:
    """Write a notebook: `parameters` is the tagged cell, the others are code cells."""

    def make(name: str, *cells: str, parameters: str | None = None, folder: Path = tmp_path) -> Path:
        import nbformat
        from nbformat.v4 import new_code_cell, new_notebook

        first = [] if parameters is None else [new_code_cell(parameters, metadata={"tags": ["parameters"]})]
        node = new_notebook(cells=[*first, *map(new_code_cell, cells)])
        node.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        path = folder / f"{name}.ipynb"
        nbformat.write(node, path)
        return path

    return make


def real_folder(name: str, what: str, *files: str) -> Path:
    """The folder `name` of what is too large for the project: a user may lack it, CI may not."""
    variable = f"LDM_KIT_{name.upper()}"
    root = Path(os.environ.get(variable) or Path(__file__).parents[1] / f"../shared/{name}")
    if not all((root / file).is_file() for file in files):
        reason = f"needs {what} at {root} (set {variable})"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    return root


@pytest.fixture(scope="session")
def emoji_features(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """Copy to a folder what tiny-ldm makes of all emoji: one extraction for all processes of a test run.

    For tests of what is done with features. They, and notebooks given such a copy, compute only what is not in it.
    """
    import ldm_kit as lk

    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "emoji_features"
    done = folder.with_suffix(".done")
    with FileLock(done.with_suffix(".done.lock")):
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            net, stimuli = lk.load_model("tiny-ldm", device="cpu"), lk.load_dataset("emoji").stimuli
            grid: dict[str, Any] = {"noise_levels": [0.3, 0.9], "out": folder, "seed": 0, "progress": False}
            grid["draws"] = "apart"  # as the notebooks ask
            lk.extract(net, stimuli, conditionings="none", **grid)
            words = ["none", "label", "caption", "shuffled"]
            lk.extract(net, stimuli, blocks=EMOJI_BLOCKS, conditionings=words, **grid)
            done.touch()
    return lambda target: Path(shutil.copytree(folder, target))


@pytest.fixture(scope="session")
def things_root() -> Path:
    """The folder of real THINGS data."""
    return real_folder("things", "the real THINGS data", "human_triplets_50k.txt")


@pytest.fixture(scope="session")
def emoji_root() -> Path:
    """The folder of the table that says which drawing shows which concept."""
    return real_folder("emoji", "the table of the emoji", "emoji_of_things.tsv")


@pytest.fixture(scope="session")
def weights_root() -> Path:
    """The folder of real checkpoints that need no hub."""
    files = ("mobilenet_v2/model.safetensors", "taef2/taef2_encoder.pth", "taef2/taef2_decoder.pth")
    return real_folder("weights", "the real weights", *files)
