"""A player's answers on disk, and what they show: agreement with others, consistency, and how little that is.

Each answer is on the disk before the player learns what others chose.
"""

from __future__ import annotations

import csv
import io
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from filelock import FileLock, Timeout

from ldm_kit.datasets.triplet_files import COLUMNS, player_files, read_choices, read_rows
from ldm_kit.datasets.triplets import Triplets
from ldm_kit.errors import BadInputError, MismatchError
from ldm_kit.files import CANNOT_WRITE, cannot_write
from ldm_kit.measures.zero_shot import CHANCE
from ldm_kit.tables import as_text, tidy

PATIENCE = 10  # seconds that an answer waits for another process to write its own
_PLAYER = re.compile(r"\w[\w .\-]{0,38}\w|\w")
_CLOSE = 0.05  # the half width of an interval that would prove something


class AnswerFile:
    """The file ``FOLDER/PLAYER.csv``, which `ldm_kit.read_choices` reads; made when the first answer comes."""

    def __init__(self, folder: str | os.PathLike[str], player: str) -> None:
        self.player = player.strip().rstrip(".")  # Windows drops dots at the end
        if not _PLAYER.fullmatch(self.player):
            raise BadInputError(
                f"The name {player!r} cannot name a file. Use 1 to 40 letters, digits, spaces, dots, dashes or "
                "underscores, beginning and ending with a letter or digit."
            )
        self.path = Path(folder) / f"{self.player}.csv"

    def rows(self, game: str) -> list[dict[str, str]]:
        """Return the answers of one game, in order; none if the file does not exist yet."""
        if not self.path.is_file() or not self.path.stat().st_size:
            return []
        return [row for row in read_rows(self.path) if row.get("game") == game]

    def append(self, answer: Mapping[str, Any]) -> None:
        """Write one answer (the columns of `COLUMNS` but ``player`` and ``at``) and wait until the disk has it."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self.path.with_name(f".{self.path.name}.lock"), timeout=PATIENCE):
                before = len(self.rows(answer["game"]))
                if before != answer["trial"] - 1:
                    raise MismatchError(
                        f"Trial {answer['trial']} was answered, but {self.path.name!r} holds {before} answers of "
                        "this game. Is the same name being played in another window? Take another name."
                    )
                with self.path.open("a+b") as file:
                    _append_row(file, {"player": self.player, "at": datetime.now(UTC).isoformat(), **answer})
        except Timeout as error:
            raise BadInputError(
                f"{str(self.path)!r} has been locked by another process for over {PATIENCE} s, so this answer was not "
                "written and does not count. Is the same name being played elsewhere, or is the disk (a network folder?) "
                "slow? Answer again, or take another name."
            ) from error
        except OSError as error:
            if error.errno not in CANNOT_WRITE:
                raise
            raise cannot_write(self.path, error) from error


def _append_row(file: IO[bytes], answer: Mapping[str, Any]) -> None:
    """Append a row, after cutting off a last line that a crash left incomplete: its player got no feedback on it."""
    file.seek(0)
    whole = file.read().rfind(b"\n") + 1
    file.truncate(whole)
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    if not whole:
        writer.writeheader()
    writer.writerow({column: as_text(cell) for column, cell in answer.items()})
    file.write(text.getvalue().encode("utf-8"))
    file.flush()
    os.fsync(file.fileno())


def choices_so_far(
    folder: str | os.PathLike[str], judgements: str = "human", dataset: str | None = None
) -> Triplets | None:
    """Read what a folder's players chose; None if none of them has answered yet.

    Parameters
    ----------
    folder : path-like
        Folder of the answers; it need not exist yet.
    judgements : {"human", "simulated"}
        Which players.
    dataset : str, optional
        Only answers about the images of this data set.

    Returns
    -------
    Triplets or None

    Examples
    --------
    >>> choices_so_far("outputs/no/folder") is None
    True
    """
    rows = [row for file in player_files(Path(folder)) for row in read_rows(file)]
    if not any(row["judgements"] == judgements and dataset in (None, row["dataset"]) for row in rows):
        return None
    return read_choices(folder, judgements=judgements, dataset=dataset)


def _exact_interval(agreed: int, n: int) -> tuple[float, float]:
    """Return the exact (Clopper-Pearson) 95 % interval of a share; 0 to 1 for no trial."""
    from scipy.stats import binomtest

    if n == 0:
        return 0.0, 1.0
    found = binomtest(agreed, n).proportion_ci(0.95, method="exact")
    return float(found.low), float(found.high)


def agreement_table(
    player: Sequence[int],
    others: Mapping[str, Sequence[int] | npt.NDArray[np.int8]],
    labels: Mapping[str, Mapping[str, Any]],
) -> pd.DataFrame:
    """Count how often a player's answers agree with those of others.

    Parameters
    ----------
    player : sequence of int
        The image chosen as the odd one in each trial, 0 to 2.
    others : mapping of str to sequence of int
        The same by each of the others; -1 where one has no answer. Such trials do not count for it.
    labels : mapping of str to mapping
        Further columns of each of the others.

    Returns
    -------
    pandas.DataFrame
        The tidy table, one row for each of the others, with the columns ``other`` and ``agreed``; `ci_low`
        and `ci_high` are the exact binomial 95 % interval, for these objects.

    Examples
    --------
    >>> table = agreement_table([0, 1, 2], {"people": [0, 1, -1]}, {})
    >>> table[["other", "agreed", "n_triplets", "accuracy"]].values.tolist()
    [['people', 2, 2, 1.0]]
    """
    rows = []
    for other, answers in others.items():
        n = int((np.asarray(answers) >= 0).sum())
        agreed = int((np.asarray(answers) == np.asarray(player)).sum())
        low, high = _exact_interval(agreed, n)
        rows.append(
            {
                **labels.get(other, {}),
                "accuracy": agreed / n if n else math.nan,
                "ci_low": low,
                "ci_high": high,
                "n_triplets": n,
                "chance": CHANCE,
                "other": other,
                "agreed": agreed,
                "estimand": "these objects",
            }
        )
    return tidy(rows)


@dataclass(frozen=True)
class Consistency:
    """How often a player gives the same answer to a repeat, and what ceiling follows.

    Parameters
    ----------
    same, n : int
        Repeats answered alike, and all repeats.

    Notes
    -----
    If a player chooses the three items with chances p, the share of repeats answered alike is c = Σ p², and
    nobody can predict the player more often than max p. Since Σ p² ≤ max p ≤ √(Σ p²) for one triplet, and
    the root is concave, the mean over triplets lies between c and √c as well.

    Examples
    --------
    >>> found = Consistency(3, 4)
    >>> found.c, round(found.ceiling[1], 3)
    (0.75, 0.866)
    """

    same: int
    n: int

    @property
    def c(self) -> float:
        """The share answered alike; NaN without repeats."""
        return self.same / self.n if self.n else math.nan

    @property
    def ceiling(self) -> tuple[float, float]:
        """The personal ceiling lies between these: c and √c."""
        return self.c, math.sqrt(self.c)

    @property
    def sentence(self) -> str:
        """The consistency and the ceiling in two sentences."""
        if not self.n:
            return "No trial was repeated yet, so nothing is known of your own consistency."
        (low, high), (c, root) = _exact_interval(self.same, self.n), self.ceiling
        return (
            f"Shown the same three again, you answered alike {self.same} of {self.n} times: c = {c:.2f} "
            f"[{low:.2f}, {high:.2f}]. Your personal ceiling, the most that anybody or any model could agree with "
            f"you, lies between c = {c:.2f} and √c = {root:.2f}; with the interval of c, between {low:.2f} and "
            f"{math.sqrt(high):.2f}."
        )


def describe_agreement(table: pd.DataFrame) -> str:
    """Describe how little so many trials prove.

    Parameters
    ----------
    table : pandas.DataFrame
        From `agreement_table`.

    Returns
    -------
    str

    Examples
    --------
    >>> print(describe_agreement(agreement_table([0] * 10, {"people": [0] * 7 + [1] * 3}, {})))
    10 trials prove little: 7 of 10 in common with people fit any true agreement from 0.35 to 0.93. To know it \
