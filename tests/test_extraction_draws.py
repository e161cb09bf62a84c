"""Noise samples that are kept apart: which they are, how a store holds them, and what a mean over them is."""

from __future__ import annotations

import errno
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
import zarr

import ldm_kit as lk
from ldm_kit.errors import BadInputError, MismatchError, UnknownNameError
from ldm_kit.tables import tidy
from ldm_kit.widgets.prompt_gains import OWN
from tests.children import Sums, digest, drawn_stimuli, extract_in_child, moves_counted
from tests.tiny_models import save_tiny_stable_diffusion

CELL = ("a", 0.5, "none")


def ask(out=None, n=40, **options):
    options = {"blocks": ["a", "b"], "noise_levels": [0.5], "draws": "apart", "n_noise": 3, **options}
    return lk.extract(Sums.opened(), drawn_stimuli(n), out=out, progress=False, **options)


@pytest.fixture(scope="module")
def apart():
    return ask()


def by_hand(n, draw):
    """The mean over space of block `a` and its square, for one noise sample, in double precision."""
    model, stimuli = Sums.opened(), drawn_stimuli(n)
    latents = model.encode([stimuli.open(name) for name in stimuli.names])
    noise = model.noise(stimuli.names, 0, draw)
    noised = model.add_noise(latents, noise, model.level(0.5)).double()
    part = noised * ord("a")
    return torch.cat([part, part**2], dim=1).mean(dim=(2, 3)).numpy()


def test_each_noise_sample_has_a_cell_of_its_own(apart):
    assert apart.draws == (0, 1, 2)
    assert len(apart.cells()) == 6
    for draw in range(3):
        np.testing.assert_allclose(apart[(*CELL, draw)], by_hand(40, draw), rtol=1e-4)
    assert np.abs(apart[(*CELL, 1)] - apart[(*CELL, 0)]).max() > 1


