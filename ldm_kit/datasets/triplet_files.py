"""Read odd-one-out choices: files of triplets, THINGS' released file, the files of the odd-one-out game's players."""

from __future__ import annotations

import csv
import io
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ldm_kit.datasets.stimuli import Stimuli
from ldm_kit.datasets.text_tables import is_number, layout_of, read_array, read_table, reading, whole_numbers
from ldm_kit.datasets.triplets import Ints, Triplets
from ldm_kit.errors import BadInputError, MismatchError, one_of, unknown_name
from ldm_kit.tables import JUDGEMENTS, from_text

_IMAGES = ["image1", "image2", "image3"]
_RELEASED = [*_IMAGES, "choice"]  # the columns of THINGS-data's own file
_EXPECTED = (
    "A file of triplets has three columns, the odd one out last (0-based indices or names; text or .npy), or "
    "the columns image1, image2, image3 (1-based) and choice (1 to 3, the odd one) as THINGS-data has them."
)
# A player's file, one line an answer. `image1` to `image3` are stimulus names as they were shown from left to right,
# `choice` (1 to 3) is the odd one: THINGS-data's own columns, with names in place of numbers.
COLUMNS = (
    *("player", "judgements", "dataset", "game", "trial", "kind"),
    *("image1", "image2", "image3", "choice", "seconds", "at"),
)
_NEEDED = ("player", "judgements", "dataset", "image1", "image2", "image3", "choice")
_PLAYERS = f"A file of choices has a header with {', '.join(_NEEDED)}, as the odd-one-out game writes it."
# choice - 1 -> the columns of a triplet: the pair that stays together first, the odd one last.
_ODD_LAST = np.array([[1, 2, 0], [0, 2, 1], [0, 1, 2]])
_log = logging.getLogger(__name__)


def read_triplets(
    path: str | os.PathLike[str],
    names: Sequence[str] | Stimuli,
    *,
    items: str | None = None,
    judgements: str = "human",
    dataset: str = "",
) -> Triplets:
    r"""Read triplets from a file.

    Parameters
    ----------
    path : path-like
        One of four formats, distinguished by the file's content:

        - text of three columns (spaces, tabs, commas or semicolons): 0-based indices, or names; the third is the
          odd one out. A first line ``name1,name2,name3`` or ``index1,index2,index3`` may declare which;
        - ``.npy``, an integer array (t, 3), the same;
        - text with a header that has the columns ``image1``, ``image2``, ``image3`` (1-based), ``choice``
          (1 to 3: which of the three is the odd one) and perhaps ``subject_id``, as THINGS-data
          releases its 4.7 million choices;
        - a player's file of the odd-one-out game, or a folder of them, as `read_choices` reads it. It names
          the stimuli and records who chose.
    names : Stimuli, or sequence of str
        What the indices stand for, in order: the 1,854 concepts for THINGS. A file may name a stimulus by its name,
        or by a concept of which there is one image (of a plain sequence: by the name without its extension).
    items : {"names", "indices"}, optional
        What a file's numbers are, where stimuli have numbers for names (``1.png``) and no first line declares it.
        By default a file that could mean either is refused.
    judgements : {"human", "human model", "simulated"}
        Who chose.
    dataset : str
        Where the stimuli come from, for the tables.

    Returns
    -------
    Triplets
        Indices into `names`, int64, shape (t, 3), column 2 the odd one out, rows in the file's order.

    Raises
    ------
    BadInputError
        If the file is missing or empty, has other columns, numbers that are not whole or could be names as well as
        indices, indices outside `names` (a file that counts from 1 is recognised), or an item twice in a row.
    UnknownNameError
        If the file holds names and one of them is not in `names`.

    Notes
    -----
    That a file of three columns counts from 1 is certain only if the last item of `names` was judged. Where the
    least index is 1, a warning is logged.

    Examples
    --------
    >>> _ = Path("choices.txt").write_text("0 1 2\n3 1 0\n")
    >>> read_triplets("choices.txt", ["ant", "bee", "cat", "dog"]).indices.tolist()
    [[0, 1, 2], [3, 1, 0]]
    """
    path = Path(path)
    stimuli = names if isinstance(names, Stimuli) else Stimuli(tuple(names))
    if items is not None:
        one_of("kind of items", items, ("names", "indices"), "State what the numbers of the file are.")
    if holds_choices(path):
        return read_choices(path, stimuli.names, dataset=dataset or None)
    numbered = _numbered(stimuli)
    first, choice, subjects = 0, None, None
    if path.suffix == ".npy":
        cells = whole_numbers(read_array(path, _EXPECTED), path, _EXPECTED)
        if cells.shape[1] != 3:
            raise BadInputError(f"{str(path)!r} has {cells.shape[1]} columns. {_EXPECTED}")
        text = items == "names" or (items is None and bool(numbered))
    else:
        layout = layout_of(path, _EXPECTED)
        header = _header(layout.cells, stimuli)
        if header and items and header != items:
            found = f"The first line of {str(path)!r} declares that it holds {header}"
            raise MismatchError(f"{found}, and items={items!r} was passed. Leave one of them out.")
        items = header or items
        released = set(_RELEASED) <= set(layout.cells)
        if not released and len(layout.cells) != 3:
            columns = ", ".join(layout.cells[:8])
            raise BadInputError(f"{str(path)!r} has {len(layout.cells)} columns: {columns}. {_EXPECTED}")
        text = items == "names" or (items is None and (bool(numbered) or not (layout.numbers or released)))
        images = _IMAGES if released else range(3)
        frame = _frame(path, layout.separator, header=released or bool(header), text=images if text else ())
        if released:
            first, choice = 1, _checked_choice(frame, path)
            subjects = _subjects(frame["subject_id"]) if "subject_id" in frame else None
            frame = frame[_IMAGES]
        cells = frame.to_numpy()
    if text:
        indices = _named_or_counted(cells, stimuli, None if items else numbered, first, path)
    else:
        indices = _counted(cells, first, path)
    least, most, n = indices.min(), indices.max(), len(stimuli)
    if least >= 1 and most == n:
        fault = f"{str(path)!r} runs from {least} to {most}, and stimuli from 0 to {n - 1}"
        raise BadInputError(f"{fault}: it seems to count from 1. Subtract 1 from all three columns.")
    if choice is not None:
        indices = np.take_along_axis(indices, _ODD_LAST[choice - 1], axis=1)
    with reading(path, _EXPECTED):
        return Triplets(indices, stimuli.names, judgements, dataset, subjects, source=path.name)


