"""The examples in the docstrings do what they show."""

from __future__ import annotations

import doctest
import importlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import ldm_kit as lk

ROOT = Path(__file__).parents[1]
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in (ROOT / "ldm_kit").rglob("*.py")
    if path.name != "__main__.py"
)
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE | doctest.IGNORE_EXCEPTION_DETAIL


@cache
def shared() -> dict[str, Any]:
    """What examples take for granted: the bundled model and dataset, features of it, a table."""
    model, data = lk.load_model("tiny-ldm", device="cpu"), lk.load_dataset("emoji", n_triplets=2000)
    ask: Any = {"noise_levels": [0.3, 0.9], "conditionings": ["none", "label", "shuffled"]}
    store = lk.extract(model, data.stimuli, blocks=["mid_block", "up_blocks.1"], progress=False, **ask)
    table = lk.odd_one_out(store.select(conditionings=["none", "label"]), data.triplets)
    return {
        "lk": lk,
        "np": np,
        "pd": pd,
        "Path": Path,
        "model": model,
        "data": data,
        "store": store,
        "table": table,
    }


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module(name)
    monkeypatch.chdir(tmp_path)
    assert doctest.testmod(module, optionflags=FLAGS, extraglobs=shared()).failed == 0
