"""The main job, with nothing installed but the library: `.ci/run` runs this in an environment without any extra."""

from __future__ import annotations

import importlib.util

import ldm_kit as lk

for module in ("jupyterlab", "ipywidgets", "papermill", "kaleido", "tornado", "resvg_py", "pytest"):
    assert importlib.util.find_spec(module) is None, f"{module} is here, so this environment shows nothing"

model, data = lk.load_model("tiny-ldm"), lk.load_dataset("emoji")
store = lk.extract(model, data.stimuli, noise_levels=[0.5], conditionings=["none", "label"], progress=False)
table = lk.odd_one_out(store, data.triplets, ceiling=lk.ceiling_of(data))
assert len(table) == 2 * len(store.blocks) and table["accuracy"].between(0, 1).all()
assert len(lk.plots.block_curves(table, conditioning="none").data) > 0
probe = lk.LinearProbe().fit(store["mid_block", 0.5, "label"], data.triplets.on(store.names))
assert probe.transform(store["mid_block", 0.5, "none"]).shape[0] == len(data.stimuli)
try:
    lk.widgets  # noqa: B018
except ModuleNotFoundError as error:
    assert "pip install 'ldm-kit[notebooks]'" in error.__notes__[0]
else:
    raise AssertionError("the explorers were imported without ipywidgets")
print(f"{len(table)} cells measured in {lk.__file__}")
