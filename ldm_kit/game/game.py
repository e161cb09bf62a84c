"""The odd-one-out game without its looks: a game, the session of a player, simulated players."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ldm_kit.datasets.dataset import Dataset
from ldm_kit.datasets.stimuli import Stimuli
from ldm_kit.errors import BadInputError, one_of
from ldm_kit.game.answers import AnswerFile, Consistency, agreement_table
from ldm_kit.game.trials import (
    BANDS,
    CandidateSets,
    Choices,
    Integers,
    Trial,
    candidate_sets,
    choose_sets,
    disagreement,
    plan_trials,
)

if TYPE_CHECKING:
    from ldm_kit.models.model import OpenedModel

PLAYERS = ("majority", "participant", "guess")
_PARTICIPANTS = {"human": "people", "human model": "a human model", "simulated": "simulated observers"}


@dataclass(frozen=True)
class Feedback:
    """What was answered in a trial, and what everybody else chose.

    Parameters
    ----------
    trial : int
        From 1.
    choice : int
        The side that the player chose, 1 to 3.
    others : mapping of str to int
        The side that each of the others chose, 0 where one has no answer.
    votes : tuple of int
        How many judgements chose the left, the middle and the right image.
    """

    trial: int
    choice: int
    others: Mapping[str, int]
    votes: tuple[int, int, int]


@dataclass(eq=False)
class Game:
    """What all players of a game share.

    Parameters
    ----------
    stimuli : Stimuli
        The images.
    sets : CandidateSets
        From `candidate_sets`.
    answers : mapping of str to ndarray of int8, shape (s,)
        Each chosen block's answer to each set, 0 to 2, or -1 where its most similar pairs tie, as
        `lk.predicted_odd` returns it for `sets.triplets`. Keys are shown.
    n_trials, n_catch : int
        New trials, and how many of them come again.
    how : {"informative", "random"}
        Sets on which the blocks disagree most, or any. Where the certainty of a simulated observer is known (`CandidateSets.bands`),
        informative sets are, of ten, three obvious, four middling and three hard ones, and of each kind those on which the blocks disagree
        most; if there are too few of a kind, others take their place (`difficulty` counts them).
    seed : int
        The same seed gives every player the same sets.
    labels : mapping of str to mapping, optional
        Columns that describe each block in tables.

    Attributes
    ----------
    chosen : ndarray of int64, shape (n_trials,)
        Which of the sets are played.

    Raises
    ------
    BadInputError
        If the answers are not one a set, or there are too few sets.

    Examples
    --------
    >>> import ldm_kit as lk
    >>> names = ("car.png", "cat.png", "dog.png")
    >>> sets = CandidateSets(names, np.array([[0, 1, 2]]), np.array([[5, 1, 0]]), "human")
    >>> game = Game(lk.Stimuli(names), sets, {"mid_block": [0]}, n_trials=1, n_catch=0)
    >>> {name: answers.tolist() for name, answers in game.others.items()}
    {'people': [0], 'mid_block': [0]}
    """

    stimuli: Stimuli
    sets: CandidateSets
    answers: Mapping[str, Choices]
    n_trials: int = 10
    n_catch: int = 3
    how: str = "informative"
    seed: int = 0
    labels: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    chosen: Integers = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.answers = {name: np.asarray(answers, dtype=np.int8) for name, answers in self.answers.items()}
        for name, answers in self.answers.items():
            if answers.shape != (len(self.sets),):
                raise BadInputError(
                    f"{name!r} has answers of shape {answers.shape} to {len(self.sets)} sets. "
                    "Take them from `lk.predicted_odd(store, sets.triplets)`."
                )
        self.chosen = choose_sets(
            self.answers, len(self.sets), self.n_trials, self.how, self.seed, self.sets.bands
        )
        plan_trials(self.chosen, self.n_catch, "", self.seed)  # raises if the trials are too few to repeat

    @property
    def participants(self) -> str:
        """Whose judgements the player is compared with: "people", "simulated observers", …, or empty."""
        return _PARTICIPANTS.get(self.sets.judgements, "")

    @property
    def others(self) -> dict[str, Choices]:
        """The majority's answers, where there are judgements, and those of each block."""
        majority = {self.participants: self.sets.majority} if self.participants else {}
        return {**majority, **self.answers}

    @property
    def n_informative(self) -> int:
        """On how many of the chosen sets blocks disagree."""
        return int((disagreement(self.answers)[self.chosen] > 0).sum()) if self.answers else 0

    @property
    def difficulty(self) -> dict[str, int]:
        """How many of the chosen sets are obvious, middling and hard; empty where that is unknown."""
        bands = self.sets.bands
        if bands is None:
            return {}
        return {name: int((bands[self.chosen] == band).sum()) for band, name in enumerate(BANDS)}

    def images(self, trial: Trial) -> tuple[str, str, str]:
        """Return the names of a trial's images, from left to right."""
        members = self.sets.members[trial.set_index]
        left, middle, right = (self.sets.names[int(members[side])] for side in trial.sides)
        return left, middle, right

    def start(
        self, player: str, folder: str | os.PathLike[str] = "outputs/game", judgements: str = "human"
    ) -> Session:
        """Begin, or go on where this player's file ends.

        Parameters
        ----------
        player : str
            Names the file.
        folder : path-like
        judgements : {"human", "simulated"}
            Who plays.

        Returns
        -------
        Session
        """
        return Session(self, AnswerFile(folder, player), judgements)