def test_the_first_is_what_one_noise_sample_gives_to_the_last_bit(tmp_path):
    model = lk.load_model(save_tiny_stable_diffusion(tmp_path), device="cpu")
    options = {"blocks": "mid_block", "noise_levels": [0.5], "progress": False}
    cell, stimuli = ("mid_block", 0.5, "none"), drawn_stimuli(6)
    apart = lk.extract(model, stimuli, n_noise=3, draws="apart", **options)
    once = lk.extract(model, stimuli, **options)
    assert np.array_equal(apart[(*cell, 0)], once[cell])
    # What the mean is taken of, in the order in which it is summed.
    mean = lk.extract(model, stimuli, n_noise=3, **options)
    total = apart[(*cell, 0)] + apart[(*cell, 1)] + apart[(*cell, 2)]
    assert np.array_equal(total / np.float32(3), mean[cell])
    np.testing.assert_allclose(apart.mean_of_draws()[cell], mean[cell], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("store_dtype", ["float32", "float16"])
def test_the_mean_over_noise_samples_is_the_averaged_store(store_dtype):
    options = {"conditionings": ["none", "label"], "store_dtype": store_dtype}
    view, mean = ask(**options).mean_of_draws(), ask(draws="mean", **options)
    assert view.draws == mean.draws == ()
    assert view.cells() == mean.cells()
    for key in mean.cells():
        tolerance = (1e-3, 0.02) if store_dtype == "float16" else (1e-5, 1e-5)  # the samples are around 30
        np.testing.assert_allclose(view[key], mean[key], *tolerance)
        assert view.labels(key) == mean.labels(key)
        assert view.labels(key)["n_noise"] == 3
    pd.testing.assert_frame_equal(view.table(), mean.table())
    some = view.select(names=["p7", "p3"], blocks="a", conditionings="label")
    np.testing.assert_array_equal(some["a", 0.5, "label"], view["a", 0.5, "label"][[7, 3]])
    assert view.mean_of_draws() is view
    assert mean.mean_of_draws() is mean


def test_the_mean_over_some_noise_samples(apart):
    some = apart.select(draws=[2, 0])
    assert some.draws == (0, 2)
    expected = (apart[(*CELL, 0)].astype(np.float64) + apart[(*CELL, 2)]) / 2
    np.testing.assert_allclose(some.mean_of_draws()[CELL], expected, rtol=1e-6)
    assert some.mean_of_draws().labels(some.mean_of_draws().cells()[0])["n_noise"] == 2


def test_a_draw_must_be_named_where_there_are_several(apart):
    with pytest.raises(BadInputError, match=r"noise samples 0, 1, 2.*conditioning, draw\].*mean_of_draws"):
        apart[CELL]
    one = apart.select(draws=1)
    assert np.array_equal(one[CELL], apart[(*CELL, 1)])
    assert np.array_equal(one[CELL], one[one.cells()[0]])
    with pytest.raises(UnknownNameError, match="draw 3"):
        apart[(*CELL, 3)]
    with pytest.raises(UnknownNameError, match="draw 0"):
        apart.select(draws=[1, 2]).select(draws=0)


def test_a_store_of_means_has_no_draws():
    mean = ask(draws="mean", n_noise=1)
    assert mean.draws == ()
    assert "draw" not in mean.table()
    assert "n_noise" not in mean.table()
    for use in (lambda: mean.select(draws=0), lambda: mean[(*CELL, 0)]):
        with pytest.raises(BadInputError, match="draws='apart'"):
            use()


def test_tables_say_which_noise_sample(apart):
    assert apart.table()["draw"].tolist() == [0, 1, 2] * 2
    assert "× 3 noise samples of sums" in repr(apart)
    rows = [apart.labels(key) for key in apart.cells()]
    table = tidy([*rows, {"block": "pixels"}])
    assert str(table["draw"].dtype) == "Int64"
    assert table["draw"].isna().tolist() == [False] * 6 + [True]
    assert list(table)[:4] == ["block", "noise_level", "conditioning", "draw"]
    assert "draw" not in tidy([{"block": "pixels"}])


def test_it_is_plain_zarr(tmp_path):
    store = ask(tmp_path / "out")
    array = zarr.open_array(str(tmp_path / "out" / "a" / "0.5" / "none" / "2"), mode="r")
    assert np.array_equal(array[:], store[(*CELL, 2)])
    assert array.attrs["draw"] == 2
    assert array.metadata.dimension_names == ("stimulus", "a channel")
    request = zarr.open_group(str(tmp_path / "out"), mode="r").attrs["ldm_kit"]["request"]
    assert (request["draws"], request["seed"]) == ("apart", 0)
    assert "n_noise" not in request
    assert lk.FeatureStore.open(tmp_path / "out").cells() == store.cells()


def test_a_store_of_means_says_nothing_of_draws_on_disk(tmp_path):
    ask(tmp_path / "out", draws="mean")
    for file in (tmp_path / "out").rglob("zarr.json"):
        assert not {b'"draw"', b'"draws"'} & set(file.read_bytes().replace(b":", b" ").split())


# Growing -----------------------------------------------------------------------------------------------


def test_more_noise_samples_compute_only_the_new(apart, tmp_path, monkeypatch):
    out, passes = tmp_path / "out", []
    watch = Sums.watch
    monkeypatch.setattr(Sums, "watch", lambda self, *a, **k: passes.append(1) or watch(self, *a, **k))
    ask(out, n_noise=1)
    batches = len(passes)
    assert ask(out, n_noise=3).draws == (0, 1, 2)
    assert len(passes) == 3 * batches
    fewer = ask(out, n_noise=2)
    assert len(passes) == 3 * batches
    assert fewer.draws == (0, 1)
    stored = lk.FeatureStore.open(out)
    for key in apart.cells():
        assert np.array_equal(stored[key], apart[key])


def test_grown_and_made_at_once_are_the_same_bytes(tmp_path):
    ask(tmp_path / "grown", n_noise=1)
    ask(tmp_path / "grown")
    ask(tmp_path / "once")
    assert digest(tmp_path / "grown") == digest(tmp_path / "once")


def test_cells_with_other_noise_samples_have_no_common_mean(tmp_path):
    ask(tmp_path / "out", n_noise=2)
    ask(tmp_path / "out", n_noise=1, noise_levels=[0.7])
    store = lk.FeatureStore.open(tmp_path / "out")
    with pytest.raises(
        BadInputError, match=r"'a/0.7/none' has noise samples \[0\], other cells have \[0, 1\]"
    ):
        store.mean_of_draws()
    assert len(store.select(draws=0).mean_of_draws().cells()) == 4


@pytest.mark.parametrize(("first", "then"), [("mean", "apart"), ("apart", "mean")])
def test_means_and_draws_apart_do_not_mix(tmp_path, first, then):
    ask(tmp_path / "out", draws=first)
    before = digest(tmp_path / "out")
    with pytest.raises(MismatchError, match=f"draws='{first}', and draws='{then}' is asked.*store.draws"):
        ask(tmp_path / "out", draws=then)
    assert digest(tmp_path / "out") == before


def test_a_model_without_noise_has_no_draws(tmp_path):
    pixels = lk.load_model("pixels")
    with pytest.raises(BadInputError, match="draws='apart': 'pixels' takes no noise"):
        lk.extract(pixels, drawn_stimuli(2), draws="apart", progress=False)
    with pytest.raises(UnknownNameError, match="draws 'apar'.*apart"):
        ask(draws="apar")


# Kills and damage --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("grown", [False, True], ids=["creating", "growing"])
def test_stopped_at_every_file_move_it_resumes(tmp_path, grown):
    before, after = tmp_path / "before", tmp_path / "after"
    options = {"blocks": "a", "noise_levels": [0.5], "draws": "apart", "n_noise": 2}
    if grown:
        ask(before, n=20, **{**options, "n_noise": 1})
        shutil.copytree(before, after)
    with moves_counted() as moves:
        ask(after, n=33, **options)
    for at in range(1, moves.count + 1):
        for fault in (None, errno.ENOSPC):
            out = tmp_path / f"{at}-{fault}"
            if grown:
                shutil.copytree(before, out)
            if fault is None:
                child = extract_in_child(None, drawn_stimuli(33), out, kill_at_move=at, **options)
                assert child.was_killed()
            else:
                with moves_counted(at, fault), pytest.raises(BadInputError, match="No space left"):
                    ask(out, n=33, **options)
            ask(out, n=33, **options)
            assert digest(out) == digest(after)


@pytest.fixture
def out(tmp_path):
    ask(tmp_path / "out")
    return tmp_path / "out"


@pytest.mark.parametrize("folder", ["a", "a/0.5", "a/0.5/none", "a/0.5/none/1"])
@pytest.mark.parametrize("lost", [True, False])
def test_lost_or_damaged_metadata_is_named_and_made_anew_when_asked(out, folder, lost, monkeypatch):
    sound, file = digest(out), out / folder / "zarr.json"
    if lost:
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-20])
    for use in (lk.FeatureStore.open, ask):
        with pytest.raises(BadInputError, match=f"{folder}/zarr.json' is damaged.*`repair=True`"):
            use(out)
    monkeypatch.setattr(Sums, "encode", None)  # the features are there: nothing is computed
    ask(out, repair=True)
    assert digest(out) == sound


