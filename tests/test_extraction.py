"""The contracts of extraction, each with a test that can fail."""

from __future__ import annotations

import errno
import random
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from PIL import Image
from tiny_models import save_tiny_stable_diffusion

import ldm_kit as lk
from ldm_kit.errors import (
    BadInputError,
    MismatchError,
    NonFiniteError,
    UnknownNameError,
    UnreadableImageError,
)
from ldm_kit.features.request import CHUNK
from ldm_kit.features.store_files import seal
from ldm_kit.models.noise import draw_noise
from tests.children import digest, extract_in_child

LEVELS = [0.1, 0.5]
BOTH = ["none", "label"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_stable_diffusion(tmp_path_factory.mktemp("sd"))


@pytest.fixture(scope="module")
def model(folder):
    return lk.load_model(folder, device="cpu")


def some_stimuli(folder: Path, n: int = 40) -> lk.Stimuli:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for i in range(n):
        blobs = rng.integers(0, 255, (4, 5, 3), dtype=np.uint8)
        Image.fromarray(blobs).resize((50, 40), Image.Resampling.BICUBIC).save(folder / f"thing{i:02d}.png")
    names = tuple(f"thing{i:02d}.png" for i in range(n))
    return lk.Stimuli(names, root=str(folder), dataset="blobs")


@pytest.fixture(scope="module")
def stimuli(tmp_path_factory):
    return some_stimuli(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def reference(model, stimuli):
    return lk.extract(model, stimuli, noise_levels=LEVELS, conditionings=BOTH, batch_size=7, progress=False)


def assert_same(got, expected, tolerance=1e-5):
    scale = np.abs(expected).max()
    assert np.abs(got - expected).max() <= tolerance * scale


# Right ------------------------------------------------------------------------------------------------


def test_features_equal_a_hand_written_forward_pass(model, stimuli, reference):
    """Stage by stage, without hooks, pipeline, or any code of ours but the noise draw."""
    unet, vae = model.denoiser, model.components["vae"]
    tokenizer, encoder = model.components["tokenizer"], model.components["text_encoder"]
    name = stimuli.names[3]
    picture = Image.open(Path(stimuli.root) / name).convert("RGB")
    picture = picture.resize((40, 32), Image.Resampling.LANCZOS).crop((4, 0, 36, 32))
    pixels = torch.tensor(np.array(picture), dtype=torch.float32).permute(2, 0, 1)[None] / 255 * 2 - 1
    ids = tokenizer("a photo of a thing", padding="max_length", max_length=16, return_tensors="pt").input_ids
    with torch.no_grad():
        latents = vae.encode(pixels).latent_dist.mean * vae.config.scaling_factor
        noise = torch.from_numpy(draw_noise(name, (4, 8, 8), seed=0))[None]
        x = model.components["scheduler"].add_noise(latents, noise, torch.tensor([500]))
        text = encoder(ids).last_hidden_state
        time_embedding = unet.time_embedding(unet.time_proj(torch.tensor([500])))
        x, seen, residuals = unet.conv_in(x), {}, ()
        residuals += (x,)
        for i, block in enumerate(unet.down_blocks):
            extra = {"encoder_hidden_states": text} if getattr(block, "has_cross_attention", False) else {}
            x, outputs = block(hidden_states=x, temb=time_embedding, **extra)
            residuals += outputs
            seen[f"down_blocks.{i}"] = x
        x = seen["mid_block"] = unet.mid_block(x, time_embedding, encoder_hidden_states=text)
        for i, block in enumerate(unet.up_blocks):
            used, residuals = residuals[-len(block.resnets) :], residuals[: -len(block.resnets)]
            extra = {"encoder_hidden_states": text} if getattr(block, "has_cross_attention", False) else {}
            x = block(hidden_states=x, temb=time_embedding, res_hidden_states_tuple=used, **extra)
            seen[f"up_blocks.{i}"] = x
    assert set(seen) == set(reference.blocks)
    words = reference.prompts("label")[3]
    assert words == "a photo of a thing"
    for block, maps in seen.items():
        assert_same(reference[block, 0.5, "label"][3], maps.mean(dim=(2, 3))[0].numpy())


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 16])
def test_same_features_for_any_batch_size(model, stimuli, reference, batch_size):
    again = lk.extract(
        model, stimuli, noise_levels=LEVELS, conditionings=BOTH, batch_size=batch_size, progress=False
    )
    for key in reference.cells():
        assert_same(again[key], reference[key])


