"""What can be asked of extraction beyond the grid: draws, vectors, timesteps, tokens, half precision, skipping."""

from __future__ import annotations

import dataclasses
import errno
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from test_extraction import BOTH, LEVELS, assert_same, some_stimuli
from tiny_models import save_tiny_stable_diffusion

import ldm_kit as lk
from ldm_kit.errors import (
    BadInputError,
    LdmKitError,
    MismatchError,
    NonFiniteError,
    UnknownNameError,
    UnreadableImageError,
)
from ldm_kit.models.noise import draw_noise
from tests.benchmarks import extraction_gpu
from tests.children import Sums, digest, drawn_stimuli

ASK = {"blocks": "mid_block", "noise_levels": [0.5], "progress": False}
CELL = ("mid_block", 0.5, "none")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return lk.load_model(save_tiny_stable_diffusion(tmp_path_factory.mktemp("sd")), device="cpu")


@pytest.fixture(scope="module")
def stimuli(tmp_path_factory):
    return some_stimuli(tmp_path_factory.mktemp("pictures"), 6)


@pytest.fixture(scope="module")
def once(model, stimuli):
    return lk.extract(model, stimuli, **ASK)[CELL]


def by_hand(model, stimuli, text, draw=0, timestep=500):
    """The bottleneck's mean over space, from the modules themselves."""
    latents = model.encode([stimuli.open(name) for name in stimuli.names])
    noise = torch.from_numpy(np.stack([draw_noise(name, (4, 8, 8), 0, draw) for name in stimuli.names]))
    noised = model.components["scheduler"].add_noise(latents, noise, torch.tensor([timestep]))
    held = []
    handle = model.denoiser.mid_block.register_forward_hook(lambda *a: held.append(a[2]))
    with torch.no_grad():
        model.denoiser(noised, timestep, encoder_hidden_states=text.expand(len(noised), -1, -1))
    handle.remove()
    return held[0].mean(dim=(2, 3)).numpy()


def test_several_draws_are_averaged(model, stimuli, once):
    text = model.text("")["sequence"]
    draws = [by_hand(model, stimuli, text, draw) for draw in range(3)]
    assert_same(draws[0], once)
    assert np.abs(draws[1] - draws[0]).max() > 1e-3
    assert_same(lk.extract(model, stimuli, n_noise=3, **ASK)[CELL], np.mean(draws, axis=0))


def test_given_vectors_condition_the_denoiser(model, stimuli):
    vectors = np.random.default_rng(0).normal(size=(5, 16)).astype(np.float32)
    ask = {**ASK, "conditionings": ["embedding"]}
    store = lk.extract(model, stimuli, embedding=vectors, **ask)
    expected = by_hand(model, stimuli, torch.from_numpy(vectors)[None])
    assert_same(store["mid_block", 0.5, "embedding"], expected)
    each = {concept: vectors * i for i, concept in enumerate(stimuli.concepts)}
    other = lk.extract(model, stimuli, embedding=each, **ask)["mid_block", 0.5, "embedding"]
    assert_same(other[1], expected[1])
    assert np.abs(other[2] - expected[2]).max() > 1e-4


def test_the_text_encoders_own_vectors_give_what_the_prompt_gives(model, stimuli, once):
    vectors = model.text("")["sequence"][0]
    store = lk.extract(model, stimuli, conditionings="embedding", embedding=vectors, **ASK)
    assert_same(store["mid_block", 0.5, "embedding"], once)


def test_changed_vectors_are_refused(model, stimuli, tmp_path):
    ask = {**ASK, "conditionings": "embedding", "out": tmp_path / "features"}
    lk.extract(model, stimuli, embedding=np.zeros((2, 16)), **ask)
    with pytest.raises(MismatchError, match="prompt of 'thing00.png' for 'embedding' is 'sha256:"):
        lk.extract(model, stimuli, embedding=np.ones((2, 16)), **ask)


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        ({"conditionings": "embedding"}, "go together"),
        ({"embedding": np.zeros((2, 16))}, "go together"),
        (
            {"conditionings": "embedding", "embedding": {"apple": np.zeros((2, 16))}},
            "no vectors for 'thing00.png'",
        ),
        ({"conditionings": "embedding", "embedding": np.zeros((2, 15))}, r"\(2, 15\); this model takes"),
        ({"n_noise": 0}, "n_noise=0"),
        ({"noise_levels": [0.005], "timesteps": "linhardt2024"}, "percent"),
        ({"conditionings": "image"}, "image embedding|unCLIP"),
    ],
)
def test_requests_that_cannot_be_met(model, stimuli, ask, says):
    with pytest.raises(BadInputError, match=says):
        lk.extract(model, stimuli, **{**ASK, **ask})


