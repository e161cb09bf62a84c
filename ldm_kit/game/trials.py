"""Which three pictures are shown when, on which sides, and which are shown a second time."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ldm_kit.errors import BadInputError, unknown_name

HOW = ("informative", "random")
GAP = 3  # so many other trials at least lie between a trial and its repeat


@dataclass(frozen=True)
class Trial:
    """One trial of a game.

    Parameters
    ----------
    set_index : int
        Which set of three.
    sides : tuple of int
        Which member of the set (0 to 2) stands left, in the middle and right.
    repeats : int or None
        The number (from 0) of the trial that is shown again here; None for a new one.

    Examples
    --------
    >>> Trial(4, (2, 0, 1)).kind
    'new'
    """

    set_index: int
    sides: tuple[int, int, int]
    repeats: int | None = None

    @property
    def kind(self) -> str:
        """Whether it is "new" or a "catch"."""
        return "new" if self.repeats is None else "catch"


def disagreement(answers: Mapping[str, npt.NDArray[np.int8]]) -> npt.NDArray[np.int64]:
    """Count, for each set, the pairs of blocks that answer differently.

    Parameters
    ----------
    answers : mapping of str to ndarray of int8, shape (s,)
        Each block's answer to each set, 0 to 2, or -1 where its most similar pairs tie.

    Examples
    --------
    >>> disagreement({"a": np.array([0, 1, -1]), "b": np.array([0, 2, 2])}).tolist()
    [0, 1, 0]
    """
    table = np.stack(list(answers.values()))
    counts = np.stack([(table == item).sum(axis=0) for item in range(3)])
    total = counts.sum(axis=0)
    pairs: npt.NDArray[np.int64] = (total * (total - 1) - (counts * (counts - 1)).sum(axis=0)) // 2
    return pairs


def choose_sets(
    answers: Mapping[str, npt.NDArray[np.int8]], n_sets: int, n_trials: int, how: str, seed: int
) -> npt.NDArray[np.int64]:
    """Choose the sets of a game: those on which the blocks disagree most, or any.

    Parameters
    ----------
    answers : mapping of str to ndarray of int8
        As in `disagreement`.
    n_sets, n_trials : int
        How many there are, and how many are wanted.
    how : {"informative", "random"}
    seed : int

    Returns
    -------
    ndarray of int64, shape (n_trials,)

    Raises
    ------
    BadInputError
        If there are too few sets.

    Examples
    --------
    >>> choose_sets({"a": np.array([0, 1]), "b": np.array([0, 2])}, 2, 1, "informative", seed=0).tolist()
    [1]
    """
    if how not in HOW:
        raise unknown_name("way to choose trials", how, HOW, "Pick one of these.")
    if not 1 <= n_trials <= n_sets:
        raise BadInputError(
            f"{n_trials} trials were asked for and there are {n_sets} sets to choose from. Give a number from "
            "1 to that, or draw more candidates."
        )
    shuffled = np.random.default_rng([seed, 1]).permutation(n_sets)
    if how == "informative" and answers:
        differ = disagreement(answers)[shuffled]
        shuffled = shuffled[np.argsort(-differ, kind="stable")]
    chosen: npt.NDArray[np.int64] = shuffled[:n_trials].astype(np.int64)
    return chosen


def plan_trials(
    sets: npt.NDArray[np.int64] | list[int], n_catch: int, player: str, seed: int = 0
) -> list[Trial]:
    """Put sets into an order and onto sides of a player's own, and show some again later.

    Parameters
    ----------
    sets : sequence of int
        The sets to show.
    n_catch : int
        How many of them come a second time, after at least `GAP` others, on other sides.
    player : str
        Players see the same sets in orders of their own; the same player and seed give the same plan.
    seed : int

    Returns
    -------
    list of Trial

    Raises
    ------
    BadInputError
        If there are too few sets for so many repeats.

    Examples
    --------
    >>> plan = plan_trials([7, 3, 5, 1, 2], n_catch=1, player="ann")
    >>> len(plan), sum(trial.kind == "catch" for trial in plan)
    (6, 1)
    """
    most = max(0, len(sets) - GAP)
    if not 0 <= n_catch <= most:
        raise BadInputError(
            f"n_catch={n_catch}: with {len(sets)} trials at most {most} can be shown again, each after {GAP} "
            "others. Ask for fewer, or for more trials."
        )
    own = int.from_bytes(hashlib.sha256(player.encode()).digest()[:8], "big")
    rng = np.random.default_rng([seed, own])
    order = rng.permutation(np.asarray(sets, dtype=np.int64))
    after = set(np.sort(rng.choice(np.arange(GAP, len(order)), n_catch, replace=False)).tolist())
    plan: list[Trial] = []
    shown: list[int] = []  # where in the plan each new trial stands
    again: set[int] = set()
    for number, index in enumerate(order):
        shown.append(len(plan))
        plan.append(Trial(int(index), _sides(rng)))
        if number in after:
            free = [place for place in shown[: number - GAP + 1] if place not in again]
            first = int(rng.choice(free))
            again.add(first)
            plan.append(Trial(plan[first].set_index, _sides(rng, plan[first].sides), first))
    return plan


def _sides(rng: np.random.Generator, other_than: tuple[int, int, int] | None = None) -> tuple[int, int, int]:
    """An order of three; where one is given, no picture keeps its side."""
    if other_than is not None:
        turn = int(rng.integers(1, 3))
        a, b, c = (other_than[(side + turn) % 3] for side in range(3))
        return a, b, c
    a, b, c = (int(item) for item in rng.permutation(3))
    return a, b, c
