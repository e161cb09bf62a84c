"""The loops over triplets, compiled (grouped by odd object, so that one row of S stays in the cache), and their threads."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from numba import njit

# Below this many triplets, starting threads costs more than it saves.
WORTH_THREADS = 200_000

T = TypeVar("T")
R = TypeVar("R")


def n_threads() -> int:
    """Threads to use: NUMBA_NUM_THREADS or OMP_NUM_THREADS where set, else the cores we may run on."""
    for variable in ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS"):
        value = os.environ.get(variable, "")
        if value.isdigit() and int(value):
            return int(value)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def in_threads(function: Callable[[T], R], parts: Sequence[T]) -> list[R]:
    """Call `function` on every part, each in a thread of its own, and return the results in order.

    Examples
    --------
    >>> in_threads(lambda part: part + 1, [1, 2])
    [2, 3]
    """
    if len(parts) == 1:
        return [function(parts[0])]
    with ThreadPoolExecutor(len(parts)) as pool:
        return list(pool.map(function, parts))


def compiled(function: Callable[..., Any]) -> Any:
    """Compile a function once for this machine, and let other threads run while it works."""
    return njit(cache=True, nogil=True)(function)


# What each saves was measured at THINGS' size, 1,854 objects and 4.7 million triplets, on one core.
# Compiled functions have no types that mypy could check: arrays in, arrays filled.
# `start`, `first` and `second` are a Grouped's: the triplets of run r, whose odd object is r modulo n, lie at
# start[r]:start[r + 1]. `low` and `high` delimit the runs that a call is to work on.


# 74 ms; np.argsort 486 ms
@compiled
def group_by_odd(indices: Any, n: Any, shift: Any, start: Any, first: Any, second: Any, order: Any) -> None:
    """Counting sort of the triplets by their first item's band (2 ** shift objects), then by their odd one."""
    for t in range(len(indices)):
        start[(indices[t, 0] >> shift) * n + indices[t, 2] + 1] += 1
    for c in range(len(start) - 1):
        start[c + 1] += start[c]
    place = start[:-1].copy()
    for t in range(len(indices)):
        run = (indices[t, 0] >> shift) * n + indices[t, 2]
        at = place[run]
        place[run] = at + 1
        first[at] = indices[t, 0]
        second[at] = indices[t, 1]
        order[at] = t


# 113 ms; pandas' duplicated 911 ms
@compiled
def mark_repeats(indices: Any, n: Any) -> Any:
    """Mark every triplet whose set of three was judged more than once, by bitmaps for each lowest object."""
    t_total = len(indices)
    start = np.zeros(n + 1, np.int64)
    for t in range(t_total):
        lowest = min(indices[t, 0], indices[t, 1], indices[t, 2])
        start[lowest + 1] += 1
    for i in range(n):
        start[i + 1] += start[i]
    place = start[:-1].copy()
    keys = np.empty(t_total, np.int64)
    rows = np.empty(t_total, np.int64)
    for t in range(t_total):
        a, b, c = indices[t, 0], indices[t, 1], indices[t, 2]
        lowest, highest = min(a, b, c), max(a, b, c)
        at = place[lowest]
        place[lowest] = at + 1
        keys[at] = (a + b + c - lowest - highest) * n + highest
        rows[at] = t
    words = (n * n) // 64 + 1
    seen, again = np.zeros(words, np.uint64), np.zeros(words, np.uint64)
    repeated = np.zeros(t_total, np.bool_)
    one = np.uint64(1)
    for i in range(n):
        for at in range(start[i], start[i + 1]):
            word, bit = keys[at] >> 6, one << np.uint64(keys[at] & 63)
            again[word] |= seen[word] & bit
            seen[word] |= bit
        for at in range(start[i], start[i + 1]):
            word, bit = keys[at] >> 6, one << np.uint64(keys[at] & 63)
            if again[word] & bit:
                repeated[rows[at]] = True
        for at in range(start[i], start[i + 1]):
            seen[keys[at] >> 6] = 0
            again[keys[at] >> 6] = 0
    return repeated


# 19 ms; numpy 215 ms
@compiled
def choose(
    S: Any, tolerance: Any, start: Any, first: Any, second: Any, low: Any, high: Any, codes: Any
) -> None:
    """Fill `codes`: bit 0, 1 or 2 is set where leaving out item 0, 1 or 2 leaves a most similar pair."""
    n = len(S)
    for run in range(low, high):
        c = run % n
        row = S[c]
        for t in range(start[run], start[run + 1]):
            a, b = first[t], second[t]
            ab, ac, bc = S[a, b], row[a], row[b]
            top = max(ab, ac, bc) - tolerance
            codes[t] = (bc >= top) | ((ac >= top) << 1) | ((ab >= top) << 2)


