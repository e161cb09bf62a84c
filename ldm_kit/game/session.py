"""A game and its players: what is asked next, what the others said, what was answered so far."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ldm_kit.datasets.stimuli import Stimuli
from ldm_kit.errors import BadInputError
from ldm_kit.game.answers import AnswerFile
from ldm_kit.game.scoring import Consistency, agreement_table, consistency
from ldm_kit.game.sets import JudgedSets, candidate_sets
from ldm_kit.game.trials import Trial, choose_sets, disagreement, plan_trials

if TYPE_CHECKING:
    from ldm_kit.datasets.dataset import Dataset
    from ldm_kit.models.model import OpenedModel

JUDGES = {
    "human": "people",
    "human model": "a human model",
    "simulated": "simulated observers",
}


@dataclass(frozen=True)
class Feedback:
    """What was answered in a trial, and what everybody else said.

    Parameters
    ----------
    trial : int
        From 1.
    choice : int
        The side that the player named, 1 to 3.
    said : mapping of str to int
        The side that each of the others named, 0 where one has no answer.
    votes : tuple of int
        How many judges named the left, the middle and the right picture.
    """

    trial: int
    choice: int
    said: Mapping[str, int]
    votes: tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Game:
    """What all players of a game share.

    Parameters
    ----------
    stimuli : Stimuli
        The pictures.
    sets : JudgedSets
        From `candidate_sets`.
    answers : mapping of str to ndarray of int8, shape (s,)
        Each chosen block's answer to each set, as `lk.predicted_odd` gives it for `sets.triplets`. Keys are shown.
    n_trials, n_catch : int
        New trials, and how many of them come again.
    how : {"informative", "random"}
        Sets on which the blocks disagree most, or any.
    seed : int
        The same seed gives every player the same sets.
    labels : mapping of str to mapping, optional
        Columns that describe each block in tables.

    Raises
    ------
    BadInputError
        If the answers are not one a set, or there are too few sets.

    Examples
    --------
    >>> game = lk.game.Game(data.stimuli, sets, lk.predicted_odd(store, sets.triplets))  # doctest: +SKIP
    >>> game.start("ann", "outputs/game").answer(2)  # doctest: +SKIP
    """

    stimuli: Stimuli
    sets: JudgedSets
    answers: Mapping[str, npt.NDArray[np.int8]]
    n_trials: int = 10
    n_catch: int = 3
    how: str = "informative"
    seed: int = 0
    labels: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    chosen: npt.NDArray[np.int64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        plain = {_label(key): np.asarray(one, dtype=np.int8) for key, one in self.answers.items()}
        for block, one in plain.items():
            if one.shape != (len(self.sets),):
                raise BadInputError(
                    f"{block!r} gives answers of shape {one.shape} to {len(self.sets)} sets. "
                    "Ask it with `lk.predicted_odd(store, sets.triplets)`."
                )
        object.__setattr__(self, "answers", plain)
        chosen = choose_sets(plain, len(self.sets), self.n_trials, self.how, self.seed)
        object.__setattr__(self, "chosen", chosen)
        plan_trials(chosen, self.n_catch, "", self.seed)  # too few trials for so many repeats: say so now

    @property
    def judges(self) -> str:
        """Who the player is compared with: "people", "simulated observers", …; empty if nobody judged."""
        return JUDGES.get(self.sets.judgements, "")

    @property
    def others(self) -> dict[str, npt.NDArray[np.int8]]:
        """The answers of the judges' majority, if anybody judged, and of each block."""
        return ({self.judges: self.sets.majority} if self.judges else {}) | dict(self.answers)

    @property
    def n_informative(self) -> int:
        """On how many of the chosen sets blocks disagree."""
        return int((disagreement(self.answers)[self.chosen] > 0).sum()) if self.answers else 0

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

        Examples
        --------
        >>> game.start("ann").current  # doctest: +SKIP
        """
        return Session(self, AnswerFile(folder, player), judgements)

    def key(self, plan: list[Trial]) -> str:
        """A short name of this very plan on these very pictures; an answer to another is none to it."""
        shown = [[list(self._names(trial)), trial.repeats] for trial in plan]
        return hashlib.sha256(json.dumps([self.sets.dataset, shown]).encode()).hexdigest()[:8]

    def _names(self, trial: Trial) -> tuple[str, str, str]:
        members = self.sets.members[trial.set_index]
        left, middle, right = (self.sets.names[int(members[side])] for side in trial.sides)
        return left, middle, right


class Session:
    """One player's game. Every answer is on disk before it counts.

    Parameters
    ----------
    game : Game
    file : AnswerFile
    judgements : str
        "human", or "simulated" for a simulated player.

    Examples
    --------
    >>> session = game.start("ann")  # doctest: +SKIP
    >>> while not session.finished:  # doctest: +SKIP
    ...     session.answer(int(input(session.pictures)))
    """

    def __init__(self, game: Game, file: AnswerFile, judgements: str = "human") -> None:
        self.game, self.file, self.judgements = game, file, judgements
        self.plan = plan_trials(game.chosen, game.n_catch, file.player, game.seed)
        self.key = game.key(self.plan)
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
    def pictures(self) -> tuple[str, str, str]:
        """The names of the current trial's pictures, from left to right."""
        return self.game._names(self.current)

    def reload(self) -> None:
        """Take the answers from the file: what a restarted kernel does."""
        rows = self.file.rows(self.key)
        for number, (row, trial) in enumerate(zip(rows, self.plan, strict=False), 1):
            if (row["image1"], row["image2"], row["image3"]) != self.game._names(trial):
                raise BadInputError(
                    f"{self.file.path.name!r}: answer {number} of game {self.key} is to other pictures than were "
                    "shown. The file was changed by hand: mend it, or play under another name."
                )
        self.choices = [int(row["choice"]) for row in rows[: len(self.plan)]]

    def answer(self, choice: int, seconds: float | None = None) -> Feedback:
        """Answer the current trial: write it, then tell what the others said.

        Parameters
        ----------
        choice : int
            The odd one's side: 1 left, 2 middle, 3 right.
        seconds : float, optional
            How long it took.

        Raises
        ------
        BadInputError, MismatchError
            If it is no side, the game is over, or the answer could not be written; then it does not count.
        """
        if choice not in (1, 2, 3):
            raise BadInputError(f"The choice is {choice!r}; it is 1 (left), 2 (middle) or 3 (right).")
        trial, number = self.current, len(self.choices) + 1
        left, middle, right = self.pictures
        self.file.append(
            {
                "judgements": self.judgements,
                "dataset": self.game.sets.dataset,
                "game": self.key,
                "trial": number,
                "kind": trial.kind,
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
        """What was said in a trial that was answered, counted from 1."""
        trial = self.plan[number - 1]
        side_of = {member: side for side, member in enumerate(trial.sides, 1)}
        said = {
            other: side_of.get(int(answers[trial.set_index]), 0)
            for other, answers in self.game.others.items()
        }
        left, middle, right = (int(self.game.sets.votes[trial.set_index, member]) for member in trial.sides)
        return Feedback(number, self.choices[number - 1], said, (left, middle, right))

    def odd(self) -> list[int]:
        """Which member of its set was named in each answered trial."""
        return [trial.sides[choice - 1] for trial, choice in zip(self.plan, self.choices, strict=False)]

    def scores(self) -> pd.DataFrame:
        """Agreement with the judges and each block, over the new trials answered so far."""
        odd = self.odd()
        new = [number for number in range(len(odd)) if self.plan[number].repeats is None]
        rows = np.array([self.plan[number].set_index for number in new], dtype=np.int64)
        others = {name: answers[rows].tolist() for name, answers in self.game.others.items()}
        common = {"dataset": self.game.sets.dataset, "judgements": self.judgements, "player": self.player}
        labels = {name: {**self.game.labels.get(name, {}), **common} for name in others}
        for name in self.game.answers:
            labels[name].setdefault("block", name)
        return agreement_table([odd[number] for number in new], others, labels)

    def consistency(self) -> Consistency:
        """How often repeats were answered alike so far."""
        odd = self.odd()
        pairs = []
        for number, trial in enumerate(self.plan[: len(odd)]):
            if trial.repeats is not None:
                pairs.append((odd[trial.repeats], odd[number]))
        return consistency(pairs)


def new_game(
    net: OpenedModel,
    data: Dataset,
    features: str | os.PathLike[str],
    *,
    blocks: str | Sequence[str] | None = None,
    noise_level: float = 0.3,
    metric: str = "centred cosine",
    n_candidates: int = 200,
    seed: int = 0,
    **options: Any,
) -> Game:
    """Draw sets of three and ask blocks of a model which image they would leave out of each.

    Parameters
    ----------
    net : OpenedModel
    data : Dataset
    features : path-like
        The feature store; only what it lacks is computed.
    blocks : str or sequence of str, optional
        As for `OpenedModel.select_blocks`.
    noise_level : float
        At which the blocks look.
    metric : str
        How similar two representations are, as for `lk.predicted_odd`.
    n_candidates : int
        How many sets the trials are chosen from.
    seed : int
        Of the noise, the sets and the trials.
    **options
        `n_trials`, `n_catch` and `how` of `Game`.

    Examples
    --------
    >>> game = lk.game.new_game(net, data, "outputs/features", blocks="mid_block")  # doctest: +SKIP
    """
    from ldm_kit.features.extraction import extract
    from ldm_kit.measures import predicted_odd
    from ldm_kit.notebook_checks import check_parameters

    sets = candidate_sets(data, n_candidates, seed=seed)
    stimuli = data.stimuli.select(sets.names)
    shown = net.select_blocks(blocks)
    check_parameters(metric=metric, seed=seed)
    Game(
        stimuli, sets, {}, seed=seed, **options
    )  # whether it can be played is known before anything is computed
    asked: dict[str, Any] = {"blocks": shown, "noise_levels": [noise_level], "conditionings": "none"}
    store = extract(net, stimuli, **asked, out=features, seed=seed)
    store = store.select(**asked, names=sets.names)
    said = predicted_odd(store, sets.triplets, metric=metric)
    labels = {key.block: {**store.labels(key), "metric": metric, "seed": seed} for key in store.cells()}
    answers = {key.block: said[key] for key in store.cells()}
    return Game(stimuli, sets, answers, seed=seed, labels=labels, **options)


def _label(key: Any) -> str:
    """A block's name as shown; a store's cell is named by its block, level and conditioning."""
    if isinstance(key, str):
        return key
    block, level, conditioning = key
    return f"{block} at {level:g}" + ("" if conditioning == "none" else f", {conditioning}")
