"""What all tests share: which of them run where, and small notebooks."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what the machine cannot run, and what nobody asked for."""
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
        from ldm_kit.static_images import find_browser

        if find_browser() is None:
            # CI installs a Chromium; a skip there would hide that it no longer does
            (pytest.fail if os.environ.get("CI") else pytest.skip)("needs a Chromium: apt install chromium")


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


@pytest.fixture(scope="session")
def things_root() -> Path:
    """The folder of real THINGS data: a user may lack it, CI may not."""
    root = Path(os.environ.get("LDM_KIT_THINGS") or Path(__file__).parents[1] / "../shared/things")
    if not (root / "human_triplets_50k.txt").is_file():
        reason = f"needs the real THINGS data at {root} (set LDM_KIT_THINGS)"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    return root
