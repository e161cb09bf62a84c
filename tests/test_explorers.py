"""The explorers without a browser: their state, their figures' numbers, floods of changes, cancelling, uploads."""

from __future__ import annotations

import asyncio
import io
import itertools
from dataclasses import replace
from types import SimpleNamespace

import ipywidgets
import numpy as np
import plotly.graph_objects as go
import pytest
from PIL import Image

import ldm_kit as lk
from ldm_kit.errors import BadInputError, UnknownNameError, UnreadableImageError
from ldm_kit.widgets.into_the_noise import uploaded_image
from ldm_kit.widgets.live import Cache, Latest, LiveFigure
from tests.conftest import EMOJI_BLOCKS as BLOCKS
from tests.small_store import SmallStore, few_emoji

pytestmark = pytest.mark.slow

LEVELS = [0.3, 0.9]
OWN = "your template"
QUICK = 0.02  # seconds of silence before work begins, in tests


@pytest.fixture(scope="module")
def model():
    return lk.load_model("tiny-ldm", device="cpu")


@pytest.fixture(scope="module")
def data():
    return lk.load_dataset("emoji")


@pytest.fixture(scope="module")
def store(emoji_features, tmp_path_factory):
    whole = lk.FeatureStore.open(emoji_features(tmp_path_factory.mktemp("explorers") / "features"))
    return whole.select(blocks=BLOCKS, conditionings=["none", "label", "shuffled"])


@pytest.fixture
def noise(model, data):
    levels = [0.1, 0.3, 0.5, 0.7, 0.9]
    return lk.widgets.IntoTheNoise(model, data.stimuli[:6], levels, block="up_blocks.1", delay=QUICK)


@pytest.fixture
def human(store, data):
    return lk.widgets.WhereIsTheHuman(store, data, metric="centred cosine", delay=QUICK)


@pytest.fixture
def prompts(model, data, store):
    return lk.widgets.PromptGains(model, data, store, metric="centred cosine", delay=QUICK)


def live(explorer):
    """What the live figure holds once a browser has it."""
    explorer.drawing.ready()
    return explorer.drawing.live


def png(image):
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


# What they stand on -------------------------------------------------------------------------------


def test_only_the_newest_request_is_worked_on():
    begun, ended, closed = [], [], []

    def steps(i):
        def run():
            begun.append(i)
            try:
                for _ in range(3):
                    yield
                ended.append(i)
            finally:
                closed.append(i)

        return run

    async def flood():
        latest = Latest(delay=QUICK)
        for i in range(200):
            latest.ask(steps(i))
            await asyncio.sleep(0)
        await latest.idle()
        assert begun == ended == [199]
        latest.ask(steps("old"))
        while "old" not in begun:
            await asyncio.sleep(0.001)
        latest.ask(steps("new"))  # while the old one is being worked on
        await latest.idle()
        assert ended == [199, "new"]
        assert closed == [199, "old", "new"]

    asyncio.run(flood())


def test_what_is_kept_is_forgotten_by_size_oldest_first():
    kept = Cache(most=10)
    for name in "abc":
        kept.put(name, name.upper(), size=4)
    assert "a" not in kept and kept["b"] == "B"
    kept.put("d", "D", size=4)  # b was asked for after c
    assert "c" not in kept and "b" in kept and len(kept) == 2


def test_the_live_figure_takes_any_other_figure_in():
    heat = go.Figure(go.Heatmap(z=[[1, 2]]), layout={"title": "heat", "height": 400, "xaxis": {"title": "x"}})
    heat.add_shape(type="line", x0=0, x1=1, y0=0, y1=1)
    dots = go.Figure([go.Scatter(x=[1], y=[2], name="dot")], layout={"title": "dots", "height": 300})
    drawing = LiveFigure(heat)
    drawing.draw(dots)
    assert [trace.type for trace in drawing.live.data] == ["heatmap"]  # nobody has loaded it: nothing is sent
    drawing.ready()
    assert [trace.type for trace in drawing.live.data] == ["scatter"]
    assert not drawing.live.layout.shapes and drawing.live.layout.xaxis.title.text is None
    drawing.draw(go.Figure(go.Scatter(x=[3], y=[4]), layout={"title": "dots", "height": 300}))
    assert list(drawing.live.data[0].x) == [3] and drawing.live.data[0].name is None
    drawing.draw(heat)
    assert drawing.live.layout.title.text == "heat" and len(drawing.live.layout.shapes) == 1


