"""Open a picture file, whatever it is, as 8-bit RGB; or say which file cannot be opened and why."""

from __future__ import annotations

import hashlib
import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ldm_kit.errors import UnreadableImageError

# What is looked for in a folder. The content decides how a file is decoded, not its extension.
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
# Decoders that only decode. Pillow knows more, some of which start other programs (EPS runs Ghostscript).
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
MAX_PIXELS = 178_956_970  # 2 ** 31 / 12, Pillow's own line between a large picture and a decompression bomb
MAX_RATIO = (
    100  # of the longer side to the shorter: a model sees the middle square, less than 1 % of a longer strip
)
MAX_SIDE = 4096  # longer sides are reduced while decoding; no model sees more than 1,024 pixels
BITS_PER_SAMPLE, PHOTOMETRIC, SAMPLE_FORMAT = 258, 262, 339  # tags of TIFF
RESCALE = "Replace it by a copy whose values fill 8 bits, or by a 16-bit PNG, whose values fill 16 bits by definition"
# What Pillow's decoders raise on damaged files, beside OSError.
DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    zlib.error,
    IndexError,
    KeyError,
    TypeError,
)


def open_image(path: str | os.PathLike[str]) -> Image.Image:
    """Open a picture as 8-bit RGB, upright, transparency laid on white.

    Parameters
    ----------
    path : path-like
        A JPEG, PNG, WebP, BMP, GIF (first frame), TIFF (first page) or PPM file; its extension does not
        matter. Greyscale, palette, CMYK and 16-bit images are converted, EXIF rotation is applied,
        colour profiles are ignored. A side over 4,096 pixels is reduced by a whole factor.

    Returns
    -------
    PIL.Image.Image
        Mode ``"RGB"``, fully loaded; the file is closed.

    Raises
    ------
    UnreadableImageError
        If the file is missing, empty, truncated or no image; if its values have no agreed range (floating point,
        signed or 32-bit integers, a 16-bit TIFF whose values end below 16,384 and may be of 12 bits); if it has more
        than 178,956,970 pixels, or one side is over 100 times the other. The message names the file.

    Examples
    --------
    >>> open_image("object_images_CC0/apple.jpg").mode  # doctest: +SKIP
    'RGB'
    """
    path = Path(path)
    _check_file(path)
    try:
        with warnings.catch_warnings():
            # The size is judged below, by one rule; Pillow would warn from half of it on.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            opened = Image.open(path, formats=FORMATS)
        with opened as image:
            if image.width * image.height > MAX_PIXELS:
                raise _too_large(path, f"{image.width:,} × {image.height:,} pixels")
            if max(image.size) > MAX_RATIO * min(image.size):
                raise unreadable(
                    path,
                    f"it is a strip of {image.width:,} × {image.height:,} pixels, of which a model would see the middle "
                    f"{min(image.size)} × {min(image.size)}",
                    f"Cut out or pad it, so that no side is over {MAX_RATIO} times the other",
                )
            return _upright_rgb(image, path)
    except UnreadableImageError:
        raise
    except Image.DecompressionBombError as error:
        raise _too_large(path, str(error).split(" of ", 1)[-1].split(",")[0]) from error
    except UnidentifiedImageError as error:
        start = path.open("rb").read(12)
        raise unreadable(path, f"it is no picture that can be decoded (it starts with {start!r})") from error
    except DAMAGED as error:
        raise unreadable(path, f"it is damaged or cut short ({error})") from error


