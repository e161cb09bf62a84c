"""The odd-one-out game without a browser: trials, answers on disk, restart, scores, and who may read them."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

import ldm_kit as lk
from ldm_kit.datasets import observers
from ldm_kit.datasets.triplet_files import COLUMNS, read_rows
from ldm_kit.errors import BadInputError, MismatchError, UnknownNameError
from ldm_kit.game import (
    CandidateSets,
    Consistency,
    Game,
    agreement_table,
    autoplay,
    candidate_sets,
    choices_so_far,
    describe_agreement,
)
from ldm_kit.game.__main__ import address
from ldm_kit.game.answers import AnswerFile
from ldm_kit.game.trials import GAP, choose_sets, disagreement, plan_trials

N_SETS = 40


@pytest.fixture(scope="module")
def data():
    return lk.load_dataset("emoji")


@pytest.fixture(scope="module")
def sets(data):
    return candidate_sets(data, N_SETS, seed=3)


@pytest.fixture(scope="module")
def answers():
    rng = np.random.default_rng(0)
    return {name: rng.integers(0, 3, N_SETS).astype(np.int8) for name in ("down", "mid", "up")}


@pytest.fixture
def game(data, sets, answers):
    return Game(data.stimuli, sets, answers, n_trials=10, n_catch=4, seed=5)


def test_candidates_are_judged_sets_with_their_votes(data, sets):
    plain: dict[frozenset[str], list[str]] = {}
    for i, j, k in data.triplets:
        three = frozenset(data.triplets.names[int(x)] for x in (i, j, k))
        plain.setdefault(three, []).append(data.triplets.names[int(k)])
    assert sets.judgements == "simulated"
    for members, votes, majority in zip(sets.members, sets.votes, sets.majority, strict=True):
        three = [sets.names[int(i)] for i in members]
        choices = plain[frozenset(three)]
        assert [choices.count(name) for name in three] == votes.tolist()
        assert votes.sum() >= 25  # repeatedly judged ones come first, and there are 200
        assert choices.count(three[majority]) == max(map(choices.count, three))
    again = candidate_sets(data, N_SETS, seed=3)
    assert again.names == sets.names and np.array_equal(again.members, sets.members)
    assert not np.array_equal(candidate_sets(data, N_SETS, seed=4).votes, sets.votes)


def certainty(data, sets):
    """How sure a simulated observer is of each set, in closed form and set by set."""
    norms = data.embeddings["norms"].to_dict("index")
    sure = []
    for members in sets.members:
        a, b, c = ({**norms[sets.names[int(i)]]} for i in members)
        pairs = [sum(one[key] * other[key] for key in one) for one, other in ((b, c), (a, c), (a, b))]
        odds = [math.exp((pair - max(pairs)) / observers.TEMPERATURE) for pair in pairs]
        sure.append(max(odds) / sum(odds))
    return np.array(sure)


def test_candidates_range_from_obvious_to_hard(data):
    drawn = candidate_sets(data, 200)
    sure = certainty(data, drawn)
    np.testing.assert_allclose(drawn.certainty, sure)
    assert (sure >= 0.8).mean() > 0.25 and (sure < 0.5).mean() > 0.15
    assert ((sure >= 0.5) & (sure < 0.8)).mean() > 0.4
    games = [
        Game(data.stimuli, drawn, {}, n_trials=10, n_catch=3, how="random", seed=seed) for seed in range(20)
    ]
    for game in games:
        assert np.ptp(sure[game.chosen]) > 0.3, "ten trials that are all equally hard"
    assert {data.stimuli.open(name).size for name in drawn.names[:20]} == {(128, 128)}


@pytest.mark.parametrize("seed", range(5))
def test_ten_trials_are_three_obvious_four_middling_and_three_hard_ones(data, seed):
    """Of each kind those on which the blocks disagree most, in an order of the player's own."""
    drawn = candidate_sets(data, 200, seed=seed)
    sure, rng = certainty(data, drawn), np.random.default_rng(seed)
    answers = {name: rng.integers(0, 3, 200).astype(np.int8) for name in ("down", "mid", "up")}
    game, differ = Game(data.stimuli, drawn, answers, seed=seed), disagreement(answers)
    kinds = (sure >= 0.8, (sure >= 0.5) & (sure < 0.8), sure < 0.5)
    for kind, wanted in zip(kinds, (3, 4, 3), strict=True):
        chosen = [index for index in game.chosen if kind[index]]
        assert sorted(differ[chosen]) == sorted(differ[kind])[-wanted:]
    assert game.difficulty == {"obvious": 3, "middling": 4, "hard": 3}
    orders = [[trial.set_index for trial in plan_trials(game.chosen, 0, name)] for name in ("ann", "bea")]
    assert sorted(orders[0]) == sorted(orders[1]) and orders[0] != orders[1]
    for order in orders:
        assert order != sorted(order, key=lambda index: -sure[index])
    again = Game(data.stimuli, drawn, answers, seed=seed).chosen
    assert np.array_equal(game.chosen, again)
    other = Game(data.stimuli, drawn, answers, n_trials=7, seed=seed)
    assert other.difficulty == {"obvious": 2, "middling": 3, "hard": 2}