# What all share -----------------------------------------------------------------------------------


def test_a_flood_of_changes_is_computed_a_handful_of_times_and_ends_in_the_last_state(noise):
    async def flood():
        before = noise.computed
        for i in range(200):
            noise.level.value = noise.levels[i % len(noise.levels)]
            await asyncio.sleep(0.0005)
        noise.level.value = 0.7
        await noise.latest.idle()
        return noise.computed - before

    assert 1 <= asyncio.run(flood()) <= 5
    assert noise.shown_key == noise.key("Image", noise.state)
    assert noise.state.level == 0.7
    assert noise.image.value == png(noise.figure("Image"))


def test_going_back_computes_nothing(noise, monkeypatch):
    async def there_and_back():
        first = noise.image.value
        noise.level.value = 0.9
        await noise.latest.idle()
        assert noise.image.value != first
        monkeypatch.setattr(type(noise), "steps", lambda *_: pytest.fail("it computed again"))
        noise.level.value = 0.3
        assert not noise.latest.busy
        assert noise.image.value == first

    noise.level.value = 0.3
    asyncio.run(there_and_back())


def test_going_back_to_any_tab_computes_nothing(human):
    human.drawing.ready()
    for place in range(len(human.TABS)):
        human.tabs.selected_index = place
    computed = human.computed
    for place, tab in enumerate(human.TABS):
        human.tabs.selected_index = place
        assert human.shown_key == human.key(tab, human.state)
    assert human.computed == computed


def test_a_figure_asked_for_leaves_the_status_line_alone(noise):
    text = noise.status.value
    noise.figure("Film strip")
    assert noise.status.value == text and "noise level" in text


def test_an_error_is_told_and_the_next_change_works(noise, monkeypatch):
    honest = type(noise).steps

    def steps(self, tab, state):
        if state.prompt == "bad":
            raise BadInputError("This prompt is bad.")
        return honest(self, tab, state)

    monkeypatch.setattr(type(noise), "steps", steps)
    shown = noise.shown_key
    noise.prompt.value = "bad"
    assert "This prompt is bad." in noise.status.value
    assert noise.shown_key == shown and noise.stop.disabled
    noise.prompt.value = "a photo of a cat"
    assert noise.shown_key != shown


def test_explorers_can_be_selected_and_say_what_is_seen(noise, human, prompts):
    for explorer in (noise, human, prompts):
        assert "ldm-explorer" in explorer._dom_classes
        assert f"ldm-{explorer.NAME}" in explorer._dom_classes
        assert "What am I seeing?" in explorer.children[-1].value and len(explorer.children[-1].value) > 300
        with pytest.raises(UnknownNameError, match="Did you mean"):
            explorer.figure("Ma")
    assert "car" in noise.image.tooltip or noise.state.stimulus.split(".")[0] in noise.image.tooltip


# Into the noise -----------------------------------------------------------------------------------


def test_into_the_noise_shows_what_the_model_holds(noise, model, data):
    noise.prompt.value, noise.position.value = "a photo of a cat", 5
    names = noise.state.stimulus, noise.state.second
    own, other = (
        lk.look(model, data.stimuli, name, [noise.state.level], "up_blocks.1", "a photo of a cat")[0].maps
        for name in names
    )
    norms, here, there = (trace.z for trace in noise.figure("Positions").data[:3])
    np.testing.assert_allclose(norms, np.sqrt((own.astype(float) ** 2).sum(axis=0)), rtol=1e-5)
    token = own[:, 0, 5].astype(float)
    for shown, maps in ((here, own), (there, other)):
        flat = maps.reshape(len(maps), -1).astype(float)
        expected = token @ flat / np.linalg.norm(token) / np.linalg.norm(flat, axis=0)
        np.testing.assert_allclose(np.asarray(shown).ravel(), expected, atol=1e-5)
    assert here[0][5] == pytest.approx(1)


@pytest.mark.slow
def test_into_the_noise_follows_each_control(noise):
    noise.tabs.selected_index = 1
    seen = [np.asarray(live(noise).data[0].z)]
    for widget, value in ((noise.level, 0.9), (noise.prompt, "a photo of a cat"), (noise.block, "mid_block")):
        widget.value = value
        seen.append(np.asarray(live(noise).data[0].z))
        np.testing.assert_array_equal(seen[-1], noise.figure("Positions").data[0].z)
    for one, another in itertools.pairwise(seen):
        assert one.shape != another.shape or np.abs(one - another).max() > 1e-3
    assert noise.position.max == seen[-1].size - 1
    noise.clicked(1, 0)
    assert noise.position.value == 1


