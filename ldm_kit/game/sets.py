"""Sets of three pictures that a game may show, and how often each was named the odd one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ldm_kit.datasets.dataset import Dataset
from ldm_kit.datasets.triplets import Triplets
from ldm_kit.errors import BadInputError


@dataclass(frozen=True, eq=False)
class JudgedSets:
    """Sets of three stimuli, with the answers that are known about them.

    Parameters
    ----------
    names : tuple of str
        The stimuli that occur, in the data set's order.
    members : ndarray of int64, shape (s, 3)
        Positions in `names`, ascending in each row.
    votes : ndarray of int64, shape (s, 3)
        How many judges named each the odd one; all 0 where nobody was asked.
    judgements : str
        Who judged: "human", "human model", "simulated", or empty if nobody did.
    dataset : str

    Examples
    --------
    >>> sets = JudgedSets(("a", "b", "c"), np.array([[0, 1, 2]]), np.array([[0, 3, 1]]), "human")
    >>> sets.majority.tolist()
    [1]
    """

    names: tuple[str, ...]
    members: npt.NDArray[np.int64]
    votes: npt.NDArray[np.int64]
    judgements: str = ""
    dataset: str = ""

    def __len__(self) -> int:
        return len(self.members)

    @property
    def triplets(self) -> Triplets:
        """The sets as triplets, for `lk.predicted_odd`; here the third column means nothing."""
        return Triplets(self.members, self.names, self.judgements or "simulated", self.dataset)

    @property
    def majority(self) -> npt.NDArray[np.int8]:
        """The most frequent answer to each set, 0 to 2; -1 where nobody was asked, or the top is tied."""
        most = self.votes.max(axis=1, keepdims=True)
        tied = (self.votes == most).sum(axis=1) > 1
        found: npt.NDArray[np.int8] = np.where(tied, -1, self.votes.argmax(axis=1)).astype(np.int8)
        return found


def candidate_sets(data: Dataset, n: int = 200, seed: int = 0) -> JudgedSets:
    """Draw sets of three that a game may choose its trials from.

    Parameters
    ----------
    data : Dataset
        If it has triplets, sets are drawn from those that were judged, one clear answer each (a tie among
        the judges has none), and repeatedly judged ones come first; else any three different pictures.
    n : int
        How many at most. A block's answers are computed for the pictures of these alone.
    seed : int
        The same seed draws the same sets, for every player.

    Returns
    -------
    JudgedSets

    Raises
    ------
    BadInputError
        If there are fewer than three pictures, or `n` is not positive.

    Examples
    --------
    >>> candidate_sets(lk.load_dataset("toybox"), n=50).judgements  # doctest: +SKIP
    'simulated'
    """
    if len(data.stimuli) < 3 or n < 1:
        raise BadInputError(
            f"{n} sets of three cannot be drawn from {len(data.stimuli)} pictures. "
            "Give at least three pictures, and ask for at least one set."
        )
    rng = np.random.default_rng(seed)
    judged = data.triplets is not None and len(data.triplets) > 0
    members, votes = _judged(data.triplets, n, rng) if judged else _any(len(data.stimuli), n, rng)
    used, compact = np.unique(members, return_inverse=True)
    return JudgedSets(
        tuple(data.stimuli.names[int(i)] for i in used),
        compact.reshape(members.shape).astype(np.int64),
        votes,
        data.triplets.judgements if judged and data.triplets is not None else "",
        data.name,
    )


def _judged(
    triplets: Triplets | None, n: int, rng: np.random.Generator
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Sets with a clear majority, those judged most often first, in random order among equals."""
    assert triplets is not None
    ordered = np.sort(triplets.indices, axis=1)
    members, which = np.unique(ordered, axis=0, return_inverse=True)
    answer = (members[which.reshape(-1)] == triplets.indices[:, 2:]).argmax(axis=1)
    votes = np.bincount(which.reshape(-1) * 3 + answer, minlength=3 * len(members)).reshape(-1, 3)
    clear = np.flatnonzero((votes == votes.max(axis=1, keepdims=True)).sum(axis=1) == 1)
    if not clear.size:
        raise BadInputError("Every set of three is a tie among its judges: there is no answer to agree with.")
    shuffled = rng.permutation(clear)
    often = votes[shuffled].sum(axis=1)
    chosen = shuffled[np.argsort(-often, kind="stable")][:n]
    return members[chosen].astype(np.int64), votes[chosen].astype(np.int64)


def _any(
    stimuli: int, n: int, rng: np.random.Generator
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Any different sets of three; fewer than `n` where there are not so many."""
    total = stimuli * (stimuli - 1) * (stimuli - 2) // 6
    found: dict[tuple[int, ...], None] = {}
    while len(found) < min(n, total):
        found[tuple(sorted(rng.choice(stimuli, 3, replace=False).tolist()))] = None
    members = np.array(list(found), dtype=np.int64)
    return members, np.zeros_like(members)