def test_what_one_kind_lacks_others_give(answers):
    bands = np.zeros(N_SETS, dtype=np.int64)
    bands[:2] = 2, 1
    chosen = choose_sets(answers, N_SETS, 10, "informative", 0, bands)
    assert len(set(chosen.tolist())) == 10 and {0, 1} <= set(chosen.tolist())


def test_where_no_norms_are_known_trials_have_no_kind(answers):
    names = tuple("abcdefgh")
    members = np.array([[i, i + 1, i + 2] for i in range(6)])
    game = Game(
        lk.Stimuli(names), CandidateSets(names, members, np.eye(3, dtype=int)[[0, 1, 2] * 2]), {}, 5, 0
    )
    assert game.difficulty == {} and game.sets.bands is None


def test_a_tie_among_the_judges_is_no_candidate():
    stimuli = lk.Stimuli(("a", "b", "c", "d"))
    triplets = lk.Triplets(np.array([[0, 1, 2], [1, 2, 0], [0, 1, 3]]), stimuli.names)
    data = lk.Dataset("demo", stimuli, triplets)
    assert candidate_sets(data).members.tolist() == [[0, 1, 2]]
    assert candidate_sets(data).names == ("a", "b", "d")
    tied = lk.Dataset("demo", stimuli, triplets.take(slice(2)))
    with pytest.raises(BadInputError, match="are a tie"):
        candidate_sets(tied)


def test_images_that_nobody_judged_can_be_played(tmp_path):
    for name in "abcd":
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")
    data = lk.load_dataset("folder", tmp_path)
    sets = candidate_sets(data, 100)
    assert sorted(map(tuple, sets.members.tolist())) == [(0, 1, 2), (0, 1, 3), (0, 2, 3), (1, 2, 3)]
    assert set(sets.majority) == {-1} and sets.judgements == ""
    game = Game(data.stimuli, sets, {}, n_trials=4, n_catch=1)
    session = autoplay(game, "guess", tmp_path / "answers")
    assert session.finished and session.scores().empty
    with pytest.raises(UnknownNameError, match="Unknown simulated player 'participant'"):
        autoplay(game, "participant", tmp_path / "answers")


def test_informative_sets_are_those_on_which_blocks_differ(answers):
    differ = disagreement(answers)
    plain = [
        sum(answers[a][s] != answers[b][s] for a, b in (("down", "mid"), ("down", "up"), ("mid", "up")))
        for s in range(N_SETS)
    ]
    assert differ.tolist() == plain
    chosen = choose_sets(answers, N_SETS, 10, "informative", seed=0)
    assert len(set(chosen.tolist())) == 10
    assert min(differ[chosen]) >= sorted(differ, reverse=True)[9]
    assert not np.array_equal(chosen, choose_sets(answers, N_SETS, 10, "informative", seed=1))
    anyhow = choose_sets(answers, N_SETS, 30, "random", seed=0)
    assert differ[anyhow].min() < differ[chosen].min() or differ.min() == differ.max()
    with pytest.raises(UnknownNameError, match="Did you mean 'random'"):
        choose_sets(answers, N_SETS, 10, "randm", seed=0)
    with pytest.raises(BadInputError, match="41 trials cannot be chosen from 40 sets"):
        choose_sets(answers, N_SETS, 41, "random", seed=0)


