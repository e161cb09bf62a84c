"""Triplets: re-indexing by name, and files in each of their formats."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ldm_kit.datasets import Stimuli, Triplets, read_triplets
from ldm_kit.datasets.triplets import aggregate_repeated
from ldm_kit.errors import BadInputError, LdmKitError, MismatchError, UnknownNameError

NAMES = ("ant", "bee", "cat", "dog", "emu")
ROWS = [[0, 1, 2], [4, 3, 0], [2, 1, 4]]


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def rows(separator: str, ending: str = "\n") -> str:
    return "".join(separator.join(map(str, row)) + ending for row in ROWS)


@pytest.mark.parametrize("separator", [" ", "\t", ",", ";", "   ", ", "])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_three_columns(tmp_path: Path, separator: str, ending: str) -> None:
    for text in (
        rows(separator, ending),
        "\ufeff" + rows(separator, ending),
        rows(separator, ending) + "\n\n",
    ):
        path = tmp_path / "a.txt"
        path.write_bytes(text.encode())
        assert read_triplets(path, NAMES).indices.tolist() == ROWS


def test_numpy_and_whole_floats(tmp_path: Path) -> None:
    for dtype in ("int32", "uint8", "float64", "float32"):
        np.save(tmp_path / "a.npy", np.array(ROWS, dtype=dtype))
        triplets = read_triplets(tmp_path / "a.npy", NAMES, judgements="simulated", dataset="demo")
        assert triplets.indices.tolist() == ROWS and triplets.indices.dtype == np.int64
        assert (triplets.judgements, triplets.dataset, triplets.source) == ("simulated", "demo", "a.npy")
    path = write(
        tmp_path / "a.txt", "0.000e+00 1.000e+00 2.000e+00\n4 3 0\n2 1 4\n"
    )  # as np.savetxt has them
    assert read_triplets(path, NAMES).indices.tolist() == ROWS


def test_names_instead_of_indices(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "ant,bee,cat\nemu,dog,ant\ncat,bee,emu\n")
    assert read_triplets(path, NAMES).indices.tolist() == ROWS
    with pytest.raises(UnknownNameError, match=r"'bea'. Did you mean 'bee'"):
        read_triplets(write(path, "ant,bea,cat\n"), NAMES)


def test_released_format_for_every_choice_and_order(tmp_path: Path) -> None:
    """Whatever the columns' order, the chosen image ends last and the other two come before it."""
    lines, odd, pairs = ["trial\tchoice\timage3\timage1\timage2\tsubject_id\tRT"], [], []
    for images in itertools.permutations((1, 3, 5)):
        for choice in (1, 2, 3):
            lines.append(f"7\t{choice}\t{images[2]}\t{images[0]}\t{images[1]}\t{40 + choice}\t812.5")
            odd.append(images[choice - 1] - 1)
            pairs.append({image - 1 for image in images} - {images[choice - 1] - 1})
    triplets = read_triplets(write(tmp_path / "a.csv", "\n".join(lines) + "\n"), NAMES)
    assert triplets.indices[:, 2].tolist() == odd
    assert [set(row[:2].tolist()) for row in triplets] == pairs
    assert triplets.subjects is not None and triplets.subjects.tolist() == [41, 42, 43] * 6


def test_released_subjects_that_are_no_numbers(tmp_path: Path) -> None:
    text = "image1,image2,image3,choice,subject_id\n1,2,3,1,w7\n1,2,3,2,a1\n1,2,3,3,\n1,2,3,3,w7\n"
    triplets = read_triplets(write(tmp_path / "a.csv", text), NAMES)
    assert triplets.subjects is not None and triplets.subjects.tolist() == [0, 1, -1, 0]
    assert triplets.indices.tolist() == [[1, 2, 0], [0, 2, 1], [0, 1, 2], [0, 1, 2]]