def file_fingerprint(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal.

    Raises
    ------
    UnreadableImageError
        If the file is missing or cannot be read.

    Examples
    --------
    >>> file_fingerprint("object_images_CC0/apple.jpg")[:8]  # doctest: +SKIP
    '0b1f6ae2'
    """
    path = Path(path)
    _check_file(path)
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise unreadable(path, f"the system refuses it ({error.strerror})") from error


def unreadable(
    path: str | os.PathLike[str],
    reason: str,
    advice: str = "Replace the file by a whole one (JPEG, PNG, WebP, BMP, GIF, TIFF or PPM)",
) -> UnreadableImageError:
    """Build the error for a picture that cannot be opened.

    Examples
    --------
    >>> str(unreadable("a.jpg", "it is empty (0 bytes)"))[:54]
    "Cannot read the picture 'a.jpg': it is empty (0 bytes)"
    """
    return UnreadableImageError(
        f"Cannot read the picture {str(path)!r}: {reason}. {advice}, or leave it out of the stimuli."
    )


def _check_file(path: Path) -> None:
    try:
        if not path.exists():
            raise unreadable(path, "there is no such file")
        if path.is_dir():
            raise unreadable(path, "it is a folder")
        if path.stat().st_size == 0:
            raise unreadable(path, "it is empty (0 bytes)")
        with path.open("rb"):
            pass
    except UnreadableImageError:
        raise
    except OSError as error:
        raise unreadable(path, f"the system refuses it ({error.strerror})") from error


def _too_large(path: Path, size: str) -> UnreadableImageError:
    return UnreadableImageError(
        f"Cannot read the picture {str(path)!r}: it has {size}, over the limit of {MAX_PIXELS:,} in all, "
        "and would fill the memory. Save a smaller copy (models look at 1,024 pixels a side at most)."
    )


def _upright_rgb(image: Image.Image, path: Path) -> Image.Image:
    """Decode an opened picture and bring it to RGB, at most `MAX_SIDE` a side."""
    factor = _factor(image)
    if factor > 1:  # a JPEG can be decoded at 1/2, 1/4 or 1/8; other formats ignore this
        image.draft("RGB", (image.width // factor, image.height // factor))
    image.load()
    top, white_is_zero = _range(image, path)
    ImageOps.exif_transpose(image, in_place=True)
    rgb = _to_rgb(image, top)
    if white_is_zero:
        rgb = ImageOps.invert(rgb)
    factor = _factor(rgb)
    return rgb.reduce(factor) if factor > 1 else rgb


def _factor(image: Image.Image) -> int:
    return -(-max(image.size) // MAX_SIDE)


def _range(image: Image.Image, path: Path) -> tuple[int, bool]:
    """The greatest value of pixels over 8 bits, and whether it is black; an error where that is not known."""
    tags = getattr(image, "tag_v2", {})  # a TIFF's
    bits = max(tags.get(BITS_PER_SAMPLE, (0,)))
    unit = {2: "signed integers", 3: "floating-point numbers"}.get(max(tags.get(SAMPLE_FORMAT, (1,))))
    if unit is None and (image.mode == "F" or bits > 16):
        unit = "floating-point numbers" if image.mode == "F" else f"{bits}-bit integers"
    if unit is not None:
        raise unreadable(path, f"its pixels are {unit}, which have no agreed range", RESCALE)
    deep = image.mode.startswith("I;16")
    if bits == 16:  # of other modes Pillow keeps the upper eight of them
        most = int(np.asarray(image).max()) if deep else 256 * int(np.asarray(image)[..., :3].max())
        if most < 2**14 and (most or not deep):
            raise unreadable(
                path,
                f"its 16-bit values end at {most:,}: it may be very dark, or hold values of 12 or 14 bits as cameras and "
                "microscopes write them, and nothing in the file tells",
                f"{RESCALE} (multiply by 16 if they are of 12 bits)",
            )
    # Pillow inverts an image whose white is 0 if it has 8 bits, but not if it has 16.
    return 2 ** (bits if 8 < bits < 16 else 16) - 1, deep and tags.get(PHOTOMETRIC) == 0


def _to_rgb(image: Image.Image, top: int) -> Image.Image:
    if image.mode.startswith("I"):  # over 8 bits; Pillow's own conversion would clip at 255
        wide = np.clip(np.asarray(image), 0, top).astype(np.uint32)
        image = Image.fromarray(((wide * 255 + top // 2) // top).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB") if image.mode != "RGB" else image.copy()
