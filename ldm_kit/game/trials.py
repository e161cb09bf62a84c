"""Which sets of three a game may show, and the trials of a player: chosen sets, in an order, some shown again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ldm_kit.datasets.dataset import Dataset
from ldm_kit.datasets.observers import TEMPERATURE, choice_probabilities
from ldm_kit.datasets.triplets import Triplets
from ldm_kit.errors import BadInputError, one_of, whole_number

Integers = npt.NDArray[np.int64]
Choices = npt.NDArray[np.int8]
Floats = npt.NDArray[np.float64]

HOW = ("informative", "random")
BANDS = ("obvious", "middling", "hard")
# At least so certain is the observer of an obvious set, and less than so certain of a hard one; 1/3 is a guess.
OBVIOUS, HARD = 0.8, 0.5
SHARE = 0.3  # of the trials are obvious, and as many hard
GAP = 3  # so many other trials at least lie between a trial and its repeat


@dataclass(frozen=True, eq=False)
class CandidateSets:
    """Sets of three stimuli that a game may show, and how often each was chosen as the odd one.

    Parameters
    ----------
    names : tuple of str
        The stimuli that occur, in the data set's order.
    members : ndarray of int64, shape (s, 3)
        Positions in `names`, ascending in each row.
    votes : ndarray of int64, shape (s, 3)
        How many judgements chose each as the odd one; all 0 for sets without judgements.
    judgements : str
        Whose they are: "human", "human model", "simulated", or empty without judgements.
    dataset : str
    certainty : ndarray of float, shape (s,), optional
        The probability (1/3 to 1) with which a simulated observer gives the likeliest answer to each set, where the data set has
        feature norms.

    Examples
    --------
    >>> sets = CandidateSets(("a", "b", "c"), np.array([[0, 1, 2]]), np.array([[0, 3, 1]]), "human")
    >>> sets.majority.tolist()
    [1]
    """

    names: tuple[str, ...]
    members: Integers
    votes: Integers
    judgements: str = ""
    dataset: str = ""
    certainty: Floats | None = None

    def __len__(self) -> int:
        return len(self.members)

    @property
    def triplets(self) -> Triplets:
        """The sets as triplets, for `lk.predicted_odd`; here the third column means nothing."""
        return Triplets(self.members, self.names, self.judgements or "simulated", self.dataset)

    @property
    def majority(self) -> Choices:
        """The most frequent choice in each set, 0 to 2; -1 without judgements, or where the top is tied."""
        chosen: Choices = np.where(_is_tied(self.votes), -1, self.votes.argmax(axis=1)).astype(np.int8)
        return chosen

    @property
    def bands(self) -> Integers | None:
        """Whether each set is obvious, middling or hard: 0, 1 or 2 by its certainty; None where that is unknown.

        A set is obvious from a certainty of 0.8 on, and hard below 0.5.
        """
        return None if self.certainty is None else _bands(self.certainty)


def _bands(certainty: Floats) -> Integers:
    """The place of each set's difficulty in `BANDS`."""
    return (certainty < OBVIOUS).astype(np.int64) + (certainty < HARD)


def _is_tied(votes: Integers) -> npt.NDArray[np.bool_]:
    """Whether the most frequent choices of a set are several."""
    tied: npt.NDArray[np.bool_] = (votes == votes.max(axis=1, keepdims=True)).sum(axis=1) > 1
    return tied


def candidate_sets(data: Dataset, n: int = 200, seed: int = 0) -> CandidateSets:
    """Draw sets of three that a game may choose its trials from.

    Parameters
    ----------
    data : Dataset
        If it has triplets, sets are drawn from those with judgements and one most frequent choice, the most
        often judged first; else any three different images.
    n : int
        How many at most. A block's choices are computed for the images of these alone.
    seed : int
        The same seed draws the same sets, for every player.

    Returns
    -------
    CandidateSets

    Raises
    ------
    BadInputError
        If there are fewer than three images, `n` is not positive, or every judged set is a tie.

    Examples
    --------
    >>> import ldm_kit as lk
    >>> candidate_sets(lk.load_dataset("emoji", n_triplets=100), n=50).judgements
    'simulated'
    """
    whole_number("n_candidates", n, 1)
    rng = np.random.default_rng(whole_number("seed", seed, 0))
    triplets, judgements = data.triplets, ""
    if len(data.stimuli) < 3:
        raise BadInputError(f"{data.name!r} has {len(data.stimuli)} images; a game needs at least three.")
    if triplets is not None and len(triplets):
        members, votes = _judged(triplets, n, rng)
        judgements = triplets.judgements
    else:
        members = _any(len(data.stimuli), n, rng)
        votes = np.zeros_like(members)
    used, compact = np.unique(members, return_inverse=True)
    names = tuple(data.stimuli.names[i] for i in used.tolist())
    members = compact.reshape(members.shape)
    certainty = None
    if data.embedding_sources.get("norms") == "simulated":
        norms = data.embeddings["norms"].loc[list(names)].to_numpy(float)
        certainty = choice_probabilities(norms, members, TEMPERATURE).max(axis=1)
    return CandidateSets(names, members, votes, judgements, data.name, certainty)