@pytest.mark.parametrize("name", ["posterior", "store_dtype", "on_nonfinite", "on_error", "timesteps"])
def test_unknown_choices_are_named(model, stimuli, name):
    with pytest.raises(UnknownNameError, match="'nonsense'"):
        lk.extract(model, stimuli, **{**ASK, name: "nonsense"})


def test_the_papers_timesteps(model, stimuli, once):
    store = lk.extract(model, stimuli, timesteps="linhardt2024", **ASK)
    assert store.table()["timestep"].item() == 10 * 50 - 9  # DDIM at 50 percent
    text = model.text("")["sequence"]
    assert_same(store[CELL], by_hand(model, stimuli, text, timestep=491))


def test_a_sample_of_the_posterior_depends_on_seed_and_name_alone(model, stimuli, once):
    sampled = lk.extract(model, stimuli, posterior="sample", **ASK)[CELL]
    assert np.abs(sampled - once).max() > 1e-4
    alone = lk.extract(model, stimuli[[4]], posterior="sample", batch_size=1, **ASK)[CELL]
    assert_same(alone[0], sampled[4])
    other = lk.extract(model, stimuli, posterior="sample", seed=1, **ASK)[CELL]
    assert np.abs(other - sampled).max() > 1e-4


def test_tokens_are_the_map_in_reading_order(model, stimuli):
    maps = lk.extract(model, stimuli, pooling="none", **ASK)[CELL]
    tokens = lk.extract(model, stimuli, pooling="tokens", **ASK)
    assert tokens[CELL].shape == (6, 16, 32)
    assert_same(tokens[CELL][:, 4 * 1 + 2], maps[:, :, 1, 2])


def test_flat_is_the_map_unrolled(model, stimuli):
    maps = lk.extract(model, stimuli, pooling="none", **ASK)[CELL]
    flat = lk.extract(model, stimuli, pooling="flat", **ASK)[CELL]
    assert_same(flat, maps.reshape(6, -1))


@pytest.mark.slow
def test_a_compiled_model_gives_the_same_and_is_told_apart(stimuli, once, tmp_path):
    model = lk.load_model(save_tiny_stable_diffusion(tmp_path), device="cpu")
    out = tmp_path / "features"
    lk.extract(model, stimuli, out=out, **ASK)
    compiled = extraction_gpu.compiled(model, backend="eager")
    assert_same(lk.extract(compiled, stimuli, **ASK)[CELL], once)
    assert "forward" in vars(compiled.denoiser.mid_block)
    with pytest.raises(MismatchError, match="dtype is 'float32' there and 'float32, compiled' here"):
        lk.extract(compiled, stimuli, out=out, **ASK)


def test_half_precision_on_disk(model, stimuli, once, tmp_path):
    out = tmp_path / "features"
    store = lk.extract(model, stimuli, store_dtype="float16", out=out, **ASK)
    assert zarr.open_array(str(out / "mid_block" / "0.5" / "none")).dtype == np.float16
    assert_same(store[CELL].astype(np.float32), once, 1e-3)
    with pytest.raises(MismatchError, match="store_dtype is 'float16' there and 'float32' here"):
        lk.extract(model, stimuli, out=out, **ASK)


# Skipping ----------------------------------------------------------------------------------------------


def overflowing(model, monkeypatch, row):
    """The bottleneck gives infinity for one picture of each batch of six."""
    forward = model.denoiser.mid_block.forward

    def spoilt(*args, **kwargs):
        out = forward(*args, **kwargs).clone()
        out[row] = torch.inf
        return out

    monkeypatch.setattr(model.denoiser.mid_block, "forward", spoilt)