@compiled
def choose_scaled(
    S: Any,
    unit: Any,
    norms: Any,
    squared: Any,
    widest: Any,
    start: Any,
    first: Any,
    second: Any,
    low: Any,
    high: Any,
    codes: Any,
) -> None:
    """Fill `codes` like `choose`, the tolerance being that of each triplet's own rows (`metrics.Tolerance`).

    It is at most `widest`, so it need not be known where one pair is ahead by more, as nearly always.
    """
    n = len(S)
    for run in range(low, high):
        c = run % n
        row = S[c]
        for t in range(start[run], start[run + 1]):
            a, b = first[t], second[t]
            ab, ac, bc = S[a, b], row[a], row[b]
            best = max(ab, ac, bc)
            top = best - widest
            code = (bc >= top) | ((ac >= top) << 1) | ((ab >= top) << 2)
            if code & (code - 1):
                most = max(norms[a], norms[b], norms[c])
                middle = max(min(norms[a], norms[b]), min(max(norms[a], norms[b]), norms[c]))
                top = best - unit * most * (most if squared else middle)
                code = (bc >= top) | ((ac >= top) << 1) | ((ab >= top) << 2)
            codes[t] = code


# 60 ms; np.bincount 202 ms
@compiled
def sum_by_object_and_pair(
    values: Any, start: Any, first: Any, second: Any, low: Any, high: Any, objects: Any, pairs: Any
) -> None:
    """Add each triplet's value to its three objects and its three pairs (either order of a pair)."""
    n = len(pairs)
    for run in range(low, high):
        c = run % n
        row = pairs[c]
        own = 0.0
        for t in range(start[run], start[run + 1]):
            a, b, value = first[t], second[t], values[t]
            own += value
            objects[a] += value
            objects[b] += value
            row[a] += value
            row[b] += value
            pairs[a, b] += value
        objects[c] += own


# 4 ms; np.bincount 11 ms
@compiled
def count_codes(codes: Any, counts: Any) -> None:
    """Count how many triplets have each code."""
    for t in range(len(codes)):
        counts[codes[t]] += 1


# 31 ms; np.bincount 185 ms
@compiled
def tally(
    codes: Any, value: Any, start: Any, first: Any, second: Any, low: Any, high: Any, counts: Any, pairs: Any
) -> None:
    """Count the codes, and add each code's whole-numbered value to the triplet's pairs."""
    right = 0  # code 4 is by far the most frequent: it is counted in a register
    n = len(pairs)
    for run in range(low, high):
        c = run % n
        row = pairs[c]
        for t in range(start[run], start[run + 1]):
            code = codes[t]
            if code == 4:
                right += 1
            else:
                counts[code] += 1
            amount = value[code]
            if amount:
                a, b = first[t], second[t]
                row[a] += amount
                row[b] += amount
                pairs[a, b] += amount
    counts[4] += right


# 7 ms; numpy 37 ms
@compiled
def sums_over_pairs(
    pairs: Any, counts: Any, mean: Any, begin: Any, step: Any, objects: Any, object_counts: Any
) -> Any:
    """Sum over unordered pairs of (sum - mean * count) squared; fills twice the sums over each object.

    Works on every `step`-th band of rows, in square blocks, since either half of both matrices adds up.
    """
    n = len(pairs)
    block = 64
    total = 0.0
    for i in range(begin * block, n, step * block):
        for j in range(i, n, block):
            for o in range(i, min(i + block, n)):
                own, own_count = 0, 0
                for p in range(max(j, o + 1), min(j + block, n)):
                    both = np.int64(pairs[o, p]) + pairs[p, o]
                    times = np.int64(counts[o, p]) + counts[p, o]
                    off = both - mean * times
                    total += off * off
                    own += both
                    own_count += times
                    objects[p] += both
                    object_counts[p] += times
                objects[o] += own
                object_counts[o] += own_count
    return total


# 3 ms; numpy 24 ms
@compiled
def sum_of_squared_pairs(pairs: Any) -> Any:
    """Sum over unordered pairs of (pairs[o, p] + pairs[p, o]) squared, in blocks."""
    n = len(pairs)
    block = 64
    total = 0.0
    for i in range(0, n, block):
        for j in range(i, n, block):
            for o in range(i, min(i + block, n)):
                for p in range(max(j, o + 1), min(j + block, n)):
                    both = pairs[o, p] + pairs[p, o]
                    total += both * both
    return total


