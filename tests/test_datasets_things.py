"""THINGS in its layouts, and the real data's known answers."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ldm_kit.datasets import Dataset, Stimuli, Triplets, load_dataset, read_embedding
from ldm_kit.datasets.embeddings import read_concepts
from ldm_kit.errors import BadInputError, LdmKitError, MismatchError, NonFiniteError, UnknownNameError

CONCEPTS = ["apple", "bat1", "bat2", "flip_flop", "ice_cream", "t-shirt"]
WORDS = ["apple", "bat", "bat", "flip-flop", "ice cream", "t-shirt"]


def save_image(path: Path, shade: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), (shade, shade, shade)).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A THINGS of six concepts, five of them with an image."""
    (tmp_path / "unique_id.txt").write_text("\n".join(CONCEPTS) + "\n", encoding="utf-8")
    pd.DataFrame(
        {
            "Word": WORDS,
            "uniqueID": CONCEPTS,
            "Definition (from WordNet)": [f"a {w}" for w in WORDS[:5]] + [""],
        }
    ).to_csv(tmp_path / "things_concepts.tsv", sep="\t", index=False)
    for name in CONCEPTS:
        if name != "bat2":
            save_image(tmp_path / "object_images_CC0" / f"{name}.jpg")
    (tmp_path / "triplets.txt").write_text("0 1 2\n3 4 0\n5 1 3\n", encoding="utf-8")
    np.savetxt(tmp_path / "spose_embedding_66d_sorted.txt", np.arange(12).reshape(6, 2), delimiter="\t")
    return tmp_path


def named_triplets(data: Dataset) -> list[list[str]]:
    assert data.triplets is not None
    return [[data.triplets.names[i] for i in row] for row in data.triplets]


def test_concepts_without_a_picture_go_with_their_triplets(root: Path) -> None:
    data = load_dataset("things", root=root)
    assert data.stimuli.names == ("apple.jpg", "bat1.jpg", "flip_flop.jpg", "ice_cream.jpg", "t-shirt.jpg")
    assert data.stimuli.labels == ("apple", "bat", "flip-flop", "ice cream", "t-shirt")
    assert data.stimuli.captions == ("a apple", "a bat", "a flip-flop", "a ice cream", None)
    assert named_triplets(data) == [
        ["flip_flop.jpg", "ice_cream.jpg", "apple.jpg"],
        ["t-shirt.jpg", "bat1.jpg", "flip_flop.jpg"],
    ]
    assert data.triplets is not None and data.triplets.judgements == "human"
    assert data.embeddings["SPoSE-66"].loc["t-shirt.jpg"].tolist() == [10, 11]
    assert data.describe_embedding(data.default_embedding) == "SPoSE-66 (human model)"  # though people chose
    text = repr(data)
    assert "5 of 6 concepts have an image" in text and "2 of 3 triplets" in text
    assert data.stimuli.open("ice_cream").size == (4, 4)


@pytest.mark.parametrize(
    ("layout", "pattern"),
    [
        ("object_images", "{0}/{0}_01b.jpg"),
        ("images", "{0}.jpg"),
        ("images", "{0}.png"),
        (".", "{0}.jpg"),
        (".", "{0}/{0}_01b.jpg"),
    ],
)
def test_layouts_give_the_same_data(root: Path, layout: str, pattern: str) -> None:
    before = load_dataset("things", root=root)
    shutil.rmtree(root / "object_images_CC0")
    for name in CONCEPTS:
        if name != "bat2":
            save_image(root / layout / pattern.format(name))
    data = load_dataset("things", root=root)
    assert data.stimuli.names == tuple(pattern.format(c) for c in data.stimuli.concepts)
    assert data.stimuli.concepts == before.stimuli.concepts
    concept = dict(zip(data.stimuli.names, data.stimuli.concepts, strict=True))
    assert [[concept[n] for n in row] for row in named_triplets(data)] == [
        [n[:-4] for n in row] for row in named_triplets(before)
    ]
    assert data.stimuli.open(0).size == (4, 4) and "another photograph" not in repr(data)