def test_same_features_for_a_subset_in_another_order_one_block_one_level(model, stimuli, reference):
    rows = [31, 2, 17]
    part = lk.extract(
        model, stimuli[rows], blocks="mid_block", noise_levels=[0.5], conditionings="label", progress=False
    )
    assert part.names == tuple(stimuli.names[row] for row in rows)
    assert_same(part["mid_block", 0.5, "label"], reference["mid_block", 0.5, "label"][rows])


def test_noise_and_words_change_features(reference):
    a = reference["mid_block", 0.5, "none"]
    assert np.abs(a - reference["mid_block", 0.1, "none"]).max() > 1e-3
    assert np.abs(a - reference["mid_block", 0.5, "label"]).max() > 1e-4


def test_other_seed_other_features(model, stimuli, reference):
    other = lk.extract(model, stimuli[:4], blocks="mid", noise_levels=[0.5], seed=1, progress=False)
    assert np.abs(other["mid_block", 0.5, "none"] - reference["mid_block", 0.5, "none"][:4]).max() > 1e-3


# Never twice -------------------------------------------------------------------------------------------


def counting(model, monkeypatch):
    counts = {"vae": 0, "text": 0, "unet": 0}
    for part, module in (
        ("text", model.components["text_encoder"]),
        ("unet", model.denoiser.conv_in),
        ("vae", model.components["vae"].encoder),
    ):
        forward = module.forward

        def counted(*args, part=part, forward=forward, **kwargs):
            first = next(iter(args), kwargs.get("input_ids"))
            counts[part] += len(first) if first is not None else 1
            return forward(*args, **kwargs)

        monkeypatch.setattr(module, "forward", counted)
    model._prompts.clear()
    return counts


def test_each_image_and_prompt_is_encoded_once(model, stimuli, monkeypatch):
    counts = counting(model, monkeypatch)
    lk.extract(model, stimuli, noise_levels=[0.1, 0.4, 0.8], conditionings=BOTH, progress=False)
    assert counts["vae"] == 40
    assert counts["text"] == 2  # "" and "a photo of a thing": digits are dropped, so all share one label
    assert counts["unet"] == 40 * 3 * 2


def test_a_grown_grid_computes_only_what_is_missing(model, stimuli, reference, tmp_path, monkeypatch):
    out = tmp_path / "features"
    lk.extract(model, stimuli[:10], blocks="mid", noise_levels=[0.1], out=out, progress=False)
    counts = counting(model, monkeypatch)
    store = lk.extract(model, stimuli[:10], blocks="mid", noise_levels=[0.1], out=out, progress=False)
    assert counts["unet"] == 0
    store = lk.extract(model, stimuli, blocks="mid", noise_levels=[0.1], out=out, progress=False)
    assert counts["unet"] == 30
    lk.extract(model, stimuli, blocks="mid", noise_levels=LEVELS, out=out, progress=False)
    assert counts["unet"] == 30 + 40
    store = lk.FeatureStore.open(out)
    assert store.names == stimuli.names
    assert_same(store["mid_block", 0.1, "none"], reference["mid_block", 0.1, "none"])
    assert_same(store["mid_block", 0.5, "none"], reference["mid_block", 0.5, "none"])


def test_asking_for_less_shows_less(model, stimuli, tmp_path):
    out = tmp_path / "features"
    lk.extract(model, stimuli, noise_levels=LEVELS, out=out, progress=False)
    part = lk.extract(model, stimuli[:3], blocks="up", noise_levels=[0.5], out=out, progress=False)
    assert part.blocks == ("up_blocks.0", "up_blocks.1")
    assert part.noise_levels == (0.5,)
    assert len(part) == 3
    assert len(lk.FeatureStore.open(out)) == 40