def _numbered(stimuli: Stimuli) -> dict[float, set[int]]:
    """Which stimuli a number could name: by name, or, of one alone, by concept or file name without its extension."""
    found: dict[float, set[int]] = {}
    stems = [PurePosixPath(name).stem for name in stimuli.names]
    alone = {stem for stem, n in Counter(stems).items() if n == 1}
    for row, (name, concept, stem) in enumerate(zip(stimuli.names, stimuli.concepts, stems, strict=True)):
        aliases = {name, *({stem} & alone), *([concept] if len(stimuli.by_concept[concept]) == 1 else [])}
        for alias in aliases:
            if is_number(alias) and float(alias).is_integer():
                found.setdefault(float(alias), set()).add(row)
    return found


def _header(cells: tuple[str, ...], stimuli: Stimuli) -> str | None:
    """What a first line declares the three columns to hold, if it does: "names" or "indices"."""
    if any(cell in stimuli or cell in stimuli.by_concept for cell in cells):
        return None
    columns = {re.sub(r"\d?$", "", cell.lower()) for cell in cells}
    return {"name": "names", "index": "indices"}.get(columns.pop()) if len(columns) == 1 else None


def _frame(path: Path, separator: str, *, header: bool, text: Iterable[str | int]) -> pd.DataFrame:
    """The table of a file of triplets; columns of `text` stay as written: "01" is not 1, and "NA" is not missing."""
    # All columns are read: of a row with too many cells pandas would drop the last, though another is the odd one.
    return read_table(
        path,
        _EXPECTED,
        sep=separator,
        header=0 if header else None,
        dtype=dict.fromkeys(text, str),
        keep_default_na=not text,
        na_values={"choice": [""], "subject_id": [""]},
        skipinitialspace=True,
        low_memory=False,
    )


def _checked_choice(frame: pd.DataFrame, path: Path) -> Ints:
    """The column `choice` of THINGS-data's own file, 1 to 3."""
    choice = whole_numbers(frame["choice"].to_numpy(), path, _EXPECTED)
    wrong = np.flatnonzero((choice < 1) | (choice > 3))
    if wrong.size:
        first = f"the first is {choice[wrong[0]]} in row {wrong[0]}"
        raise BadInputError(f"{str(path)!r}: {wrong.size} values of 'choice' are outside 1 to 3, {first}.")
    return choice