@pytest.mark.parametrize("seed", range(20))
def test_repeats_come_later_and_on_other_sides(seed):
    sets = list(range(100, 112))
    plan = plan_trials(sets, 5, "ann", seed)
    assert len(plan) == 17
    assert sorted(trial.set_index for trial in plan if trial.repeats is None) == sets
    repeats = [(place, trial) for place, trial in enumerate(plan) if trial.repeats is not None]
    assert len({trial.repeats for _, trial in repeats}) == 5
    for place, trial in repeats:
        first = plan[trial.repeats]
        assert first.repeats is None and first.set_index == trial.set_index
        assert place - trial.repeats >= GAP
        assert sorted(trial.sides) == [0, 1, 2]
        assert all(a != b for a, b in zip(trial.sides, first.sides, strict=True))
    assert plan_trials(sets, 5, "ann", seed) == plan
    assert plan_trials(sets, 5, "ben", seed) != plan


def test_more_repeats_than_fit_are_refused(data, sets, answers):
    with pytest.raises(BadInputError, match="at most 2 can be shown again"):
        Game(data.stimuli, sets, answers, n_trials=5, n_catch=3)
    assert len(plan_trials(range(5), 2, "ann")) == 7


def test_answers_are_on_disk_before_feedback_and_read_as_human_choices(game, tmp_path):
    session = game.start("ann", tmp_path)
    shown, chosen = [], [1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2]
    for choice in chosen:
        shown.append(session.images)
        feedback = session.answer(choice, 1.25)
        row = read_rows(tmp_path / "ann.csv")[-1]  # as another process would see it
        assert (row["image1"], row["image2"], row["image3"]) == shown[-1]
        assert row["choice"] == str(choice) == str(feedback.choice)
    assert session.finished
    lines = (tmp_path / "ann.csv").read_text().splitlines()
    assert lines[0] == ",".join(COLUMNS) and len(lines) == 15
    every = lk.read_choices(tmp_path / "ann.csv", repeats=True)
    assert every.judgements == "human" and every.dataset == "emoji" and len(every) == 14
    for (i, j, k), three, choice in zip(every, shown, chosen, strict=True):
        assert every.names[k] == three[choice - 1]
        assert {every.names[i], every.names[j], every.names[k]} == set(three)
    assert len(lk.read_choices(tmp_path / "ann.csv")) == 10  # without the repeats


def test_the_choices_of_the_others_are_shown_by_side(game, sets, tmp_path):
    session = game.start("ann", tmp_path)
    for _ in range(14):
        trial, three = session.current, session.images
        feedback = session.answer(2)
        members = sets.members[trial.set_index]
        for name, block in game.answers.items():
            assert three[feedback.others[name] - 1] == sets.names[members[block[trial.set_index]]]
        assert three[feedback.others["simulated observers"] - 1] == three[int(np.argmax(feedback.votes))]
        assert sum(feedback.votes) == sets.votes[trial.set_index].sum()


@pytest.mark.slow
def test_a_restarted_kernel_goes_on_where_it_was(data, sets, answers, tmp_path):
    code = (
        "import sys, os, numpy as np, ldm_kit as lk\n"
        "from ldm_kit.game import Game, candidate_sets\n"
        "rng = np.random.default_rng(0)\n"
        "data = lk.load_dataset('emoji')\n"
        f"answers = {{n: rng.integers(0, 3, {N_SETS}).astype(np.int8) for n in ('down', 'mid', 'up')}}\n"
        f"sets = candidate_sets(data, {N_SETS}, seed=3)\n"
        "session = Game(data.stimuli, sets, answers, n_trials=10, n_catch=4, seed=5).start('ann', sys.argv[1])\n"
        "for choice in (1, 2, 3, 2, 1): session.answer(choice)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=Path(lk.__file__).parents[1], check=False
    )
    assert done.returncode != 0  # killed
    session = Game(data.stimuli, sets, answers, n_trials=10, n_catch=4, seed=5).start("ann", tmp_path)
    assert session.choices == [1, 2, 3, 2, 1]
    unbroken = Game(data.stimuli, sets, answers, n_trials=10, n_catch=4, seed=5).start("ann", tmp_path / "b")
    for choice in (1, 2, 3, 2, 1):
        unbroken.answer(choice)
    assert session.images == unbroken.images
    assert session.scores().equals(unbroken.scores())


