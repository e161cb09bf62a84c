"""Take the README's pictures of the explorers: python -m tests.browser.explorer_pictures.

Each notebook is run in JupyterLab in a real Chromium at 1400 pixels; its explorer, with the tab named here
open, is saved as a small PNG in notebooks/images/.
"""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

from PIL import Image

from ldm_kit.atomic import written_aside
from tests.browser.driver import Notebook, chromium, copy_notebooks, watched_page
from tests.browser.servers import ROOT, lab_server

# notebook, explorer, tab, what is set first
PICTURES = (
    ("01_extraction", "into-the-noise", "Tokens", "view.level.value = 0.3"),
    ("02_probing", "probes-view", "Neighbours", "view.stimulus.value = 'car.png'"),
    ("03_layer_comparison", "where-is-the-human", "Map", "view.block_b.value = 'mid_block'"),
    ("04_text_conditioning", "what-words-add", "Gain", "view.words.value = 'label'"),
)
SHARED = {"features": "features"}


def main() -> None:
    """Take all pictures."""
    with tempfile.TemporaryDirectory() as place, chromium() as browser:
        folder = copy_notebooks(Path(place) / "notebooks", {name: SHARED for name, *_ in PICTURES})
        quiet = {"LDM_KIT_OFFLINE": "1", "LDM_KIT_SERIES": str(folder)}
        with lab_server(folder, Path(place) / "state", quiet) as server:
            for name, explorer, tab, code in PICTURES:
                with watched_page(browser) as visit:
                    notebook = Notebook(visit, server, f"{name}.ipynb")
                    assert notebook.run_all() == []
                    shown = visit.page.locator(f".ldm-{explorer}").first
                    shown.scroll_into_view_if_needed()
                    shown.locator(".lm-TabBar-tab", has_text=tab).first.click()
                    notebook.run(code)
                    notebook.until("not view.latest.busy and view.tab == " + repr(tab))
                    visit.page.wait_for_timeout(1500)
                    save(
                        shown.screenshot(),
                        ROOT / "notebooks" / "images" / f"{explorer.replace('-', '_')}.png",
                    )
                    notebook.close()


def save(screenshot: bytes, path: Path) -> None:
    """Save a screenshot in 256 colours, a fifth of its size."""
    picture = Image.open(io.BytesIO(screenshot)).convert("RGB")
    with written_aside(path) as aside:
        picture.quantize(256, dither=Image.Dither.NONE).save(aside, format="PNG", optimize=True)
    print(path.name, f"{path.stat().st_size / 1024:.0f} KB")


if __name__ == "__main__":
    main()
