"""Figures as PNG, by a Chromium where there is one; without one, one line says what to do."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ldm_kit.atomic import written_aside

HOW_TO_GET_PNGS = (
    "No Chromium or Chrome was found, so figures are interactive HTML only. For PNGs as well, install one "
    "(e.g. apt install chromium), or set BROWSER_PATH to yours, and run again."
)


def find_browser() -> str | None:
    """Find the browser that kaleido would draw with.

    Returns
    -------
    str or None
        Its path, or None where no Chromium, Chrome, Edge or Brave is found.

    Examples
    --------
    >>> find_browser()  # doctest: +SKIP
    '/usr/bin/chromium'
    """
    from choreographer.browsers.chromium import Chromium

    found = Chromium.find_browser(skip_local=False)
    return str(found) if found and os.access(found, os.X_OK) else None


def write_pngs(figures: Iterable[str | os.PathLike[str]], *, scale: float = 2) -> str:
    """Draw figures that were saved as plotly JSON, each beside its JSON as PNG, all by one browser.

    A PNG younger than its JSON is left as it is. Whatever goes wrong with the browser is told, not raised: a
    figure exists without its PNG.

    Parameters
    ----------
    figures : iterable of path-like
        Files ``NAME.json``, as ``fig.write_json`` makes them.
    scale : float
        Pixels per unit of the figure's size.

    Returns
    -------
    str
        Empty if every figure has its PNG now, else one line that says why not and what to do.

    Examples
    --------
    >>> write_pngs(Path("outputs/demo").glob("*/figures/*.json"))  # doctest: +SKIP
    ''
    """
    todo = [path for path in map(Path, figures) if _is_due(path)]
    if not todo:
        return ""
    if find_browser() is None:
        return HOW_TO_GET_PNGS
    try:
        _draw(todo, scale)
    except Exception as error:  # a browser can fail in any way; a figure without PNG is still a figure
        first = (str(error) or type(error).__name__).splitlines()[0]
        return f"The browser could not draw the figures as PNG ({first}); they are interactive HTML only."
    return ""


# Nothing listens on port 1: a browser that is sent there reaches nobody, and is told so at once.
NOWHERE = "http://127.0.0.1:1"


@contextmanager
def _network_shut() -> Iterator[None]:
    """Keep the drawing browser on this machine: it would fetch MathJax, and look for news of its own."""
    before = os.environ.get("CHOREO_PROXY_SERVER")
    os.environ["CHOREO_PROXY_SERVER"] = NOWHERE
    try:
        yield
    finally:
        if before is None:
            del os.environ["CHOREO_PROXY_SERVER"]
        else:
            os.environ["CHOREO_PROXY_SERVER"] = before


def _is_due(path: Path) -> bool:
    png = path.with_suffix(".png")
    return not png.exists() or png.stat().st_mtime < path.stat().st_mtime


def _draw(paths: list[Path], scale: float) -> None:
    from contextlib import ExitStack

    import plotly.io

    logging.getLogger("kaleido").setLevel(logging.ERROR)
    logging.getLogger("choreographer").setLevel(logging.ERROR)
    figures = [plotly.io.from_json(path.read_text(encoding="utf-8"), skip_invalid=True) for path in paths]
    defaults = plotly.io.defaults  # what a figure that says nothing gets; write_images gives it to all
    with ExitStack() as stack:
        stack.enter_context(_network_shut())
        asides = [stack.enter_context(written_aside(path.with_suffix(".png"))) for path in paths]
        plotly.io.write_images(
            figures,
            [str(aside) for aside in asides],
            scale=scale,
            width=[figure.layout.width or defaults.default_width for figure in figures],
            height=[figure.layout.height or defaults.default_height for figure in figures],
        )