def test_a_line_cut_short_is_dropped_and_answered_again(game, tmp_path):
    session = game.start("ann", tmp_path)
    for choice in (1, 2, 3):
        session.answer(choice)
    path = tmp_path / "ann.csv"
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    again = game.start("ann", tmp_path)
    assert again.choices == [1, 2]
    again.answer(3)
    assert [row["choice"] for row in read_rows(path)] == ["1", "2", "3"]
    path.write_bytes(path.read_text().splitlines()[0][:20].encode())  # not even the header is whole
    assert game.start("ann", tmp_path).choices == []
    game.start("ann", tmp_path).answer(2)
    assert len(read_rows(path)) == 1


def test_the_same_name_in_two_windows_loses_no_answer(game, tmp_path):
    one, two = game.start("ann", tmp_path), game.start("ann", tmp_path)
    one.answer(1)
    with pytest.raises(MismatchError, match="played in another window"):
        two.answer(2)
    assert two.choices == []
    two.reload()
    two.answer(2)
    assert [row["choice"] for row in read_rows(tmp_path / "ann.csv")] == ["1", "2"]


def test_another_game_in_the_same_file_starts_at_its_own_beginning(data, sets, answers, game, tmp_path):
    game.start("ann", tmp_path).answer(1)
    other = Game(data.stimuli, sets, answers, n_trials=10, n_catch=4, seed=6).start("ann", tmp_path)
    assert other.choices == []
    other.answer(3)
    assert game.start("ann", tmp_path).choices == [1]
    assert len(read_rows(tmp_path / "ann.csv")) == 2


def test_answers_that_cannot_be_written_do_not_count(game, tmp_path):
    (tmp_path / "file").write_text("in the way")
    session = game.start("ann", tmp_path / "file" / "answers")
    with pytest.raises(BadInputError, match="Cannot write"):
        session.answer(1)
    assert session.choices == []
    with pytest.raises(BadInputError, match="The choice is 4"):
        session.answer(4)


@pytest.mark.parametrize("name", ["", "../ann", "a/b", "a\\b", ".hidden", "x" * 41, "a\nb", "-"])
def test_a_name_that_cannot_name_a_file_is_refused(name):
    with pytest.raises(BadInputError, match="cannot name a file"):
        AnswerFile("anywhere", name)


@pytest.mark.parametrize("name", ["Ann", "Zoë", "team 3", "J. P.", "a-b_c", "李"])
def test_ordinary_names_are_fine(name):
    assert AnswerFile("anywhere", name).path.parent == Path("anywhere")


def test_a_file_changed_by_hand_is_noticed(game, tmp_path):
    session = game.start("ann", tmp_path)
    left = session.images[0]
    session.answer(1)
    path = tmp_path / "ann.csv"
    path.write_text(path.read_text().replace(left, "zebra.png"))
    with pytest.raises(BadInputError, match="changed by hand"):
        game.start("ann", tmp_path)


def test_scores_are_counted_over_new_trials_with_exact_intervals(game, tmp_path):
    session = autoplay(game, "mid", tmp_path)
    table = session.scores().set_index("other")
    assert list(table.index) == ["simulated observers", "down", "mid", "up"]
    assert table.loc["mid", "agreed"] == table.loc["mid", "n_triplets"] == 10
    new = [trial for trial in session.plan if trial.repeats is None]
    for other in ("down", "up"):
        agreed = sum(game.answers[other][t.set_index] == game.answers["mid"][t.set_index] for t in new)
        assert table.loc[other, "agreed"] == agreed
    for _, row in table.iterrows():
        # Clopper and Pearson's bounds by their definition: what is that far out has chance 1/40
        k, n = int(row["agreed"]), int(row["n_triplets"])
        if k < n:
            tail = sum(
                math.comb(n, i) * row["ci_high"] ** i * (1 - row["ci_high"]) ** (n - i) for i in range(k + 1)
            )
            assert tail == pytest.approx(0.025, abs=1e-6)
        if k > 0:
            tail = sum(
                math.comb(n, i) * row["ci_low"] ** i * (1 - row["ci_low"]) ** (n - i) for i in range(k, n + 1)
            )
            assert tail == pytest.approx(0.025, abs=1e-6)
    assert set(table["judgements"]) == {"simulated"}
    assert session.consistency() == Consistency(4, 4)


