"""Every notebook runs headless on the bundled model, and its numbers are right: each is computed again, plainly."""

from __future__ import annotations

import itertools
import json
import runpy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from traitlets import TraitError

import ldm_kit as lk
from ldm_kit.errors import LdmKitError
from ldm_kit.run_record import SERIES_VARIABLE
from tests.conftest import EMOJI_BLOCKS as BLOCKS
from tests.quick_batch import run_here
from tests.small_store import few_emoji

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
LEVELS = [0.3, 0.9]

pytestmark = pytest.mark.slow


WRONG = [
    ("00_start_here", {"metric": "centred cosin"}, "Did you mean 'centred cosine'"),
    ("01_extraction", {"batch_size": "many"}, "many"),
    ("01_extraction", {"conditionings": ["labels"]}, "label"),
    ("01_extraction", {"n_drawn": 0}, "n_drawn=0"),
    ("02_probing", {"n_folds": 1}, "n_folds=1"),
    ("02_probing", {"neighbours_of": "appel"}, "apple"),
    ("03_layer_comparison", {"metric": "centred cosin"}, "Did you mean 'centred cosine'"),
    ("03_layer_comparison", {"n_folds": 0}, "n_folds=0"),
    ("03_layer_comparison", {"n_folds": 200}, "200 folds"),
    ("04_text_conditioning", {"metric": "centred cosin"}, "Did you mean 'centred cosine'"),
    ("04_text_conditioning", {"template": "a photo"}, "{name}"),
    ("05_odd_one_out_game", {"metric": "centred cosin"}, "Did you mean 'centred cosine'"),
    ("05_odd_one_out_game", {"trials": "informativ"}, "Did you mean 'informative'"),
    ("05_odd_one_out_game", {"n_trials": 300}, "300 trials"),
    ("05_odd_one_out_game", {"n_catch": 50}, "50"),
    ("05_odd_one_out_game", {"autoplay": "particpant"}, "Did you mean 'participant'"),
    ("06_model_comparison", {"metric": "centred cosin"}, "Did you mean 'centred cosine'"),
    ("06_model_comparison", {"shown": 0.2}, "Unknown shown '0.2'"),
    ("06_model_comparison", {"conditioning": "labels"}, "Did you mean 'label'"),
    ("06_model_comparison", {"models": ["pixels", "tiny-ldn"]}, "Did you mean 'tiny-ldm'"),
    ("06_model_comparison", {"models": ["pixels", "tiny-ldm"], "noise_levels": [0.1, 30]}, "outside 0 to 1"),
    ("90_train_tiny_ldm", {"concepts": ["appel"]}, "apple"),
    ("90_train_tiny_ldm", {"denoiser_channels": [32, 48]}, "denoiser_channels"),
    ("90_train_tiny_ldm", {"sampling_steps": 0}, "sampling_steps=0"),
    ("90_train_tiny_ldm", {"denoiser_rate": 0.0}, "denoiser_rate=0.0"),
    ("90_train_tiny_ldm", {"classifier_samples": -1}, "classifier_samples=-1"),
]


