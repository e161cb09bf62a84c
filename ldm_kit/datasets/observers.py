"""Simulated observers: odd-one-out choices drawn from an embedding by the rule that SPoSE uses.

An observer sees three objects, compares the three pairs by the dot product of their embeddings, keeps a pair together with
probability ``softmax(similarity / temperature)`` and names the third the odd one out. Nothing here was judged by a person:
the bundled world's observers follow feature norms that we wrote (`norms`). Given an embedding that was fitted to people
(SPoSE, VICE), the same function makes a *human model*.
"""

from __future__ import annotations

from importlib import resources

import numpy as np
import numpy.typing as npt
import pandas as pd

from ldm_kit.datasets import toybox
from ldm_kit.errors import BadInputError, MismatchError

__all__ = [
    "TEMPERATURE",
    "calibrate_temperature",
    "choice_probabilities",
    "majority_share",
    "norms",
    "simulate_choices",
]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

PEOPLE_AGREE = 0.68  # how often people give the majority's answer, on THINGS triplets judged repeatedly
TEMPERATURE = 0.51  # calibrate_temperature(norms().to_numpy()), which a test keeps true


def norms() -> pd.DataFrame:
    """Feature norms of the Toybox objects.

    Returns
    -------
    pandas.DataFrame of float, shape (56, 30)
        Rows are objects, in the order of `toybox.names`; columns are properties ("edible", "has_wheels", "round", …),
        graded from 0 (not at all) to 1 (fully). We wrote them; no person was asked.

    Raises
    ------
    MismatchError
        If the table and the drawings do not have the same objects.

    Examples
    --------
    >>> float(norms().loc["banana", "edible"])
    1.0
    """
    with (resources.files("ldm_kit") / "data" / "toybox" / "norms.csv").open(encoding="utf-8") as file:
        table = pd.read_csv(file, index_col="object").astype(float)
    if list(table.index) != toybox.names():
        unlike = sorted(set(table.index) ^ set(toybox.names()))
        raise MismatchError(
            f"norms.csv and objects.yaml differ in {unlike or 'the order of their objects'}. Edit one of "
            "them (both lie in the package's data/toybox)."
        )
    return table


def choice_probabilities(
    embedding: npt.ArrayLike, triplets: npt.ArrayLike, temperature: float = 1.0
) -> Floats:
    """Probability that each item of a triplet is named the odd one out.

    Parameters
    ----------
    embedding : array_like of float, shape (n, d)
        One row an object.
    triplets : array_like of int, shape (t, 3)
        0-based rows of `embedding`.
    temperature : float, default 1.0
        Lower is surer; SPoSE's own rule has 1.

    Returns
    -------
    ndarray of float64, shape (t, 3)
        Column `c` belongs to item `c` of the triplet; rows sum to 1.

    Raises
    ------
    BadInputError
        If the temperature is not positive, the embedding not finite, a shape is wrong or an index out of range.

    Examples
    --------
    >>> choice_probabilities([[1, 0], [1, 0], [0, 1]], [[0, 1, 2]]).round(2)
    array([[0.21, 0.21, 0.58]])
    """
    table, rows = np.asarray(embedding, dtype=np.float64), np.asarray(triplets, dtype=np.int64)
    if table.ndim != 2 or rows.ndim != 2 or rows.shape[1] != 3:
        raise BadInputError(
            f"The embedding has shape {table.shape} and the triplets {rows.shape}; (n, d) and (t, 3) are needed."
        )
    if not np.isfinite(table).all():
        raise BadInputError("The embedding has NaN or infinite entries; drop or fill those objects first.")
    if not temperature > 0:
        raise BadInputError(f"temperature is {temperature}; it must be above 0.")
    if rows.size and not (rows.min() >= 0 and rows.max() < len(table)):
        raise BadInputError(
            f"Triplets run from {rows.min()} to {rows.max()}, but the embedding has rows 0 to {len(table) - 1}."
        )
    first, second, third = (table[rows[:, column]] for column in range(3))
    # column c: the similarity of the two items that stay together when c goes
    kept = (
        np.stack([(second * third).sum(1), (first * third).sum(1), (first * second).sum(1)], axis=1)
        / temperature
    )
    weights = np.exp(kept - kept.max(axis=1, keepdims=True))
    probabilities: Floats = weights / weights.sum(axis=1, keepdims=True)
    return probabilities


def _distinct_triplets(n: int, count: int, rng: np.random.Generator) -> Ints:
    """`count` different sets of three out of n, each sorted; repeats only once there is no other set left."""
    sizes = np.arange(n + 1, dtype=np.int64)
    pairs, threes = sizes * (sizes - 1) // 2, sizes * (sizes - 1) * (sizes - 2) // 6
    total = int(threes[n])
    rounds = [
        rng.choice(total, size=min(total, count - start), replace=False) for start in range(0, count, total)
    ]
    rank = np.concatenate(rounds)
    # number sets of three as combinations are numbered, and read the number back: no set is drawn by trial and error
    largest = np.searchsorted(threes, rank, side="right") - 1
    rank = rank - threes[largest]
    middle = np.searchsorted(pairs, rank, side="right") - 1
    return np.stack([rank - pairs[middle], middle, largest], axis=1).astype(np.int64)


def _draw(probabilities: Floats, uniform: Floats) -> Ints:
    """Column chosen in each row, by where a uniform number falls among the cumulative probabilities."""
    chosen: Ints = (uniform[:, None] > probabilities.cumsum(axis=1)[:, :2]).sum(axis=1).astype(np.int64)
    return chosen


