"""What a notebook checks at its top: its parameters, and whether there are choices enough for a probe."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ldm_kit.datasets.triplets import Triplets
from ldm_kit.errors import BadInputError, number_of_folds, real_number, unknown_name, whole_number
from ldm_kit.measures import object_folds

# Different sets of three that each fold needs: fewer to learn from leave nothing to choose λ on, fewer to be
# scored on leave an interval from nought to one.
FEWEST_TRAINING, FEWEST_HELD_OUT = 30, 10


def check_enough_triplets(triplets: Triplets, cv: int = 3, random_state: int = 0) -> str:
    """Say why a probe cannot be cross-validated on some choices, and how many would do; empty if it can.

    Most sets of three mix training and held-out objects, and are of no use to a probe. What counts is how many
    *different* sets there are: thirty players who all judged the same ten gave ten.

    Parameters
    ----------
    triplets : Triplets
    cv, random_state : int
        As for `cross_validate_probe`.

    Returns
    -------
    str
        A sentence for a reader, or an empty one.

    Examples
    --------
    >>> few = Triplets([[0, 1, 2]], ("a", "b", "c"), "human")
    >>> check_enough_triplets(few).partition(":")[0]
    'Too few to fit a probe'
    """
    sets = np.unique(np.sort(triplets.indices, axis=1), axis=0)
    objects, place = np.unique(sets, return_inverse=True)
    if len(objects) >= 3 * cv:
        fold = object_folds(len(objects), cv, random_state)[place.reshape(sets.shape)]
        training = min(int((fold != one).all(axis=1).sum()) for one in range(cv))
        held_out = min(int((fold == one).all(axis=1).sum()) for one in range(cv))
        if training >= FEWEST_TRAINING and held_out >= FEWEST_HELD_OUT:
            return ""
    return (
        f"Too few to fit a probe: {len(triplets):,} {triplets.judgements} choices are about {len(sets):,} different "
        f"sets of three. A probe learns from some objects and is scored on others, and most sets mix the two: "
        f"about {sets_needed(len(triplets.names), cv):,} different sets are needed for {cv} folds. Shown instead is what the "
        "blocks score without a probe."
    )


def sets_needed(n_objects: int, cv: int) -> int:
    """About how many different sets of three it takes, drawn from all objects alike; to the nearest hundred.

    Examples
    --------
    >>> sets_needed(56, 3)
    500
    """
    fold = max(3, n_objects // cv)  # a fold without three objects holds no set
    every = math.comb(max(n_objects, fold + 3), 3)
    held_out, training = math.comb(fold, 3) / every, math.comb(max(n_objects - fold, 3), 3) / every
    fewest = max(FEWEST_HELD_OUT / held_out, FEWEST_TRAINING / training)
    return max(100, 100 * round(1.6 * fewest / 100))  # more, since no fold has exactly its share


# How the parameters that only a late cell reads begin or end, by the least whole number that they may be.
LEAST = {
    0: ("n_catch", "classifier_samples", "threads", "seed"),
    1: ("n_", "exemplars", "save_every", "_steps", "_batch"),
}


def check_parameters(
    *, blocks: Sequence[str] = (), noise_levels: Sequence[float] = (), **parameters: Any
) -> None:
    """Check a notebook's parameters at its top, not where the cell that needs them stands, hours later.

    Parameters
    ----------
    blocks, noise_levels : sequence, optional
        What `autoplay` and `shown` may name.
    **parameters
        Parameters by their names: `metric`, `n_folds`, `trials`, `shown`, `autoplay`, `seed`, numbers of things,
        steps, rates, channels.

    Raises
    ------
    BadInputError, UnknownNameError
        For the first that cannot be used.

    Examples
    --------
    >>> check_parameters(metric="cosin")
    Traceback (most recent call last):
    ldm_kit.errors.UnknownNameError: Unknown metric 'cosin'. Did you mean 'cosine'? ...
    """
    from ldm_kit.game.game import PLAYERS
    from ldm_kit.game.trials import HOW
    from ldm_kit.measures.metrics import METRICS

    names = {"metric": METRICS, "trials": HOW, "autoplay": (*PLAYERS, *blocks), "shown": tuple(noise_levels)}
    for name, value in parameters.items():
        least = next(
            (n for n, parts in LEAST.items() if name.startswith(parts) or name.endswith(parts)), None
        )
        if name in names:
            if value not in names[name]:
                raise unknown_name(
                    name, str(value), [str(one) for one in names[name]], "Choose one of these."
                )
        elif name == "n_folds":
            number_of_folds(value, name)
        elif name.endswith("_channels"):
            multiple = 32 if name.startswith("denoiser") else 8
            if not value or any(whole_number(f"each of {name}", one, 1) % multiple for one in value):
                raise BadInputError(f"{name}={value!r}: give multiples of {multiple}, one a level.")
        elif least is not None:
            whole_number(name, value, least)
        else:
            real_number(name, value, positive=name.endswith("_rate"))