def test_the_film_strip_can_be_left_halfway_and_keeps_what_is_done(noise):
    async def leave():
        noise.tabs.selected_index = 2
        before = noise.shown_key
        while "2 of 5" not in noise.status.value:
            await asyncio.sleep(0.001)
        noise.cancel()
        assert not noise.latest.busy and noise.stop.disabled
        assert noise.shown_key == before and "Cancelled" in noise.status.value
        looked = len(noise._looks)
        noise.start()
        await noise.latest.idle()
        return looked

    # the level that opened the explorer was there already, and so was the second image
    assert asyncio.run(leave()) >= 2
    assert noise.shown_key[0] == "Film strip"
    assert noise.figure("Film strip").width > 400


def test_an_image_of_ones_own_is_offered_and_a_bad_file_refused_by_name(noise):
    image = Image.new("RGB", (90, 60), "#aa3300")
    files = [
        {"name": "red.png", "content": memoryview(png(image))},
        {"name": "../notes.png", "content": memoryview(b"milk, eggs")},
    ]
    noise._take_upload({"new": files})
    assert noise.stimulus.value.endswith("/red.png")
    assert "notes.png" in noise.status.value and "no image" in noise.status.value
    assert "red.png" in noise.shown("Image").alt
    noise._take_upload({"new": [{"name": "empty.jpg", "content": memoryview(b"")}]})
    assert "empty.jpg" in noise.status.value and "empty" in noise.status.value
    assert noise.stimulus.value.endswith("/red.png")


def test_a_refusal_is_still_read_when_the_good_image_beside_it_is_shown(noise):
    async def upload():
        good = {"name": "blue.png", "content": memoryview(png(Image.new("RGB", (64, 64), "#0033aa")))}
        noise._take_upload({"new": [good, {"name": "list.png", "content": memoryview(b"milk, eggs")}]})
        await noise.latest.idle()
        assert noise.state.stimulus.endswith("/blue.png") and noise.shown_key[1].stimulus.endswith(
            "/blue.png"
        )
        assert "list.png" in noise.status.value and "blue.png at noise level" in noise.status.value
        noise.level.value = 0.7 if noise.level.value != 0.7 else 0.3
        await noise.latest.idle()
        assert "list.png" not in noise.status.value  # named once

    asyncio.run(upload())


def test_an_uploads_name_never_leaves_its_folder_and_tells_its_content():
    one, two = (uploaded_image("C:\\a\\x.png", png(Image.new("RGB", (8, 8), c)))[0] for c in ("red", "blue"))
    assert one != two and one.startswith("yours/") and one.endswith("/x.png")
    with pytest.raises(UnreadableImageError, match=r"'x\.gif'.*cut short|'x\.gif'"):
        uploaded_image("/etc/x.gif", png(Image.new("RGB", (64, 64)))[:60])


# Where is the human? ------------------------------------------------------------------------------


def test_the_map_reaches_from_chance_to_the_ceiling_and_marks_the_cells(human):
    fig = human.figure("Map")
    table = human.table[human.table["conditioning"] == human.conditioning.value]
    grid = table.pivot_table(index="block", columns="noise_level", values="accuracy").loc[BLOCKS]
    np.testing.assert_allclose(fig.data[0].z, grid.to_numpy())
    assert fig.data[0].zmax == pytest.approx(table["ceiling_high"].max())
    assert fig.data[0].zmin == pytest.approx(min(1 / 3, grid.to_numpy().min()))
    text = " ".join(fig.data[0].colorbar.ticktext)
    assert "chance" in text and "ceiling" in text
    assert len(fig.layout.shapes) == 2
    human.to_ceiling.value = False
    assert human.figure("Map").data[0].zmax == pytest.approx(grid.to_numpy().max())


def test_a_click_on_the_map_chooses_the_cell(human):
    points = SimpleNamespace(xs=["0.3"], ys=["mid_block"], trace_name=None)
    (trace,) = live(human).data
    trace._dispatch_on_click(points, None)  # as plotly does it when a browser tells of a click
    assert human.state.a == ("mid_block", 0.3)
    assert live(human).layout.shapes[-1].x0 == pytest.approx(-0.48)
    human.clicked("nowhere", "mid_block")
    assert human.state.a == ("mid_block", 0.3)