@pytest.mark.slow
def test_what_is_not_finite_is_noted_when_asked(model, stimuli, once, tmp_path, monkeypatch):
    out = tmp_path / "features"
    with monkeypatch.context() as patch:
        overflowing(model, patch, 2)
        with pytest.raises(NonFiniteError, match="on_nonfinite='skip'"):
            lk.extract(model, stimuli, out=out, **ASK)
        store = lk.extract(model, stimuli, out=out, on_nonfinite="skip", **ASK)
        assert store.table()[["done", "not_finite"]].values.tolist() == [[1.0, 1]]
        assert store.finite().names == tuple(name for name in stimuli.names if name != "thing02.png")
        assert_same(store.finite()[CELL], np.delete(once, 2, axis=0))
        with pytest.raises(NonFiniteError, match="thing02.png"):
            lk.odd_one_out(store, lk.Triplets(np.array([[0, 1, 2]]), names=stimuli.names))
    again = lk.extract(model, stimuli, out=out, on_nonfinite="skip", **ASK)
    assert again.table()["not_finite"].item() == 1, "what was noted is not computed again"
    mended = lk.extract(model, stimuli, out=out, **ASK)
    assert_same(mended[CELL], once)


def test_a_model_without_words_refuses_them_before_anything_is_written(stimuli, tmp_path):
    out = tmp_path / "features"
    with pytest.raises(BadInputError, match="'pixels.*reads no text.*conditionings='none'"):
        lk.extract(lk.load_model("pixels"), stimuli, conditionings="label", out=out, progress=False)
    assert not out.exists()


def test_too_large_for_half_precision_on_disk(model, stimuli, monkeypatch):
    forward = model.denoiser.mid_block.forward
    monkeypatch.setattr(model.denoiser.mid_block, "forward", lambda *a, **k: forward(*a, **k) * 1e6)
    with pytest.raises(NonFiniteError, match="more than 6.55e"):
        lk.extract(model, stimuli, store_dtype="float16", **ASK)
    lk.extract(model, stimuli, **ASK)


def test_refused_pictures_are_listed_at_the_end_when_asked(model, once, tmp_path, capsys, caplog):
    stimuli = some_stimuli(tmp_path / "pictures", 6)
    (tmp_path / "pictures" / "thing01.png").write_bytes(b"")
    (tmp_path / "pictures" / "thing03.png").write_text("no picture")
    (tmp_path / "pictures" / "thing05.png").unlink()
    store = lk.extract(model, stimuli, on_error="skip", out=tmp_path / "features", **ASK)
    assert store.names == ("thing00.png", "thing02.png", "thing04.png")
    assert_same(store[CELL], once[[0, 2, 4]])
    assert "Skipped 3 images" in caplog.text and capsys.readouterr().out == ""
    for name in ("thing01.png", "thing03.png", "thing05.png"):
        assert f"- {name}: " in caplog.text


def refusing(stimuli, where, error, monkeypatch):
    """Make the third stimulus one that cannot be fingerprinted, opened or encoded."""
    name = stimuli.names[2]

    def failing(given):
        if given == name:
            raise error
        return stimuli.fingerprint(given) if where == "fingerprint" else stimuli.open(given)

    if where == "encode":
        odd, encode = stimuli.open(name).tobytes(), Sums.encode

        def encoded(self, pictures, **options):
            if any(picture.tobytes() == odd for picture in pictures):
                raise error
            return encode(self, pictures, **options)

        monkeypatch.setattr(Sums, "encode", encoded)
        return stimuli
    hook = {"fingerprint": "fingerprinter", "open": "opener"}[where]
    return dataclasses.replace(stimuli, **{hook: failing})


