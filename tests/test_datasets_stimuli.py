"""Stimuli are known by name; subsets keep what belongs to them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ldm_kit.datasets import Stimuli, Stimulus, load_dataset
from ldm_kit.datasets.stimuli import label_of
from ldm_kit.errors import BadInputError, UnknownNameError, UnreadableImageError

FOUR = Stimuli(
    ("apple.jpg", "bat1/a.jpg", "bat1/b.jpg", "ice_cream.png"),
    concepts=("apple", "bat1", "bat1", "ice_cream"),
    captions=("a red one", None, None, "sweet"),
    dataset="demo",
)


def test_labels_are_words() -> None:
    concepts = ["ice_cream", "bat1", "t-shirt", "baton4", "8_ball", "mp3"]
    assert [label_of(name) for name in concepts] == ["ice cream", "bat", "t shirt", "baton", "8 ball", "mp"]


def test_sequence() -> None:
    assert len(FOUR) == 4 and list(FOUR) == list(FOUR.names) and "apple.jpg" in FOUR
    assert FOUR[-1] == FOUR[np.int64(3)] == Stimulus("ice_cream.png", "ice_cream", "ice cream", "sweet")
    assert FOUR[1:3].names == FOUR[[1, 2]].names == FOUR[np.array([False, True, True, False])].names
    assert FOUR[[3, 0]].captions == ("sweet", "a red one") and FOUR[:0].names == () and len(FOUR[[]]) == 0
    assert FOUR[[-1]].names == ("ice_cream.png",) and FOUR[1:].dataset == "demo"
    assert "4 images of demo" in repr(FOUR)


def test_subset_of_nothing_keeps_no_defaults() -> None:
    assert FOUR[:0].concepts == () and FOUR[:0].select([]).labels == ()


def test_select_by_name_and_concept() -> None:
    assert FOUR.select(["bat1", "apple.jpg", "apple"]).names == ("bat1/a.jpg", "bat1/b.jpg", "apple.jpg")
    assert FOUR.select("ice_cream").names == ("ice_cream.png",)
    assert FOUR.index("bat1/b.jpg") == 2 and FOUR.index("apple") == 0
    with pytest.raises(BadInputError, match="2 images"):
        FOUR.index("bat1")
    with pytest.raises(UnknownNameError, match=r"'ice_craem'. Did you mean 'ice_cream'"):
        FOUR.select(["ice_craem"])
    with pytest.raises(UnknownNameError, match=r"Did you mean 'apple.jpg'"):
        FOUR.index("apple.png")


@pytest.mark.parametrize(
    "which", [[4], [-5], [0.5], ["apple.jpg"], "apple.jpg", np.array([True, False]), [[0]]]
)
def test_bad_positions(which: object) -> None:
    with pytest.raises(BadInputError, match=r"select|one True or False"):
        FOUR[which]  # type: ignore[index]


def test_refuses_what_does_not_fit() -> None:
    with pytest.raises(BadInputError, match=r"1 names come more than once.*'a'"):
        Stimuli(("a", "b", "a"))
    with pytest.raises(BadInputError, match="1 concepts for 2 stimuli"):
        Stimuli(("a", "b"), concepts=("x",))


def test_open_and_fingerprint_by_root(tmp_path: Path) -> None:
    Image.new("L", (5, 3), 7).save(tmp_path / "apple.png")
    (tmp_path / "pear.png").write_bytes(b"")
    stimuli = Stimuli(("apple.png", "pear.png"), root=str(tmp_path))
    assert stimuli.open("apple").size == stimuli.open(0).size == (5, 3)
    before = stimuli.fingerprint("apple.png")
    assert stimuli[:1].fingerprint(0) == before
    Image.new("L", (5, 3), 8).save(tmp_path / "apple.png")
    assert stimuli.fingerprint("apple.png") != before
    with pytest.raises(UnreadableImageError, match=r"pear\.png"):
        stimuli.open("pear.png")


def test_drawn_pictures() -> None:
    stimuli = Stimuli(
        ("a", "b"), opener=lambda name: Image.new("RGB", (ord(name), 1)), fingerprinter=lambda name: name * 64
    )
    assert stimuli.open("b").width == 98 and stimuli[1:].open(0).width == 98
    assert stimuli.fingerprint("a") == "a" * 64


@pytest.mark.skipif(sys.platform in ("darwin", "win32"), reason="the file system knows no such names")
def test_a_file_name_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png")).write_bytes((tmp_path / "a.png").read_bytes())
    with pytest.raises(BadInputError, match=r"'caf\\udce9\.png' is not UTF-8.*Rename"):
        load_dataset("folder", tmp_path)
    with pytest.raises(BadInputError, match="line end"):
        Stimuli(("a\rb.png",))


def test_a_number_is_no_name() -> None:
    with pytest.raises(UnknownNameError, match="Unknown stimulus 3. Did you mean '3'"):
        Stimuli(("1.png", "3.png")).index(3)  # type: ignore[arg-type] - what papermill makes of `-p stimulus 3`
