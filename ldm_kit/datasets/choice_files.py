"""Read choices that were written down one by one: a player's file, or a whole class's folder."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ldm_kit.datasets.text_tables import not_utf8
from ldm_kit.datasets.triplets import Triplets
from ldm_kit.errors import BadInputError, unknown_name
from ldm_kit.tables import JUDGEMENTS, from_text

# One line an answer. `image1` to `image3` are stimulus names as they were shown from left to right, `choice`
# (1 to 3) is the odd one: THINGS-data's own columns, with names in place of numbers.
COLUMNS = (
    *("player", "judgements", "dataset", "game", "trial", "kind"),
    *("image1", "image2", "image3", "choice", "seconds", "at"),
)
NEEDED = ("player", "judgements", "dataset", "image1", "image2", "image3", "choice")
EXPECTED = (
    f"A file of choices has a header with the columns {', '.join(NEEDED)}, as the odd-one-out game writes it."
)


def holds_choices(path: str | os.PathLike[str]) -> bool:
    """Tell whether a path is a file of choices by players, or a folder that may hold some.

    Examples
    --------
    >>> holds_choices("outputs/game/ann.csv")  # doctest: +SKIP
    True
    """
    path = Path(path)
    if path.is_dir():
        return True
    if not path.is_file() or path.suffix == ".npy":
        return False
    try:
        with path.open(encoding="utf-8-sig") as file:
            return set(NEEDED) <= set(file.readline().strip().split(","))
    except UnicodeDecodeError as error:
        raise not_utf8(path, error) from error


def read_choices(
    path: str | os.PathLike[str],
    names: Sequence[str] | None = None,
    *,
    judgements: str | None = None,
    dataset: str | None = None,
    repeats: bool = False,
) -> Triplets:
    """Read the choices of one player, or of all players of a folder.

    Parameters
    ----------
    path : path-like
        A CSV that the odd-one-out game wrote, or a folder of them.
    names : sequence of str, optional
        What the indices shall stand for; by default the stimuli that were judged, sorted.
    judgements : {"human", "human model", "simulated"}, optional
        Read only the choices of this kind. By default all of them, which must be of one kind: what people
        and simulated players chose is never mixed.
    dataset : str, optional
        Read only the choices among the pictures of this data set. By default all, which must be of one.
    repeats : bool
        Whether to keep a player's answers to the catch repeats. Left out by default: that one agrees with
        oneself says nothing about how well people agree with each other.

    Returns
    -------
    Triplets
        Column 2 is the odd one out. `subjects` are the players, numbered in the order of their names.

    Raises
    ------
    BadInputError
        If there is no such file, none in the folder, one cannot be read, a column is missing, people are mixed with
        others or data sets with each other. One file that cannot be read is never left out of a class: it is named.
    UnknownNameError
        If a stimulus is not in `names`.

    Notes
    -----
    A last line that is still being written, or was cut short by a crash, is left out. Hidden files are no players'
    (``._ann.csv`` is what macOS puts beside ``ann.csv`` on other systems' disks).

    Examples
    --------
    >>> lk.read_choices("outputs/game")  # doctest: +SKIP
    Triplets(300 human choices over 56 stimuli of toybox)
    >>> lk.noise_ceiling(lk.read_choices("outputs/game"))  # doctest: +SKIP
    """
    path = Path(path)
    files = player_files(path) if path.is_dir() else [path]
    if not files:
        raise BadInputError(f"There is no CSV in {str(path)!r}: nobody has played yet. {EXPECTED}")
    rows = [row for file in files for row in read_rows(file)]
    for kind in {row["judgements"] for row in rows} | ({judgements} if judgements else set()):
        if kind not in JUDGEMENTS:
            raise unknown_name("kind of judgements", kind, JUDGEMENTS, "Say what the choices really are.")
    rows, judgements = _of_one(rows, "judgements", judgements, path)
    rows, dataset = _of_one(rows, "dataset", dataset, path)
    if not repeats:
        rows = _first_answers(rows)
    if not rows:
        raise BadInputError(f"{str(path)!r} holds no answer yet. Play a trial, then read it again.")
    return _triplets(rows, names, judgements, dataset, path)


def read_rows(path: Path) -> list[dict[str, str]]:
    """Read a player's file, one dict a line; cells are what the game was given, see `ldm_kit.tables.as_text`.

    Raises
    ------
    BadInputError
        If the file is missing or no UTF-8, a column is missing or a line has another number of cells.

    Examples
    --------
    >>> read_rows(Path("outputs/game/ann.csv"))[0]["choice"]  # doctest: +SKIP
    '2'
    """
    if not path.is_file():
        raise BadInputError(f"There is no file at {str(path)!r}. {EXPECTED}")
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]  # a last line without its end is not written yet
    if not whole:
        if not ",".join(COLUMNS).encode().startswith(content):
            raise BadInputError(f"{str(path)!r} has no line that ends. Save it as plain CSV. {EXPECTED}")
        return []
    try:
        reader = csv.DictReader(io.StringIO(whole.decode("utf-8-sig"), newline=""))
        for column in NEEDED:
            if column not in (reader.fieldnames or ()):
                raise unknown_name(f"column of {path.name}", column, reader.fieldnames or (), EXPECTED)
        rows = [
            {key: from_text(cell) if isinstance(cell, str) else cell for key, cell in row.items()}
            for row in reader
        ]
    except UnicodeDecodeError as error:
        raise not_utf8(path, error) from error
    except csv.Error as error:
        raise BadInputError(f"{str(path)!r} cannot be read as CSV ({error}). {EXPECTED}") from error
    for number, row in enumerate(rows, 2):
        if None in row or None in row.values():
            raise BadInputError(f"{str(path)!r}: line {number} has another number of cells than the header.")
        if row["choice"] not in ("1", "2", "3"):
            raise BadInputError(
                f"{str(path)!r}: line {number} has the choice {row['choice']!r}; it is 1, 2 or 3, the odd one."
            )
    return rows


def player_files(folder: Path) -> list[Path]:
    """Return the CSV files of a folder, sorted by name, without hidden ones.

    Examples
    --------
    >>> player_files(Path("no/folder"))
    []
    """
    if not folder.is_dir():
        return []
    return sorted(
        file for file in folder.iterdir() if file.suffix.lower() == ".csv" and not file.name.startswith(".")
    )


def _of_one(
    rows: list[dict[str, str]], column: str, wanted: str | None, path: Path
) -> tuple[list[dict[str, str]], str]:
    """The rows of one kind, and which it is."""
    there = list(dict.fromkeys(row[column] for row in rows))
    if wanted is None and len(there) > 1:
        raise BadInputError(
            f"{str(path)!r} holds {' and '.join(sorted(there))} choices, which are never mixed. "
            f"Say which you mean, e.g. `{column}={sorted(there)[0]!r}`."
        )
    chosen = wanted if wanted is not None else "".join(there)
    kept = [row for row in rows if row[column] == chosen]
    if rows and not kept:
        raise BadInputError(
            f"{str(path)!r} holds no choice with {column} {chosen!r}, but {', '.join(sorted(there))}. "
            "Ask for these, or name another file."
        )
    return kept, chosen


def _first_answers(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """Each player's first answer to each three pictures, whatever their sides."""
    first: dict[tuple[str, ...], dict[str, str]] = {}
    for row in rows:
        first.setdefault((row["player"], *sorted(_shown(row))), row)
    return list(first.values())


def _shown(row: dict[str, str]) -> tuple[str, str, str]:
    return row["image1"], row["image2"], row["image3"]


def _triplets(
    rows: list[dict[str, str]], names: Sequence[str] | None, kind: str, dataset: str, path: Path
) -> Triplets:
    judged = sorted({name for row in rows for name in _shown(row)})
    known = tuple(judged if names is None else names)
    position = {name: index for index, name in enumerate(known)}
    for name in judged:
        if name not in position:
            raise unknown_name(
                f"stimulus in {path.name}", name, known, "Load the data set that was played with."
            )
    players = sorted({row["player"] for row in rows})
    indices = np.array([[position[name] for name in _shown(row)] for row in rows], dtype=np.int64)
    odd = np.array([int(row["choice"]) - 1 for row in rows])
    # The pair that stays together comes first, the odd one last.
    order = np.array([[1, 2, 0], [0, 2, 1], [0, 1, 2]])[odd]
    subjects = np.array([players.index(row["player"]) for row in rows], dtype=np.int64)
    return Triplets(
        np.take_along_axis(indices, order, axis=1), known, kind, dataset, subjects, source=path.name
    )