@pytest.mark.parametrize("change", [(b'"draw": 1', b'"draw": 2'), (b'"draw"', b'"drew"')])
def test_an_array_that_names_another_draw_is_not_taken_for_it(out, change):
    sound, file = digest(out), out / "a" / "0.5" / "none" / "1" / "zarr.json"
    file.write_bytes(file.read_bytes().replace(*change))
    with pytest.raises(BadInputError, match="1/zarr.json' is damaged.*those of another array"):
        lk.FeatureStore.open(out)
    ask(out, repair=True)
    assert digest(out) == sound


def test_a_damaged_chunk_is_listed_by_its_draw_and_mended(out):
    sound, chunk = digest(out), out / "a" / "0.5" / "none" / "1" / "c" / "1" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-1] + b"?")
    store = lk.FeatureStore.open(out)
    assert store.verify()[["block", "draw", "file"]].values.tolist() == [["a", 1, str(chunk)]]
    assert store.mean_of_draws().verify()["draw"].tolist() == [1]
    assert store.select(draws=[0, 2]).verify().empty
    for use in (lambda: store[(*CELL, 1)], lambda: store.mean_of_draws()[CELL]):
        with pytest.raises(BadInputError, match="none/1/c/1/0' is damaged"):
            use()
    ask(out, repair=True)
    assert digest(out) == sound


