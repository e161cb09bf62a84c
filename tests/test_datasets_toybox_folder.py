"""Toybox as a data set, and folders of one's own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ldm_kit.datasets import Dataset, Stimuli, load_dataset, toybox
from ldm_kit.datasets.text_tables import captioned
from ldm_kit.errors import BadInputError, MismatchError, UnknownNameError


def kept(data: Dataset) -> list[list[str]]:
    assert data.triplets is not None
    return [[data.triplets.names[i] for i in row] for row in data.triplets]


# --- Toybox ------------------------------------------------------------------------------------------------------


def test_toybox() -> None:
    data = load_dataset("toybox")
    assert len(data.stimuli) == 56 and data.stimuli.names == tuple(sorted(data.stimuli.names))
    assert data.triplets is not None and len(data.triplets) == 20_000
    assert data.triplets.judgements == "simulated" and "simulated" in repr(data)
    assert data.categories is not None and (data.categories.sum(axis=1) == 1).all()
    assert data.categories.loc["apple.png", toybox.category("apple")]
    assert data.embeddings["norms"].index.tolist() == list(data.stimuli.names)
    assert data.embeddings["norms"].loc["banana.png", "edible"] == 1
    assert data.repeated is not None and data.repeated.n.min() >= 10
    assert data.stimuli.select(["ice_cream"]).labels == ("ice cream",) and all(data.stimuli.captions)
    assert np.array_equal(np.asarray(data.stimuli.open("apple")), np.asarray(toybox.render("apple", 0)))
    assert data.stimuli.fingerprint("apple.png") == data.stimuli[[0, 1, 2]].fingerprint("apple.png")
    assert len({data.stimuli.fingerprint(name) for name in data.stimuli}) == 56


def test_toybox_choices_are_reproducible_and_follow_the_norms() -> None:
    one, two, other = (load_dataset("toybox", n_triplets=3000, seed=seed) for seed in (0, 0, 1))
    assert kept(one) == kept(two) != kept(other)
    assert one.triplets is not None
    x = one.embeddings["norms"].to_numpy()
    i, j, k = (x[column] for column in one.triplets.indices.T)
    pair = np.sum(i * j, axis=1)
    hit = np.mean((pair > np.sum(i * k, axis=1)) & (pair > np.sum(j * k, axis=1)))
    assert 0.55 < hit < 0.75


def test_toybox_judged_by_an_embedding_is_matched_by_name(tmp_path: Path) -> None:
    """Concepts in another order and strangers among them; objects of a kind share a dimension."""
    names = [*toybox.names()[::-1], "aardvark"]
    kinds = sorted({toybox.category(name) for name in names[:-1]})
    vectors = [[9.0 * (kind == toybox.category(name)) for kind in kinds] for name in names[:-1]]
    np.save(tmp_path / "vice_embedding.npy", np.array([*vectors, [0.0] * len(kinds)]))
    (tmp_path / "unique_id.txt").write_text("\n".join(names), encoding="utf-8")
    data = load_dataset("toybox", human_model=tmp_path / "vice_embedding.npy", n_triplets=2000)
    assert data.triplets is not None and data.triplets.judgements == "human model"
    assert data.judgements == "human model" and "simulated choices" not in repr(data)
    assert (
        data.default_embedding == "vice_embedding"
        and data.describe_embedding(data.default_embedding) == "vice_embedding (human model)"
    )
    assert data.describe_embedding("norms") == "norms (simulated)"
    assert data.embeddings["vice_embedding"].shape == (56, 14)
    same = [
        (toybox.category(a[:-4]), toybox.category(b[:-4]), toybox.category(c[:-4])) for a, b, c in kept(data)
    ]
    decided = [(a, b, c) for a, b, c in same if len({a, b, c}) == 2]
    assert len(decided) > 100 and np.mean([a == b for a, b, _ in decided]) > 0.99
    (tmp_path / "unique_id.txt").write_text("\n".join(["apples", *names[1:]]), encoding="utf-8")
    with pytest.raises(UnknownNameError, match="concept of 'vice_embedding.npy'"):
        load_dataset("toybox", human_model=tmp_path / "vice_embedding.npy")
    (tmp_path / "unique_id.txt").write_text("\n".join(names[1:]), encoding="utf-8")
    with pytest.raises(MismatchError, match="57 rows, but there are 56 concepts"):
        load_dataset("toybox", human_model=tmp_path / "vice_embedding.npy")


def test_toybox_judged_by_spose(things_root: Path) -> None:
    data = load_dataset("toybox", human_model=things_root / "spose_embedding_66d_sorted.txt")
    assert data.triplets is not None and data.repeated is not None
    assert data.triplets.judgements == "human model" and 0.6 < data.repeated.share.mean() < 0.8
    assert data.embeddings["spose_embedding_66d_sorted"].loc["banana.png", "food-related"] > 1


def test_toybox_with_choices_of_people(tmp_path: Path) -> None:
    path = tmp_path / "class.csv"
    path.write_text("apple,banana,car\nice_cream,apple,airplane\n", encoding="utf-8")
    data = load_dataset("toybox", triplets=path)
    assert kept(data) == [
        ["apple.png", "banana.png", "car.png"],
        ["ice_cream.png", "apple.png", "airplane.png"],
    ]
    assert data.triplets is not None and data.judgements == "human"
    assert (
        data.describe_embedding(data.default_embedding) == "norms (simulated)"
    )  # who chose does not change who wrote them
    with pytest.raises(UnknownNameError, match="Did you mean 'n_triplets'"):
        load_dataset("toybox", ntriplets=3)
    with pytest.raises(UnknownNameError, match=r"option of the data set 'toybox' 'root'.*leave it out"):
        load_dataset("toybox", root=tmp_path)


# --- folders -----------------------------------------------------------------------------------------------------


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
    with pytest.raises(UnknownNameError, match="'apple'"):  # two pictures: which one is meant?
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
        "import sys; from ldm_kit.datasets import load_dataset; load_dataset('toybox', n_triplets=50);"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_table_of_categories_can_be_summed() -> None:
    data = load_dataset("toybox", n_triplets=40)
    assert data.categories is not None and isinstance(data.categories, pd.DataFrame)
    part = data.subset(["apple", "banana", "car"])
    assert part.categories is not None and part.categories.sum().max() == 2 and data.repeated is None


def test_a_folder_of_numbered_images(tmp_path: Path) -> None:
    """In text order 10 comes before 2: a number is no position unless it is said to be one."""
    for number in range(1, 13):
        save_image(tmp_path / f"{number}.png")
    (tmp_path / "triplets.csv").write_text("1,2,10\n", encoding="utf-8")
    with pytest.raises(BadInputError, match="two ways"):
        load_dataset("folder", root=tmp_path)
    for items, expected in [
        ("names", ["1.png", "2.png", "10.png"]),
        ("indices", ["10.png", "11.png", "8.png"]),
    ]:
        assert kept(load_dataset("folder", root=tmp_path, items=items)) == [expected]