class Session:
    """One player's game, from `Game.start`. Every answer is on disk before it counts.

    Attributes
    ----------
    plan : list of Trial
        All trials, repeats among them.
    key : str
        A short name of this very plan on these very images: answers to another one are not taken for its own.
    choices : list of int
        The side chosen in each answered trial: 1 left, 2 middle, 3 right.

    Examples
    --------
    >>> game = lk.game.new_game(model, data, "features", blocks="mid_block", n_candidates=20)
    >>> session = game.start("ann", "answers")
    >>> while not session.finished:
    ...     feedback = session.answer(1)
    >>> len(session.choices)
    13
    """

    def __init__(self, game: Game, file: AnswerFile, judgements: str = "human") -> None:
        self.game, self.file, self.judgements = game, file, judgements
        self.plan = plan_trials(game.chosen, game.n_catch, file.player, game.seed)
        shown = [[list(game.images(trial)), trial.repeats] for trial in self.plan]
        self.key = hashlib.sha256(json.dumps([game.sets.dataset, shown]).encode()).hexdigest()[:8]
        self.choices: list[int] = []
        self.reload()

    @property
    def player(self) -> str:
        """The player's name."""
        return self.file.player

    @property
    def finished(self) -> bool:
        """Whether all trials are answered."""
        return len(self.choices) == len(self.plan)

    @property
    def current(self) -> Trial:
        """The trial to be answered; an error if there is none left."""
        if self.finished:
            raise BadInputError(
                f"{self.player} has played all {len(self.plan)} trials. Play with another seed."
            )
        return self.plan[len(self.choices)]

    @property
    def images(self) -> tuple[str, str, str]:
        """The names of the current trial's images, from left to right."""
        return self.game.images(self.current)

    def reload(self) -> None:
        """Take the answers from the file, as a restarted kernel does."""
        rows = self.file.rows(self.key)[: len(self.plan)]
        for number, (row, trial) in enumerate(zip(rows, self.plan, strict=False), 1):
            if (row["image1"], row["image2"], row["image3"]) != self.game.images(trial):
                raise BadInputError(
                    f"{self.file.path.name!r}: answer {number} of game {self.key} is about other images than were "
                    "shown. The file was changed by hand: mend it, or play under another name."
                )
        self.choices = [int(row["choice"]) for row in rows]

    def answer(self, choice: int, seconds: float | None = None) -> Feedback:
        """Answer the current trial: write it, then return what the others chose.

        Parameters
        ----------
        choice : int
            The odd one's side: 1 left, 2 middle, 3 right.
        seconds : float, optional
            How long it took.

        Returns
        -------
        Feedback

        Raises
        ------
        BadInputError, MismatchError
            If it is no side, the game is over, or the answer could not be written; then it does not count.
        """
        if choice not in (1, 2, 3):
            raise BadInputError(f"The choice is {choice!r}; it is 1 (left), 2 (middle) or 3 (right).")
        trial, number = self.current, len(self.choices) + 1
        left, middle, right = self.images
        self.file.append(
            {
                "judgements": self.judgements,
                "dataset": self.game.sets.dataset,
                "game": self.key,
                "trial": number,
                "kind": "new" if trial.repeats is None else "catch",
                "image1": left,
                "image2": middle,
                "image3": right,
                "choice": choice,
                "seconds": "" if seconds is None else f"{seconds:.3f}",
            }
        )
        self.choices.append(choice)
        return self.feedback(number)

    def feedback(self, number: int) -> Feedback:
        """Return what was chosen in an answered trial, counted from 1."""
        trial = self.plan[number - 1]
        side_of = {member: side for side, member in enumerate(trial.sides, 1)}
        others = {
            name: side_of.get(int(answers[trial.set_index]), 0) for name, answers in self.game.others.items()
        }
        left, middle, right = (int(self.game.sets.votes[trial.set_index, member]) for member in trial.sides)
        return Feedback(number, self.choices[number - 1], others, (left, middle, right))

    def odd(self) -> list[int]:
        """Return which member of its set was chosen in each answered trial, 0 to 2."""
        return [trial.sides[choice - 1] for trial, choice in zip(self.plan, self.choices, strict=False)]

    def scores(self) -> pd.DataFrame:
        """Return the agreement with the majority and each block, over the new trials answered so far."""
        odd, game = self.odd(), self.game
        new = [number for number in range(len(odd)) if self.plan[number].repeats is None]
        rows = [self.plan[number].set_index for number in new]
        common = {"dataset": game.sets.dataset, "judgements": self.judgements, "player": self.player}
        labels = {name: {"block": name, **game.labels.get(name, {}), **common} for name in game.answers}
        return agreement_table(
            [odd[number] for number in new],
            {name: answers[rows] for name, answers in game.others.items()},
            {game.participants: common, **labels},
        )

    def consistency(self) -> Consistency:
        """Return how often repeats were answered alike so far."""
        odd = self.odd()
        alike = [
            odd[trial.repeats] == again
            for trial, again in zip(self.plan, odd, strict=False)
            if trial.repeats is not None
        ]
        return Consistency(sum(alike), len(alike))


