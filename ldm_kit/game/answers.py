"""A player's answers on disk: each is written, and on the disk, before the player hears what others said."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ldm_kit.datasets.triplet_files import COLUMNS, player_files, read_choices, read_rows
from ldm_kit.datasets.triplets import Triplets
from ldm_kit.errors import BadInputError, MismatchError
from ldm_kit.files import CANNOT_WRITE, cannot_write
from ldm_kit.tables import as_text

PATIENCE = 10  # seconds that an answer waits for another process to write its own
PLAYER = re.compile(r"\w[\w .\-]{0,38}\w|\w")


class AnswerFile:
    """The file ``FOLDER/PLAYER.csv``; `ldm_kit.read_choices` reads it.

    Parameters
    ----------
    folder : path-like
        Made when the first answer comes.
    player : str
        Letters, digits, spaces, dots, dashes and underscores; it names the file.

    Raises
    ------
    BadInputError
        If the name could not name a file.

    Examples
    --------
    >>> AnswerFile("outputs/game", "ann").path.as_posix()
    'outputs/game/ann.csv'
    """

    def __init__(self, folder: str | os.PathLike[str], player: str) -> None:
        self.player = checked_player(player)
        self.path = Path(folder) / f"{self.player}.csv"

    def rows(self, game: str) -> list[dict[str, str]]:
        """The answers of one game, in order; none if the file does not exist yet.

        Examples
        --------
        >>> AnswerFile("outputs/no/folder", "ann").rows("0a1b2c3d")
        []
        """
        if not self.path.is_file() or not self.path.stat().st_size:
            return []
        return [row for row in read_rows(self.path) if row.get("game") == game]

    def append(self, answer: Mapping[str, Any]) -> None:
        """Write one answer and wait until the disk has it.

        Parameters
        ----------
        answer : mapping
            The columns of `COLUMNS` but ``player`` and ``at``; ``trial`` counts from 1.

        Raises
        ------
        MismatchError
            If this game's answers on disk are not those up to this trial: the name is played elsewhere, too.
        BadInputError
            If the file cannot be written, cannot be read, or is being written by another process for over 10 s.

        Examples
        --------
        >>> file.append({"game": "0a1b2c3d", "trial": 1, "choice": 2, ...})  # doctest: +SKIP
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self.path.with_name(f".{self.path.name}.lock"), timeout=PATIENCE):
                before = len(self.rows(answer["game"]))
                if before != answer["trial"] - 1:
                    raise MismatchError(
                        f"Trial {answer['trial']} was answered, but {self.path.name!r} holds {before} answers of "
                        "this game. Is the same name being played in another window? Take another name."
                    )
                self._write({"player": self.player, "at": datetime.now(UTC).isoformat(), **answer})
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

    def _write(self, answer: Mapping[str, Any]) -> None:
        with self.path.open("a+b") as file:
            text = io.StringIO()
            writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
            _drop_cut_line(file)
            if file.seek(0, os.SEEK_END) == 0:
                writer.writeheader()
            writer.writerow({column: as_text(cell) for column, cell in answer.items()})
            file.write(text.getvalue().encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())


def choices_so_far(
    folder: str | os.PathLike[str], judgements: str = "human", dataset: str | None = None
) -> Triplets | None:
    """What a folder's players chose, or None if none of them has answered yet.

    Parameters
    ----------
    folder : path-like
        Of the answers; it need not exist yet.
    judgements : {"human", "simulated"}
        Which players.
    dataset : str, optional
        Whose pictures they judged.

    Examples
    --------
    >>> choices_so_far("outputs/no/folder") is None
    True
    """
    rows = [row for file in player_files(Path(folder)) for row in read_rows(file)]
    wanted = [row for row in rows if row["judgements"] == judgements]
    if not any(dataset is None or row["dataset"] == dataset for row in wanted):
        return None
    return read_choices(folder, judgements=judgements, dataset=dataset)


def checked_player(player: str) -> str:
    """Return a player's name, stripped, or say why it cannot name a file.

    Examples
    --------
    >>> checked_player(" Ann B. 2 ")
    'Ann B. 2'
    """
    name = player.strip()
    name = name.rstrip(".")  # Windows drops it
    if not PLAYER.fullmatch(name):
        raise BadInputError(
            f"The name {player!r} cannot name a file. Use 1 to 40 letters, digits, spaces, dots, dashes or "
            "underscores, beginning and ending with a letter or digit."
        )
    return name


def _drop_cut_line(file: Any) -> None:
    """Cut off a last line that a crash left without its end; its answer was never shown as given."""
    file.seek(0)
    content = file.read()
    whole = content.rfind(b"\n") + 1
    if whole != len(content):
        file.truncate(whole)