def test_cells_are_profiled_as_the_measures_do(human, store, data):
    human.conditioning.value, human.block.value, human.level.value = "label", "up_blocks.1", 0.9
    cell = store.select(blocks=["up_blocks.1"], noise_levels=[0.9], conditionings="label")
    by_category = lk.accuracy_by_category(cell, data.triplets, data.categories, metric="centred cosine")
    drawn = human.figure("Categories").data[0]
    expected = by_category.set_index("category")["accuracy"]
    np.testing.assert_allclose(drawn.x, expected[list(drawn.y)])
    regressed = lk.dimension_regression(cell, data.embeddings["norms"]).set_index("dimension")["r2"]
    drawn = human.figure("Dimensions").data[0]
    assert len(drawn.y) == 20
    np.testing.assert_allclose(drawn.x, regressed[list(drawn.y)])


def test_two_cells_differ_by_what_their_triplets_say(human, store, data):
    human.conditioning.value = "none"
    human.block.value, human.level.value = "up_blocks.1", 0.3
    human.block_b.value, human.level_b.value = "mid_block", 0.9
    fig = human.figure("Two cells")
    a, b = (
        lk.measures.triplet_scores(store[(*cell, "none")], data.triplets.indices, "centred cosine")
        for cell in (human.state.a, human.state.b)
    )
    drawn = dict(zip(fig.data[0].y, fig.data[0].x, strict=True))
    assert drawn["all triplets"] == pytest.approx((a - b).mean())
    fruit = data.categories["fruit"].to_numpy()[data.triplets.indices].any(axis=1)
    assert drawn["fruit"] == pytest.approx((a - b)[fruit].mean())
    row = list(fig.data[0].y).index("all triplets")
    assert fig.data[0].error_x.array[row] > 0
    human.block.value, human.level.value = "mid_block", 0.9
    assert "same cell" in human.shown("Two cells").status


def test_the_most_human_triplets_are_those_the_block_is_surest_of(human, store, data):
    sentences = human.shown("Triplets").alt.split("; ")
    assert len(sentences) == 8
    for i, sentence in enumerate(sentences):
        names, judged = sentence.split(": chosen as odd ")
        judged, block = judged.split(", by the block ")
        assert judged in names
        assert (block == judged) == (i < 4), (
            sentence
        )  # first where it sides with them, then where it does not
    X = store[(*human.state.a, human.state.conditioning)].astype(float)
    X -= X.mean(axis=0)
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    i, j, k = data.triplets.indices.T
    S = X @ X.T
    best = np.argmax(S[i, j] - np.maximum(S[i, k], S[j, k]))
    labels = [data.stimuli.labels[one] for one in data.triplets.indices[best]]
    assert set(sentences[0].split(": ")[0].split(", ")) == set(labels)


# What does a prompt add? ----------------------------------------------------------------------------


def test_gains_are_those_of_the_comparison(prompts, store, data):
    expected = lk.compare(
        store.select(conditionings=["none", "label"]),
        data.triplets,
        by="conditioning",
        metric="centred cosine",
        reference="none",
    ).pivot_table(index="block", columns="noise_level", values="difference")
    np.testing.assert_allclose(prompts.figure("Gain").data[0].z, expected.loc[BLOCKS].to_numpy(), atol=1e-12)
    prompts.conditioning.value = "none"
    assert prompts.figure("Gain") is None and "zero" in prompts.shown("Gain").status
    prompts.conditioning.value = "shuffled, scored as the prompt's object"
    by_word = lk.odd_one_out(
        lk.relabel_by_prompt(store.select(conditionings="shuffled"), data.stimuli),
        data.triplets,
        "centred cosine",
    ).set_index(["block", "noise_level"])["accuracy"]
    gains = prompts._gains(prompts.state).set_index(["block", "noise_level"])
    for place in gains.index:
        assert gains.loc[place, "accuracy_a"] == pytest.approx(by_word[place], abs=2e-4)