def new_game(
    net: OpenedModel,
    data: Dataset,
    features: str | os.PathLike[str],
    *,
    blocks: str | Sequence[str] | None = None,
    noise_level: float = 0.3,
    metric: str = "cosine",
    n_candidates: int = 200,
    seed: int = 0,
    **options: Any,
) -> Game:
    """Draw sets of three and compute which image blocks of a model would leave out of each.

    Parameters
    ----------
    net : OpenedModel
    data : Dataset
    features : path-like
        The feature store; only what it lacks is computed.
    blocks : str or sequence of str, optional
        As for `OpenedModel.select_blocks`.
    noise_level : float
        Of the images as the blocks see them, 0 to 1.
    metric : str
        How similar two representations are, as for `lk.predicted_odd`.
    n_candidates : int
        How many sets the trials are chosen from.
    seed : int
        Of the noise, the sets and the trials.
    **options
        `n_trials`, `n_catch` and `how` of `Game`.

    Returns
    -------
    Game

    Examples
    --------
    >>> game = lk.game.new_game(model, data, "features", blocks="mid_block", n_candidates=20)
    >>> len(game.chosen)
    10
    """
    from ldm_kit.features import extract
    from ldm_kit.measures import METRICS, predicted_odd

    one_of("metric", metric, METRICS)
    sets = candidate_sets(data, n_candidates, seed=seed)
    stimuli = data.stimuli.select(sets.names)
    request: dict[str, Any] = {
        "blocks": net.select_blocks(blocks),
        "noise_levels": [noise_level],
        "conditionings": "none",
    }
    Game(stimuli, sets, {}, seed=seed, **options)  # raises for bad options before anything is computed
    # One noise sample, of a store that may hold more: the notebooks share it.
    store = extract(net, stimuli, **request, out=features, draws="apart", seed=seed).mean_of_draws()
    store = store.select(**request, names=sets.names)
    odd = predicted_odd(store, sets.triplets, metric=metric)
    labels = {key.block: {**store.labels(key), "metric": metric, "seed": seed} for key in store.cells()}
    answers = {key.block: odd[key] for key in store.cells()}
    return Game(stimuli, sets, answers, seed=seed, labels=labels, **options)


def autoplay(game: Game, kind: str, folder: str | os.PathLike[str], player: str | None = None) -> Session:
    """Play what is left of a game by a simulated player.

    Parameters
    ----------
    game : Game
    kind : str
        ``"majority"``: always the most frequent choice; ``"participant"``: a choice as likely as it was in the
        judgements; ``"guess"``: any of the three; or the name of one of the game's blocks.
    folder : path-like
        Where its answers go, labelled "simulated".
    player : str, optional
        Its name; by default "simulated" and the kind.

    Returns
    -------
    Session
        Finished. A block without an answer to a set guesses there.

    Raises
    ------
    UnknownNameError
        If there is no such player.

    Examples
    --------
    >>> game = lk.game.new_game(model, data, "features", blocks="mid_block", n_candidates=20)
    >>> lk.game.autoplay(game, "participant", "answers").finished
    True
    """
    one_of("simulated player", kind, [*(PLAYERS if game.participants else PLAYERS[2:]), *game.answers])
    name = player or f"simulated {kind}".replace(",", "")
    session = game.start(name, folder, judgements="simulated")
    while not session.finished:
        chances = _chances(game, kind, session.current.set_index)
        # A generator for each trial: a player that goes on after a stop plays as one that never stopped.
        rng = np.random.default_rng([game.seed, 2, len(session.choices)])
        member = int(rng.choice(3, p=chances))
        session.answer(session.current.sides.index(member) + 1)
    return session


def _chances(game: Game, kind: str, index: int) -> list[float]:
    """Return the chance of each member of a set to be chosen by a simulated player."""
    votes = game.sets.votes[index]
    if kind == "participant":
        return [float(share) for share in votes / votes.sum()]
    if kind != "guess":
        answer = int((game.sets.majority if kind == "majority" else game.answers[kind])[index])
        if answer >= 0:
            return [float(member == answer) for member in range(3)]
    return [1 / 3] * 3