def test_judged_photographs_go_first_and_another_folder_can_be_named(root: Path) -> None:
    save_image(root / "object_images" / "apple" / "apple_01b.jpg")
    save_image(root / "object_images" / "apple" / "apple_02s.jpg")
    assert load_dataset("things", root=root).stimuli.names == ("apple/apple_01b.jpg",)
    assert len(load_dataset("things", root=root, images="object_images_CC0").stimuli) == 5
    with pytest.raises(UnknownNameError, match="object_images_CC0"):
        load_dataset("things", root=root, images="object_images_cc0")


def test_released_triplets_captions_and_vectors_by_name(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    released = "image1\timage2\timage3\tchoice\tsubject_id\n" + "4\t2\t6\t1\t9\n" * 12 + "4\t2\t6\t2\t9\n" * 3
    (root / "triplets_large_final_correctednc_correctedorder.csv").write_text(released, encoding="utf-8")
    (root / "words.json").write_text('{"apple": "red", "bat1.jpg": "flies"}', encoding="utf-8")
    np.save(root / "clip.npy", np.eye(6))
    monkeypatch.setenv("LDM_KIT_THINGS", str(root))
    data = load_dataset("things", captions="words.json", embeddings={"CLIP": "clip.npy"})
    assert (
        named_triplets(data)[0] == ["bat1.jpg", "t-shirt.jpg", "flip_flop.jpg"]
        and len(data.triplets or []) == 15
    )
    assert data.triplets is not None and data.triplets.subjects is not None
    assert data.repeated is not None
    assert data.repeated.values.tolist() == [["bat1.jpg", "flip_flop.jpg", "t-shirt.jpg", 15, 0.8]]
    assert data.stimuli.captions == ("red", "flies", None, None, None)
    assert data.embeddings["CLIP"].loc["t-shirt.jpg"].tolist() == [0, 0, 0, 0, 0, 1]
    assert len(named_triplets(load_dataset("things", triplets="triplets.txt"))) == 2
    for name in ("triplets.txt", "triplets_large_final_correctednc_correctedorder.csv"):
        (root / name).unlink()
    assert "no file of triplets" in repr(load_dataset("things"))


def test_subset_is_consistent(root: Path) -> None:
    data = load_dataset("things", root=root)
    part = data.subset(["t-shirt", "flip_flop.jpg", "bat1"])
    assert part.stimuli.names == ("t-shirt.jpg", "flip_flop.jpg", "bat1.jpg")
    assert named_triplets(part) == [["t-shirt.jpg", "bat1.jpg", "flip_flop.jpg"]]
    assert part.embeddings["SPoSE-66"].index.tolist() == list(part.stimuli.names)
    assert "3 of 5" in part.notes[-1]
    with pytest.raises(UnknownNameError, match="Did you mean 't-shirt'"):
        data.subset(["tshirt"])


def test_a_part_about_strangers_is_refused() -> None:
    stimuli = Stimuli(("a", "b"))
    frame = pd.DataFrame({"x": [1.0]}, index=["c"])
    with pytest.raises(MismatchError, match="'norms'"):
        Dataset("demo", stimuli, embeddings={"norms": frame})
    with pytest.raises(MismatchError, match="categories"):
        Dataset("demo", stimuli, categories=frame)
    with pytest.raises(MismatchError, match="among"):
        Dataset("demo", stimuli, Triplets(np.array([[0, 1, 2]]), ("a", "b", "c")))


def test_what_is_wrong_with_a_folder_is_said(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LDM_KIT_THINGS", raising=False)
    with pytest.raises(BadInputError, match=r"root=.*LDM_KIT_THINGS.*fetch_things"):
        load_dataset("things")
    with pytest.raises(BadInputError, match="no folder"):
        load_dataset("things", root=root / "absent")
    with pytest.raises(BadInputError, match=r"nor 'unique_id\.txt'"):
        load_dataset("things", root=root / "object_images_CC0")
    shutil.rmtree(root / "object_images_CC0")
    with pytest.raises(BadInputError, match=r"no image.*6 concepts.*NAME_01b"):
        load_dataset("things", root=root)


def test_lists_of_concepts_must_agree(root: Path) -> None:
    (root / "unique_id.txt").write_text("\n".join(CONCEPTS[::-1]) + "\n", encoding="utf-8")
    with pytest.raises(MismatchError, match="differ in row 0"):
        load_dataset("things", root=root)
    (root / "things_concepts.tsv").unlink()
    assert read_concepts(root).label.tolist() == ["t shirt", "ice cream", "flip flop", "bat", "bat", "apple"]
    (root / "unique_id.txt").write_text("apple\nbat1\napple\n", encoding="utf-8")
    with pytest.raises(BadInputError, match="'apple' comes twice"):
        read_concepts(root)


def test_the_table_of_2020_names_concepts_in_its_sixth_column(root: Path) -> None:
    (root / "things_concepts.tsv").unlink()
    columns = {str(column): [""] * 6 for column in range(5)} | {"uniqueID.1": CONCEPTS}
    pd.DataFrame(columns).to_csv(root / "items1854names.tsv", sep="\t", index=False)
    assert load_dataset("things", root=root).stimuli.labels == (
        "apple",
        "bat",
        "flip flop",
        "ice cream",
        "t shirt",
    )


def test_embeddings_that_do_not_fit(root: Path) -> None:
    np.save(root / "few.npy", np.ones((5, 2)))
    np.save(root / "flat.npy", np.ones(6))
    np.save(root / "turned.npy", np.ones((2, 6)))
    np.save(root / "hole.npy", np.full((6, 2), np.nan))
    np.save(root / "objects.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    (root / "words.txt").write_text("a b\nc d\n", encoding="utf-8")
    for name, error, message in [
        ("few.npy", MismatchError, "5 rows, but there are 6"),
        ("turned.npy", MismatchError, "transposed"),
        ("flat.npy", BadInputError, "shape"),
        ("hole.npy", NonFiniteError, "row 0 \\(apple\\)"),
        ("objects.npy", BadInputError, "cannot be read"),
        ("words.txt", BadInputError, "cannot be read"),
        ("absent.txt", BadInputError, "There is no file"),
    ]:
        with pytest.raises(error, match=message) as caught:
            read_embedding(root / name)
        assert name in str(caught.value)


def test_unknown_datasets_and_options(root: Path) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'things'"):
        load_dataset("thing")
    with pytest.raises(UnknownNameError, match="Did you mean 'images'"):
        load_dataset("things", root=root, image="images")
    with pytest.raises(UnknownNameError, match=r"option of the data set 'things' 'judgements'.*leave it out"):
        load_dataset("things", root=root, judgements="human")


# --- the real data -----------------------------------------------------------------------------------------------


@cache
def loaded(root: Path) -> Dataset:
    return load_dataset("things", root=root, embeddings={"CLIP": "clip_vit_b32_things.npy"})


@pytest.fixture
def things(things_root: Path) -> Dataset:
    return loaded(things_root)


def score(vectors: pd.DataFrame, data: Dataset) -> float:
    """Plain odd-one-out accuracy by dot products; ties do not occur here."""
    assert data.triplets is not None
    x = vectors.loc[list(data.triplets.names)].to_numpy()
    i, j, k = (x[column] for column in data.triplets.indices.T)
    pair = np.sum(i * j, axis=1)
    return float(np.mean((pair > np.sum(i * k, axis=1)) & (pair > np.sum(j * k, axis=1))))


def test_real_counts(things: Dataset, things_root: Path) -> None:
    concepts = read_concepts(things_root)
    assert len(concepts) == 1854 and concepts.index[0] == "aardvark" and concepts.index[-1] == "zucchini"
    assert len(things.stimuli) == 880 and things.triplets is not None and len(things.triplets) == 5422
    assert "880 of 1,854 concepts" in repr(things) and "5,422 of 50,000 triplets" in repr(things)
    assert concepts.label[["t-shirt", "ice_cream", "bat1"]].tolist() == ["t-shirt", "ice cream", "bat"]
    assert all(things.stimuli.captions) and things.stimuli[things.stimuli.index("bat1")].label == "bat"
    table = pd.read_csv(things_root / "images.tsv", sep="\t")
    assert table["uniqueID"].tolist() == list(things.stimuli.concepts)


def test_real_rows_are_the_concepts(things: Dataset, things_root: Path) -> None:
    """The animal dimension of SPoSE is high for an aardvark and low for an abacus; rows moved would show."""
    spose = read_embedding(things_root / "spose_embedding_66d_sorted.txt")
    assert spose.loc["aardvark", "animal-related"] > 2 > 0.3 > spose.loc["abacus", "animal-related"]
    assert (
        spose.columns[0] == "metallic/artificial"
        and spose["food-related"].nlargest(20).index.isin(things_categories_of(things_root, "food")).mean()
        > 0.9
    )
    for name, frame in things.embeddings.items():
        assert frame.index.tolist() == list(things.stimuli.names), name
    shapes = {name: frame.shape[1] for name, frame in things.embeddings.items()}
    assert shapes == {"SPoSE-66": 66, "SPoSE-49": 49, "VICE": 42, "CLIP": 512}
    assert np.array_equal(
        things.embeddings["SPoSE-66"].to_numpy(), spose.loc[list(things.stimuli.concepts)].to_numpy()
    )


def things_categories_of(root: Path, category: str) -> set[str]:
    table = pd.read_csv(root / "categories53_things_order.tsv", sep="\t")
    return set(table["uniqueID"][table[category] == 1])


def test_real_scores(things: Dataset) -> None:
    """0.514 for CLIP is measured over these 5,422 triplets, see the README of the data."""
    assert score(things.embeddings["CLIP"], things) == pytest.approx(0.514, abs=0.001)
    centred = things.embeddings["CLIP"] - things.embeddings["CLIP"].mean()
    norm = np.linalg.norm(centred.to_numpy(), axis=1, keepdims=True)
    assert score(centred / norm, things) == pytest.approx(0.529, abs=0.006)
    assert 0.62 < score(things.embeddings["SPoSE-66"], things) < 0.68
    shuffled = things.embeddings["SPoSE-66"].sample(frac=1, random_state=0)
    shuffled.index = things.embeddings["SPoSE-66"].index
    assert 0.31 < score(shuffled, things) < 0.36


def test_real_categories_rdm_and_repeats(things: Dataset, things_root: Path) -> None:
    assert things.categories is not None and things.rdm is not None and things.repeated is not None
    assert things.categories.shape == (880, 27) and set(things.categories.dtypes) == {np.dtype(bool)}
    assert things.categories.loc["apple.jpg"][lambda row: row].index.tolist() == ["food", "fruit"]
    assert (things.categories.columns[0], things.categories.columns[26]) == ("animal", "weapon")
    assert things.rdm.index.equals(things.rdm.columns) and np.allclose(things.rdm, things.rdm.T)
    assert len(things.rdm) == len(
        set(pd.read_csv(things_root / "names48.tsv", sep="\t").uniqueID) & set(things.stimuli.concepts)
    )
    assert things.repeated.n.min() >= 10 and things.repeated.share.between(1 / 3, 1).all()
    assert things.repeated[["i", "j", "k"]].isin(things.stimuli.names).all(axis=None)


def test_real_pictures_open(things: Dataset) -> None:
    for row in range(0, 880, 40):
        image = things.stimuli.open(row)
        assert image.mode == "RGB" and min(image.size) >= 90
    assert things.stimuli.fingerprint("acorn") != things.stimuli.fingerprint("airbag")


def test_real_missing_pieces(things_root: Path, tmp_path: Path) -> None:
    for name in ("unique_id.txt", "human_triplets_50k.txt"):
        shutil.copy(things_root / name, tmp_path)
    save_image(tmp_path / "images" / "aardvark.png")
    data = load_dataset("things", root=tmp_path)
    assert (
        len(data) == 1 and len(data.triplets or []) == 0 and not data.embeddings and data.categories is None
    )
    with pytest.raises(LdmKitError):
        load_dataset("things", root=tmp_path, triplets="absent.txt")


def test_a_table_that_was_sorted_anew_is_noticed(things_root: Path, tmp_path: Path) -> None:
    """Row 246 of THINGS is camera_lens; Python and spreadsheets put camera1 there."""
    table = pd.read_csv(things_root / "things_concepts.tsv", sep="\t", dtype=str, keep_default_na=False)
    file = tmp_path / "things_concepts.tsv"
    table.to_csv(file, sep="\t", index=False)
    assert read_concepts(tmp_path).index[246] == "camera_lens"
    table.sort_values("uniqueID").to_csv(file, sep="\t", index=False)
    with pytest.raises(MismatchError, match=r"row 246 is 'camera1', not 'camera_lens'.*unique_id\.txt"):
        read_concepts(tmp_path)
    table.head(700).to_csv(file, sep="\t", index=False)
    with pytest.raises(
        MismatchError, match=r"700 concepts, which are not the 1,854 of THINGS.*unique_id\.txt"
    ):
        read_concepts(tmp_path)
    (tmp_path / "unique_id.txt").write_text("\n".join(table["uniqueID"].head(700)) + "\n", encoding="utf-8")
    assert len(read_concepts(tmp_path)) == 700


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("things_concepts.tsv", "", "is empty"),
        ("things_concepts.tsv", "Word\tuniqueID\n", "no row below it"),
        ("unique_id.txt", "\n", "is empty"),
        ("triplets.txt", "", "is empty"),
        ("triplets.txt", "image1,image2,image3,choice\n", "no row below it"),
        ("category53_wide-format.tsv", "", "is empty"),
        ("category53_wide-format.tsv", "uniqueID\tanimal\n", "no row below it"),
        (
            "category53_wide-format.tsv",
            "Word\tanimal\napple\t0\n",
            "Unknown column of category53_wide-format.tsv 'uniqueID'",
        ),
        ("category53_wide-format.tsv", "uniqueID\tanimal\nApple\t0\n", "0 of the 5 concepts"),
        ("noise_ceiling_triplets.csv", "id_lo,id_mid,id_hi,n_per_triplet,prop_max\n", "no row below it"),
        ("noise_ceiling_triplets.csv", "id_lo,id_mid,id_hi,n_per_triplet,prop_max\n0,1,,9,0.5\n", "whole"),
        ("spose_embedding_66d_sorted.txt", "", "is empty"),
        ("spose_embedding_66d_sorted.txt", "a b\n", "cannot be read"),
        ("captions.csv", "name,caption\n", "no caption"),
        ("captions.csv", "", "is empty"),
        ("captions.json", "{}", "no caption"),
        ("names48.tsv", "uniqueID\napple\nbat1\n", "no matrix of the 2 objects"),
        ("things_concepts.tsv", "Word\tuniqueID\nZo\xeb\tapple\n", "not UTF-8"),
    ],
)
def test_tables_that_hold_nothing_are_named(root: Path, name: str, text: str, message: str) -> None:
    (root / name).write_bytes(text.encode("latin1"))
    np.save(root / "rdm48_human.npy", np.zeros((3, 3)))
    if name != "names48.tsv":
        (root / "rdm48_human.npy").unlink()
    captions = name if name.startswith("captions") else None
    with pytest.raises((BadInputError, UnknownNameError), match=message) as caught:
        load_dataset("things", root=root, captions=captions)
    assert name in str(caught.value) or "rdm48_human.npy" in str(caught.value)