def test_a_block_without_an_answer_is_not_scored_there():
    table = agreement_table([0, 1, 2, 0], {"a": [0, -1, -1, 1], "b": [-1] * 4}, {})
    assert table["n_triplets"].tolist() == [2, 0] and table["agreed"].tolist() == [1, 0]
    assert math.isnan(table["accuracy"][1])
    assert table[["ci_low", "ci_high"]].values[1].tolist() == [0, 1]


def test_the_consistency_counts_images_not_sides(game, tmp_path):
    left = game.start("left", tmp_path)
    while not left.finished:
        left.answer(1)  # always the same side: since no image keeps its side, never the same image
    assert left.consistency() == Consistency(0, 4)
    firm = autoplay(game, "majority", tmp_path)
    assert firm.consistency() == Consistency(4, 4)


def test_the_personal_ceiling_lies_between_c_and_its_root():
    rng = np.random.default_rng(0)
    chances = rng.dirichlet([0.6] * 3, size=4000)
    first, again = ((chances.cumsum(axis=1) < rng.random((4000, 1))).sum(axis=1) for _ in range(2))
    found = Consistency(int((first == again).sum()), 4000)
    ceiling = chances.max(axis=1).mean()  # what the best predictor of this player gets right
    low, high = found.ceiling
    assert low < ceiling < high
    assert found.c == pytest.approx((chances**2).sum(axis=1).mean(), abs=0.03)
    assert "between c = 0.75 and √c = 0.87" in Consistency(3, 4).sentence
    assert "No trial was repeated" in Consistency(0, 0).sentence


def test_it_is_said_how_little_ten_trials_prove():
    text = describe_agreement(agreement_table([0] * 10, {"people": [0] * 7 + [1] * 3}, {}))
    assert "7 of 10 in common with people fit any true agreement from 0.35 to 0.93" in text
    assert "about 323 trials" in text  # 0.7 · 0.3 · (1.96 / 0.05)²
    blocks = {"a": [0] * 6 + [1] * 4, "b": [0] * 4 + [1] * 6}
    table = agreement_table([0] * 10, blocks, {name: {"block": name} for name in blocks})
    assert "The intervals of all blocks overlap" in describe_agreement(table)
    assert describe_agreement(table.iloc[:0]) == "No trial was played yet."


def test_a_class_is_read_together_and_has_a_noise_ceiling(game, tmp_path):
    for player in ("ann", "ben", "cat"):
        session = game.start(player, tmp_path)
        rng = np.random.default_rng(len(player) + ord(player[0]))
        while not session.finished:
            session.answer(int(rng.integers(1, 4)))
    choices = lk.read_choices(tmp_path)
    assert len(choices) == 30 and set(choices.subjects.tolist()) == {0, 1, 2}
    keys = {tuple(sorted(row)) for row in choices.indices.tolist()}
    assert len(keys) == 10  # all three saw the same sets, in orders of their own
    ceiling = lk.noise_ceiling(choices).iloc[0]
    assert ceiling["n_triplets"] == 10 and ceiling["n_judgements"] == 30
    shares = []
    for key in keys:
        odd = [int(row[2]) for row in choices.indices if tuple(sorted(row.tolist())) == key]
        shares.append(max(map(odd.count, odd)) / 3)
    assert ceiling["ceiling_high_uncorrected"] == pytest.approx(np.mean(shares))
    with pytest.raises(BadInputError, match="judged 2 times or more"):
        lk.noise_ceiling(lk.read_choices(tmp_path / "ann.csv"))


def test_people_and_simulated_players_are_never_mixed(game, tmp_path):
    game.start("ann", tmp_path).answer(1)
    autoplay(game, "guess", tmp_path)
    with pytest.raises(BadInputError, match="human and simulated choices, which are never mixed"):
        lk.read_choices(tmp_path)
    assert len(lk.read_choices(tmp_path, judgements="human")) == 1
    assert lk.read_choices(tmp_path, judgements="simulated").judgements == "simulated"
    alone = lk.load_dataset("emoji", triplets=tmp_path / "simulated guess.csv")
    assert alone.triplets.judgements == "simulated"  # whatever it is taken for


