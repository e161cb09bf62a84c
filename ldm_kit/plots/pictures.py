"""Pictures beside figures: strips and grids of images with captions, and maps over space as colour."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from ldm_kit.errors import BadInputError

if TYPE_CHECKING:
    from ldm_kit.features.looking import Look


def picture_grid(
    pictures: Sequence[Image.Image],
    captions: Sequence[str] = (),
    *,
    columns: int = 8,
    size: int = 112,
    rows: Sequence[str] = (),
) -> Image.Image:
    """Lay pictures out in a grid, each with a caption below.

    Parameters
    ----------
    pictures : sequence of PIL.Image
        Row by row.
    captions : sequence of str
        One a picture, or none.
    columns : int
        Pictures a row.
    size : int
        Side of a picture in the grid, in pixels. Small ones are enlarged without smoothing, so that one
        sees what the model sees.
    rows : sequence of str
        Titles at the left of the rows.

    Returns
    -------
    PIL.Image
        Shown by a notebook as it is, live and headless.

    Examples
    --------
    >>> picture_grid([Image.new("RGB", (64, 64))] * 3, ["a", "b", "c"], columns=3).size
    (360, 142)
    """
    if not pictures:
        raise BadInputError("There is no picture to lay out.")
    pad, text, left = 8, 22 if captions else 0, 130 if rows else 0
    lines = -(-len(pictures) // columns)
    columns = min(columns, len(pictures))
    step_x, step_y = size + pad, size + pad + text
    sheet = Image.new("RGB", (left + columns * step_x, lines * step_y), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for i, picture in enumerate(pictures):
        x, y = left + (i % columns) * step_x + pad // 2, (i // columns) * step_y + pad // 2
        smooth = Image.Resampling.NEAREST if max(picture.size) < size else Image.Resampling.LANCZOS
        sheet.paste(picture.convert("RGB").resize((size, size), smooth), (x, y))
        if captions:
            caption = (
                captions[i] if draw.textlength(captions[i], font) <= size + pad else captions[i][:16] + "…"
            )
            draw.text((x + size / 2, y + size + 3), caption, "#222222", font, anchor="ma")
    for line, title in enumerate(rows):
        draw.text((4, line * step_y + size / 2), title, "#222222", font, anchor="lm")
    return sheet


def film_strip(looks: Sequence[Look], *, size: int = 112) -> Image.Image:
    """Lay out how a picture drowns in noise, what the model still makes of it, and what a block holds.

    Parameters
    ----------
    looks : sequence of Look
        From `ldm_kit.look`, one a noise level.
    size : int
        Side of one picture, in pixels.

    Returns
    -------
    PIL.Image
        Three rows: the noised picture, the model's one-step estimate of the clean one, and the block's map
        coloured by its first three principal components over space (of all levels together).

    Examples
    --------
    >>> lk.plots.film_strip(lk.look(model, data.stimuli, "cat", [0.1, 0.9], "mid_block"))  # doctest: +SKIP
    """
    maps = space_colours(np.stack([view.maps for view in looks]))
    pictures = [view.noised for view in looks] + [view.estimate for view in looks] + maps
    captions = [f"level {view.level:g}" for view in looks] + [f"step {view.timestep:g}" for view in looks]
    captions += [""] * len(looks)
    rows = ("noised picture", "model's estimate", f"{looks[0].block}\nin colours")
    return picture_grid(pictures, captions, columns=len(looks), size=size, rows=rows)


def triplet_sheet(
    triplets: Sequence[Sequence[Image.Image]],
    names: Sequence[Sequence[str]],
    odd: Sequence[Sequence[int]],
    *,
    titles: Sequence[str] = (),
    columns: int = 2,
    size: int = 92,
) -> Image.Image:
    """Lay triplets out, each with a frame around the odd one that people chose, and the model's.

    Parameters
    ----------
    triplets : sequence of three PIL.Image
    names : sequence of three str
        Below the pictures.
    odd : sequence of (int, int)
        Of each triplet, which of the three the judges left out and which the model did (-1: a tie). The
        judges' frame is blue and whole, the model's orange and dashed; both are named, too.
    titles : sequence of str
        Above each row of triplets.
    columns : int
        Triplets a row.
    size : int
        Side of a picture, in pixels.

    Examples
    --------
    >>> picture = Image.new("RGB", (8, 8))
    >>> triplet_sheet([[picture] * 3] * 2, [["a", "b", "c"]] * 2, [(2, 2), (2, 0)], size=50).size
    (384, 88)
    """
    font, pad, head = ImageFont.load_default(13), 6, 24
    wide, high = 3 * (size + pad) + 24, size + 38 + (head if titles else 0)
    sheet = Image.new("RGB", (columns * wide, -(-len(triplets) // columns) * high), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (pictures, words, (judges, model)) in enumerate(zip(triplets, names, odd, strict=True)):
        left, top = (i % columns) * wide, (i // columns) * high
        if titles:
            if i % columns == 0:
                draw.text((left + 4, top + 4), titles[i // columns], "#222222", ImageFont.load_default(15))
            top += head
        for j, picture in enumerate(pictures):
            x, y = left + j * (size + pad) + 4, top + 4
            smooth = Image.Resampling.NEAREST if max(picture.size) < size else Image.Resampling.LANCZOS
            sheet.paste(picture.convert("RGB").resize((size - 8, size - 8), smooth), (x + 4, y + 4))
            chosen = [who for who, one in (("judges", judges), ("model", model)) if one == j]
            if j == judges:
                draw.rectangle((x, y, x + size - 1, y + size - 1), outline="#0072B2", width=3)
            if j == model:
                _dashed(draw, (x + 3, y + 3, x + size - 4, y + size - 4), "#D55E00")
            draw.text((x + size / 2, y + size + 1), words[j][:14], "#222222", font, anchor="ma")
            if chosen:
                draw.text((x + size / 2, y + size + 16), " + ".join(chosen), "#444444", font, anchor="ma")
    return sheet


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
        One a map: red, green and blue are the first three components, each scaled to its 1st–99th
        percentile.

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
    parts = flat @ directions[:3].T
    # A component's sign is arbitrary; fix it so that the same features give the same colours.
    parts *= np.where(np.abs(parts.min(axis=0)) > parts.max(axis=0), -1, 1)
    low, high = np.percentile(parts, [1, 99], axis=0)
    scaled = np.clip((parts - low) / np.maximum(high - low, 1e-12), 0, 1)
    if scaled.shape[1] < 3:
        scaled = np.pad(scaled, ((0, 0), (0, 3 - scaled.shape[1])))
    pixels = (scaled.reshape(n, height, width, 3) * 255).astype(np.uint8)
    return [Image.fromarray(array) for array in pixels]