@pytest.mark.parametrize(
    ("where", "error", "says"),
    [
        ("fingerprint", PermissionError(errno.EACCES, "Permission denied"), "Permission denied"),
        ("open", PermissionError(errno.EACCES, "Permission denied"), "Permission denied"),
        ("open", MemoryError(), "more memory than there is"),
        ("encode", MemoryError(), "more memory than there is"),
        ("encode", UnreadableImageError("its sides are 2 and 20,000"), "p2.*2 and 20,000"),
    ],
)
def test_every_image_that_cannot_be_used_can_be_skipped(where, error, says, tmp_path, monkeypatch):
    whole, model = drawn_stimuli(6), Sums.opened()
    kept = [0, 1, 3, 4, 5]
    expected = lk.extract(model, whole[kept], blocks="a", noise_levels=[0.5], progress=False)[
        "a", 0.5, "none"
    ]
    stimuli = refusing(whole, where, error, monkeypatch)
    ask = {"blocks": "a", "noise_levels": [0.5], "progress": False, "out": tmp_path / "features"}
    with pytest.raises(UnreadableImageError, match=says):
        lk.extract(model, stimuli, **ask)
    store = lk.extract(model, stimuli, on_error="skip", **ask)
    assert store.names == tuple(whole.names[row] for row in kept)
    assert re.search(says, store.refused["p2"])
    np.testing.assert_array_equal(store["a", 0.5, "none"], expected)


def test_memory_that_no_single_image_fills_is_nobodys_fault(monkeypatch):
    encode = Sums.encode

    def encoded(self, pictures, **options):
        if len(pictures) > 1:
            raise MemoryError("too many at once")
        return encode(self, pictures, **options)

    monkeypatch.setattr(Sums, "encode", encoded)
    with pytest.raises(MemoryError, match="too many at once"):
        lk.extract(Sums.opened(), drawn_stimuli(6), on_error="skip", progress=False)


# Others can read it, and it stays small -----------------------------------------------------------------


def test_xarray_and_fsspec_read_the_store(model, stimuli, once, tmp_path):
    fsspec = pytest.importorskip("fsspec")
    xarray = pytest.importorskip("xarray")
    out = tmp_path / "features"
    lk.extract(model, stimuli, out=out, noise_levels=LEVELS, progress=False)
    table = xarray.open_zarr(str(out), group="mid_block/0.5", consolidated=False)
    assert table["none"].dims == ("stimulus", "mid_block channel")
    assert_same(table["none"].values, once)
    bucket = fsspec.filesystem("memory")
    bucket.put(str(out), "/bucket/features", recursive=True)
    far = zarr.open_array("memory://bucket/features/mid_block/0.5/none", mode="r")
    assert_same(far[:], once)
    assert_same(lk.FeatureStore.open("memory://bucket/features")[CELL], once)


