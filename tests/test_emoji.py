"""The emoji as they are shipped: 335 concepts, each with words and with drawings in four styles, and whose these are."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ldm_kit.datasets import emoji
from ldm_kit.errors import UnknownNameError
from ldm_kit.training import training_vocabulary
from ldm_kit.training.data import training_captions

ROOT = Path(__file__).parents[1]
README = (emoji.FOLDER / "README.md").read_text(encoding="utf-8")


def words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


def names_it(text: str, label: str) -> bool:
    """Whether the label's words stand in the text, one after the other; the last may be in the plural."""
    found, wanted = words(text), words(label)
    last = {wanted[-1], wanted[-1] + "s", wanted[-1] + "es"}
    return any(
        found[i : i + len(wanted) - 1] == wanted[:-1] and found[i + len(wanted) - 1] in last
        for i in range(len(found) - len(wanted) + 1)
    )


# --- words -------------------------------------------------------------------------------------------------------


def test_concepts_are_in_order_and_each_has_its_words() -> None:
    names = emoji.names()
    assert names == sorted(set(names)) and len(names) == 335
    assert len({emoji.label(name) for name in names}) == 335, "two concepts with one label have one prompt"
    for name in names:
        # THINGS spells a concept with underscores, and numbers the meanings of a word
        assert emoji.label(name) == re.sub(r"\d$", "", name).replace("_", " "), name
        assert emoji.prompt(name) == f"a photo of a {emoji.label(name)}"
    assert (emoji.label("ice_cream"), emoji.label("bat1")) == ("ice cream", "bat")


def test_categories_are_some_and_none_is_tiny() -> None:
    sizes = Counter(map(emoji.category, emoji.names()))
    assert len(sizes) == 23 and min(sizes.values()) >= 8 and max(sizes.values()) <= 24
    assert all(re.fullmatch(r"[a-z ]+", kind) for kind in sizes)
    assert (emoji.category("apple"), emoji.category("bat1")) == ("fruit", emoji.category("hamster"))


def test_definitions_do_not_name_what_they_define() -> None:
    definitions = {name: emoji.definition(name) for name in emoji.names()}
    assert len(set(definitions.values())) == 335
    for name, text in definitions.items():
        assert not names_it(text, emoji.label(name)), f"{name}: {text}"
        assert 4 <= len(words(text)) <= 25 and not text.endswith("."), f"{name}: {text}"


def test_three_captions_name_the_concept_and_three_do_not() -> None:
    for name in emoji.names():
        captions = emoji.captions(name)
        assert len(captions) == len(set(captions)) == 6, name
        told = [names_it(text, emoji.label(name)) for text in captions]
        assert told == [True] * 3 + [False] * 3, f"{name}: {captions}"
        # what is cut off at 32 tokens would be written in vain
        assert max(len(words(text)) for text in captions) <= 28, name
    every = [text for name in emoji.names() for text in emoji.captions(name)]
    assert len(set(every)) == len(every) == 2010


def test_each_word_of_labels_stands_in_the_captions_that_are_trained_with() -> None:
    told = [text for name in emoji.names() for text in training_captions(name)]
    vocabulary = training_vocabulary(told)
    assert 1000 < len(vocabulary) < 2500 and vocabulary == sorted(set(vocabulary))
    for name in emoji.names():
        assert set(re.findall(r"[a-z]+", emoji.label(name))) <= set(vocabulary), name
    assert {"photo", "drawing", "fruit", "wooden", "tail"} <= set(vocabulary)


def test_the_tables_list_the_same_concepts() -> None:
    for table in ("concepts", "norms", "captions"):
        listed = pd.read_csv(emoji.FOLDER / f"{table}.csv")["concept"]
        assert list(dict.fromkeys(listed)) == emoji.names(), table


def test_concepts_labels_and_icons_are_as_decided(emoji_root: Path) -> None:
    table = emoji_root / "emoji_of_things.tsv"
    mapping = pd.read_csv(table, sep="\t", index_col="uniqueID", keep_default_na=False)
    listed = pd.read_csv(emoji.FOLDER / "concepts.csv", index_col="concept")
    assert set(listed.index) <= set(mapping.index), "a concept that nobody looked at"
    mapping = mapping.loc[listed.index]
    pd.testing.assert_series_equal(listed["icon"], mapping["noto"], check_names=False)
    pd.testing.assert_series_equal(listed["label"], mapping["word"], check_names=False)
    for style in emoji.TRAINING_STYLES:  # one icon's name is drawn in all of them
        pd.testing.assert_series_equal(mapping[style], mapping["noto"], check_names=False)