def _subjects(column: pd.Series) -> Ints:
    """Subjects as whole numbers: their own if they are such, else numbered as they appear; -1 is unknown."""
    values = column.to_numpy()
    whole = np.issubdtype(values.dtype, np.integer)
    return np.asarray(values if whole else pd.factorize(column)[0], dtype=np.int64)


def _named_or_counted(
    cells: npt.NDArray[Any], stimuli: Stimuli, numbered: dict[float, set[int]] | None, first: int, path: Path
) -> Ints:
    """Positions of stimuli from cells that name them, or count them from `first`, without guessing which."""
    where, distinct = pd.factorize(cells.reshape(-1))
    texts = [str(cell).strip() for cell in distinct]
    positions = {concept: rows[0] for concept, rows in stimuli.by_concept.items() if len(rows) == 1}
    positions |= {name: row for row, name in enumerate(stimuli.names)}
    unknown = next((text for text in texts if text not in positions), None)
    if numbered is not None and all(map(is_number, texts)):
        values = np.array(list(map(float, texts)))
        numbers = whole_numbers(values[where].reshape(cells.shape), path, _EXPECTED)
        double = [value for value in values if not numbered.get(value, set()) <= {int(value) - first}]
        if not double:
            return _counted(numbers, first, path)
        if unknown is not None or (numbers.min() >= first and numbers.max() < len(stimuli) + first):
            raise _two_ways(double, numbered, stimuli, first, path)
    if unknown is not None:
        advice = "Name stimuli, or concepts of one image, below a line `name1,name2,name3` or none."
        raise unknown_name(f"name in {path.name}", unknown, positions, advice)
    named: Ints = np.array([positions[text] for text in texts], dtype=np.int64)
    return named[where].reshape(cells.shape)


def _counted(cells: npt.NDArray[Any], first: int, path: Path) -> Ints:
    """Positions from numbers that count from `first`."""
    numbers = whole_numbers(cells, path, _EXPECTED)
    least = numbers.min()
    if first == 1 and least < 1:
        raise BadInputError(f"{str(path)!r}: images count from 1, but there is a {least}. {_EXPECTED}")
    if first == 0 and least == 1:
        _log.warning("%s: the least index is 1. Indices count from 0: subtract 1 if these do not.", path.name)
    return numbers - first


def _two_ways(
    double: list[float], numbered: dict[float, set[int]], stimuli: Stimuli, first: int, path: Path
) -> BadInputError:
    """The error for numbers that could be names and could be indices."""
    inside = [value for value in double if 0 <= value - first < len(stimuli)]
    number = int((inside or double)[0])
    name = stimuli.names[min(numbered[number])]
    at = f" ({stimuli.names[number - first]!r})" if inside else ""
    full = "State" if is_number(name) else f"Write names in full ({name}), or state"
    return BadInputError(
        f"{str(path)!r} can be read in two ways: its {number} may be the stimulus {name!r} or number {number} in the list "
        f"of stimuli, counted from {first}{at}. {full} which it is: by items='names' or items='indices', or, of three "
        "columns, by a first line `name1,name2,name3` or `index1,index2,index3`."
    )


# --- the files of the odd-one-out game's players --------------------------------------------------------------------


def holds_choices(path: Path) -> bool:
    """Return whether a path is a player's file, or a folder that may hold some."""
    if not path.is_file() or path.suffix == ".npy":
        return path.is_dir()
    with reading(path, _PLAYERS), path.open(encoding="utf-8-sig") as file:
        return set(_NEEDED) <= set(file.readline().strip().split(","))