HEADER = "image1\timage2\timage3\tchoice\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("0 1\n", "2 columns"),
        ("0 1 2 3\n", "4 columns"),
        ("image1\timage2\timage3\tanswer\n1\t2\t3\t1\n", "4 columns: .*answer.*and choice"),
        ("0 1 2\n0 1 9\n", "point outside the 5 stimuli.*row 1"),
        ("1 2 3\n3 4 5\n", "count from 1. Subtract 1"),
        ("0 1 -1\n", "outside"),
        ("0 1 2\n1 1 2\n", "twice.*row 1"),
        ("0 1 2\n0.5 1 2\n", "whole numbers.*row 1"),
        ("0 1 2\n0 1\n", "whole numbers.*row 1"),
        ("0 1 2\n0 1 2 3\n", "cannot be read as a table"),
        ("0 1 2\n0 x 2\n", "cannot be read.*'x' at position 4"),
        (HEADER + "1\t2\t3\t0\n", "'choice' are outside 1 to 3"),
        (HEADER + "0\t2\t3\t1\n", "count from 1, but there is a 0"),
        (HEADER + "1\t2\t6\t1\n", "outside the 5 stimuli"),
        (HEADER + "1\t2\t\t1\n", "whole numbers"),
    ],
)
def test_refusals(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path / "choices.txt", text)
    with pytest.raises(BadInputError, match=f"(?s){message}") as caught:
        read_triplets(path, NAMES)
    assert "choices.txt" in str(caught.value)


def test_no_code_from_data(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "b.npz", x=np.array(ROWS))
    (tmp_path / "b.npz").rename(tmp_path / "b.npy")
    for name in ("a.npy", "b.npy", "absent.npy", "absent.txt"):
        with pytest.raises(BadInputError, match=name):
            read_triplets(tmp_path / name, NAMES)


def test_many_rows_are_read_as_they_are(tmp_path: Path) -> None:
    """How fast is measured by `tests/benchmarks/reading.py`."""
    rng = np.random.default_rng(0)
    first = rng.integers(0, 1854, 100_000)
    step = rng.integers(1, 900, 100_000)
    indices = np.stack([first, (first + step) % 1854, (first + 2 * step) % 1854], axis=1)
    pd.DataFrame(indices).to_csv(tmp_path / "a.txt", sep=" ", header=False, index=False)
    triplets = read_triplets(tmp_path / "a.txt", [str(i) for i in range(1854)])
    assert np.array_equal(triplets.indices, indices)


def test_by_name_never_by_row() -> None:
    triplets = Triplets(np.array(ROWS), NAMES, subjects=np.array([7, 8, 9]))
    backwards = NAMES[::-1]
    for moved in (triplets.among(backwards), Triplets(triplets.on(backwards), backwards)):
        assert [[backwards[i] for i in row] for row in moved] == [[NAMES[i] for i in row] for row in ROWS]
    fewer = triplets.among(["emu", "dog", "ant"])
    assert (
        fewer.indices.tolist() == [[0, 1, 2]]
        and fewer.subjects is not None
        and fewer.subjects.tolist() == [8]
    )
    with pytest.raises(MismatchError, match="ant"):
        triplets.on(["bee", "cat", "dog", "emu"])


@pytest.mark.parametrize("bad", [[[0, 1, 5]], [[0, 0, 1]], [[0, 1]], [[0.0, 1.0, 2.0]], [[-1, 0, 1]]])
def test_triplets_refuse(bad: list[list[int]]) -> None:
    with pytest.raises(LdmKitError):
        Triplets(np.array(bad), NAMES)


def test_repeated_against_a_loop() -> None:
    rng = np.random.default_rng(1)
    indices = np.array([rng.permutation(5)[:3] for _ in range(400)])
    table = aggregate_repeated(Triplets(indices, NAMES), at_least=30)
    votes: dict[tuple[str, ...], list[str]] = {}
    for row in indices:
        three = tuple(NAMES[i] for i in sorted(row))
        votes.setdefault(three, []).append(NAMES[row[2]])
    expected = {
        three: (len(odd), max(odd.count(name) for name in three) / len(odd))
        for three, odd in votes.items()
        if len(odd) >= 30
    }
    assert {(i, j, k): (n, share) for i, j, k, n, share in table.itertuples(index=False)} == expected
    assert aggregate_repeated(Triplets(np.zeros((0, 3), dtype=int), NAMES)).empty


# --- stimuli whose names are numbers -----------------------------------------------------------------------------

NUMBERED = Stimuli(tuple(sorted(f"{n}.png" for n in range(1, 13))))  # 1, 10, 11, 12, 2, …: text order
FULL = "1.png,2.png,10.png\n"


def named(path: Path, stimuli: Stimuli = NUMBERED, items: str | None = None) -> list[list[str]]:
    triplets = read_triplets(path, stimuli, items=items)
    return [[triplets.names[i] for i in row] for row in triplets]