# Identity ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 5}, "seed is 0 there and 5 here"),
        ({"pooling": "max"}, "pooling is 'mean' there and 'max' here"),
        ({"template": "{name}"}, "template is 'a photo of a {name}' there and '{name}' here"),
    ],
)
def test_another_request_is_refused_and_the_difference_named(model, stimuli, tmp_path, change, named):
    out = tmp_path / "features"
    lk.extract(model, stimuli[:4], blocks="mid", noise_levels=[0.1], out=out, progress=False)
    before = digest(out)
    with pytest.raises(MismatchError, match="made by another request") as caught:
        lk.extract(model, stimuli[:4], blocks="mid", noise_levels=[0.1], out=out, progress=False, **change)
    assert named in str(caught.value)
    assert digest(out) == before


def test_another_dtype_is_refused(model, stimuli, tmp_path):
    out = tmp_path / "features"
    lk.extract(model, stimuli[:4], blocks="mid", noise_levels=[0.1], out=out, progress=False)
    half = lk.load_model(save_tiny_stable_diffusion(tmp_path), device="cpu", dtype="bfloat16")
    with pytest.raises(MismatchError, match="dtype is 'float32' there and 'bfloat16' here"):
        lk.extract(half, stimuli[:4], blocks="mid", noise_levels=[0.1], out=out, progress=False)


def test_a_changed_picture_or_caption_is_refused(model, tmp_path):
    stimuli = some_stimuli(tmp_path / "pictures", 4)
    out = tmp_path / "features"
    lk.extract(model, stimuli, blocks="mid", noise_levels=[0.1], out=out, progress=False)
    Image.new("RGB", (40, 40)).save(tmp_path / "pictures" / "thing02.png")
    with pytest.raises(MismatchError, match=r"'thing02\.png' has changed"):
        lk.extract(model, stimuli, blocks="mid", noise_levels=[0.1], out=out, progress=False)


def test_other_versions_warn(model, stimuli, tmp_path):
    out = tmp_path / "features"
    ask = {"blocks": "mid", "noise_levels": [0.1], "out": out, "progress": False}
    lk.extract(model, stimuli[:4], **ask)
    group = zarr.open_group(str(out))
    about = dict(group.attrs["ldm_kit"])
    about["versions"]["torch"] = "1.0"
    group.attrs["ldm_kit"] = seal(about)
    with pytest.warns(UserWarning, match=r"torch 1\.0 there"):
        lk.extract(model, stimuli[:4], **ask)


# Nothing is lost -----------------------------------------------------------------------------------------


def computed(out: Path) -> dict[str, np.ndarray]:
    """For each array of a store that may not have been begun: which stimuli have features."""
    try:
        group = zarr.open_group(str(out), mode="r")
    except FileNotFoundError:
        return {}
    arrays = {name: a for name, a in group.members(max_depth=None) if isinstance(a, zarr.Array)}
    return {name: ~np.isnan(np.asarray(array[:, 0])) for name, array in arrays.items()}


@pytest.mark.slow
def test_killed_at_random_instants_it_ends_with_the_same_bytes(folder, tmp_path):
    stimuli = some_stimuli(tmp_path / "pictures", 10 * CHUNK + 5)
    ask = {"blocks": ["mid", "down_blocks.0"], "noise_levels": [0.5], "batch_size": 7}
    whole = extract_in_child(folder, stimuli, tmp_path / "whole", **ask).finish()
    rng, out = random.Random(0), tmp_path / "killed"
    at_work, before = 0, computed(out)
    for _ in range(20):
        # Long enough to get into the third chunk at most, so that few of the kills come after the end.
        at_work += extract_in_child(folder, stimuli, out, **ask).kill(after=rng.uniform(0.02, 0.25) * whole)
        after = computed(out)
        for name, there in before.items():
            assert after[name][: len(there)][there].all(), "a kill lost what was there"
        before = after
    assert at_work >= 10
    extract_in_child(folder, stimuli, out, **ask).finish()
    assert digest(out) == digest(tmp_path / "whole")
    assert not list(out.rglob("*.partial"))