def _judged(triplets: Triplets, n: int, rng: np.random.Generator) -> tuple[Integers, Integers]:
    """Draw sets with a clear majority, those judged most often first, in random order among equals."""
    ordered = np.sort(triplets.indices, axis=1)
    members, which = np.unique(ordered, axis=0, return_inverse=True)
    choice = (members[which.reshape(-1)] == triplets.indices[:, 2:]).argmax(axis=1)
    votes = np.bincount(which.reshape(-1) * 3 + choice, minlength=3 * len(members)).reshape(-1, 3)
    clear = np.flatnonzero(~_is_tied(votes))
    if not clear.size:
        raise BadInputError(
            "The judgements of every set of three are a tie: there is no choice to agree with."
        )
    shuffled = rng.permutation(clear)
    chosen = shuffled[np.argsort(-votes[shuffled].sum(axis=1), kind="stable")][:n]
    return members[chosen].astype(np.int64), votes[chosen].astype(np.int64)


def _any(stimuli: int, n: int, rng: np.random.Generator) -> Integers:
    """Draw different sets of three; fewer than `n` where there are not so many."""
    total = stimuli * (stimuli - 1) * (stimuli - 2) // 6
    found: dict[tuple[int, ...], None] = {}
    while len(found) < min(n, total):
        found[tuple(sorted(rng.choice(stimuli, 3, replace=False).tolist()))] = None
    return np.array(list(found), dtype=np.int64)


@dataclass(frozen=True)
class Trial:
    """A set of three, which of its members stands left, middle and right, and which earlier trial it repeats."""

    set_index: int
    sides: tuple[int, int, int]
    repeats: int | None = None


def disagreement(answers: Mapping[str, Choices]) -> Integers:
    """Count, for each set, the pairs of blocks that choose differently; -1 is no choice."""
    table = np.stack(list(answers.values()))
    counts = np.stack([(table == item).sum(axis=0) for item in range(3)])
    total = counts.sum(axis=0)
    pairs: Integers = (total * (total - 1) - (counts * (counts - 1)).sum(axis=0)) // 2
    return pairs


def choose_sets(
    answers: Mapping[str, Choices],
    n_sets: int,
    n_trials: int,
    how: str,
    seed: int,
    bands: Integers | None = None,
) -> Integers:
    """Choose the sets of a game: those on which the blocks disagree most, or any.

    With `bands` those on which they disagree most of the obvious, of the middling and of the hard sets: three, four and three of ten.
    """
    one_of("way to choose trials", how, HOW)
    if not 1 <= n_trials <= n_sets:
        raise BadInputError(
            f"{n_trials} trials cannot be chosen from {n_sets} sets. Choose n_trials from 1 to that, or raise "
            "n_candidates."
        )
    shuffled = np.random.default_rng([seed, 1]).permutation(n_sets)
    if how == "informative" and answers:
        shuffled = shuffled[np.argsort(-disagreement(answers)[shuffled], kind="stable")]
    if how == "informative" and bands is not None:
        shuffled = _graded(shuffled, bands, n_trials)
    chosen: Integers = shuffled[:n_trials].astype(np.int64)
    return chosen


def _graded(ordered: Integers, bands: Integers, n_trials: int) -> Integers:
    """Move each band's share of the trials to the front; where a band has too few sets, the next of any band follow."""
    ends = round(SHARE * n_trials)
    first = np.zeros(len(ordered), dtype=bool)
    for band, wanted in enumerate((ends, n_trials - 2 * ends, ends)):
        first[np.flatnonzero(bands[ordered] == band)[:wanted]] = True
    return np.concatenate([ordered[first], ordered[~first]])


def plan_trials(sets: Sequence[int] | Integers, n_catch: int, player: str, seed: int = 0) -> list[Trial]:
    """Put sets into an order and onto sides of a player's own, and show `n_catch` of them again later.

    A repeat comes after at least `GAP` others, with no image on its former side. The same player and seed
    give the same plan.
    """
    most = max(0, len(sets) - GAP)
    if not 0 <= n_catch <= most:
        raise BadInputError(
            f"n_catch={n_catch}: with {len(sets)} trials at most {most} can be shown again, each after {GAP} "
            "others. Choose fewer, or more trials."
        )
    own = int.from_bytes(hashlib.sha256(player.encode()).digest()[:8], "big")
    rng = np.random.default_rng([seed, own])
    order = rng.permutation(np.asarray(sets, dtype=np.int64)).tolist()
    after = set(rng.choice(np.arange(GAP, len(order)), n_catch, replace=False).tolist())
    plan: list[Trial] = []
    shown: list[int] = []  # where in the plan each new trial stands
    again: set[int] = set()
    for number, index in enumerate(order):
        shown.append(len(plan))
        left, middle, right = rng.permutation(3).tolist()
        plan.append(Trial(index, (left, middle, right)))
        if number in after:
            first = int(rng.choice([place for place in shown[: number - GAP + 1] if place not in again]))
            again.add(first)
            turn, sides = int(rng.integers(1, 3)), plan[first].sides
            left, middle, right = (sides[(side + turn) % 3] for side in range(3))
            plan.append(Trial(plan[first].set_index, (left, middle, right), first))
    return plan
