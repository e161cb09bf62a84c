"""The noise ceiling: how well people predict people, where a triplet was judged repeatedly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ldm_kit.datasets.triplets import Triplets, checked_indices
from ldm_kit.errors import BadInputError, one_of
from ldm_kit.measures import kernels
from ldm_kit.measures.grouped import Grouped, set_keys
from ldm_kit.measures.statistics import checked_estimand, interval, settled, standard_error
from ldm_kit.tables import tidy

Counts = npt.NDArray[np.int64]
SUMMARY = ("id_lo", "id_mid", "id_hi", "n_per_triplet", "prop_max")
BIAS_DRAWS = 200
ENOUGH, MANY_SETS = 5, 30  # judgements of a set; sets with so many
OFTEN = 0.1  # a share of choices of repeated sets that sets drawn at random do not reach


def noise_ceiling(
    judgements: Triplets | npt.ArrayLike | pd.DataFrame,
    *,
    min_judgements: int | None = None,
    ci: bool | str = True,
    source: str | None = None,
    random_state: int = 0,
) -> pd.DataFrame:
    """Bounds on the accuracy that a model of people can reach, from triplets judged repeatedly.

    Each set of three that was judged often enough counts once. Its *upper* bound is the share of the likeliest
    answer: no model that gives one answer can do better. The share of the majority exceeds it when few judged a set, since
    the majority is found in the same answers that it is scored on; so `ceiling_high` is that share less its bias (parametric
    bootstrap), and `ceiling_high_uncorrected` the share itself. The *lower* bound is how often one participant gives the majority
    answer of the others (a tie among theirs scores 1/2 or 1/3). Where people are known, only the first judgement of each
    person about a set counts: people agree with themselves more than with others.

    Parameters
    ----------
    judgements : Triplets, array (t, 3) or DataFrame
        Single judgements, some of the same three stimuli; or THINGS' summary of them, with columns
        ``n_per_triplet`` and ``prop_max`` (and ``id_lo, id_mid, id_hi``). How the other answers divide is
        not known from it: the lower bound is then the mean over all ways in which they can.
    min_judgements : int, optional
        Sets judged less often are left out; at least 2. By default 5, from which on the corrected bound is off by 0.005 at most
        (simulation: tests/benchmarks/README.md); where fewer than 30 sets, and than half of those judged again, were judged 5 times, 2,
        and `ceiling_source` says so.
    ci : bool or {"new objects and people", "new objects", "these objects"}
        Which interval the columns `ceiling_low_se` and `ceiling_high_se` belong to; by default over new objects, and new people
        where they are known.
    source : str, optional
        Text for the column `ceiling_source`; by default it names the sets and the judgements.
    random_state : int
        Seed of the bootstrap.

    Returns
    -------
    pandas.DataFrame
        One row of the tidy table: `ceiling_low`, `ceiling_high`, `ceiling_source`, `n_triplets` (the
        number of sets), and the columns `ceiling_low_se`, `ceiling_high_se`, `ceiling_high_uncorrected`, `ceiling_high_bias`,
        `n_judgements`, `min_judgements`, `median_judgements`, `n_self_repeats` (left out), `n_people`, `estimand`.

    Raises
    ------
    BadInputError
        If no set was judged often enough.

    References
    ----------
    Hebart et al. 2020, doi:10.1038/s41562-020-00951-3 (upper bound); Nili et al. 2014,
    doi:10.1371/journal.pcbi.1003553 (lower and upper bound of a noise ceiling).

    Examples
    --------
    >>> table = noise_ceiling([[0, 1, 2], [1, 0, 2], [0, 2, 1]])
    >>> table[["ceiling_low", "ceiling_high_uncorrected"]].round(3).values.tolist()
    [[0.333, 0.667]]
    """
    if min_judgements is not None and not min_judgements >= 2:
        raise BadInputError(
            f"min_judgements={min_judgements}: a set judged once has no ceiling of its own. Give 2 or more."
        )
    single: _Single | None = None
    members: Counts | None
    if isinstance(judgements, pd.DataFrame):
        counts, members = _from_summary(judgements)
        about, agreement = {"judgements": "human", "dataset": ""}, _leave_one_out_of_summary
    else:
        single = _Single.of(judgements)
        counts, members = single.counts, single.members
        about = {name: getattr(judgements, name, "") for name in ("judgements", "dataset")}
        agreement = leave_one_out
    total = counts.sum(axis=1)
    often_enough, repeated = int((total >= ENOUGH).sum()), int((total >= 2).sum())
    few = min_judgements is None and often_enough < min(MANY_SETS, max(repeated / 2, 1))
    least = min_judgements or (2 if few else ENOUGH)
    often = total >= least
    if not often.any():
        raise BadInputError(
            f"No set of three was judged {least} times or more (the most is "
            f"{int(total.max(initial=0))}), so there is no noise ceiling. Use triplets with repeated "
            "judgements, or lower `min_judgements`."
        )
    bias = _bias(counts[often], random_state)
    bounds = {"low": agreement(counts[often]), "high": counts[often].max(axis=1) / total[often]}
    low, high = (float(values.mean()) for values in bounds.values())
    row: dict[str, Any] = {**about, "ceiling_low": low, "ceiling_high": high - bias}
    row["ceiling_high_uncorrected"] = high
    estimand = checked_estimand(ci)
    if single is not None and estimand is not None:
        row |= single.errors(often, estimand)
    elif members is not None and estimand is not None:
        objects, members = np.unique(members[often], return_inverse=True)
        groups = Grouped(members.reshape(-1, 3), len(objects))
        for name, values in bounds.items():
            row[f"ceiling_{name}_se"] = interval(values[groups.order], groups, estimand).se
        row["estimand"] = settled(estimand, groups)
    counts, total = counts[often], total[often]
    of = f" of {about['dataset']}" if about["dataset"] else ""
    times = f"{total.min()}" if total.min() == total.max() else f"{total.min()}–{total.max()}"
    row |= {
        "ceiling_high_bias": bias,
        "ceiling_source": (source or f"{len(counts):,} sets{of} judged {times} times")
        + f"; upper bound corrected by {-bias:+.3f}"
        + (" (few judged each set)" if few else ""),
        "n_triplets": len(counts),
        "n_judgements": int(total.sum()),
        "min_judgements": int(total.min()),
        "median_judgements": float(np.median(total)),
        "chance": 1 / 3,
    }
    return tidy([row])


def ceiling_of(data: Any) -> pd.DataFrame | None:
    """The noise ceiling of a data set, from whatever repeated judgements it has.

    Where a tenth of the judgements or more are of sets judged repeatedly, as a class's are, it is their `noise_ceiling`.
    Else it is that of `data.repeated`, which THINGS publishes apart from its single judgements, as counts and shares.

    Parameters
    ----------
    data : Dataset
        From `load_dataset`.

    Returns
    -------
    pandas.DataFrame or None
        One row as from `noise_ceiling`; None if no triplet was judged repeatedly, so that figures show no
        ceiling rather than a wrong one.

    Examples
    --------
    >>> from ldm_kit import load_dataset
    >>> ceiling_of(load_dataset("emoji"))[["ceiling_low", "ceiling_high"]].round(3).values.tolist()
    [[0.675, 0.691]]
    """
    choices = data.triplets
    if choices is not None and len(choices):
        again = kernels.mark_repeats(choices.indices, len(choices.names))
        if again.sum() >= OFTEN * len(choices):
            return noise_ceiling(choices)
    if data.repeated is None or data.repeated.empty:
        return None
    if choices is not None and choices.judgements != "human":
        return noise_ceiling(choices)
    summary = data.repeated[["n", "share"]].rename(columns={"n": "n_per_triplet", "share": "prop_max"})
    return noise_ceiling(summary, source=f"{len(summary)} repeated triplets of {data.name}")


def leave_one_out(counts: Counts) -> npt.NDArray[np.float64]:
    """How often a participant gives the majority answer of the others, per set.

    Parameters
    ----------
    counts : ndarray of int, shape (s, 3)
        How many chose each of the three items; at least 2 a row.

    Examples
    --------
    >>> leave_one_out(np.array([[2, 1, 0], [3, 0, 0]])).round(3).tolist()
    [0.333, 1.0]
    """
    right = np.zeros(len(counts))
    for answer in range(3):
        others = counts.copy()
        others[:, answer] -= 1
        top = others.max(axis=1)
        agrees = (others[:, answer] == top) / (others == top[:, None]).sum(axis=1)
        right += counts[:, answer] * agrees
    share: npt.NDArray[np.float64] = right / counts.sum(axis=1)
    return share


def ceiling_columns(ceiling: Any) -> dict[str, Any]:
    """The three ceiling columns of a table, from a table of `noise_ceiling` or a (low, high, source).

    Examples
    --------
    >>> ceiling_columns((0.6, 0.7, "a paper"))
    {'ceiling_low': 0.6, 'ceiling_high': 0.7, 'ceiling_source': 'a paper'}
    """
    if ceiling is None:
        return {}
    names = ("ceiling_low", "ceiling_high", "ceiling_source")
    if isinstance(ceiling, pd.DataFrame) and len(ceiling) == 1:
        return {name: ceiling[name].iloc[0] for name in names}
    if isinstance(ceiling, (tuple, list)) and len(ceiling) == 3 and isinstance(ceiling[2], str):
        return dict(zip(names, ceiling, strict=True))
    raise BadInputError(
        f"ceiling={ceiling!r} is neither one row of a table of `noise_ceiling` nor (low, high, source). Give one of "
        "these: `ceiling.iloc[[0]]` is a row."
    )


@dataclass(frozen=True, eq=False)
class _Single:
    """Single judgements, the first of each person about a set: the set of each, its answer, and who gave it."""

    number: Counts  # (j,): row of `members` and `counts`
    answer: Counts  # (j,): 0, 1 or 2
    members: Counts  # (s, 3)
    subjects: Counts | None
    n_self_repeats: int

    @classmethod
    def of(cls, judgements: Triplets | npt.ArrayLike) -> _Single:
        if isinstance(judgements, Triplets):
            indices, subjects = judgements.indices, judgements.subjects
        else:
            indices, subjects = checked_indices(judgements, None), None
        keys = set_keys(indices, int(indices.max(initial=0)) + 1)
        _, first, number = np.unique(keys, return_index=True, return_inverse=True)
        members = np.sort(indices[first], axis=1)
        answer = (members[number] == indices[:, 2:]).argmax(axis=1)
        kept = np.arange(len(number))
        if subjects is not None and len(number):
            _, person = np.unique(subjects, return_inverse=True)
            kept = np.sort(np.unique(person * len(first) + number, return_index=True)[1])
            subjects = subjects[kept]
        return cls(number[kept], answer[kept], members, subjects, len(number) - len(kept))

    @property
    def counts(self) -> Counts:
        """How often each item of a set was chosen, (s, 3)."""
        flat = np.bincount(self.number * 3 + self.answer, minlength=3 * len(self.members))
        return flat.reshape(-1, 3).astype(np.int64)

    def errors(self, often: npt.NDArray[np.bool_], estimand: str) -> dict[str, Any]:
        """Standard errors of both bounds, from what each judgement adds to them."""
        rows = np.flatnonzero(often[self.number])
        counts, own = self.counts, self.answer[rows]
        mine = counts[self.number[rows]]
        at = np.arange(len(rows)), own
        others = mine.copy()
        others[at] -= 1
        top = others.max(axis=1)
        agrees = (others[at] == top) / (others == top[:, None]).sum(axis=1)
        tops = mine == mine.max(axis=1, keepdims=True)
        # Over a set the second adds up to the count of its majority, even where several answers tie for it.
        values = {"low": agrees, "high": tops[at] / tops.sum(axis=1)}
        # Each set counts once, so that a judgement weighs the less the more there are of its set.
        weight = len(rows) / (often.sum() * mine.sum(axis=1))
        subjects = None if self.subjects is None else self.subjects[rows]
        objects, members = np.unique(self.members[self.number[rows]], return_inverse=True)
        groups = Grouped(members.reshape(-1, 3), len(objects), subjects=subjects)
        chosen = settled(estimand, groups)
        found: dict[str, Any] = {"estimand": chosen, "n_self_repeats": self.n_self_repeats}
        if groups.people is not None:
            found["n_people"] = groups.people.n
        for name, each in values.items():
            mean = float(np.sum(each * weight)) / len(rows)
            off = (each - mean) * weight
            found[f"ceiling_{name}_se"] = standard_error(off[groups.order], groups, chosen or "")
        return found


def _from_summary(table: pd.DataFrame) -> tuple[Counts, Counts | None]:
    """Counts from the number of judgements and the majority's share; the other answers divided evenly."""
    for name in SUMMARY[3:]:
        one_of("column", name, table.columns, f"A summary has the columns {', '.join(SUMMARY)}.")
    times, share = (pd.to_numeric(table[name], errors="coerce").to_numpy(np.float64) for name in SUMMARY[3:])
    # The share may be rounded; that of the majority of three answers is a third or more.
    bad = np.flatnonzero(
        ~((times >= 1) & (times % 1 == 0) & (np.rint(share * times) * 3 >= times) & (share <= 1))
    )
    if bad.size:
        raise BadInputError(
            f"{bad.size} of {len(table)} rows of the summary are impossible, the first at row {bad[0]}: n_per_triplet "
            f"{table['n_per_triplet'].iloc[bad[0]]}, prop_max {table['prop_max'].iloc[bad[0]]}. Give a whole number of "
            "judgements from 1, and the majority's share from 1/3 to 1 (not in percent); drop rows without one."
        )
    total = times.astype(np.int64)
    most = np.rint(share * times).astype(np.int64)
    second = (total - most + 1) // 2
    counts = np.stack([most, second, total - most - second], axis=1)
    known = set(SUMMARY[:3]) <= set(table.columns)
    return counts, table[list(SUMMARY[:3])].to_numpy(np.int64) if known else None


def _leave_one_out_of_summary(counts: Counts) -> npt.NDArray[np.float64]:
    """`leave_one_out`, averaged over every division of the answers outside the majority."""
    most, rest = counts[:, 0], counts[:, 1] + counts[:, 2]
    ways = np.minimum(most, rest) - (rest + 1) // 2 + 1
    number = np.repeat(np.arange(len(counts)), ways)
    step = np.arange(len(number)) - np.repeat(np.cumsum(ways) - ways, ways)
    second = (rest[number] + 1) // 2 + step
    divided = np.stack([most[number], second, rest[number] - second], axis=1)
    mean: npt.NDArray[np.float64] = np.bincount(number, weights=leave_one_out(divided)) / ways
    return mean


def _bias(counts: Counts, seed: int) -> float:
    """By how much the share of the majority found in n answers exceeds that of the likeliest answer."""
    total = counts.sum(axis=1)
    shares = counts / total[:, None]
    draws = np.random.default_rng(seed).multinomial(total, shares, size=(BIAS_DRAWS, len(counts)))
    return float((draws.max(axis=2) / total).mean() - shares.max(axis=1).mean())