def test_the_datasets_take_a_players_file_or_a_class_as_their_triplets(data, game, tmp_path):
    for player in ("ann", "ben"):
        session = game.start(player, tmp_path / "class")
        while not session.finished:
            session.answer(2)
    played = lk.load_dataset("emoji", triplets=tmp_path / "class")
    assert played.triplets.judgements == "human" and len(played.triplets) == 20
    assert played.triplets.names == data.stimuli.names
    one = lk.read_triplets(tmp_path / "class" / "ann.csv", data.stimuli.names)
    own = lk.read_choices(tmp_path / "class" / "ann.csv")
    for a, b in zip(one, own, strict=True):
        assert [one.names[i] for i in a] == [own.names[i] for i in b]
    with pytest.raises(UnknownNameError, match=r"stimulus in ann.csv"):
        lk.read_triplets(tmp_path / "class" / "ann.csv", data.stimuli.names[:3])


def test_things_and_a_folder_take_them_too(things_root, tmp_path):
    things = lk.load_dataset("things", things_root)
    game = Game(things.stimuli, candidate_sets(things, 30), {}, n_trials=6, n_catch=2, how="random")
    assert game.participants == "people"
    session = game.start("ann", tmp_path / "answers")
    while not session.finished:
        session.answer(3)
    again = lk.load_dataset("things", things_root, triplets=tmp_path / "answers" / "ann.csv")
    assert len(again.triplets) == 6 and again.triplets.judgements == "human"
    for name in "abcd":
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")
    folder = lk.load_dataset("folder", tmp_path)
    session = Game(folder.stimuli, candidate_sets(folder), {}, n_trials=4, n_catch=0).start(
        "ann", tmp_path / "mine"
    )
    session.answer(1)
    assert len(lk.load_dataset("folder", tmp_path, triplets=tmp_path / "mine").triplets) == 1


def test_what_is_no_file_of_choices_is_refused_with_a_word_on_why(tmp_path):
    with pytest.raises(BadInputError, match="nobody has played yet"):
        lk.read_choices(tmp_path)
    with pytest.raises(BadInputError, match="There is no file"):
        lk.read_choices(tmp_path / "ann.csv")
    header = ",".join(COLUMNS)
    (tmp_path / "a.csv").write_text(header.replace("choice", "chioce") + "\n")
    with pytest.raises(UnknownNameError, match="Did you mean 'chioce'"):
        lk.read_choices(tmp_path)
    (tmp_path / "a.csv").write_text(header + "\n")
    with pytest.raises(BadInputError, match="holds no answer yet"):
        lk.read_choices(tmp_path)
    row = "ann,human,emoji,1,1,new,a,b,c,{},1,now\n"
    (tmp_path / "a.csv").write_text(header + "\n" + row.format(4))
    with pytest.raises(BadInputError, match="line 2 has the choice '4'"):
        lk.read_choices(tmp_path)
    (tmp_path / "a.csv").write_text(header + "\n" + row.format(1).replace(",now", ""))
    with pytest.raises(BadInputError, match="line 2 has another number of cells"):
        lk.read_choices(tmp_path)


def test_a_class_is_told_an_address_that_it_can_open(monkeypatch):
    monkeypatch.setattr("ldm_kit.game.__main__.own_address", lambda: "10.1.2.3")
    assert address("0.0.0.0", 8866).startswith("http://10.1.2.3:8866/ ")
    assert address("127.0.0.1", 8866) == "http://127.0.0.1:8866/"
    monkeypatch.setattr("ldm_kit.game.__main__.own_address", lambda: "")
    assert "0.0.0.0" not in address("0.0.0.0", 80)


def test_a_simulated_judge_answers_as_often_as_the_judges_did(tmp_path):
    names = tuple(f"{number:03}" for number in range(900))
    members = np.arange(900).reshape(300, 3)
    sets = CandidateSets(names, members, np.tile([[1, 2, 7]], (300, 1)), "human")
    session = autoplay(Game(lk.Stimuli(names), sets, {}, n_trials=300, n_catch=0), "participant", tmp_path)
    share = np.bincount(session.odd(), minlength=3) / 300
    np.testing.assert_allclose(share, [0.1, 0.2, 0.7], atol=0.08)  # three standard errors
    assert session.judgements == "simulated"