def test_the_matrices_show_the_chosen_stimuli(prompts, store):
    prompts.chosen.value = tuple(prompts.names[:5])
    prompts.block.value, prompts.level.value = "mid_block", 0.9
    plain, worded = (np.asarray(trace.z) for trace in prompts.figure("Matrices").data)
    rows = [store.names.index(name) for name in prompts.names[:5]]
    for shown, conditioning in ((plain, "none"), (worded, "label")):
        S = lk.measures.similarity(store["mid_block", 0.9, conditioning], "centred cosine")
        np.testing.assert_allclose(shown, S[np.ix_(rows, rows)], atol=1e-4)
    assert np.abs(plain - worded).max() > 0.01


@pytest.mark.slow
def test_a_new_template_waits_for_run_can_be_cancelled_and_goes_on(model, store, tmp_path):
    data = few_emoji(60)
    store = store.select(names=data.stimuli.names)
    prompts = lk.widgets.PromptGains(model, data, store, metric="centred cosine", delay=QUICK, home=tmp_path)
    shown = prompts.shown_key

    async def play():
        prompts.conditioning.value = OWN
        prompts.template.value = "a toy {name}"
        await asyncio.sleep(4 * QUICK)
        assert not prompts.latest.busy and "Press Run" in prompts.status.value
        prompts.template.value = "a toy"
        assert "has no {name}" in prompts.status.value
        prompts.template.value = "a toy {name}"
        prompts.start()
        while "8 of 60" not in prompts.status.value:
            await asyncio.sleep(0.001)
        prompts.cancel()
        assert prompts.shown_key == shown and not prompts.latest.busy
        assert "Press Run" in prompts.must_run("Gain", prompts.state)  # half an extraction is none
        prompts.start()
        await prompts.latest.idle()

    asyncio.run(play())
    (folder,) = [path for path in tmp_path.iterdir() if path.is_dir()]
    kept = lk.FeatureStore.open(folder).select(names=store.names)
    whole = lk.extract(
        model, data.stimuli, blocks="mid_block", noise_levels=[0.9], conditionings="label",
        template="a toy {name}", progress=False,
    )  # fmt: skip
    np.testing.assert_allclose(
        kept["mid_block", 0.9, "label"], whole["mid_block", 0.9, "label"], rtol=1e-4, atol=1e-5
    )
    gain = prompts._gains(prompts.state).set_index(["block", "noise_level"]).loc[("mid_block", 0.9)]
    plain, worded = (
        np.mean(lk.measures.triplet_scores(X, data.triplets.indices, "centred cosine"))
        for X in (store["mid_block", 0.9, "none"], whole["mid_block", 0.9, "label"])
    )
    assert gain["difference"] == pytest.approx(worded - plain, abs=5e-4)


def test_what_cannot_be_explored_is_refused(model, data, store):
    with pytest.raises(BadInputError, match="without a prompt"):
        lk.widgets.PromptGains(model, data, store.select(conditionings="label"))
    nobody = lk.Dataset("nobody", data.stimuli)
    with pytest.raises(BadInputError, match="no triplets"):
        lk.widgets.WhereIsTheHuman(store, nobody)


# The probe's view ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def probed(store, data):
    part = store.select(blocks=["mid_block", "up_blocks.1"], noise_levels=[0.3], conditionings="none")
    return part, lk.cross_validate_probe(
        part, data.triplets, lk.LinearProbe(random_state=0), cv=3, random_state=0
    )


def test_neighbours_and_ranks_are_those_of_one_probe(probed, data):
    part, result = probed
    view = lk.widgets.ProbesView(part, data, result, stimulus="car", delay=QUICK)
    view.block.value = "mid_block"
    row = part.names.index("car.png")
    after = view.similarities()["after the probe"]
    table = result.table.reset_index(drop=True)
    shown = [
        Z @ Z[row]
        for place in table.index[table["block"] == "mid_block"]
        for Z in [result.probes[place].transform(part["mid_block", 0.3, "none"])]
    ]
    assert sum(np.allclose(after, each) for each in shown) == 1
    expected = [data.stimuli.labels[i] for i in np.argsort(-after) if i != row][:6]
    text = view.shown("Neighbours").alt
    assert f"after the probe: {', '.join(expected)}" in text
    assert "norms (simulated)" in text
    ranks = view.figure("Ranks").data[2]
    assert sorted(ranks.y) == list(range(1, len(part)))
    assert [ranks.text[list(ranks.y).index(place)] for place in range(1, 7)] == expected