def test_what_is_missing_of_one_draw_is_missing_of_the_mean(out):
    chunk = out / "a" / "0.5" / "none" / "1" / "c" / "1" / "0"
    chunk.unlink()
    mean = lk.FeatureStore.open(out).mean_of_draws()
    assert mean.table()["done"].tolist() == [32 / 40, 1.0]
    with pytest.raises(MismatchError, match="8 of 40 stimuli have no features at 'a/0.5/none'"):
        mean[CELL]


# Those who take a store --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def emoji():
    model, data = lk.load_model("tiny-ldm", device="cpu"), lk.load_dataset("emoji")
    data = data.subset(data.stimuli.names[:60])
    options = {"blocks": ["mid_block"], "noise_levels": [0.9], "conditionings": ["none", "label"]}
    return model, data, lk.extract(model, data.stimuli, n_noise=2, draws="apart", progress=False, **options)


def test_several_models_of_which_some_take_no_noise(emoji, tmp_path):
    stores = lk.extract_models(
        ["tiny-ldm", "pixels"],
        emoji[1].stimuli,
        out=tmp_path,
        noise_levels=[0.5],
        n_noise=2,
        draws="apart",
        progress=False,
    )
    assert [store.draws for store in stores.values()] == [(0, 1), ()]


def test_features_are_named_by_their_prompt_draw_by_draw():
    shuffled, key = ask(conditionings="shuffled"), ("a", 0.5, "shuffled")
    renamed = lk.relabel_by_prompt(shuffled, drawn_stimuli(40))
    assert renamed.draws == (0, 1, 2)
    assert renamed.names != shuffled.names
    assert np.array_equal(renamed[(*key, 1)], shuffled[(*key, 1)])
    mean = lk.relabel_by_prompt(shuffled.mean_of_draws(), drawn_stimuli(40))
    assert mean.names == renamed.names
    assert np.array_equal(mean[key], renamed.mean_of_draws()[key])


def test_explorers_show_the_mean(emoji):
    _, data, store = emoji
    mean = store.mean_of_draws()
    pd.testing.assert_frame_equal(
        lk.widgets.WhereIsTheHuman(store, data).table, lk.widgets.WhereIsTheHuman(mean, data).table
    )
    result = lk.cross_validate_probe(
        mean.select(conditionings="none"), data.triplets, lk.LinearProbe(alpha=1.0), cv=2
    )
    views = [lk.widgets.ProbesView(one, data, result).similarities() for one in (store, mean)]
    for space, values in views[0].items():
        np.testing.assert_array_equal(values, views[1][space])


def test_a_new_prompt_gets_the_stores_noise_samples(emoji, tmp_path):
    model, data, store = emoji
    for at, given in enumerate((store, store.select(draws=1))):
        view = lk.widgets.PromptGains(model, data, given, home=tmp_path / str(at))
        template = str(store.request["template"])
        list(view._extract(template))
        state = view.state._replace(conditioning=OWN, template=template)
        np.testing.assert_allclose(
            view._features(state).mean_of_draws()["mid_block", 0.9, "label"],
            given.mean_of_draws()["mid_block", 0.9, "label"],
            rtol=1e-5,
            atol=1e-6,
        )