def test_an_answers_file_in_another_encoding_is_named_and_left_alone(game, tmp_path):
    session = game.start("Zoë", tmp_path)
    for choice in (1, 2):
        session.answer(choice)
    path = tmp_path / "Zoë.csv"
    whole = path.read_bytes()
    for content in (whole.decode().encode("cp1252"), whole.decode().encode("utf-16")):
        path.write_bytes(content)
        for read in (
            lambda: lk.read_choices(tmp_path),
            lambda: lk.read_triplets(path, game.stimuli),
            lambda: choices_so_far(tmp_path),
            lambda: game.start("Zoë", tmp_path),
            lambda: session.answer(3),
        ):
            with pytest.raises(BadInputError, match=r"Zoë\.csv' is not UTF-8 text.*Save it as UTF-8"):
                read()
        assert path.read_bytes() == content and session.choices == [1, 2]
    path.write_bytes(whole)
    session.answer(3)
    assert [row["choice"] for row in read_rows(path)] == ["1", "2", "3"]


def test_a_line_cut_inside_a_character_is_dropped(game, tmp_path):
    game.start("Zoë", tmp_path).answer(1)
    path = tmp_path / "Zoë.csv"
    path.write_bytes(path.read_bytes() + "Zoë".encode()[:-1])
    assert len(lk.read_choices(path)) == 1 and game.start("Zoë", tmp_path).choices == [1]
    game.start("Zoë", tmp_path).answer(2)
    assert [row["choice"] for row in read_rows(path)] == ["1", "2"]


def test_a_class_loses_no_file(game, tmp_path):
    """A hidden file is none of it; one that cannot be read is an error, whatever its case."""
    game.start("ann", tmp_path).answer(1)
    (tmp_path / "._ann.csv").write_bytes(b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X")
    assert len(lk.read_choices(tmp_path)) == 1 == len(choices_so_far(tmp_path))
    (tmp_path / "BEN.CSV").write_bytes((tmp_path / "ann.csv").read_bytes().replace(b"ann", b"ben"))
    assert len(lk.read_choices(tmp_path)) == 2
    for content, message in [
        (b"player;judgements\n", "BEN.CSV.*Unknown column"),
        (b"player,choice\rben,1\r", "no line that ends"),
        (",".join(COLUMNS).encode() + b'\n"' + b"x" * 200_000 + b'"\n', "cannot be read as a table"),
    ]:
        (tmp_path / "BEN.CSV").write_bytes(content)
        with pytest.raises((BadInputError, UnknownNameError), match=message) as caught:
            lk.read_choices(tmp_path)
        assert "BEN.CSV" in str(caught.value)


def test_a_lock_that_is_held_is_told_and_the_answer_does_not_count(game, tmp_path, monkeypatch):
    monkeypatch.setattr("ldm_kit.game.answers.PATIENCE", 0.1)
    session = game.start("ann", tmp_path)
    session.answer(1)
    with (
        FileLock(tmp_path / ".ann.csv.lock"),
        pytest.raises(BadInputError, match=r"ann\.csv' has been locked"),
    ):
        session.answer(2)
    assert session.choices == [1]
    session.answer(3)
    assert [row["choice"] for row in read_rows(tmp_path / "ann.csv")] == ["1", "3"]


def test_names_that_look_like_formulas_are_answers_to_the_same_images(tmp_path):
    names = ("=cmd.png", "'=x.png", "-a.png", "it's.png")
    sets = CandidateSets(
        names, np.array([[0, 1, 2], [0, 1, 3], [0, 2, 3], [1, 2, 3]]), np.zeros((4, 3), dtype=int)
    )
    game = Game(lk.Stimuli(names), sets, {}, n_trials=4, n_catch=0)
    session, shown = game.start("ann", tmp_path), []
    while not session.finished:
        shown.append(session.images)
        session.answer(1)
    rows = read_rows(tmp_path / "ann.csv")
    assert [(row["image1"], row["image2"], row["image3"]) for row in rows] == shown
    assert game.start("ann", tmp_path).finished
    choices = lk.read_choices(tmp_path, names)
    assert {choices.names[i] for row in choices for i in row} == set(names)
    assert [choices.names[row[2]] for row in choices] == [three[0] for three in shown]
    text = (tmp_path / "ann.csv").read_text()
    assert ",=cmd" not in text and ",-a" not in text and ",'=cmd.png" in text
    (tmp_path / "ann.csv").write_text(text.replace(",'=cmd", ",=cmd"))  # as files of before have it
    assert read_rows(tmp_path / "ann.csv") == rows