def test_a_resumed_run_repeats_at_most_the_chunk_it_was_in(model, tmp_path, monkeypatch):
    stimuli = some_stimuli(tmp_path / "pictures", 3 * CHUNK)
    ask = {
        "blocks": "mid",
        "noise_levels": [0.5],
        "batch_size": 8,
        "out": tmp_path / "out",
        "progress": False,
    }
    encoded = []
    encode = type(model).encode

    class Killed(BaseException):
        """As a kill is: nothing is written on its account."""

    def dying(self, images, **options):
        encoded.append(len(images))
        if sum(encoded) > 2 * CHUNK + 8:
            raise Killed
        return encode(self, images, **options)

    monkeypatch.setattr(type(model), "encode", dying)
    monkeypatch.setattr("ldm_kit.features.passes.closing", nullcontext)
    with pytest.raises(Killed):
        lk.extract(model, stimuli, **ask)
    assert lk.FeatureStore.open(tmp_path / "out").table()["done"].item() == pytest.approx(2 / 3)
    monkeypatch.undo()
    counted = []
    monkeypatch.setattr(
        type(model),
        "encode",
        lambda self, images, **options: counted.append(len(images)) or encode(self, images, **options),
    )
    lk.extract(model, stimuli, **ask)
    assert sum(counted) == CHUNK


def test_orphans_of_a_killed_write_are_swept(model, stimuli, tmp_path):
    out = tmp_path / "features"
    ask = {"blocks": "mid", "noise_levels": [0.1], "out": out, "progress": False}
    lk.extract(model, stimuli[:4], **ask)
    orphan = out / "mid_block" / "0.1" / "none" / "c" / "0" / "0.abc.partial"
    orphan.write_bytes(b"half")
    lk.extract(model, stimuli[:4], **ask)
    assert not orphan.exists()


@pytest.mark.slow
def test_two_processes_share_a_store(folder, stimuli, reference, tmp_path):
    out, ask = tmp_path / "features", {"noise_levels": LEVELS, "conditionings": BOTH}
    children = [extract_in_child(folder, half, out, **ask) for half in (stimuli[:20], stimuli[20:])]
    for child in children:
        child.finish()
    store = lk.FeatureStore.open(out).select(names=stimuli.names)
    for key in reference.cells():
        assert_same(store[key], reference[key])


def test_a_broken_picture_is_named_and_what_was_done_is_kept(model, tmp_path):
    stimuli = some_stimuli(tmp_path / "pictures", 40)
    broken = tmp_path / "pictures" / "thing25.png"
    sound = broken.read_bytes()
    broken.write_bytes(b"not a picture")
    out = tmp_path / "features"
    ask = {"blocks": "mid", "noise_levels": [0.1], "batch_size": 8, "out": out, "progress": False}
    with pytest.raises(UnreadableImageError, match=r"thing25\.png"):
        lk.extract(model, stimuli, **ask)
    store = lk.FeatureStore.open(out)
    assert store.table()["done"].item() == 24 / 40  # the three batches before it, though their chunk has 32
    with pytest.raises(MismatchError, match=r"16 of 40 stimuli have no features.*Run the same.*names="):
        store["mid_block", 0.1, "none"]
    kept = store.select(names=stimuli.names[:24])["mid_block", 0.1, "none"]
    assert kept.shape == (24, 32)
    broken.write_bytes(sound)  # it was never computed, so it may change
    whole = lk.extract(model, stimuli, **ask)
    np.testing.assert_array_equal(whole["mid_block", 0.1, "none"][:24], kept)
    fresh = lk.extract(model, stimuli, **{**ask, "out": None})
    np.testing.assert_array_equal(whole["mid_block", 0.1, "none"], fresh["mid_block", 0.1, "none"])


