"""What a kill, a full disk, a flipped bit or a lost file does to a store: nothing, or an error that names the file."""

from __future__ import annotations

import builtins
import errno
import io
import itertools
import json
import logging
import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import zarr
from filelock import FileLock

import ldm_kit as lk
from ldm_kit.errors import BadInputError, MismatchError
from tests.children import Sums, digest, drawn_stimuli, extract_in_child, moves_counted

CELL = ("a", 0.5, "none")


def ask(out, n=40, **options):
    options = {"blocks": ["a", "b"], "noise_levels": [0.5], **options}
    return lk.extract(Sums.opened(), drawn_stimuli(n), out=out, progress=False, **options)


# Kills and full disks at every file move -----------------------------------------------------------------

# One conditioning: each group then holds one array, and nothing that is made later mends a group that was lost.
CREATING = {"n": 33, "blocks": ["a", "b"]}
GROWING = {"n": 40, "blocks": ["a", "c"]}


@pytest.fixture(scope="module", params=[CREATING, GROWING], ids=["creating", "growing"])
def write(request, tmp_path_factory):
    """What is asked for, in how many file moves it is written, and copies of the store before and after."""
    folder = tmp_path_factory.mktemp("stores")
    before, after = folder / "before", folder / "after"
    if request.param is GROWING:
        ask(before, n=20)
    with moves_counted() as moves:
        ask(begun(before, after), **request.param)
    return request.param, moves.count, before, after


def begun(before, out):
    if before.exists():
        shutil.copytree(before, out)
    return out


def assert_resumes(out, asked, after):
    assert len(ask(out, **asked).cells()) == 2
    assert digest(out) == digest(after)


@pytest.mark.slow
def test_killed_at_every_file_move_it_resumes(write, tmp_path):
    asked, moves, before, after = write
    options = {"blocks": asked["blocks"], "noise_levels": [0.5]}
    for at in range(1, moves + 1):
        out = begun(before, tmp_path / str(at))
        assert extract_in_child(None, drawn_stimuli(asked["n"]), out, kill_at_move=at, **options).was_killed()
        assert_resumes(out, asked, after)


@pytest.mark.slow
def test_with_the_disk_full_at_every_file_move_it_resumes(write, tmp_path):
    asked, moves, before, after = write
    for at in range(1, moves + 1):
        out = begun(before, tmp_path / str(at))
        with moves_counted(at, errno.ENOSPC), pytest.raises(BadInputError, match="No space left on device"):
            ask(out, **asked)
        assert_resumes(out, asked, after)


# Damaged files -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A store of two blocks that nothing happened to."""
    out = tmp_path_factory.mktemp("sound") / "features"
    ask(out)
    return out


@pytest.fixture
def out(sound, tmp_path):
    return Path(shutil.copytree(sound, tmp_path / "features"))


