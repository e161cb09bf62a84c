"""Any image file becomes upright 8-bit RGB, or an error that names it."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ldm_kit.datasets.stimuli import MAX_SIDE, file_fingerprint, open_image
from ldm_kit.errors import UnreadableImageError

# Left half red, right half blue, 8 wide and 4 high: rotation and channels both show.
PLAIN = np.zeros((4, 8, 3), dtype=np.uint8)
PLAIN[:, :4, 0] = PLAIN[:, 4:, 2] = 255


def corners(image: Image.Image) -> tuple[list[int], list[int]]:
    assert image.mode == "RGB"
    pixels = np.asarray(image)
    return pixels[0, 0].tolist(), pixels[-1, -1].tolist()


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tiff", ".ppm", ".gif", ".webp"])
def test_formats_give_the_same_pixels(tmp_path: Path, suffix: str) -> None:
    Image.fromarray(PLAIN).save(tmp_path / f"a{suffix}", lossless=True)
    assert np.array_equal(np.asarray(open_image(tmp_path / f"a{suffix}")), PLAIN)


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "LA", "RGBA", "I;16", "YCbCr"])
def test_modes(tmp_path: Path, mode: str) -> None:
    grey = Image.fromarray(np.array([[0, 255]], dtype=np.uint8))
    if mode == "I;16":
        image = Image.fromarray(np.array([[0, 65535]], dtype=np.uint16))
    else:
        image = grey.convert("RGB").convert(mode) if mode in ("CMYK", "YCbCr", "RGBA") else grey.convert(mode)
    path = tmp_path / ("a.tiff" if mode in ("CMYK", "YCbCr") else "a.png")
    image.save(path)
    assert corners(open_image(path)) == ([0, 0, 0], [255, 255, 255])


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    deep = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    for name in ("a.png", "a.tiff"):
        Image.fromarray(deep).save(tmp_path / name)
        assert np.asarray(open_image(tmp_path / name))[0, :, 0].tolist() == [0, 1, 128, 255]


def tiff(path: Path, array: np.ndarray, bits: int, photometric: int = 1, sample_format: int = 1) -> None:
    """A plain little-endian TIFF, written by hand: Pillow writes none of these."""
    channels = array.shape[2] if array.ndim == 3 else 1
    if bits == 12:
        a, b = array.reshape(-1, 2).astype(np.uint16).T
        data = np.stack([a >> 4, (a & 15) << 4 | b >> 8, b & 255], axis=1).astype(np.uint8).tobytes()
    else:
        data = array.tobytes()
    after = 10 + 12 * 9 + 4
    many = [[bits] * channels, [sample_format] * channels]
    where = [after + 2 * channels * n for n in range(2)]
    inline = channels == 1
    entries = [
        (256, 1, array.shape[1]), (257, 1, array.shape[0]),
        (258, channels, bits if inline else where[0]), (259, 1, 1), (262, 1, photometric),
        (273, 1, after + 4 * channels), (277, 1, channels), (279, 1, len(data)),
        (339, channels, sample_format if inline else where[1]),
    ]  # fmt: skip
    kinds = {273: 4, 279: 4}
    packed = b"".join(
        struct.pack("<HHII", tag, kinds.get(tag, 3), count, value) for tag, count, value in entries
    )
    tail = b"".join(struct.pack(f"<{channels}H", *values) for values in many)
    path.write_bytes(b"II*\x00" + struct.pack("<IH", 8, 9) + packed + bytes(4) + tail + data)


RAMP = np.array([[0, 1024, 2048, 4095]], dtype=np.uint16)
BRIGHT = [0, 64, 128, 255]


def test_a_tiff_of_twelve_bits_is_as_bright_as_it_says(tmp_path: Path) -> None:
    tiff(tmp_path / "a.tif", RAMP, 12)
    assert np.asarray(open_image(tmp_path / "a.tif"))[0, :, 0].tolist() == BRIGHT
    tiff(tmp_path / "a.tif", 65535 - RAMP * 16, 16, photometric=0)
    assert np.allclose(np.asarray(open_image(tmp_path / "a.tif"))[0, :, 0], BRIGHT, atol=1)
    (tmp_path / "a.pgm").write_bytes(b"P5 4 1 4095\n" + RAMP.astype(">u2").tobytes())
    assert np.asarray(open_image(tmp_path / "a.pgm"))[0, :, 0].tolist() == BRIGHT
    Image.fromarray(RAMP).save(tmp_path / "a.png")  # by PNG's definition full range, and so truly dark
    assert np.asarray(open_image(tmp_path / "a.png"))[0, :, 0].tolist() == [0, 4, 8, 16]
    Image.new("I;16", (4, 4)).save(tmp_path / "black.tif")  # black, however it is read
    assert np.asarray(open_image(tmp_path / "black.tif")).max() == 0


@pytest.mark.parametrize(
    ("array", "bits", "options", "message"),
    [
        (RAMP, 16, {}, "16-bit values end at 4,095.*8 bits.*multiply by 16"),
        (RAMP * 4, 16, {}, "16-bit values end at 16,380"),
        (np.stack([RAMP] * 3, axis=2), 16, {"photometric": 2}, "16-bit values end at 3,840"),
        (RAMP.astype(np.uint32), 32, {}, "32-bit integers.*8 bits"),
        (RAMP.astype(np.int32), 32, {"sample_format": 2}, "signed integers"),
        (RAMP.astype(np.int16), 16, {"sample_format": 2}, "signed integers"),
        (RAMP.astype(np.int8), 8, {"sample_format": 2}, "signed integers"),
        (RAMP.astype(np.float32), 32, {"sample_format": 3}, "floating-point"),
    ],
)
def test_values_without_an_agreed_range_are_refused(
    tmp_path: Path, array: np.ndarray, bits: int, options: dict[str, int], message: str
) -> None:
    tiff(tmp_path / "scan.tif", array, bits, **options)
    with pytest.raises(UnreadableImageError, match=rf"(?s)scan\.tif.*{message}"):
        open_image(tmp_path / "scan.tif")


@pytest.mark.parametrize("size", [(20_000, 2), (2, 20_000), (101, 1)])
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_strip_is_refused(tmp_path: Path, size: tuple[int, int], suffix: str) -> None:
    Image.new("RGB", size).save(tmp_path / f"strip{suffix}")
    with pytest.raises(UnreadableImageError, match=r"strip.*a model would see the middle \d × \d\. Cut"):
        open_image(tmp_path / f"strip{suffix}")


def test_cmyk_jpeg_of_adobe_is_not_inverted(tmp_path: Path) -> None:
    Image.new("RGB", (16, 16), (250, 20, 20)).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    red, green, blue = np.asarray(open_image(tmp_path / "a.jpg"))[8, 8]
    assert red > 200 and green < 60 and blue < 60


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    Image.fromarray(np.array([[[0, 0, 0, 0], [0, 0, 0, 255], [0, 0, 0, 128]]], dtype=np.uint8)).save(
        tmp_path / "a.png"
    )
    row = np.asarray(open_image(tmp_path / "a.png"))[0, :, 0]
    assert row[0] == 255 and row[1] == 0 and abs(int(row[2]) - 127) <= 1
    palette = Image.new("P", (2, 1), 0)
    palette.putpalette([10, 20, 30, 200, 0, 0])
    palette.putpixel((1, 0), 1)
    palette.save(tmp_path / "b.png", transparency=0)
    assert corners(open_image(tmp_path / "b.png")) == ([255, 255, 255], [200, 0, 0])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(PLAIN).save(tmp_path / "a.png", exif=exif)
    turned = {
        1: PLAIN, 2: PLAIN[:, ::-1], 3: PLAIN[::-1, ::-1], 4: PLAIN[::-1],
        5: PLAIN.transpose(1, 0, 2), 6: np.rot90(PLAIN, -1), 7: np.rot90(PLAIN, 2).transpose(1, 0, 2),
        8: np.rot90(PLAIN),
    }  # fmt: skip
    assert np.array_equal(np.asarray(open_image(tmp_path / "a.png")), turned[orientation])


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_does_not_cost_the_picture(tmp_path: Path) -> None:
    Image.fromarray(PLAIN).save(
        tmp_path / "a.jpg", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\x7fgarbage", quality=100
    )
    Image.fromarray(PLAIN).save(tmp_path / "b.jpg", exif=b"Exif\x00\x00no TIFF at all", quality=100)
    for name in ("a.jpg", "b.jpg"):
        assert open_image(tmp_path / name).size == (8, 4)


def test_wrong_extension_and_animation(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(PLAIN).save(buffer, format="PNG")
    (tmp_path / "a.jpg").write_bytes(buffer.getvalue())
    assert np.array_equal(np.asarray(open_image(tmp_path / "a.jpg")), PLAIN)
    frames = [Image.new("RGB", (3, 3), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert corners(open_image(tmp_path / "a.gif"))[0] == [255, 0, 0]


def test_refusals_name_the_file_and_say_what_to_do(tmp_path: Path) -> None:
    whole = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(whole, format="JPEG")
    png = io.BytesIO()
    Image.fromarray(noise).save(png, format="PNG")
    Image.fromarray(np.zeros((4, 4), dtype=np.float32)).save(tmp_path / "float.tiff")
    broken = {
        "empty.jpg": b"",
        "text.png": b"this is not a picture\n",
        "cut.jpg": whole.getvalue()[:1000],
        "cut.png": png.getvalue()[:2000],
        "head.jpg": whole.getvalue()[:20],
        "script.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
    }
    for name, content in broken.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder.png").mkdir()
    for name in [*broken, "float.tiff", "folder.png", "absent.png"]:
        with pytest.raises(UnreadableImageError) as caught:
            open_image(tmp_path / name)
        assert name in str(caught.value) and "Replace" in str(caught.value)
    with pytest.raises(UnreadableImageError, match="empty"):
        file_fingerprint(tmp_path / "empty.jpg")


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing: a decompression bomb."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("size", [(20_000, 20_000), (100_000, 100_000), (14_000, 13_000)])
def test_a_bomb_is_refused_before_it_is_decoded(tmp_path: Path, size: tuple[int, int]) -> None:
    (tmp_path / "bomb.png").write_bytes(png_header(*size))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UnreadableImageError, match=r"bomb\.png.*smaller copy"):
            open_image(tmp_path / "bomb.png")


def test_a_very_wide_picture_is_reduced(tmp_path: Path) -> None:
    wide = np.zeros((200, 20_000, 3), dtype=np.uint8)
    wide[:, 10_000:] = 255
    for name in ("wide.png", "wide.jpg"):
        Image.fromarray(wide).save(tmp_path / name)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            image = open_image(tmp_path / name)
        assert max(image.size) <= MAX_SIDE and image.width / image.height == pytest.approx(100, rel=0.02)
        pixels = np.asarray(image)
        assert pixels[:, : image.width // 2 - 2].max() < 9 and pixels[:, image.width // 2 + 2 :].min() > 246


@pytest.mark.slow
def test_memory_for_a_large_jpeg_is_bounded(tmp_path: Path) -> None:
    """20,000 × 8,000 pixels are 640 MB decoded; decoding at 1/4 needs far less."""
    Image.new("L", (20_000, 8_000), 90).save(tmp_path / "large.jpg")
    code = (
        "import resource; from ldm_kit.datasets.stimuli import open_image\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"assert max(open_image({str(tmp_path / 'large.jpg')!r}).size) <= 4096\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(done.stdout) * unit < 200e6


def test_fingerprint_is_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"one")
    (tmp_path / "b.png").write_bytes(b"one")
    (tmp_path / "c.png").write_bytes(b"two")
    a, b, c = (file_fingerprint(tmp_path / name) for name in ("a.png", "b.png", "c.png"))
    assert a == b != c and len(a) == 64