def read_choices(
    path: str | os.PathLike[str],
    names: Sequence[str] | None = None,
    *,
    judgements: str | None = None,
    dataset: str | None = None,
    repeats: bool = False,
) -> Triplets:
    r"""Read the choices of one player, or of all players of a folder.

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
        Read only the choices among the images of this data set. By default all, which must be of one.
    repeats : bool
        Whether to keep a player's answers to the catch repeats. Left out by default: agreement with
        oneself is not agreement between people.

    Returns
    -------
    Triplets
        Column 2 is the odd one out. `subjects` are the players, numbered in the order of their names.

    Raises
    ------
    BadInputError
        If there is no such file, none in the folder, one cannot be read, a column is missing, people are mixed with
        others or data sets with each other. A file that cannot be read is named in the error, never skipped.
    UnknownNameError
        If a stimulus is not in `names`.

    Notes
    -----
    A last line that is still being written, or was cut short by a crash, is left out, and so are hidden
    files (macOS puts ``._ann.csv`` beside ``ann.csv`` on other systems' disks).

    Examples
    --------
    >>> lines = "player,judgements,dataset,image1,image2,image3,choice\nann,human,demo,a,b,c,1\n"
    >>> _ = Path("ann.csv").write_text(lines)
    >>> read_choices("ann.csv"), read_choices("ann.csv").indices.tolist()
    (Triplets(1 human choices over 3 stimuli of demo), [[1, 2, 0]])
    """
    path = Path(path)
    files = player_files(path) if path.is_dir() else [path]
    if not files:
        raise BadInputError(f"There is no CSV in {str(path)!r}: nobody has played yet. {_PLAYERS}")
    rows = [row for file in files for row in read_rows(file)]
    for kind in {*(row["judgements"] for row in rows), *([judgements] if judgements else [])}:
        one_of("kind of judgements", kind, JUDGEMENTS, "Name those who chose.")
    if not rows:
        raise BadInputError(f"{str(path)!r} holds no answer yet. Play a trial, then read it again.")
    frame = _of_one(pd.DataFrame(rows), "judgements", judgements, path)
    frame = _of_one(frame, "dataset", dataset, path)
    if not repeats:  # the first answer to each three images, whatever their sides
        shown = pd.DataFrame(np.sort(frame[_IMAGES].to_numpy(dtype=str), axis=1), index=frame.index)
        frame = frame[~shown.assign(player=frame["player"]).duplicated()]
    cells = frame[_IMAGES].to_numpy(dtype=object)
    judged = sorted(set(cells.flat))
    known = tuple(judged if names is None else names)
    position = {name: row for row, name in enumerate(known)}
    for name in judged:
        one_of(f"stimulus in {path.name}", name, known, "Load the data set that was played with.")
    indices = np.array([[position[name] for name in row] for row in cells], dtype=np.int64)
    choice = frame["choice"].to_numpy(dtype=np.int64)
    _, subjects = np.unique(frame["player"].to_numpy(dtype=str), return_inverse=True)
    indices = np.take_along_axis(indices, _ODD_LAST[choice - 1], axis=1)
    kind, played = frame[["judgements", "dataset"]].iloc[0]
    return Triplets(indices, known, kind, played, subjects, source=path.name)


def read_rows(path: Path) -> list[dict[str, str]]:
    """Read a player's file, one dict a line; cells are as the game recorded them, see `ldm_kit.tables.as_text`."""
    with reading(path, _PLAYERS):
        content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]  # a last line without its end is not written yet
    if not whole:
        if not ",".join(COLUMNS).encode().startswith(content):
            raise BadInputError(f"{str(path)!r} has no line that ends. Save it as plain CSV. {_PLAYERS}")
        return []
    with reading(path, _PLAYERS):
        reader = csv.DictReader(io.StringIO(whole.decode("utf-8-sig"), newline=""))
        for column in _NEEDED:
            one_of("column", column, reader.fieldnames or (), _PLAYERS)
        rows = list(reader)
    for number, row in enumerate(rows, 2):
        if None in row or None in row.values():
            raise BadInputError(f"{str(path)!r}: line {number} has another number of cells than the header.")
        if row["choice"] not in ("1", "2", "3"):
            raise BadInputError(f"{str(path)!r}: line {number} has the choice {row['choice']!r}, not 1 to 3.")
    return [{column: from_text(cell) for column, cell in row.items()} for row in rows]


def player_files(folder: Path) -> list[Path]:
    """Return the CSV files of a folder, sorted by name, without hidden ones; none of a folder that is missing."""
    if not folder.is_dir():
        return []
    files = (file for file in folder.iterdir() if file.suffix.lower() == ".csv")
    return sorted(file for file in files if not file.name.startswith("."))


def _of_one(frame: pd.DataFrame, column: str, wanted: str | None, path: Path) -> pd.DataFrame:
    """The rows of one kind: the one wanted, or the only one."""
    found = sorted(set(frame[column]))
    if wanted is None and len(found) > 1:
        both = f"{' and '.join(found)} choices, which are never mixed"
        raise BadInputError(f"{str(path)!r} holds {both}. Name one, e.g. `{column}={found[0]!r}`.")
    kind = one_of(f"{column} in {path.name}", wanted or found[0], found, "Read one of these.")
    return frame[frame[column] == kind]