@pytest.mark.parametrize(("name", "wrong", "told"), WRONG, ids=lambda one: str(one)[:40])
def test_a_wrong_parameter_is_told_before_any_feature_is_computed(
    name: str, wrong: dict[str, object], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(*_args: object, **_options: object) -> None:
        raise AssertionError(f"extraction or training began with {wrong}")

    monkeypatch.setattr("ldm_kit.features.extraction.fill", late)
    monkeypatch.setattr("ldm_kit.training.train_autoencoder", late)
    codes = [
        "".join(c["source"])
        for c in json.loads((NOTEBOOKS / f"{name}.ipynb").read_text())["cells"]
        if c["cell_type"] == "code"
    ]
    codes.insert(
        1, "\n".join(f"{key} = {value!r}" for key, value in {"out": str(tmp_path / "out"), **wrong}.items())
    )
    (tmp_path / "notebook.py").write_text("\n".join(codes))
    monkeypatch.chdir(tmp_path)
    # `ValueError`: what batch_size = "many" is to `int`, and an option that a widget does not offer.
    with pytest.raises((LdmKitError, ValueError, TraitError)) as caught:
        runpy.run_path(str(tmp_path / "notebook.py"), {"display": str})
    assert told in str(caught.value) or isinstance(caught.value, TraitError)


@pytest.fixture(scope="module")
def series(tmp_path_factory, emoji_features):
    """Run the notebooks on a small grid of features that were computed before; 01 alone in a kernel, which takes long.

    All run in kernels in the browser's tests.
    """
    out = tmp_path_factory.mktemp("series")
    emoji_features(out / "features")
    grid = {"noise_levels": LEVELS, "features": str(out / "features"), "n_noise": 1, "seed": 0}
    asked = {
        "00_start_here": {},
        "01_extraction": {"blocks": BLOCKS},
        "02_probing": {"blocks": BLOCKS, "noise_levels": [0.3]},
        "03_layer_comparison": {"blocks": BLOCKS},
        "04_text_conditioning": {"blocks": BLOCKS},
        "05_odd_one_out_game": {"blocks": BLOCKS, "autoplay": "participant", "n_trials": 12, "n_catch": 4},
    }
    for name, parameters in asked.items():
        path = NOTEBOOKS / f"{name}.ipynb"
        shared = {key: value for key, value in grid.items() if key in lk.batch.read_parameters(path)}
        with pytest.MonkeyPatch.context() as patch:
            if name != "01_extraction":
                here(patch, out)
            outcome = lk.batch.run_notebook(path, out, {**shared, **parameters}, timeout=300)
        assert outcome.status == "done", outcome.error
    return out


def here(patch: pytest.MonkeyPatch, out: Path) -> None:
    """Run notebooks in this process, which has imported everything."""
    patch.setattr("papermill.execute_notebook", run_here)
    patch.setenv(SERIES_VARIABLE, str(out))


@pytest.fixture
def without_kernel(tmp_path, monkeypatch):
    here(monkeypatch, tmp_path / "out")


def table(series: Path, notebook: str, name: str) -> pd.DataFrame:
    frame = pd.read_parquet(series / notebook / "tables" / f"{name}.parquet")
    assert len(frame) == len(pd.read_csv(series / notebook / "tables" / f"{name}.csv"))
    return frame


def findings(series: Path, notebook: str) -> str:
    return json.dumps(json.loads((series / notebook / "results.json").read_text())["findings"])


@pytest.fixture(scope="module")
def store(series):
    return lk.FeatureStore.open(series / "features")


@pytest.fixture(scope="module")
def triplets():
    return lk.load_dataset("emoji").triplets


def plain_accuracy(features, indices) -> float:
    """Centred cosine, triplet by triplet; the odd one is outside the most similar pair."""
    centred = features.astype(np.float64) - features.astype(np.float64).mean(axis=0)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    hits = 0
    for i, j, k in indices:
        hits += unit[i] @ unit[j] > max(unit[i] @ unit[k], unit[j] @ unit[k])
    return hits / len(indices)


def test_00_scores_each_cell_as_a_plain_loop_does(series, store, triplets):
    scored = table(series, "00_start_here", "alignment").set_index(["block", "noise_level"])
    assert len(scored) == 9 * 2
    for block, level in itertools.product(BLOCKS, LEVELS):
        row = scored.loc[(block, level)]
        features = store.select(names=triplets.names)[block, level, "none"]
        # float32 similarities may flip a triplet whose gap is tiny
        assert row["accuracy"] == pytest.approx(plain_accuracy(features, triplets.indices), abs=2e-4)
        assert row["ci_low"] < row["accuracy"] < row["ci_high"]
    assert set(scored["judgements"]) == {"simulated"}
    assert "simulated" in findings(series, "00_start_here")


def test_01_extracts_what_it_says(series, store):
    blocks = table(series, "01_extraction", "blocks").set_index("block")
    assert blocks.loc["mid_block", "shape"] == "(128, 2, 2)"
    told = findings(series, "01_extraction")
    difference = float(told.split("differ by ")[1].split(" ")[0])
    assert 0 <= difference <= 1e-5
    assert 0.2 in store.noise_levels  # the level that was asked for afterwards
    executed = (series / "01_extraction" / "01_extraction.ipynb").read_text()
    assert "| 16/32 [00:00" in executed  # half is there when it resumes, and then all
    assert "| 32/32 [00:00" in executed
    assert set(store.conditionings) == {"none", "label", "caption", "shuffled"}


def test_01_looks_for_the_same_concept_in_other_styles(series, store):
    shares = table(series, "01_extraction", "other_drawings").set_index("block")
    other = lk.FeatureStore.open(series / "features-exemplars")
    names = lk.load_dataset("emoji").stimuli[::8][:40].names
    styles = ("fluent", "fluent_flat", "twemoji")
    assert set(other.names) == {f"{style}/{name}" for style in styles for name in names}
    for block in BLOCKS:
        mine = store.select(names=names)[block, 0.3, "none"].astype(np.float64)
        hits = 0
        for style in styles:
            theirs = other.select(names=[f"{style}/{name}" for name in names])[block, 0.3, "none"]
            for row, vector in enumerate(mine - mine.mean(axis=0)):
                against = theirs.astype(np.float64) - theirs.mean(axis=0)
                cosines = against @ vector / np.linalg.norm(against, axis=1)
                hits += int(np.argmax(cosines) == row)
        assert shares.loc[block, "share"] == pytest.approx(hits / 120, abs=0.009)
    assert shares["difference"].tolist() == pytest.approx((shares["share"] - 1 / 40).tolist())
    assert (shares["n_concepts"] == 40).all()


def test_02_scores_probes_on_objects_they_never_saw(series, store, triplets):
    folds = table(series, "02_probing", "linear_folds")
    assert set(folds["fold"]) == {0, 1, 2}
    fold = lk.object_folds(len(triplets.names), 3, 0)
    for _, row in folds.iterrows():
        held = (fold[triplets.indices] == row["fold"]).all(axis=1)
        assert row["n_triplets"] == held.sum()
        assert row["gain"] == pytest.approx(row["accuracy"] - row["zero_shot"], abs=1e-9)
        features = store.select(names=triplets.names)[row["block"], 0.3, "none"].astype(np.float64)
        own = features - features[fold != row["fold"]].mean(axis=0)  # the centre is a fitted thing, too
        unit = own / np.linalg.norm(own, axis=1, keepdims=True)
        i, j, k = triplets.indices[held].T
        pair = np.einsum("nd,nd->n", unit[i], unit[j])
        others = np.maximum(np.einsum("nd,nd->n", unit[i], unit[k]), np.einsum("nd,nd->n", unit[j], unit[k]))
        assert row["zero_shot"] == pytest.approx((pair > others).mean(), abs=3e-3)
    probes = table(series, "02_probing", "probes")
    assert set(probes["probe"].str.split(" ").str[0]) >= {"linear"}
    pooled = folds.groupby("block").apply(lambda f: np.average(f["accuracy"], weights=f["n_triplets"]))
    linear = probes[probes["probe"] == "linear"].set_index("block")["accuracy"]
    np.testing.assert_allclose(linear[pooled.index], pooled, atol=1e-9)


def test_03_reports_its_winner_on_the_other_half(series, store, triplets):
    best = table(series, "03_layer_comparison", "best_cells")
    halves = lk.split_objects(triplets.names, random_state=0)
    for _, row in best.iterrows():
        other = triplets.among(halves[1 - int(row["fold"])])
        features = store.select(names=other.names)[row["block"], row["noise_level"], "none"]
        assert row["n_triplets"] == len(other)
        assert row["accuracy"] == pytest.approx(plain_accuracy(features, other.indices), abs=0.02)
    alone = table(series, "03_layer_comparison", "alignment").groupby("block")["accuracy"].mean()
    versus = table(series, "03_layer_comparison", "against_bottleneck").set_index("a")
    for block in ("down_blocks.1", "up_blocks.1"):
        assert versus.loc[block, "difference"] == pytest.approx(alone[block] - alone["mid_block"], abs=1e-6)


def test_04_gains_are_differences_and_prompts_are_distinguished_from_images(series, store, triplets):
    scored = table(series, "04_text_conditioning", "alignment").set_index(
        ["block", "noise_level", "conditioning"]
    )["accuracy"]
    gains = table(series, "04_text_conditioning", "gains")
    assert len(gains) == len(BLOCKS) * len(LEVELS) * 3
    for _, row in gains.iterrows():
        place = row["block"], row["noise_level"]
        assert row["difference"] == pytest.approx(scored[(*place, row["a"])] - scored[(*place, "none")])
    shuffled = table(series, "04_text_conditioning", "shuffled").set_index(
        ["block", "noise_level", "conditioning"]
    )["accuracy"]
    prompts = store.select(names=triplets.names).prompts("shuffled")
    said = [prompt.removeprefix("a photo of a ") for prompt in prompts]
    stimuli = lk.load_dataset("emoji").stimuli
    label = {stimuli[i].label: i for i in range(len(triplets.names))}
    row_of_word = np.empty(len(said), dtype=int)
    for row, word in enumerate(said):
        row_of_word[label[word]] = row
    features = store.select(names=triplets.names)["up_blocks.1", 0.9, "shuffled"]
    by_word = plain_accuracy(features[row_of_word], triplets.indices)
    assert shuffled["up_blocks.1", 0.9, "as the prompt's object"] == pytest.approx(by_word, abs=2e-4)
    by_image = plain_accuracy(features, triplets.indices)
    assert shuffled["up_blocks.1", 0.9, "as the image's object"] == pytest.approx(by_image, abs=2e-4)
    follows = table(series, "04_text_conditioning", "prompt_minus_image").set_index("noise_level")[
        "difference"
    ]
    ways = shuffled.groupby(["noise_level", "conditioning"]).mean().unstack()
    np.testing.assert_allclose(
        follows[LEVELS], (ways["as the prompt's object"] - ways["as the image's object"])[LEVELS], atol=1e-6
    )


def test_05_scores_a_simulated_player_as_the_answers_on_disk_do(series, store, triplets):
    scored = table(series, "05_odd_one_out_game", "agreement").set_index("other")
    assert set(scored.index) == {"simulated observers", *BLOCKS}
    assert set(scored["judgements"]) == {"simulated"}
    choices = lk.read_choices(series / "05_odd_one_out_game" / "answers")
    assert choices.judgements == "simulated" and len(choices) == 12
    votes: dict[frozenset[str], list[str]] = {}
    for row in triplets:
        votes.setdefault(frozenset(triplets.names[i] for i in row), []).append(triplets.names[row[2]])
    said = [votes[frozenset(choices.names[i] for i in row)] for row in choices]
    most = [max(set(names), key=names.count) for names in said]
    agreed = sum(choices.names[row[2]] == name for row, name in zip(choices, most, strict=True))
    assert scored.loc["simulated observers", "agreed"] == agreed
    for block in BLOCKS:
        features = store.select(names=triplets.names)[block, 0.3, "none"]
        expected = plain_accuracy(features, choices.on(triplets.names))
        assert scored.loc[block, "accuracy"] == pytest.approx(expected, abs=1e-9)
        assert scored.loc[block, "noise_level"] == 0.3
    told = findings(series, "05_odd_one_out_game")
    assert (
        "simulated player (participant)" in told
        and f"{agreed} of 12 in common with simulated observers" in told
    )


def test_02_takes_the_answers_of_a_class_as_its_triplets(series, tmp_path, without_kernel):
    data = lk.load_dataset("emoji")
    sets = lk.game.candidate_sets(data, 400)
    game = lk.game.Game(data.stimuli, sets, {}, n_trials=400, n_catch=20, how="random")
    for player in range(4):
        lk.game.autoplay(game, "participant", tmp_path / "class", player=f"player {player}")
    asked = {"blocks": ["mid_block"], "noise_levels": [0.3], "n_folds": 2, "non_linear": False}
    asked |= {"triplets": str(tmp_path / "class"), "features": str(series / "features"), "n_noise": 1}
    outcome = lk.batch.run_notebook(NOTEBOOKS / "02_probing.ipynb", tmp_path / "out", asked, timeout=300)
    assert outcome.status == "done", outcome.error
    folds = table(tmp_path / "out", "02_probing", "linear_folds")
    assert set(folds["judgements"]) == {"simulated"}  # as the files say
    played = lk.read_choices(tmp_path / "class", data.stimuli.names)
    assert len(played) == 1600
    judged = np.unique(played.indices)  # of 335 concepts some were in no set
    fold = np.full(len(played.names), -1)
    fold[judged] = lk.object_folds(len(judged), 2, 0)
    for _, row in folds.iterrows():
        assert row["n_triplets"] == (fold[played.indices] == row["fold"]).all(axis=1).sum()


def test_02_shows_the_blocks_of_a_class_that_judged_too_few_sets(series, tmp_path, without_kernel):
    """Thirty players with the game's defaults: the same ten sets each, of which no fold has enough."""
    data = lk.load_dataset("emoji")
    game = lk.game.Game(data.stimuli, lk.game.candidate_sets(data, 200), {}, n_trials=10, n_catch=3)
    for player in range(30):
        lk.game.autoplay(game, "participant", tmp_path / "class", player=f"player {player}")
    asked = {"blocks": ["mid_block"], "noise_levels": [0.3], "triplets": str(tmp_path / "class")}
    asked |= {"features": str(series / "features"), "n_noise": 1}
    outcome = lk.batch.run_notebook(NOTEBOOKS / "02_probing.ipynb", tmp_path / "out", asked, timeout=300)
    assert outcome.status == "done", outcome.error
    told = json.loads((tmp_path / "out" / "02_probing" / "results.json").read_text())
    assert [finding["headline"] for finding in told["findings"]] == [True]
    assert "300 simulated choices" in told["findings"][0]["text"]
    assert "10 different sets" in told["findings"][0]["text"]
    assert "about 400 different sets are needed" in told["findings"][0]["text"]
    assert [(figure["name"], figure["headline"]) for figure in told["figures"]] == [("probe_bars", True)]
    bare = table(tmp_path / "out", "02_probing", "zero_shot")
    assert bare["n_triplets"].tolist() == [300] and bare["ceiling_low"].notna().all()


def test_02_opens_with_the_gain_on_the_same_triplets_and_says_what_was_picked(series):
    told = json.loads((series / "02_probing" / "results.json").read_text())
    probes = table(series, "02_probing", "probes")
    linear = probes[probes["probe"] == "linear"]
    (opening,) = [finding["text"] for finding in told["findings"] if finding["headline"]]
    assert f"above zero in {(linear['gain_low'] > 0).sum()} of {len(linear)} cells" in opening
    assert f"its median is {linear['gain'].median():+.3f}" in opening
    assert "the highest of 3" in " ".join(findings(series, "02_probing").split())
    assert [figure["name"] for figure in told["figures"] if figure["headline"]] == ["probe_gain"]


@pytest.fixture
def folder(tmp_path):
    """Twenty images of one's own."""
    stimuli = lk.load_dataset("emoji").stimuli[:20]
    (tmp_path / "mine").mkdir()
    for name in stimuli.names:
        stimuli.open(name).save(tmp_path / "mine" / name)
    return tmp_path / "mine"


def test_a_folder_without_triplets_is_told_what_is_missing(folder, tmp_path, without_kernel):
    for path in NOTEBOOKS.glob("0*.ipynb"):
        assert "data.triplets.judgements" not in path.read_text(), (
            path.name
        )  # of None: an error without a word
    asked = {"dataset": "folder", "dataset_root": str(folder)}
    outcome = lk.batch.run_notebook(NOTEBOOKS / "00_start_here.ipynb", tmp_path / "out", asked, timeout=300)
    assert outcome.status == "failed"
    assert "BadInputError: The data set 'folder' has no triplets" in outcome.error
    assert "triplets.csv" in outcome.error


def test_03_runs_on_a_folder_with_triplets_which_has_no_dimensions(folder, tmp_path, without_kernel):
    names = sorted(path.name for path in folder.iterdir())
    rng = np.random.default_rng(0)
    rows = [",".join(names[i] for i in rng.choice(20, 3, replace=False)) for _ in range(300)]
    (folder / "triplets.csv").write_text("\n".join(rows) + "\n")
    asked = {"dataset": "folder", "dataset_root": str(folder), "blocks": ["mid_block"], "noise_levels": [0.3]}
    outcome = lk.batch.run_notebook(
        NOTEBOOKS / "03_layer_comparison.ipynb", tmp_path / "out", asked, timeout=300
    )
    assert outcome.status == "done", outcome.error
    assert not (tmp_path / "out" / "03_layer_comparison" / "tables" / "dimensions.parquet").exists()
    assert "On human choices" in findings(tmp_path / "out", "03_layer_comparison")


def test_the_bundled_model_shows_that_prompts_help_at_high_noise(series):
    """What the training taught: at noise 0.9 the label is all there is, and the kit sees it."""
    gains = table(series, "04_text_conditioning", "gains_over_blocks")
    label = gains[gains["a"] == "label"].set_index("noise_level")
    assert label.loc[0.9, "ci_low"] > 0
    assert label.loc[0.9, "difference"] > label.loc[0.3, "difference"]


def test_06_compares_models_on_the_same_triplets(tmp_path, without_kernel, monkeypatch):
    data = few_emoji(80)
    triplets = data.triplets
    monkeypatch.setattr(lk, "load_dataset", lambda *_args, **_options: data)
    models = ["tiny-ldm", "untrained:tiny-ldm", "latent:tiny-ldm", "pixels", "text:tiny-ldm"]
    asked = {"models": models, "noise_levels": [0.1], "shown": 0.1, "n_noise": 1, "seed": 0}
    out = tmp_path / "out"
    outcome = lk.batch.run_notebook(NOTEBOOKS / "06_model_comparison.ipynb", out, asked, timeout=300)
    assert outcome.status == "done", outcome.error
    scored = table(out, "06_model_comparison", "alignment")
    assert list(dict.fromkeys(scored["model"])) == models
    assert scored[scored["model"] == "tiny-ldm"]["relative_depth"].tolist() == [i / 8 for i in range(9)]
    stimuli = data.stimuli
    order = [stimuli.index(name) for name in triplets.names]
    pixels = np.stack([np.asarray(stimuli.open(name).resize((64, 64))) for name in stimuli.names])
    plain = {
        "pixels": pixels.reshape(len(pixels), -1)[order].astype(np.float64),
        "latent:tiny-ldm": lk.load_model("tiny-ldm", device="cpu")
        .encode([stimuli.open(name) for name in triplets.names])
        .flatten(1)
        .numpy(),
    }
    for model, features in plain.items():
        row = scored[scored["model"] == model].squeeze()
        assert row["accuracy"] == pytest.approx(plain_accuracy(features, triplets.indices), abs=2e-3)
    best = table(out, "06_model_comparison", "best_cells")
    half = triplets.among(lk.split_objects(triplets.names, random_state=0)[1])
    row = best[(best["model"] == "pixels") & (best["fold"] == 0)].squeeze()
    assert row["n_triplets"] == len(half)
    first = best[best["fold"] == 0].set_index("model")["accuracy"]
    against = table(out, "06_model_comparison", "against_first").set_index("a")["difference"]
    np.testing.assert_allclose(against, first[against.index] - first["tiny-ldm"], atol=1e-9)
    recorded = json.loads((out / "06_model_comparison" / "results.json").read_text())["provenance"]
    assert list(recorded["models"]) == models and recorded["device"]
    assert recorded["models"]["text:tiny-ldm"]["revision"].startswith("sha256:")
    told = findings(out, "06_model_comparison")
    assert all(f"`{model}`" in told for model in models)
    assert "simulated" in told
