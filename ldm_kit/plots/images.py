"""Images beside figures: grids, strips and triplets with captions, and feature maps as colour."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from ldm_kit.errors import BadInputError
from ldm_kit.plots.template import COLOURS, INK

if TYPE_CHECKING:
    from ldm_kit.features import Look

FONT = ImageFont.load_default(13)


def picture_grid(
    pictures: Sequence[Image.Image],
    captions: Sequence[str] = (),
    *,
    columns: int = 8,
    size: int = 112,
    rows: Sequence[str] = (),
) -> Image.Image:
    """Lay images out in a grid, each with a caption below.

    Parameters
    ----------
    pictures : sequence of PIL.Image
        Row by row.
    captions : sequence of str
        One per image, or none.
    columns : int
        Images per row.
    size : int
        Side of an image in the grid, in pixels. Small ones are enlarged without smoothing, to show what the
        model sees.
    rows : sequence of str
        Titles at the left of the rows.

    Returns
    -------
    PIL.Image
        Shown by a notebook as it is, live and headless.

    Raises
    ------
    BadInputError
        If there is no image.

    Examples
    --------
    >>> picture_grid([Image.new("RGB", (64, 64))] * 3, ["a", "b", "c"], columns=3).size
    (360, 142)
    """
    if not pictures:
        raise BadInputError("There is no image to lay out.")
    pad, text, left = 8, 22 if captions else 0, 130 if rows else 0
    lines = -(-len(pictures) // columns)
    columns = min(columns, len(pictures))
    step_x, step_y = size + pad, size + pad + text
    sheet = Image.new("RGB", (left + columns * step_x, lines * step_y), "white")
    draw = ImageDraw.Draw(sheet)
    for i, image in enumerate(pictures):
        x, y = left + (i % columns) * step_x + pad // 2, (i // columns) * step_y + pad // 2
        sheet.paste(_resized(image, size), (x, y))
        if captions:
            caption = captions[i]
            if draw.textlength(caption, FONT) > size + pad:
                caption = caption[:16] + "…"
            draw.text((x + size / 2, y + size + 3), caption, INK, FONT, anchor="ma")
    for line, title in enumerate(rows):
        draw.text((4, line * step_y + size / 2), title, INK, FONT, anchor="lm")
    return sheet


def film_strip(looks: Sequence[Look], *, size: int = 112) -> Image.Image:
    """Lay out how an image drowns in noise, the model's estimate of it, and what a block holds.

    Parameters
    ----------
    looks : sequence of Look
        From `ldm_kit.look`, one per noise level.
    size : int
        Side of one image, in pixels.

    Returns
    -------
    PIL.Image
        Three rows: the noised image, the model's one-step estimate of the clean one, and the block's map
        coloured by its first three principal components over space (of all levels together).

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> image, maps = Image.new("RGB", (64, 64)), np.zeros((4, 8, 8))
    >>> view = SimpleNamespace(maps=maps, noised=image, estimate=image, level=0.3, timestep=300, block="mid_block")
    >>> film_strip([view, view]).size
    (370, 426)
    """
    maps = space_colours(np.stack([view.maps for view in looks]))
    images = [view.noised for view in looks] + [view.estimate for view in looks] + maps
    captions = [f"level {view.level:g}" for view in looks] + [f"step {view.timestep:g}" for view in looks]
    captions += [""] * len(looks)
    rows = ("noised image", "model's estimate", f"{looks[0].block}\nin colours")
    return picture_grid(images, captions, columns=len(looks), size=size, rows=rows)


def triplet_sheet(
    triplets: Sequence[Sequence[Image.Image]],
    names: Sequence[Sequence[str]],
    odd: Sequence[Sequence[int]],
    *,
    titles: Sequence[str] = (),
    columns: int = 2,
    size: int = 92,
) -> Image.Image:
    """Lay triplets out, the odd one that was chosen and the model's each in a frame.

    Parameters
    ----------
    triplets : sequence of three PIL.Image
    names : sequence of three str
        Below the images.
    odd : sequence of (int, int)
        Of each triplet, which of the three was chosen as the odd one and which the model leaves out (-1: a tie).
        The chosen one's frame is blue and solid, the model's orange and dashed; both are named, too.
    titles : sequence of str
        Above each row of triplets.
    columns : int
        Triplets per row.
    size : int
        Side of an image, in pixels.

    Returns
    -------
    PIL.Image

    Examples
    --------
    >>> image = Image.new("RGB", (8, 8))
    >>> triplet_sheet([[image] * 3] * 2, [["a", "b", "c"]] * 2, [(2, 2), (2, 0)], size=50).size
    (384, 88)
    """
    pad, head = 6, 24 if titles else 0
    wide, high = 3 * (size + pad) + 24, size + 38 + head
    sheet = Image.new("RGB", (columns * wide, -(-len(triplets) // columns) * high), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (images, labels, (judged, model)) in enumerate(zip(triplets, names, odd, strict=True)):
        left, top = (i % columns) * wide, (i // columns) * high
        if titles and i % columns == 0:
            draw.text((left + 4, top + 4), titles[i // columns], INK, ImageFont.load_default(15))
        for j, image in enumerate(images):
            x, y = left + j * (size + pad) + 4, top + head + 4
            sheet.paste(_resized(image, size, inside=4), (x + 4, y + 4))
            if j == judged:
                draw.rectangle((x, y, x + size - 1, y + size - 1), outline=COLOURS[0], width=3)
            if j == model:
                _dashed(draw, (x + 3, y + 3, x + size - 4, y + size - 4), COLOURS[1])
            draw.text((x + size / 2, y + size + 1), labels[j][:14], INK, FONT, anchor="ma")
            chosen = " + ".join(who for who, one in (("judged", judged), ("model", model)) if one == j)
            draw.text((x + size / 2, y + size + 16), chosen, "#444444", FONT, anchor="ma")
    return sheet


def _resized(image: Image.Image, size: int, inside: int = 0) -> Image.Image:
    """Fit an image into a square with a margin inside; a smaller one is enlarged without smoothing."""
    smooth = Image.Resampling.NEAREST if max(image.size) < size else Image.Resampling.LANCZOS
    return image.convert("RGB").resize((size - 2 * inside,) * 2, smooth)


def _dashed(draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], colour: str, dash: int = 8) -> None:
    """Draw a dashed rectangle."""
    x0, y0, x1, y1 = box
    for start in range(x0, x1, 2 * dash):
        for y in (y0, y1):
            draw.line((start, y, min(start + dash, x1), y), fill=colour, width=3)
    for start in range(y0, y1, 2 * dash):
        for x in (x0, x1):
            draw.line((x, start, x, min(start + dash, y1)), fill=colour, width=3)


def space_colours(maps: npt.ArrayLike) -> list[Image.Image]:
    """Colour feature maps by their first three principal components over space.

    Parameters
    ----------
    maps : array-like, shape (n, channels, height, width)
        The components are found over all `n` maps together, so that colours mean the same in each.

    Returns
    -------
    list of PIL.Image
        One per map: red, green and blue are the first three components, each scaled to its 1st–99th
        percentile.

    Raises
    ------
    BadInputError
        If the maps have another number of axes.

    Examples
    --------
    >>> space_colours(np.random.default_rng(0).normal(size=(2, 8, 4, 4)))[0].size
    (4, 4)
    """
    array = np.asarray(maps, dtype=np.float64)
    if array.ndim != 4:
        raise BadInputError(f"Maps have shape {array.shape}; (n, channels, height, width) is needed.")
    n, channels, height, width = array.shape
    flat = array.transpose(0, 2, 3, 1).reshape(-1, channels)
    flat = flat - flat.mean(axis=0)
    _, _, directions = np.linalg.svd(flat, full_matrices=False)
    components = flat @ directions[:3].T
    # A component's sign is arbitrary; fix it so that the same features give the same colours.
    components *= np.where(np.abs(components.min(axis=0)) > components.max(axis=0), -1, 1)
    low, high = np.percentile(components, [1, 99], axis=0)
    scaled = np.clip((components - low) / np.maximum(high - low, 1e-12), 0, 1)
    pixels = np.zeros((n, height, width, 3), dtype=np.uint8)
    pixels[..., : scaled.shape[1]] = (scaled * 255).reshape(n, height, width, -1)
    return [Image.fromarray(one) for one in pixels]
