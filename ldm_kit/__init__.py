"""ldm_kit: see how human the inside of a diffusion model is.

Everything public is here: ``import ldm_kit as lk``. The names stand in ``__init__.pyi``, where editors and type
checkers read them; each is loaded when first used, so that the import itself takes no time (and no torch).

Examples
--------
>>> import ldm_kit as lk
>>> model = lk.load_model("tiny-ldm")
>>> data = lk.load_dataset("emoji")
>>> store = lk.extract(model, data.stimuli[:8], noise_levels=[0.5], conditionings=["none", "label"], progress=False)
>>> lk.odd_one_out(store.select(blocks="mid_block", conditionings="label"), [[0, 1, 2], [3, 4, 5]])["n_triplets"].tolist()
[2]
"""

from __future__ import annotations

from typing import Any

import lazy_loader

from ldm_kit.offline import set_library_switches

set_library_switches()

__version__ = "0.1.0"

# What is installed by `pip install 'ldm-kit[EXTRA]'` only.
_EXTRAS = {
    "notebooks": {"anywidget", "bleach", "ipywidgets", "itables", "jinja2", "latex2mathml", "nbconvert"}
    | {"jupyter_client", "kaleido", "nbformat", "papermill", "traitlets"},
    "game": {"tornado"},
    "train": {"tokenizers"},
}
_load, _names, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    try:
        return _load(name)
    except ModuleNotFoundError as error:
        for extra, modules in _EXTRAS.items():
            if error.name in modules:
                error.add_note(f"lk.{name} needs it; install it with: pip install 'ldm-kit[{extra}]'")
        raise


def __dir__() -> list[str]:
    return sorted([*_names(), "__version__"])
