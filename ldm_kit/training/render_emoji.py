r"""Make the images of the bundled world anew, from the icon sets of the npm registry.

::

    npm install --prefix icons @iconify-json/noto@1.2.9 @iconify-json/fluent-emoji-flat@1.2.6 \
        @iconify-json/fluent-emoji@1.2.7 @iconify-json/twemoji@1.2.5
    python -m ldm_kit.training.render_emoji icons/node_modules/@iconify-json

The images are part of the package; only who changes them needs this, and the extra ``[train]``.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from tqdm.auto import tqdm

from ldm_kit.datasets.emoji import FOLDER
from ldm_kit.errors import BadInputError

PACKAGES = {
    "noto": "noto",
    "fluent_flat": "fluent-emoji-flat",
    "fluent": "fluent-emoji",
    "twemoji": "twemoji",
}
_SIDE = 128  # pixels


def render(packages: Path, folder: Path = FOLDER) -> int:
    """Draw every concept in every style.

    Parameters
    ----------
    packages : pathlib.Path
        Holds the four packages' folders, each with an ``icons.json``.
    folder : pathlib.Path
        Holds ``concepts.csv``; images go to ``FOLDER/images/STYLE/CONCEPT.png``.

    Returns
    -------
    int
        How many images were written.

    Raises
    ------
    BadInputError
        If a package or an icon is missing.
    """
    import resvg_py

    with (folder / "concepts.csv").open(encoding="utf-8", newline="") as file:
        icons = {row["concept"]: row["icon"] for row in csv.DictReader(file)}
    for style, package in PACKAGES.items():
        path = packages / package / "icons.json"
        if not path.is_file():
            raise BadInputError(f"There is no {path}. Install @iconify-json/{package} with npm first.")
        loaded = json.loads(path.read_text(encoding="utf-8"))
        (folder / "images" / style).mkdir(parents=True, exist_ok=True)
        for concept, icon in tqdm(icons.items(), desc=style, mininterval=2.0):
            if icon not in loaded["icons"]:
                raise BadInputError(
                    f"@iconify-json/{package} has no icon {icon!r}. Install the version named above."
                )
            drawing = {"width": loaded.get("width", 16), "height": loaded.get("height", 16)}
            drawing |= loaded["icons"][icon]
            width, height = drawing["width"], drawing["height"]
            side = max(width, height)  # a few are not square: they lie in the middle
            svg = (
                '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
                f'viewBox="{(width - side) / 2} {(height - side) / 2} {side} {side}">{drawing["body"]}</svg>'
            )
            png = resvg_py.svg_to_bytes(svg_string=svg, width=_SIDE, height=_SIDE, skip_system_fonts=True)
            image = Image.open(io.BytesIO(bytes(png))).convert("RGBA")
            image.save(folder / "images" / style / f"{concept}.png", optimize=True)
    return len(icons) * len(PACKAGES)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `render` on the folder named on the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("packages", type=Path, help="folder of the four packages, node_modules/@iconify-json")
    print(f"{render(parser.parse_args(arguments).packages)} images in {FOLDER / 'images'}")


if __name__ == "__main__":
    main()