PEAK = """
import resource, sys
import numpy as np
from PIL import Image
import ldm_kit as lk
n = int(sys.argv[1])
pixels = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)
stimuli = lk.Stimuli(
    tuple(f"s{i}" for i in range(n)),
    opener=lambda name: Image.fromarray(np.roll(pixels, int(name[1:]), axis=0)),
    fingerprinter=lambda name: name,
)
model = lk.load_model(sys.argv[2], device="cpu")
lk.extract(model, stimuli, noise_levels=[0.1, 0.5], out=sys.argv[3], progress=False)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="counts kilobytes as Linux does")
def test_memory_does_not_grow_with_the_number_of_pictures(tmp_path):
    folder = save_tiny_stable_diffusion(tmp_path)
    kilobytes = {}
    for n in (100, 500):
        done = subprocess.run(
            [sys.executable, "-c", PEAK, str(n), str(folder), str(tmp_path / f"features{n}")],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(lk.__file__).parents[1])},
        )
        kilobytes[n] = int(done.stdout.split()[-1])
    # 400 decoded pictures more are 48 MB, all their latents 0.4 MB: what stays is less than a quarter.
    assert kilobytes[500] - kilobytes[100] < 12_000, kilobytes


@pytest.mark.slow
def test_a_chunk_whose_last_picture_is_refused_keeps_the_rest(model, tmp_path):
    stimuli = some_stimuli(tmp_path / "pictures", 64)
    whole = lk.extract(model, stimuli, **ASK)
    for row in (31, 63):
        (tmp_path / "pictures" / f"thing{row}.png").write_bytes(b"")
    kept = [row for row in range(64) if row not in (31, 63)]
    out = tmp_path / "features"
    store = lk.extract(model, stimuli, on_error="skip", batch_size=1, out=out, **ASK)
    assert_same(store[CELL], whole[CELL][kept])
    assert_same(lk.FeatureStore.open(out).select(names=store.names)[CELL], whole[CELL][kept])


@pytest.mark.parametrize("seed", [0, 1])
def test_features_are_named_by_the_word_that_their_own_seed_gave_them(seed):
    stimuli = lk.Stimuli(
        tuple(f"p{i}" for i in range(9)),
        concepts=("owl", "emu", "yak", "ape", "bat", "cow", "dog", "eel", "fox"),
        opener=drawn_stimuli(9).opener,
        fingerprinter=str,
    )
    store = lk.extract(
        Sums.opened(),
        stimuli,
        conditionings=[*BOTH[1:], "shuffled"],
        seed=seed,
        noise_levels=[0.5],
        progress=False,
    )
    shuffled = store.select(conditionings="shuffled")
    picture_of = {
        f"a photo of a {concept}": name for name, concept in zip(stimuli.names, stimuli.concepts, strict=True)
    }
    said = [picture_of[prompt] for prompt in shuffled.prompts("shuffled")]
    assert lk.relabel_by_prompt(shuffled, stimuli).names == tuple(said)
    with pytest.raises(BadInputError, match="conditionings='shuffled'"):
        lk.relabel_by_prompt(store, stimuli)
    others = dataclasses.replace(
        stimuli, all_concepts=(*stimuli.concepts[::-1], "gnu"), all_labels=(*stimuli.labels[::-1], "gnu")
    )
    with pytest.raises((MismatchError, BadInputError), match="The prompt of|has no image"):
        lk.relabel_by_prompt(shuffled, others)


def test_stimuli_that_joined_later_are_missing_where_they_were_not_asked_for(model, stimuli, once, tmp_path):
    out = tmp_path / "features"
    lk.extract(model, stimuli[:2], blocks="mid_block", noise_levels=[0.5], out=out, progress=False)
    lk.extract(model, stimuli, blocks="mid_block", noise_levels=[0.1], out=out, progress=False)
    store = lk.FeatureStore.open(out)
    assert store.table()["done"].round(2).tolist() == [1.0, 0.33]
    with pytest.raises(MismatchError, match="4 of 6 stimuli have no features"):
        store[CELL]
    assert_same(store.select(names=stimuli.names[:2])[CELL], once[:2])
    assert len(store.finite()) == 6
    lk.extract(model, stimuli, out=out, **ASK)
    assert_same(lk.FeatureStore.open(out)[CELL], once)


def test_killed_during_its_very_first_write_it_still_resumes(model, stimuli, once, tmp_path):
    out = tmp_path / "features"
    out.mkdir()
    (out / "zarr.0123.partial").write_bytes(b"{")
    assert_same(lk.extract(model, stimuli, out=out, **ASK)[CELL], once)
    assert not list(out.glob("*.partial"))


def test_levels_are_known_by_six_digits(model, stimuli, tmp_path):
    ask = {**ASK, "out": tmp_path / "features"}
    first = lk.extract(model, stimuli, **{**ask, "noise_levels": [1 / 3]})
    again = lk.extract(model, stimuli, **{**ask, "noise_levels": [0.333333]})
    assert again.noise_levels == first.noise_levels == (0.333333,)
    assert first["mid_block", 1 / 3, "none"].shape == (6, 32)
    with pytest.raises(BadInputError, match="timestep 333, which the store holds as 0.333333"):
        lk.extract(model, stimuli, **{**ask, "noise_levels": [0.3332]})


@pytest.mark.slow
def test_an_untrained_twin_of_another_autoencoder_is_another_model(stimuli, tmp_path):
    folder = save_tiny_stable_diffusion(tmp_path)
    out = tmp_path / "features"
    lk.extract(lk.load_model(folder, device="cpu", pretrained=False), stimuli, out=out, **ASK)
    vae = lk.load_model(folder, device="cpu").components["vae"]
    with torch.no_grad():
        vae.quant_conv.weight.mul_(1.05)
    vae.save_pretrained(folder / "vae")
    with pytest.raises(MismatchError, match="revision is"):
        lk.extract(lk.load_model(folder, device="cpu", pretrained=False), stimuli, out=out, **ASK)


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        ({"n_noise": 2}, "takes no noise"),
        ({"posterior": "sample"}, "no autoencoder"),
        ({"timesteps": "linhardt2024"}, "timesteps='linhardt2024'"),
        ({"timesteps": "rubbish"}, "'rubbish'"),
        ({"seed": 1.5}, "seed=1.5"),
        ({"conditionings": []}, "No conditioning"),
    ],
)
def test_options_that_mean_nothing_are_refused(stimuli, ask, says):
    with pytest.raises((BadInputError, UnknownNameError), match=says):
        lk.extract(lk.load_model("pixels"), stimuli, progress=False, **ask)


JUNK = {
    "blocks": [[], "nowhere", 3, [["a"]]],
    "noise_levels": [[], [2], ["0.5"], [float("nan")], "x", [[0.1, 0.5]], [None], [True]],
    "conditionings": [[], "lable", 3, None, [None]],
    "out": [3, "", b"here"],
    "pooling": ["median", None, 3, np.zeros(2)],
    "seed": [-1, 1.5, True, None, "0"],
    "template": ["a photo", "", None, 3],
    "embedding": [np.zeros((2, 16)), "vectors"],
    "timesteps": ["linhardt2023", None, "linhardt2024"],
    "n_noise": [0, 1.5, "2", True],
    "draws": ["each", None, 3],
    "posterior": ["mode", None],
    "store_dtype": ["float64", np.float32, None],
    "on_nonfinite": ["error", None],
    "on_error": ["error", None],
    "repair": ["yes", None],
    "batch_size": [0, "many", 1.5, True, None],
    "progress": ["no", None],
    "model": ["tiny-ldm", None],
    "stimuli": [["p0"], None],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in JUNK.items() for value in values]
)
def test_every_parameter_is_checked_before_anything_is_computed_or_written(
    name, value, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Sums, "encode", None)
    monkeypatch.setattr(Sums, "watch", None)
    given = {
        "model": Sums.opened(),
        "stimuli": drawn_stimuli(3),
        "out": "features",
        "progress": False,
        name: value,
    }
    with pytest.raises(LdmKitError):
        lk.extract(given.pop("model"), given.pop("stimuli"), **given)
    assert not list(tmp_path.iterdir())


def test_every_parameter_of_extract_is_tried_with_junk():
    assert set(JUNK) == set(inspect.signature(lk.extract).parameters)


def test_levels_that_a_store_holds_otherwise_leave_it_as_it_was(tmp_path):
    ask = {"blocks": "a", "progress": False, "out": tmp_path / "features"}
    lk.extract(Sums.opened(), drawn_stimuli(3), noise_levels=[0.3332], **ask)
    before = digest(tmp_path / "features")
    with pytest.raises(BadInputError, match="timestep 333, which the store holds as 0.3332"):
        lk.extract(Sums.opened(), drawn_stimuli(4), noise_levels=[1 / 3], **ask)
    assert digest(tmp_path / "features") == before


def test_the_dataset_itself_is_not_its_stimuli(model):
    with pytest.raises(BadInputError, match=r"Dataset.*data\.stimuli"):
        lk.extract(model, lk.load_dataset("emoji"), **ASK)


@pytest.mark.gpu
def test_another_device_gives_the_same_within_a_thousandth(stimuli, tmp_path):
    folder = save_tiny_stable_diffusion(tmp_path)
    ask = {"noise_levels": LEVELS, "conditionings": ["none", "label"], "progress": False}
    here = lk.extract(lk.load_model(folder, device="cpu"), stimuli, **ask)
    there = lk.extract(lk.load_model(folder, device="cuda", dtype="float32"), stimuli, **ask)
    for key in here.cells():
        assert_same(there[key], here[key], 1e-3)