def test_numbers_that_may_be_names_or_positions_are_refused(tmp_path: Path) -> None:
    released = "image1,image2,image3,choice\n1,2,10,3\n"
    np.save(tmp_path / "a.npy", np.array([[1, 2, 10]]))
    for path in (
        write(tmp_path / "a.csv", "1,2,10\n"),
        write(tmp_path / "b.csv", released),
        write(tmp_path / "c.csv", "1,2,13\n"),  # neither all names nor all positions: a slip of one of them
        tmp_path / "a.npy",
    ):
        with pytest.raises(
            BadInputError, match=r"two ways.*'\d+\.png'.*items='indices'.*index1,index2,index3"
        ):
            read_triplets(path, NUMBERED)
    assert named(tmp_path / "a.csv", items="names") == named(tmp_path / "a.npy", items="names")
    assert named(tmp_path / "a.csv", items="names") == [["1.png", "2.png", "10.png"]]
    assert named(tmp_path / "b.csv", items="names") == [["1.png", "2.png", "10.png"]]
    assert named(tmp_path / "a.csv", items="indices") == named(tmp_path / "a.npy", items="indices")
    assert named(tmp_path / "a.csv", items="indices") == [["10.png", "11.png", "8.png"]]
    assert named(tmp_path / "b.csv", items="indices") == [["1.png", "10.png", "7.png"]]


def test_what_can_be_read_one_way_only_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    assert named(write(path, FULL)) == [["1.png", "2.png", "10.png"]]
    assert named(write(path, "name1,name2,name3\n1,2,10\n")) == [["1.png", "2.png", "10.png"]]
    assert named(write(path, "index1 index2 index3\n1 2 10\n")) == [["10.png", "11.png", "8.png"]]
    assert named(write(path, "12,2,10\n")) == [["12.png", "2.png", "10.png"]]  # there is no position 12
    zero = Stimuli(tuple(f"{n:02}.png" for n in range(12)))
    assert named(write(path, "1,2,10\n"), zero) == [["01.png", "02.png", "10.png"]]  # both ways alike
    with pytest.raises(MismatchError, match="declares that it holds indices, and items='names'"):
        named(write(path, "index1,index2,index3\n1,2,10\n"), items="names")
    with pytest.raises(UnknownNameError, match="Did you mean 'names'"):
        named(path, items="name")


def test_numbers_are_names_however_they_are_written(tmp_path: Path) -> None:
    """A spreadsheet makes 1 of 001; a sub-folder's files are known by their own names, too."""
    padded = Stimuli(tuple(f"{n:03}.png" for n in range(1, 13)))
    below = Stimuli(tuple(f"all/{n}.png" for n in range(1, 13)), concepts=("all",) * 12)
    for stimuli in (padded, below):
        with pytest.raises(BadInputError, match="two ways"):
            named(write(tmp_path / "a.csv", "1,2,10\n"), stimuli)
    assert named(write(tmp_path / "a.csv", "001,002,010\n"), padded, "names") == [
        ["001.png", "002.png", "010.png"]
    ]
    odd = Stimuli(("NA.png", "null.png", "1.png", "x.png"))
    assert named(write(tmp_path / "a.csv", "NA,null,1\n"), odd) == [["NA.png", "null.png", "1.png"]]


def test_a_file_that_may_count_from_one_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    read_triplets(write(tmp_path / "a.txt", "1 2 3\n3 1 2\n"), NAMES)
    assert "a.txt: the least index is 1" in caplog.text
    caplog.clear()
    read_triplets(write(tmp_path / "a.txt", rows(" ")), NAMES)
    read_triplets(write(tmp_path / "a.txt", "bee cat dog\n"), NAMES)
    released = write(tmp_path / "b.txt", "image1 image2 image3 choice\n2 3 4 1\n")
    read_triplets(released, NAMES)
    read_triplets(released, ("0", "x", "y", "z"))
    assert not caplog.records


def test_numbers_that_name_no_single_image_are_indices(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "0 1 2\n3 4 5\n")
    for names in (
        [f"{animal}/{number}.png" for animal in ("cat", "dog") for number in (1, 2, 3)],
        [f"{a}_{b}.png" for a in (0, 1) for b in (0, 1, 2)],
    ):
        assert read_triplets(path, names).indices.tolist() == [[0, 1, 2], [3, 4, 5]]