def simulate_choices(
    embedding: npt.ArrayLike,
    n_triplets: int = 20_000,
    temperature: float = TEMPERATURE,
    seed: int = 0,
    n_repeated: int = 200,
    n_repeats: int = 25,
) -> tuple[Ints, Ints]:
    """Draw odd-one-out judgements.

    Parameters
    ----------
    embedding : array_like of float, shape (n, d)
        One row an object, at least 3 rows.
    n_triplets : int, default 20000
        Judgements in all, the repeated ones included.
    temperature : float
        `TEMPERATURE` suits `norms`; `calibrate_temperature` finds another embedding's.
    seed : int, default 0
        Same seed, same judgements.
    n_repeated : int, default 200
        How many triplets every judge sees, for the noise ceiling.
    n_repeats : int, default 25
        How many judges there are.

    Returns
    -------
    triplets : ndarray of int64, shape (n_triplets, 3)
        Column 2 is the odd one out; the pair kept together stands in columns 0 and 1 in random order.
    subjects : ndarray of int64, shape (n_triplets,)
        Which simulated judge, 0 to ``n_repeats - 1``.

    Raises
    ------
    BadInputError
        If there are fewer than three objects or the repeated judgements exceed `n_triplets`.

    Examples
    --------
    >>> triplets, subjects = simulate_choices(norms(), n_triplets=1000, n_repeated=10, n_repeats=20)
    >>> triplets.shape, int(subjects.max())
    ((1000, 3), 19)
    """
    table = np.asarray(embedding, dtype=np.float64)
    n_single = n_triplets - n_repeated * n_repeats
    if len(table) < 3 or min(n_triplets, n_repeats) < 1 or n_repeated < 0 or n_single < 0:
        raise BadInputError(
            f"Cannot draw {n_triplets} judgements of {len(table)} objects with {n_repeated} triplets judged {n_repeats} times "
            f"each ({n_repeated * n_repeats} judgements): at least 3 objects are needed, and no more repeats than judgements."
        )
    rng = np.random.default_rng(seed)
    shown = _distinct_triplets(len(table), n_repeated + n_single, rng)
    rows = np.concatenate([np.repeat(shown[:n_repeated], n_repeats, axis=0), shown[n_repeated:]])
    subjects = np.concatenate([np.tile(np.arange(n_repeats), n_repeated), np.arange(n_single) % n_repeats])
    odd = _draw(choice_probabilities(table, rows, temperature), rng.random(len(rows)))
    swap = rng.integers(2, size=len(rows))
    columns = np.stack([(odd + 1 + swap) % 3, (odd + 2 - swap) % 3, odd], axis=1)
    order = rng.permutation(len(rows))
    return np.take_along_axis(rows, columns, axis=1)[order], subjects[order].astype(np.int64)


def majority_share(triplets: npt.ArrayLike) -> float:
    """Mean share of judgements that give their triplet's most frequent answer, over triplets judged more than once.

    Parameters
    ----------
    triplets : array_like of int, shape (t, 3)
        Odd one out last; rows that hold the same three objects are judgements of one triplet.

    Returns
    -------
    float
        NaN if no triplet was judged twice.

    Examples
    --------
    >>> majority_share([[0, 1, 2], [1, 0, 2], [0, 2, 1], [0, 1, 2], [3, 4, 5]])
    0.75
    """
    rows = np.asarray(triplets, dtype=np.int64)
    table = pd.DataFrame(np.column_stack([np.sort(rows, axis=1), rows[:, 2]]), columns=["a", "b", "c", "odd"])
    votes = table.groupby(["a", "b", "c"])["odd"].agg(
        lambda odd: odd.value_counts().iloc[0] / len(odd) if len(odd) > 1 else np.nan
    )
    return float(votes.mean())


def calibrate_temperature(
    embedding: npt.ArrayLike,
    share: float = PEOPLE_AGREE,
    seed: int = 0,
    *,
    n_triplets: int = 1000,
    n_judges: int = 25,
) -> float:
    """The temperature at which simulated observers agree with their majority as often as people do.

    Parameters
    ----------
    embedding : array_like of float, shape (n, d)
        One row an object.
    share : float, default 0.68
        Wanted `majority_share`, between that of guessing judges and 1.
    seed : int, default 0
        Of the triplets and judges it is measured on.
    n_triplets, n_judges : int
        How many.

    Returns
    -------
    float
        To three decimals.

    Raises
    ------
    BadInputError
        If no temperature gives that share.

    Examples
    --------
    >>> calibrate_temperature(norms()) == TEMPERATURE
    True
    """
    table = np.asarray(embedding, dtype=np.float64)
    rng = np.random.default_rng(seed)
    shown = _distinct_triplets(len(table), n_triplets, rng)
    # the same luck at every temperature: what changes is the temperature alone
    luck = rng.random((n_judges, n_triplets))

    def agreement(temperature: float) -> float:
        probabilities = choice_probabilities(table, shown, temperature)
        odd = np.stack([_draw(probabilities, uniform) for uniform in luck])
        votes = np.stack([(odd == column).sum(axis=0) for column in range(3)])
        return float((votes.max(axis=0) / n_judges).mean())

    low, high = 1e-3, 1e3
    if not agreement(high) < share < agreement(low):
        raise BadInputError(
            f"share is {share}, but judges of this embedding agree between {agreement(high):.2f} (guessing) and "
            f"{agreement(low):.2f} (certain); choose a share between."
        )
    for _ in range(40):
        middle = float(np.sqrt(low * high))
        low, high = (low, middle) if agreement(middle) < share else (middle, high)
    return round(high, 3)