# numpy 420 ms
@compiled
def sums_over_people(
    values: Any, table: Any, order: Any, start: Any, items: Any, low: Any, high: Any, objects: Any
) -> Any:
    """Of some people: sums of squares of their sums, of their sums over each object, and of the values.

    `order` lists triplets person by person, `items` their objects; `objects` is room for sums, all 0 before and after.
    """
    own, shared, squares = 0.0, 0.0, 0.0
    for person in range(low, high):
        total = 0.0
        for at in range(start[person], start[person + 1]):
            value = values[order[at]] if table is None else table[values[order[at]]]
            total += value
            squares += value * value
            for i in range(3):
                objects[items[at, i]] += value
        own += total * total
        for at in range(start[person], start[person + 1]):
            for i in range(3):
                value = objects[items[at, i]]
                shared += value * value
                objects[items[at, i]] = 0.0
    return own, shared, squares


@compiled
def mark_repeats_within(keys: Any, start: Any, marked: Any) -> None:
    """Mark the keys, of rows listed person by person, that occur more than once among those of one person."""
    width = keys.shape[1]
    flat, marks = keys.ravel(), marked.ravel()
    for person in range(len(start) - 1):
        low, high = start[person] * width, start[person + 1] * width
        own = flat[low:high]
        order = np.argsort(own)
        for at in range(1, len(order)):
            if own[order[at]] == own[order[at - 1]]:
                marks[low + order[at]] = True
                marks[low + order[at - 1]] = True


@compiled
def scores_permuted(S: Any, triplets: Any, orders: Any, low: Any, high: Any, sums: Any) -> None:
    """Fill `sums` with each cell's scores in sixths, added over triplets, where an object is taken for another.

    `S[i, j]` holds the similarities of all cells beside each other: one look-up of memory serves them all.
    """
    n_cells = S.shape[2]
    for which in range(low, high):
        order, total = orders[which], sums[which]
        for t in range(len(triplets)):
            a, b, c = order[triplets[t, 0]], order[triplets[t, 1]], order[triplets[t, 2]]
            together, first, second = S[a, b], S[a, c], S[b, c]
            for cell in range(n_cells):
                ab, ac, bc = together[cell], first[cell], second[cell]
                one, other = ab == ac, ab == bc
                most = (ab >= ac) & (ab >= bc)
                total[cell] += most * (6 - 3 * one - 3 * other + 2 * (one & other))


# 23 ms with `rows_of_fold` for three folds; numpy 31 ms
@compiled
def mark_folds(indices: Any, bit: Any, low: Any, high: Any, masks: Any) -> None:
    """Fill `masks`: the bits of the folds that a triplet's items lie in."""
    for t in range(low, high):
        masks[t] = bit[indices[t, 0]] | bit[indices[t, 1]] | bit[indices[t, 2]]


@compiled
def rows_of_fold(masks: Any, bit: Any, train: Any, test: Any) -> None:
    """Fill the rows without `bit` and those with it alone; both arrays have one place to spare."""
    n, k = 0, 0
    for t in range(len(masks)):
        mask = masks[t]
        train[n] = t
        n += (mask & bit) == 0
        test[k] = t
        k += mask == bit


# 386 ms, 282 ms without `G`; numpy 784 ms and 577 ms
@compiled
def softmax_loss(S: Any, start: Any, first: Any, second: Any, low: Any, high: Any, G: Any) -> Any:
    """Sum of cross-entropies of the pair that stays together; adds its derivative by each entry of S to `G`, unless that is None."""
    total = 0.0
    n = len(S)
    for run in range(low, high):
        c = run % n
        row = S[c]
        for t in range(start[run], start[run + 1]):
            a, b = first[t], second[t]
            ab = S[a, b]
            ac, bc = row[a] - ab, row[b] - ab
            top = max(ac, bc, ac - ac)
            e_ab, e_ac, e_bc = math.exp(-top), math.exp(ac - top), math.exp(bc - top)
            norm = e_ab + e_ac + e_bc
            total += top + math.log(norm)
            if G is not None:
                p_ac, p_bc = e_ac / norm, e_bc / norm
                G[c, a] += p_ac
                G[c, b] += p_bc
                G[a, b] -= p_ac + p_bc
    return total
