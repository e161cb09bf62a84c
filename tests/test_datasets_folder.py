"""Folders of one's own images, and captions."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from ldm_kit.datasets import Dataset, Stimuli, load_dataset
from ldm_kit.datasets.text_tables import captioned
from ldm_kit.errors import BadInputError, UnknownNameError


def named_triplets(data: Dataset) -> list[list[str]]:
    assert data.triplets is not None
    return [[data.triplets.names[i] for i in row] for row in data.triplets]


def save_image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (3, 3)).save(path)


def test_flat_folder(tmp_path: Path) -> None:
    for name in ("dog.png", "cat.JPG", "tea_cup2.webp", ".hidden.png", ".cache/x.png"):
        save_image(tmp_path / name)
    (tmp_path / "captions.csv").write_text(
        'name,caption\ncat.JPG,"a cat, asleep"\ndog,a dog\n', encoding="utf-8"
    )
    (tmp_path / "triplets.csv").write_text("cat.JPG,dog.png,tea_cup2.webp\n", encoding="utf-8")
    data = load_dataset("folder", root=tmp_path)
    assert data.stimuli.names == ("cat.JPG", "dog.png", "tea_cup2.webp")
    assert data.stimuli.labels == ("cat", "dog", "tea cup")
    assert data.stimuli.captions == ("a cat, asleep", "a dog", None) and "2 of 3 images" in repr(data)
    assert data.triplets is not None and data.triplets.indices.tolist() == [[0, 1, 2]]
    (tmp_path / "by_concept.txt").write_text("dog cat tea_cup2\n", encoding="utf-8")
    (tmp_path / "by_index.txt").write_text("1 0 2\n", encoding="utf-8")
    for name in ("by_concept.txt", "by_index.txt", str(tmp_path / "by_index.txt")):
        again = load_dataset("folder", root=tmp_path, triplets=name, judgements="simulated")
        assert again.triplets is not None and again.triplets.indices.tolist() == [[1, 0, 2]]
        assert again.triplets.judgements == "simulated" and again.triplets.names == data.stimuli.names


def test_nested_folder(tmp_path: Path) -> None:
    for name in ("fruit/apple/b.png", "fruit/apple/a.png", "car/1.png", "top.png"):
        save_image(tmp_path / name)
    data = load_dataset("folder", root=tmp_path)
    assert data.stimuli.names == ("car/1.png", "fruit/apple/a.png", "fruit/apple/b.png", "top.png")
    assert data.stimuli.concepts == ("car", "apple", "apple", "top") and data.triplets is None
    assert data.stimuli.select(["apple"]).open(1).size == (3, 3)
    assert data.default_embedding is None
    with pytest.raises(BadInputError, match=r"'folder' has no triplets.*triplets\.csv"):
        _ = data.judgements
    (tmp_path / "t.txt").write_text("apple car top\n", encoding="utf-8")
    with pytest.raises(UnknownNameError, match="'apple'"):  # two images: which one is meant?
        load_dataset("folder", root=tmp_path, triplets="t.txt")


def test_folders_that_will_not_do(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image", encoding="utf-8")
    for options, message in [
        ({"root": tmp_path}, "no image"),
        ({"root": tmp_path / "absent"}, "no folder"),
        ({}, "`root=`"),
    ]:
        with pytest.raises(BadInputError, match=message):
            load_dataset("folder", **options)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.json", '{"a.png": "one", "b.png": "two"}'),
        ("c.csv", "a.png,one\nb.png,two\n"),
        ("c.csv", "caption,name,source\none,a.png,x\ntwo,b.png,y\n"),
        ("c.tsv", "Name\tCaption\na.png\tone\nb.png\ttwo\n"),
    ],
)
def test_captions(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    stimuli = Stimuli(("a.png", "b.png", "c.png"))
    assert captioned(stimuli, tmp_path / name) == ("one", "two", None)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("c.json", "[1, 2]", "no mapping"),
        ("c.json", "{", "cannot be read"),
        ("c.json", '{"a": 1}', "no mapping"),
        ("c.json", '{"a": "x", "a": "y"}', "twice"),
        ("c.csv", "a,b,c\n", "3 columns"),
        ("c.csv", "", "is empty"),
    ],
)
def test_captions_that_will_not_do(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(BadInputError, match=message):
        captioned(Stimuli(("a", "b")), tmp_path / name)
    save_image(tmp_path / "a.png")
    (tmp_path / "strangers.json").write_text('{"b.png": "x"}', encoding="utf-8")
    with pytest.raises(UnknownNameError, match=r"strangers\.json 'b\.png'. Did you mean 'a\.png'"):
        load_dataset("folder", root=tmp_path, captions="strangers.json")


def test_reading_data_imports_no_torch() -> None:
    code = (
        "import sys; from ldm_kit.datasets import load_dataset; load_dataset('emoji', n_triplets=50);"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_folder_of_numbered_images(tmp_path: Path) -> None:
    """In text order 10 comes before 2: a number is no position unless `items` declares it one."""
    for number in range(1, 13):
        save_image(tmp_path / f"{number}.png")
    (tmp_path / "triplets.csv").write_text("1,2,10\n", encoding="utf-8")
    with pytest.raises(BadInputError, match="two ways"):
        load_dataset("folder", root=tmp_path)
    for items, expected in [
        ("names", ["1.png", "2.png", "10.png"]),
        ("indices", ["10.png", "11.png", "8.png"]),
    ]:
        assert named_triplets(load_dataset("folder", root=tmp_path, items=items)) == [expected]