@pytest.mark.slow
def test_the_probe_shown_never_saw_the_chosen_stimulus(store):
    """Spoil the stimulus for those that learn from it: only a probe that never saw it stays what it was."""
    data = few_emoji(80, 20_000)
    part = store.select(
        blocks="mid_block", noise_levels=[0.3], conditionings="none", names=data.stimuli.names
    )
    key, names = ("mid_block", 0.3, "none"), part.names
    unjudged = names[:40:5]  # so that folds over the judged ones are not those over all
    triplets = data.triplets.wholly_among([name for name in names if name not in unjudged])
    probe = lk.LinearProbe(alphas=(0.01,), max_iter=5, random_state=0)

    def shown(stimulus, X, choices):
        fitted = lk.cross_validate_probe(SmallStore(names, {key: X}), choices, probe, cv=4, random_state=1)
        view = lk.widgets.ProbesView(part, data, fitted, stimulus=stimulus, delay=QUICK)
        view.block.value = "mid_block"
        return view.similarities()["after the probe"], view.shown("Ranks").status

    for stimulus in (*names[1:48:6], *unjudged[:2]):
        row, honest = names.index(stimulus), part[key]
        spoilt, odd = honest.copy(), triplets.indices.copy()
        spoilt[row] = 50 * np.roll(honest[row], 7)
        holds = (odd == triplets.names.index(stimulus)).any(axis=1)
        odd[holds] = odd[holds][:, [1, 2, 0]]
        before, status = shown(stimulus, honest, triplets)
        after, _ = shown(stimulus, spoilt, replace(triplets, indices=odd))
        np.testing.assert_array_equal(before, after, err_msg=stimulus)
        assert ("It has no judgements" in status) == (stimulus in unjudged), stimulus


def test_probes_of_other_stimuli_are_refused(probed, data):
    part, result = probed
    with pytest.raises(BadInputError, match="none of the store's stimuli"):
        lk.widgets.ProbesView(part, data, replace(result, folds={0: 0, 1: 1, 2: 2}))


def test_the_status_of_the_ranks_names_as_many_neighbours_as_were_asked_for(probed, data):
    part, result = probed
    view = lk.widgets.ProbesView(part, data, result, stimulus="car", delay=QUICK)
    assert "Of the 6 nearest in norms (simulated)" in view.shown("Ranks").status
    view.neighbours.value = 3
    assert "Of the 3 nearest in norms (simulated)" in view.shown("Ranks").status


def test_a_space_is_called_what_it_is_whoever_chose(probed, store, data):
    part, result = probed
    people = replace(data, triplets=replace(data.triplets, judgements="human"))
    view = lk.widgets.ProbesView(part, people, result, delay=QUICK)
    assert "norms (simulated)" in view.similarities() and "norms (human)" not in view.similarities()
    fitted = replace(
        people,
        embeddings={"SPoSE": data.embeddings["norms"].iloc[:, :5], **data.embeddings},
        embedding_sources={"SPoSE": "human model", **data.embedding_sources},
    )
    view = lk.widgets.ProbesView(part, fitted, result, delay=QUICK)
    assert list(view.similarities())[2:] == ["SPoSE (human model)"]
    title = lk.widgets.WhereIsTheHuman(store, fitted, delay=QUICK).figure("Dimensions").layout.title.text
    assert "SPoSE (human model)" in title and "judged by" not in title


def test_a_screen_reader_is_told_what_the_live_figure_draws(human):
    box = human.drawing
    assert 'role="img"' in box.label.value and box.label in box.children
    human.figure("Curves")
    box.draw(human.figure("Curves"))
    assert 'aria-label="Alignment through the network. odd-one-out accuracy' in box.label.value


def test_the_probes_view_needs_probes(probed, data):
    part, _ = probed
    bare = lk.cross_validate_probe(
        part.select(blocks=["mid_block"]), data.triplets, lk.LinearProbe(random_state=0), keep_probes=False
    )
    with pytest.raises(BadInputError, match="keep_probes=True"):
        lk.widgets.ProbesView(part, data, bare)


def test_each_explorer_has_one_live_figure_and_no_output(noise, human, prompts):
    def widgets(one):
        yield one
        for child in getattr(one, "children", ()):
            yield from widgets(child)

    for explorer in (noise, human, prompts):
        held = list(widgets(explorer))
        assert sum(isinstance(one, go.FigureWidget) for one in held) == 1
        assert not any(isinstance(one, ipywidgets.Output) for one in held)