def flipped(old: bytes) -> bytes:
    new = bytearray(old)
    new[len(new) // 2] ^= 1
    return bytes(new)


def truncated(old: bytes) -> bytes:
    return old[: len(old) // 2]


def emptied(old: bytes) -> bytes:
    return b""


@pytest.mark.parametrize("harm", [flipped, truncated, emptied])
def test_a_damaged_chunk_is_named_and_computed_anew_when_asked(sound, out, harm):
    file = out / "a" / "0.5" / "none" / "c" / "1" / "0"
    file.write_bytes(harm(file.read_bytes()))
    store = lk.FeatureStore.open(out)
    with pytest.raises(BadInputError, match=r"none/c/1/0' is damaged: .*checksum.*`repair=True`"):
        store[CELL]
    bad = store.verify()
    assert bad[["block", "noise_level", "conditioning", "file"]].values.tolist() == [[*CELL, str(file)]]
    assert store.select(blocks="b").verify().empty
    with pytest.raises(BadInputError, match="none/c/1/0' is damaged"):
        ask(out)
    assert file.read_bytes() != (sound / file.relative_to(out)).read_bytes(), "nothing is mended unasked"
    ask(out, repair=True)
    assert digest(out) == digest(sound)
    assert lk.FeatureStore.open(out).verify().empty


def test_each_damaged_chunk_is_listed(out):
    files = [out / block / "0.5" / "none" / "c" / chunk / "0" for block in "ab" for chunk in "01"]
    for file in files[1:]:
        file.write_bytes(flipped(file.read_bytes()))
    assert lk.FeatureStore.open(out).verify()["file"].tolist() == [str(file) for file in files[1:]]


def test_what_the_system_cannot_read_is_named_and_never_deleted(out, monkeypatch):
    file = out / "a" / "0.5" / "none" / "c" / "1" / "0"
    read_bytes = Path.read_bytes

    def failing(path):
        if path == file:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", failing)
    with pytest.raises(BadInputError, match="Cannot read the store's file .*none/c/1/0': Input/output error"):
        ask(out, repair=True)
    assert len(lk.FeatureStore.open(out).verify()) == 1
    assert file.exists()


def test_a_missing_chunk_is_not_computed_yet(sound, out):
    (out / "a" / "0.5" / "none" / "c" / "1" / "0").unlink()
    store = lk.FeatureStore.open(out)
    assert store.verify().empty
    with pytest.raises(MismatchError, match="8 of 40 stimuli have no features"):
        store[CELL]
    ask(out)
    assert digest(out) == digest(sound)


@pytest.mark.parametrize(
    ("folder", "harm"),
    [
        *itertools.product(["a", "a/0.5", "a/0.5/none"], [truncated, emptied, None]),
        ("a", lambda old: old.replace(b"node_type", b"node_typd")),
        ("a/0.5", lambda old: old.replace(b"group", b"gsoup")),
        ("a/0.5/none", lambda old: old.replace(b"crc32c", b"crc32b")),
        ("a/0.5/none", lambda old: old.replace(b"data_type", b"data_typu")),
        ("a/0.5/none", lambda old: old.replace(b"float32", b"gloat32")),
        ("a/0.5/none", lambda old: old.replace(b"utf", b"\xf5tf").replace(b"a", b"\xe1")),
    ],
)
def test_damaged_or_lost_metadata_is_named_and_made_anew_when_asked(sound, out, folder, harm, monkeypatch):
    file = out / folder / "zarr.json"
    if harm is None:
        file.unlink()
    else:
        file.write_bytes(harm(file.read_bytes()))
    for use in (lk.FeatureStore.open, ask):
        with pytest.raises(BadInputError, match=f"{folder}/zarr.json' is damaged.*`repair=True`"):
            use(out)
    monkeypatch.setattr(Sums, "encode", None)  # the features are there: nothing is computed
    ask(out, repair=True)
    assert digest(out) == digest(sound)


@pytest.mark.parametrize("harm", [flipped, truncated, emptied])
def test_a_root_that_cannot_be_read_is_named(out, harm):
    file = out / "zarr.json"
    old = file.read_bytes()
    file.write_bytes(harm(old) if harm is not flipped else old.replace(b"node_type", b"node_typd"))
    before = digest(out)
    for use in (lk.FeatureStore.open, ask, lambda out: ask(out, repair=True)):
        with pytest.raises(
            BadInputError, match=r"features/zarr.json' is damaged.*Extract again into another"
        ):
            use(out)
    assert digest(out) == before


@pytest.mark.parametrize("lost", ["ldm_kit", "request"])
def test_arrays_whose_root_says_nothing_of_them_get_no_new_identity(out, lost):
    file = out / "zarr.json"
    root = json.loads(file.read_text())
    del (root["attributes"] if lost == "ldm_kit" else root["attributes"]["ldm_kit"])[lost]
    file.write_text(json.dumps(root))
    before = digest(out)
    for use in (lk.FeatureStore.open, ask):
        with pytest.raises(
            BadInputError, match=r"features/zarr.json' is damaged.*was lost.*into another folder"
        ):
            use(out)
    assert digest(out) == before


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (b"40,\n    2", b"40,\n    3", "a stimulus has the shape .3,., and in its chunks .2,."),
        (b"depth", b"dapth", "lack 'depth'"),
        (b'"none"', b'"nove"', "those of another array"),
    ],
)
def test_an_array_that_is_described_wrongly_is_named_and_computed_anew_when_asked(sound, out, old, new, says):
    file = out / "a" / "0.5" / "none" / "zarr.json"
    file.write_bytes(file.read_bytes().replace(old, new))
    for use in (lk.FeatureStore.open, ask):
        with pytest.raises(BadInputError, match=f"none/zarr.json' is damaged: .*{says}"):
            use(out)
    ask(out, repair=True)
    assert digest(out) == digest(sound)


def test_another_request_mends_nothing(out):
    file = out / "a" / "zarr.json"
    file.write_bytes(b"")
    before = digest(out)
    with pytest.raises(MismatchError, match="seed is 0 there and 1 here.*nothing was changed"):
        ask(out, seed=1, repair=True)
    assert digest(out) == before


def test_an_array_under_anothers_path_is_not_taken_for_it(sound, out):
    shutil.rmtree(out / "b")
    shutil.copytree(out / "a", out / "b")
    for use in (lk.FeatureStore.open, ask):
        with pytest.raises(BadInputError, match="b/0.5/none/zarr.json' is damaged: .* of another array"):
            use(out)
    ask(out, repair=True)
    assert digest(out) == digest(sound)


@pytest.mark.parametrize("old, new", [(b'"p3"', b'"q3"'), (b'"model": "sums"', b'"model": "suns"')])
def test_a_flipped_bit_in_what_a_store_says_of_itself_is_noticed(out, old, new):
    file = out / "zarr.json"
    assert old in file.read_bytes()
    file.write_bytes(file.read_bytes().replace(old, new, 1))
    for use in (lk.FeatureStore.open, ask):
        with pytest.raises(BadInputError, match="features/zarr.json' is damaged|made by another request"):
            use(out)
    with pytest.raises(BadInputError, match="checksum does not match"):
        lk.FeatureStore.open(out)