def test_concepts_are_those_of_things(things_root: Path) -> None:
    known = (things_root / "unique_id.txt").read_text(encoding="utf-8").split("\n")
    assert set(emoji.names()) <= set(known)


# --- drawings ----------------------------------------------------------------------------------------------------


def test_the_drawings_are_those_listed_and_no_others() -> None:
    folder = emoji.FOLDER / "images"
    expected = {f"{style}/{name}.png" for style in emoji.STYLES for name in emoji.names()}
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert found == expected and len(found) == 4 * 335


@pytest.mark.slow
def test_every_drawing_is_128_pixels_on_nothing_and_like_no_other() -> None:
    seen: dict[bytes, str] = {}
    alike = []
    for style in emoji.STYLES:
        for name in emoji.names():
            with Image.open(emoji.FOLDER / "images" / style / f"{name}.png") as image:
                assert (image.format, image.mode, image.size) == ("PNG", "RGBA", (128, 128)), (style, name)
                pixels = np.asarray(image)
            alpha = pixels[..., 3]
            assert alpha.min() == 0 and alpha.max() > 200 and (alpha > 127).mean() > 0.05, (style, name)
            first = seen.setdefault(pixels.tobytes(), f"{style}/{name}")
            if first != f"{style}/{name}":
                alike.append({first, f"{style}/{name}"})
    # Microsoft drew one tongue for both of its sets; README.md says so
    assert alike == [{"fluent_flat/tongue", "fluent/tongue"}] and "`tongue`" in README
    assert np.array_equal(np.asarray(emoji.picture("zebra", "twemoji")), pixels)


@pytest.mark.slow
def test_the_evaluation_style_draws_every_concept_in_its_own_way() -> None:
    """Not merely other bytes: an eighth of the way from black to white apart in a twentieth of the pixels."""
    grey = Image.new("RGBA", (128, 128), "#808080")
    for name in emoji.names():
        drawings = [Image.alpha_composite(grey, emoji.picture(name, style)) for style in emoji.STYLES]
        own, *others = (np.asarray(drawing.convert("RGB")).astype(int) for drawing in drawings)
        for style, other in zip(emoji.TRAINING_STYLES, others, strict=True):
            differs = (np.abs(own - other).max(axis=2) > 32).mean()
            assert differs > 0.05, f"{name}: {style} is the evaluation image but for {differs:.0%}"


def test_unknown_concepts_and_styles_say_what_there_is() -> None:
    with pytest.raises(UnknownNameError, match="'aple'.*Did you mean 'apple'"):
        emoji.picture("aple")
    with pytest.raises(UnknownNameError, match="'aple'.*Did you mean 'apple'"):
        emoji.captions("aple")
    with pytest.raises(UnknownNameError, match="'fluent_falt'.*Did you mean 'fluent_flat'"):
        emoji.picture("apple", "fluent_falt")


def test_randomness_is_determined_by_the_request() -> None:
    # fixed for ever: a change here changes every training set
    assert emoji.generator(7, "teapot", 3).integers(10**9, size=2).tolist() == [77343228, 53277836]
    assert emoji.generator(1, 23).random() != emoji.generator(12, 3).random()


@pytest.mark.slow
def test_another_process_with_another_hash_seed_has_the_same_randomness() -> None:
    code = (
        "from ldm_kit.datasets import emoji; print(emoji.generator('ant', 2).random(), emoji.captions('ant'))"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(runs) == 1


# --- whose they are ----------------------------------------------------------------------------------------------

LICENCES = {"noto": "Apache-2.0", "fluent_flat": "MIT", "fluent": "MIT", "twemoji": "CC BY 4.0"}


@pytest.mark.parametrize("style", emoji.STYLES)
def test_each_styles_licence_is_told_beside_it_and_in_the_notice(style: str) -> None:
    (row,) = (line for line in README.splitlines() if line.startswith(f"| `{style}` |"))
    _, _, version, authors, licence, _, _ = (cell.strip() for cell in row.split("|"))
    assert LICENCES[style] in licence
    package, number = re.fullmatch(r"`(@iconify-json/[a-z-]+)` ([\d.]+)", version).groups()  # type: ignore[union-attr]
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    (part,) = (part for part in notice.split("\n\n") if re.search(rf"images/{style}(?![a-z_])", part))
    assert package in part and number in part and authors.split(",")[0] in part and LICENCES[style] in part


def test_the_notice_goes_with_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["license-files"] == ["LICENSE", "NOTICE"]
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    # CC BY asks for a link to the licence and a word on what was changed, MIT for its whole text
    assert "https://creativecommons.org/licenses/by/4.0/" in notice and "128" in notice
    assert 'THE SOFTWARE IS PROVIDED "AS IS"' in notice and "Copyright (c) Microsoft Corporation" in notice