to within ±0.05 takes about 323 trials. 0 of 1 intervals cover chance (0.33), as a guesser's would.
    """
    compared = table[table["n_triplets"] > 0]
    if compared.empty:
        return "No trial was played yet."
    row = compared.iloc[0]
    n, share = int(row["n_triplets"]), float(row["accuracy"])
    # Near 0 or 1 a share of few trials is no guide to its own spread: stay between 1/6 and 5/6.
    spread = min(max(share, 1 / 6), 5 / 6)
    needed = math.ceil(spread * (1 - spread) * (1.96 / _CLOSE) ** 2)
    covers = (compared["ci_low"] <= CHANCE) & (compared["ci_high"] >= CHANCE)
    text = (
        f"{n} trial{'s' * (n > 1)} prove{'s' * (n == 1)} little: {int(row['agreed'])} of {n} in common with "
        f"{row['other']} fit any true agreement from {row['ci_low']:.2f} to {row['ci_high']:.2f}. "
        f"To know it to within ±{_CLOSE} takes about {needed} trials. "
        f"{int(covers.sum())} of {len(compared)} intervals cover chance ({CHANCE:.2f}), as a guesser's would."
    )
    blocks = compared[compared["block"] != ""]
    if len(blocks) > 1 and blocks["ci_low"].max() <= blocks["ci_high"].min():
        text += " The intervals of all blocks overlap: none is shown to be more like you than another."
    return text