def test_a_store_remembers_the_pictures_that_were_refused(model, tmp_path):
    stimuli = some_stimuli(tmp_path / "pictures", 6)
    broken, gone = (tmp_path / "pictures" / f"thing{i:02}.png" for i in (2, 4))
    sound = broken.read_bytes()
    broken.write_bytes(b"not a picture")
    gone.unlink()
    out = tmp_path / "features"
    ask = {"blocks": "mid", "noise_levels": [0.1], "out": out, "progress": False, "on_error": "skip"}
    shown = lk.extract(model, stimuli, **ask)
    opened = lk.FeatureStore.open(out)
    assert opened.names == shown.names == tuple(n for n in stimuli.names if n not in (broken.name, gone.name))
    assert sorted(opened.refused) == [broken.name, gone.name]
    assert opened["mid_block", 0.1, "none"].shape == (4, 32)
    assert opened.prompts("none") == ("",) * 4 and len(opened.concepts) == 4
    broken.write_bytes(sound)
    lk.extract(model, stimuli, **ask)
    opened = lk.FeatureStore.open(out)
    assert broken.name in opened.names and sorted(opened.refused) == [gone.name]
    broken.unlink()  # its features are there already, and stay
    lk.extract(model, stimuli, **ask)
    assert broken.name in lk.FeatureStore.open(out).names


def test_cells_and_stimuli_are_asked_for_by_what_they_are(reference):
    assert reference.select(noise_levels=np.float32(0.5)).noise_levels == (0.5,)
    with pytest.raises(BadInputError, match=r"noise level '0\.5' is text. Give a number, one of 0\.1, 0\.5"):
        reference["mid_block", "0.5", "none"]
    with pytest.raises(
        BadInputError, match=r"39 of 40 stimuli have no new name, the first is 'thing01\.png'"
    ):
        reference.renamed({"thing00.png": "thing40.png"})


def test_a_grid_that_grows_in_stimuli_and_levels_computes_just_what_is_missing(model, tmp_path, monkeypatch):
    stimuli = some_stimuli(tmp_path / "pictures", 40)
    ask = {"blocks": ["mid"], "out": tmp_path / "out", "progress": False, "conditionings": BOTH}
    half = lk.extract(model, stimuli[::2], noise_levels=[0.5], **ask)
    before = half["mid_block", 0.5, "label"]
    passes = []
    watch = type(model).watch
    monkeypatch.setattr(
        type(model),
        "watch",
        lambda self, x, *rest, **more: passes.append(len(x)) or watch(self, x, *rest, **more),
    )
    grown = lk.extract(model, stimuli, noise_levels=[0.5, 0.9], **ask)
    assert sum(passes) == 2 * (20 + 40)
    np.testing.assert_array_equal(grown["mid_block", 0.5, "label"][::2], before)
    fresh = lk.extract(model, stimuli, noise_levels=[0.5, 0.9], **{**ask, "out": None})
    for key in fresh.cells():
        assert_same(grown[key], fresh[key])


def test_a_full_disk_says_so_and_loses_nothing(model, stimuli, tmp_path, monkeypatch):
    out = tmp_path / "features"
    lk.extract(model, stimuli[:4], blocks="mid", noise_levels=[0.1], out=out, progress=False)
    before = lk.FeatureStore.open(out)["mid_block", 0.1, "none"]

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(zarr.Array, "__setitem__", full)
    with pytest.raises(BadInputError, match="No space left on device.*Free some space"):
        lk.extract(model, stimuli[:4], blocks="mid", noise_levels=LEVELS, out=out, progress=False)
    monkeypatch.undo()
    np.testing.assert_array_equal(lk.FeatureStore.open(out)["mid_block", 0.1, "none"], before)


