"""Broken images and broken files of triplets, and what may come of them: what they hold, or an error of ours.

`tests/test_mutations.py` runs a few in seconds, `tests/benchmarks/endurance.py` thousands.
"""

from __future__ import annotations

import io
import itertools
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ldm_kit.datasets.stimuli import MAX_SIDE, open_image
from ldm_kit.datasets.triplet_files import read_triplets
from ldm_kit.errors import LdmKitError, UnreadableImageError

Random = np.random.Generator

# (format, mode, options): how a photograph is saved before it is damaged.
SAVED: tuple[tuple[str, str, dict[str, object]], ...] = (
    *(("JPEG", mode, {}) for mode in ("RGB", "L", "CMYK")),
    ("JPEG", "RGB", {"progressive": True}),
    ("JPEG", "RGB", {"exif": b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00"}),
    *(("PNG", mode, {}) for mode in ("RGB", "RGBA", "L", "LA", "P", "1", "I;16")),
    *(("TIFF", mode, {}) for mode in ("RGB", "RGBA", "L", "P", "1", "CMYK", "LAB", "YCbCr", "I;16", "I", "F")),
    *(("TIFF", "RGB", {"compression": name}) for name in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")),
    *(("WEBP", mode, options) for mode in ("RGB", "RGBA") for options in ({}, {"lossless": True})),
    *(("GIF", mode, {}) for mode in ("P", "L")),
    *(("BMP", mode, {}) for mode in ("RGB", "L", "1", "P")),
    *(("PPM", mode, {}) for mode in ("RGB", "L", "1", "I;16")),
)  # fmt: skip
SUFFIXES = (".jpg", ".png", ".tif", ".webp", ".gif", ".bmp", ".ppm", "")


def mutated_images(photographs: Sequence[Path], folder: Path, n: int, seed: int = 0) -> Iterator[Path]:
    """Write `n` files, one at a time: photographs in every format and mode, whole or damaged, with any extension."""
    rng = np.random.default_rng(seed)
    ways = (whole, cut, bits, head, zeros, doubled, missing, swapped, foreign, huge)
    for number, (way, (kind, mode, options)) in enumerate(
        itertools.islice(itertools.cycle(itertools.product(ways, SAVED)), n)
    ):
        photograph = photographs[int(rng.integers(len(photographs)))]
        content = way(saved(photograph, kind, mode, options, rng), rng)
        suffix = SUFFIXES[int(rng.integers(len(SUFFIXES)))]
        path = folder / f"{number:05}_{way.__name__}_{kind}_{mode.replace(';', '')}{suffix}"
        path.write_bytes(content)
        yield path


def saved(photograph: Path, kind: str, mode: str, options: dict[str, object], rng: Random) -> bytes:
    """A photograph in some format and mode, in full or as a small or narrow piece."""
    with Image.open(photograph) as opened:
        image = opened.convert("RGB")
    width, height = [(image.size), (1, 1), (image.width, 1), (3, image.height)][int(rng.integers(4))]
    image = image.crop((0, 0, width, height))
    if mode in ("I;16", "I", "F"):
        grey = np.asarray(image.convert("L"), dtype=np.float32) * 257
        image = Image.fromarray(grey.astype({"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]))
    elif mode == "LAB":
        image = Image.merge("LAB", image.split())
    else:
        image = image.convert(mode)
    file = io.BytesIO()
    image.save(file, format=kind, **options)  # type: ignore[arg-type]
    return file.getvalue()


def whole(content: bytes, rng: Random) -> bytes:
    return content


def cut(content: bytes, rng: Random) -> bytes:
    return content[: int(rng.integers(len(content)))]


def bits(content: bytes, rng: Random) -> bytes:
    """A few flipped bits anywhere."""
    array = np.frombuffer(content, dtype=np.uint8).copy()
    for place in rng.integers(len(array), size=int(rng.integers(1, 9))):
        array[place] ^= 1 << int(rng.integers(8))
    return array.tobytes()


def head(content: bytes, rng: Random) -> bytes:
    """A few other bytes among the first hundred."""
    array = np.frombuffer(content, dtype=np.uint8).copy()
    places = rng.integers(min(100, len(array)), size=int(rng.integers(1, 5)))
    array[places] = rng.integers(256, size=len(places))
    return array.tobytes()


def zeros(content: bytes, rng: Random) -> bytes:
    """A block of zeros, as a disk leaves behind that lost power."""
    start = int(rng.integers(len(content)))
    return content[:start] + bytes(min(512, len(content) - start)) + content[start + 512 :]


def doubled(content: bytes, rng: Random) -> bytes:
    return content + content[int(rng.integers(len(content))) :]


def missing(content: bytes, rng: Random) -> bytes:
    start = int(rng.integers(len(content)))
    return content[:start] + content[start + int(rng.integers(1, 99)) :]


def swapped(content: bytes, rng: Random) -> bytes:
    middle = int(rng.integers(len(content)))
    return content[middle:] + content[:middle]


def foreign(content: bytes, rng: Random) -> bytes:
    """The beginning of one thing, and the rest of another."""
    starts = (
        b"",
        b"GIF89a",
        b"\xff\xd8\xff",
        b"\x89PNG\r\n\x1a\n",
        b"II*\x00",
        b"RIFF",
        b"BM",
        b"P6\n",
        b"<svg>",
    )
    return starts[int(rng.integers(len(starts)))] + content[int(rng.integers(len(content))) :]


def huge(content: bytes, rng: Random) -> bytes:
    """A header that claims another size; a PNG's checksum is put right, else it would end there."""
    sizes = (0, 1, 2, 5_000, 65_535, 2**31 - 1)
    width, height = (sizes[int(rng.integers(len(sizes)))] for _ in range(2))
    if content[:4] == b"\x89PNG":
        size = struct.pack(">II", width, height) + content[24:29]
        return content[:16] + size + struct.pack(">I", zlib.crc32(b"IHDR" + size)) + content[33:]
    if content[:2] == b"BM":
        return content[:18] + struct.pack("<ii", width % 2**31, height % 2**31) + content[26:]
    if content[:3] == b"GIF":
        return content[:6] + struct.pack("<HH", width % 2**16, height % 2**16) + content[10:]
    if content[:2] == b"\xff\xd8":
        place = next((p for p in (content.find(b"\xff\xc0"), content.find(b"\xff\xc2")) if p > 0), 0)
        return content[: place + 5] + struct.pack(">HH", height % 2**16, width % 2**16) + content[place + 9 :]
    return head(content, rng)


def outcome_of_image(path: Path) -> str:
    """Open a file: "opened", as RGB of the size that it has, or "refused", by an error that names it; else fail."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow, about odd metadata
        try:
            image = open_image(path)
        except UnreadableImageError as error:
            assert path.name in str(error), f"the error does not name the file: {error}"
            return "refused"
        pixels = np.asarray(image)
        with Image.open(path) as header:
            size = header.size
    assert image.mode == "RGB" and pixels.shape == (*image.size[::-1], 3) and pixels.dtype == np.uint8
    assert min(image.size) >= 1 and max(image.size) <= MAX_SIDE
    assert max(size) > MAX_SIDE or sorted(image.size) == sorted(size), f"{size} became {image.size}"
    return "opened"


# --- triplets ----------------------------------------------------------------------------------------------------

NAMES = ("ant", "bee", "cat", "dog", "emu", "nan", "NA")
TRUTH = [[0, 1, 2], [4, 3, 0], [2, 1, 6], [5, 6, 3]]


def broken_triplets() -> Iterator[tuple[str, str, bytes, bool]]:
    """Some 100 forms of files over `NAMES`: what it is, its name, its content, and whether `TRUTH` is what is meant.

    Where it is, nothing else may be read but `TRUTH`, or the first rows of it.
    """
    rows = [[NAMES[i] for i in row] for row in TRUTH]
    released = [[a + 1, b + 1, c + 1, 3] for a, b, c in TRUTH]
    header = "image1,image2,image3,choice\n"
    for mark, end in itertools.product((" ", "\t", ",", ";", ", "), ("\n", "\r\n", "\r")):
        for what, cells in (("indices", TRUTH), ("names", rows)):
            text = "".join(mark.join(map(str, row)) + end for row in cells)
            yield f"{what} parted by {mark!r}, lines by {end!r}", "a.txt", text.encode(), True
    plain = "".join(",".join(map(str, row)) + "\n" for row in TRUTH)
    named = "".join(",".join(row) + "\n" for row in rows)
    full = header + "".join(",".join(map(str, row)) + "\n" for row in released)
    for what, text in (("indices", plain), ("names", named), ("released", full)):
        for code in ("utf-8-sig", "utf-16", "utf-16-le", "utf-32", "utf-7", "cp037"):
            yield f"{what} in {code}", "a.csv", text.encode(code), True
        data = text.encode()
        yield f"{what}, no last line end", "a.csv", data[:-1], True
        yield f"{what}, blank lines", "a.csv", b"\n\n" + data.replace(b"\n", b"\n\n") + b" \n", True
        yield f"{what}, every cell quoted", "a.csv", quoted(text).encode(), True
        yield f"{what}, an open quote", "a.csv", data.replace(b"\n", b'\n"', 1), True
        yield f"{what}, a NUL", "a.csv", data.replace(b",", b"\x00,", 1), True
        yield f"{what}, a row with a cell too few", "a.csv", data + b"1,2\n", True
        yield f"{what}, a row with a cell too many", "a.csv", data + b"1,2,3,1,5\n", True
        yield (
            f"{what}, a word among them",
            "a.csv",
            data + b"1,x,3,1\n"[: 6 if what != "released" else 8] + b"\n",
            True,
        )
        yield f"{what}, a comment", "a.csv", b"# choices\n" + data, True
        yield f"{what}, a title", "a.csv", b"My choices\n" + data, True
        yield f"{what}, a column of row numbers", "a.csv", numbered(text).encode(), True
        yield f"{what}, gzipped", "a.csv", zlib.compress(data), True
        yield f"{what}, cut within a row", "a.csv", data[:-4], False
    cells: tuple[object, ...] = (
        -1,
        7,
        2**31,
        2**63,
        10**30,
        0.5,
        "1e400",
        "nan",
        "inf",
        "",
        "0x2",
        "٣",
        "１",
        "1_0",
        "=1+1",
        "None",
    )
    for cell in cells:
        yield f"a cell {cell!r}", "a.csv", plain.encode() + f"0,1,{cell}\n".encode(), False
    yield "an item twice", "a.csv", plain.encode() + b"1,1,2\n", False
    for choice in (0, 4, -1, 1.5, "", "b"):
        yield f"a choice {choice!r}", "a.csv", full.encode() + f"1,2,3,{choice}\n".encode(), False
    for line in (
        "name1,name2,name3\n",
        "index1,index2,index3\n",
        "i,j,k\n",
        "a,a,a\n",
        header,
        header.upper(),
    ):
        yield f"a header {line!r} over indices", "a.csv", (line + plain).encode(), line.startswith("index")
        yield f"a header {line!r} alone", "a.csv", line.encode(), True
    for what, data in (
        ("nothing", b""),
        ("white space", b" \n\t\n"),
        ("zeros", bytes(999)),
        ("PNG", b"\x89PNG\r\n"),
    ):
        for name in ("a.csv", "a.npy"):
            yield f"{what} as {name}", name, data, True
    yield "one line of a megabyte", "a.csv", b"1," * 500_000, True
    yield from broken_arrays()


def broken_arrays() -> Iterator[tuple[str, str, bytes, bool]]:
    right = np.array(TRUTH)
    arrays: dict[str, tuple[object, bool]] = {
        **{f"dtype {kind}": (right.astype(kind), True) for kind in ("i1", "u8", ">i4", "f2", "f8", "c8", "U3", "S3", "O")},
        "Fortran order": (np.asfortranarray(right), True),
        "transposed": (right.T, True), "flat": (right.ravel(), True), "three axes": (right[None], True),
        "one row": (right[0], True), "two columns": (right[:, :2], True), "no row": (right[:0], True),
        "a number": (np.int64(3), True), "booleans": (right > 1, True), "dates": (right.astype("M8[D]"), True),
        "NaN": (np.where(right == 3, np.nan, right), True), "negative": (-right, True),
        "from 1": (right + 1, True), "far out": (right.astype("u8") + np.uint64(2**63), True),
        "fields": (np.array([(0, 1, 2)], dtype=[("i", int), ("j", int), ("k", int)]), True),
        "structure": (np.array([{"i": 0}], dtype=object), True),
    }  # fmt: skip
    for what, (array, meant) in arrays.items():
        file = io.BytesIO()
        np.save(file, np.asarray(array), allow_pickle=True)
        yield f"array: {what}", "a.npy", file.getvalue(), meant
        if what == "Fortran order":
            yield "array: cut short", "a.npy", file.getvalue()[:-9], True
            yield "array: cut in its header", "a.npy", file.getvalue()[:40], True
            yield "array: as text", "a.csv", file.getvalue(), True
    archive = io.BytesIO()
    np.savez(archive, right)
    yield "archive", "a.npy", archive.getvalue(), True


def quoted(text: str) -> str:
    return "".join(",".join(f'"{cell}"' for cell in line.split(",")) + "\n" for line in text.splitlines())


def numbered(text: str) -> str:
    return "".join(f"{number},{line}\n" for number, line in enumerate(text.splitlines()))


def outcome_of_triplets(path: Path, meant: bool, names: Sequence[str] = NAMES) -> str:
    """Read a file: "read", as nothing but what it means, or "refused", by an error that names it; else fail."""
    try:
        triplets = read_triplets(path, names)
    except LdmKitError as error:
        assert path.name in str(error), f"the error does not name the file: {error}"
        return "refused"
    found = triplets.indices
    assert found.shape[1:] == (3,) and found.dtype == np.int64 and len(found)
    assert found.min() >= 0 and found.max() < len(names)
    assert all(len(set(row)) == 3 for row in found.tolist())
    assert not meant or found.tolist() == TRUTH[: len(found)], f"read as {found.tolist()}"
    return "read"
