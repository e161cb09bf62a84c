"""Whether there are choices enough to fit a probe and to score it on objects that it never saw."""

from __future__ import annotations

import math

import numpy as np

from ldm_kit.datasets.triplets import Triplets
from ldm_kit.measures import object_folds

# Different sets of three that each fold needs: fewer to learn from leave nothing to choose λ on, fewer to be
# scored on leave an interval from nought to one.
FEWEST_TRAINING, FEWEST_HELD_OUT = 30, 10


def too_few_to_probe(triplets: Triplets, n_folds: int = 3, seed: int = 0) -> str:
    """Say why a probe cannot be cross-validated on some choices, and how many would do; empty if it can.

    Most sets of three mix training and held-out objects, and are of no use to a probe. What counts is how many
    *different* sets there are: thirty players who all judged the same ten gave ten.

    Parameters
    ----------
    triplets : Triplets
    n_folds, seed : int
        As for `cross_validate_probe`.

    Returns
    -------
    str
        A sentence for a reader, or an empty one.

    Examples
    --------
    >>> few = Triplets([[0, 1, 2]], ("a", "b", "c"), "human")
    >>> too_few_to_probe(few).partition(":")[0]
    'Too few to fit a probe'
    """
    sets = np.unique(np.sort(triplets.indices, axis=1), axis=0)
    objects, place = np.unique(sets, return_inverse=True)
    if len(objects) >= 3 * n_folds:
        fold = object_folds(len(objects), n_folds, seed)[place.reshape(sets.shape)]
        training = min(int((fold != one).all(axis=1).sum()) for one in range(n_folds))
        held_out = min(int((fold == one).all(axis=1).sum()) for one in range(n_folds))
        if training >= FEWEST_TRAINING and held_out >= FEWEST_HELD_OUT:
            return ""
    return (
        f"Too few to fit a probe: {len(triplets):,} {triplets.judgements} choices are about {len(sets):,} different "
        f"sets of three. A probe learns from some objects and is scored on others, and most sets mix the two: "
        f"about {sets_needed(len(triplets.names), n_folds):,} different sets are needed for {n_folds} folds. Shown instead is what the "
        "blocks score without a probe."
    )


def sets_needed(n_objects: int, n_folds: int) -> int:
    """About how many different sets of three it takes, drawn from all objects alike; to the nearest hundred.

    Examples
    --------
    >>> sets_needed(56, 3)
    500
    """
    fold = max(3, n_objects // n_folds)  # a fold without three objects holds no set
    every = math.comb(max(n_objects, fold + 3), 3)
    held_out, training = math.comb(fold, 3) / every, math.comb(max(n_objects - fold, 3), 3) / every
    fewest = max(FEWEST_HELD_OUT / held_out, FEWEST_TRAINING / training)
    return max(100, 100 * round(1.6 * fewest / 100))  # more, since no fold has exactly its share