def test_an_out_that_cannot_be_written_to(model, stimuli, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(BadInputError, match="Cannot write|is a file"):
        lk.extract(model, stimuli[:2], out=tmp_path / "file" / "features", progress=False)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("x")
    with pytest.raises(BadInputError, match="holds other things"):
        lk.extract(model, stimuli[:2], out=tmp_path / "other", progress=False)


# Bad input ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ask", "error", "says"),
    [
        ({"blocks": "mid_blok"}, UnknownNameError, "Did you mean 'mid_block'"),
        ({"noise_levels": [1.5]}, BadInputError, "outside 0 to 1"),
        ({"noise_levels": [0.5, 0.5001]}, BadInputError, "0.5 and 0.5001 both fall on timestep 500"),
        ({"noise_levels": []}, BadInputError, "No noise level"),
        ({"conditionings": "labels"}, UnknownNameError, "Did you mean 'label'"),
        ({"pooling": "median"}, UnknownNameError, "pooling 'median'"),
        ({"batch_size": 0}, BadInputError, "batch_size=0: give a whole number"),
        ({"blocks": []}, BadInputError, "No block"),
    ],
)
def test_bad_requests(model, stimuli, ask, error, says):
    with pytest.raises(error, match=says):
        lk.extract(model, stimuli[:2], progress=False, **ask)


def test_no_stimuli(model, stimuli):
    with pytest.raises(BadInputError, match="no stimuli"):
        lk.extract(model, stimuli[:0], progress=False)


def test_non_finite_activations_name_block_level_and_image(model, stimuli, monkeypatch):
    forward = model.denoiser.mid_block.forward
    monkeypatch.setattr(model.denoiser.mid_block, "forward", lambda *a, **k: forward(*a, **k) * torch.inf)
    with pytest.raises(NonFiniteError, match=r"'mid_block' .* noise level 0\.1 \(none\) for 'thing00\.png'"):
        lk.extract(model, stimuli[:2], noise_levels=[0.1], progress=False)


# The store ----------------------------------------------------------------------------------------------


def test_the_store_lists_and_names_what_it_has(model, stimuli, reference):
    table = reference.table()
    assert len(table) == 5 * 2 * 2
    assert table["done"].eq(1).all()
    assert set(table["timestep"]) == {100, 500}
    labels = reference.labels(reference.cells()[0])
    assert labels["block"] == "down_blocks.0"
    assert labels["model"] == "model"
    assert labels["dataset"] == "blobs"
    with pytest.raises(UnknownNameError, match="block 'mid'.*Did you mean 'mid_block'"):
        reference["mid", 0.1, "none"]
    with pytest.raises(UnknownNameError, match="noise level 0.2"):
        reference["mid_block", 0.2, "none"]
    with pytest.raises(UnknownNameError, match="stimulus 'nobody'"):
        reference.select(names=["nobody"])


def test_the_store_is_plain_zarr(model, stimuli, reference, tmp_path):
    out = tmp_path / "features"
    lk.extract(model, stimuli[:5], blocks="mid", noise_levels=[0.5], out=out, progress=False)
    array = zarr.open_array(str(out / "mid_block" / "0.5" / "none"))
    assert array.metadata.dimension_names == ("stimulus", "mid_block channel")
    assert_same(array[:], reference["mid_block", 0.5, "none"][:5])


def test_maps_are_kept_when_asked_for(model, stimuli, reference):
    maps = lk.extract(
        model, stimuli[:3], blocks="mid_block", noise_levels=[0.5], pooling="none", progress=False
    )["mid_block", 0.5, "none"]
    assert maps.shape == (3, 32, 4, 4)
    assert_same(maps.mean(axis=(2, 3)), reference["mid_block", 0.5, "none"][:3])


def test_a_store_without_arrays_shows_all_its_stimuli(reference):
    empty = reference.select(blocks=[])
    assert empty.finite().names == empty.names == reference.names


def test_a_stimulus_that_is_selected_twice_is_shown_once(reference):
    twice = reference.select(names=["thing02.png", "thing01.png", "thing02.png"])
    assert twice.names == ("thing02.png", "thing01.png")
    expected = reference["mid_block", 0.1, "none"][[2, 1]]
    np.testing.assert_array_equal(twice["mid_block", 0.1, "none"], expected)


def test_opening_what_is_no_store(tmp_path):
    with pytest.raises(BadInputError, match=r"no feature store at .*lk\.extract"):
        lk.FeatureStore.open(tmp_path)