def test_folders_of_others_are_let_alone_and_a_folder_around_a_store_is_none(out):
    (out / "@eaDir" / "thumbnails").mkdir(parents=True)
    assert len(lk.FeatureStore.open(out).cells()) == len(ask(out).cells()) == 2
    with pytest.raises(BadInputError, match="There is no feature store at"):
        lk.FeatureStore.open(out.parent)


def test_another_format_is_refused_alike_by_reading_and_extracting(out):
    group = zarr.open_group(str(out))
    group.attrs["ldm_kit"] = {**group.attrs["ldm_kit"], "format": 1}
    before = digest(out)
    for use in (lk.FeatureStore.open, ask):
        with pytest.raises(BadInputError, match="has format 1; this version reads format 2. Extract again"):
            use(out)
    assert digest(out) == before


def test_a_hierarchy_of_zarr_version_2_is_no_store(tmp_path):
    group = zarr.open_group(str(tmp_path / "old"), mode="w", zarr_format=2)
    group.attrs["ldm_kit"] = {
        "format": 2,
        "request": {},
        "versions": {},
        "stimuli": {"names": []},
        "prompts": {},
    }
    with pytest.raises(BadInputError, match="is of zarr version 2; feature stores are of version 3"):
        lk.FeatureStore.open(tmp_path / "old")
    with pytest.raises(BadInputError, match="other things than a feature store .of zarr version 3"):
        ask(tmp_path / "old")


def test_cells_that_vanish_meanwhile_are_missed(out, monkeypatch):
    fill = lk.features.extraction.fill

    def and_vanish(*args):
        refused = fill(*args)
        shutil.rmtree(out / "b")
        return refused

    monkeypatch.setattr("ldm_kit.features.extraction.fill", and_vanish)
    with pytest.raises(
        MismatchError, match="1 of the 2 cells that were requested are not in .* 'b/0.5/none'"
    ):
        ask(out)


# Read-only disks, and others at work ----------------------------------------------------------------------


@pytest.fixture
def read_only(monkeypatch):
    """Refuse every write as a read-only disk does."""

    def refused(real, writes=lambda *a, **k: True):
        def call(path, *args, **options):
            if writes(*args, **options):
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
            return real(path, *args, **options)

        return call

    for name in ("replace", "rename", "link", "unlink", "rmdir"):
        monkeypatch.setattr(os, name, refused(getattr(os, name)))
    flags = os.O_WRONLY | os.O_RDWR | os.O_CREAT
    monkeypatch.setattr(os, "open", refused(os.open, lambda given, *a, **k: given & flags))
    opens = refused(io.open, lambda mode="r", *a, **k: set(mode) & set("wxa+"))
    monkeypatch.setattr(io, "open", opens)
    monkeypatch.setattr(builtins, "open", opens)


def test_a_complete_store_on_a_read_only_disk_can_be_used(out, read_only):
    before = digest(out)
    store = ask(out, n=20, blocks="a")
    assert store.names == drawn_stimuli(20).names and np.isfinite(store[CELL]).all()
    assert digest(out) == before
    assert not out.with_name("features.lock").exists()


@pytest.mark.parametrize(
    "more", [{"n": 41}, {"noise_levels": [0.9]}, {"blocks": "c"}, {"conditionings": "label"}]
)
def test_what_a_read_only_disk_lacks_is_told_before_anything_is_computed(out, read_only, monkeypatch, more):
    monkeypatch.setattr(Sums, "encode", None)
    with pytest.raises(BadInputError, match="Cannot write .*features.*read-only.*Request what it has"):
        ask(out, **more)


def test_a_chunk_that_a_read_only_disk_lacks_is_told_before_anything_is_computed(out, request, monkeypatch):
    (out / "a" / "0.5" / "none" / "c" / "1" / "0").unlink()
    request.getfixturevalue("read_only")
    monkeypatch.setattr(Sums, "encode", None)
    with pytest.raises(BadInputError, match="Cannot write .*features.*read-only"):
        ask(out)


def test_waiting_for_another_process_is_logged(out, caplog, capsys):
    lock = FileLock(out.with_name("features.lock"))
    with lock:
        thread = threading.Thread(target=ask, args=(out,))
        with caplog.at_level(logging.WARNING, "ldm_kit"):
            thread.start()
            while "Another process is writing to" not in caplog.text:
                assert thread.is_alive()
                thread.join(0.01)
    thread.join()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE])
def test_a_disk_that_fails_while_a_file_is_moved_says_so_and_keeps_the_old_one(out, tmp_path, code):
    note = lk.files.write_text(tmp_path / "note.txt", "old")
    with (
        moves_counted(1, code),
        pytest.raises(BadInputError, match=r"(?s)note.txt.*disk or network share has failed"),
    ):
        lk.files.write_text(note, "new")
    assert note.read_text() == "old" and not list(tmp_path.glob("*.partial*"))
    before = digest(out)
    with (
        moves_counted(1, code),
        pytest.raises(BadInputError, match="features.*disk or network share has failed"),
    ):
        ask(out, n=41)
    assert digest(out) == before
    ask(out, n=41)
