"""Simulated players: they play a game through, so that its numbers can be checked without a person."""

from __future__ import annotations

import os

import numpy as np

from ldm_kit.errors import unknown_name
from ldm_kit.game.session import Game, Session

PLAYERS = ("majority", "judge", "guess")


def autoplay(game: Game, kind: str, folder: str | os.PathLike[str], player: str | None = None) -> Session:
    """Play what is left of a game by a simulated player.

    Parameters
    ----------
    game : Game
    kind : str
        ``"majority"``: always the judges' most frequent answer; ``"judge"``: an answer as likely as it was
        among them; ``"guess"``: any of the three; or the name of one of the game's blocks.
    folder : path-like
        Where its answers go, labelled "simulated".
    player : str, optional
        Its name; by default "simulated" and the kind.

    Returns
    -------
    Session
        Finished. A block without an answer to a set guesses there.

    Raises
    ------
    UnknownNameError
        If there is no such player.

    Examples
    --------
    >>> lk.game.autoplay(game, "judge", "outputs/run/answers").scores()  # doctest: +SKIP
    """
    asked = PLAYERS if game.judges else PLAYERS[2:]
    allowed = [*asked, *game.answers]
    if kind not in allowed:
        raise unknown_name("simulated player", kind, allowed, "Pick one of these.")
    name = player or f"simulated {kind}".replace(",", "")
    session = game.start(name, folder, judgements="simulated")
    while not session.finished:
        chances = _chances(game, kind, session.current.set_index)
        # A draw of its own for every trial: one that goes on after a stop plays as one that never stopped.
        rng = np.random.default_rng([game.seed, 2, len(session.choices)])
        member = int(rng.choice(3, p=chances))
        session.answer(session.current.sides.index(member) + 1)
    return session


def _chances(game: Game, kind: str, index: int) -> list[float]:
    """The chance of each member of a set to be named."""
    votes = game.sets.votes[index]
    if kind == "judge":
        return [float(share) for share in votes / votes.sum()]
    if kind != "guess":
        answer = int((game.sets.majority if kind == "majority" else game.answers[kind])[index])
        if answer >= 0:
            return [float(member == answer) for member in range(3)]
    return [1 / 3] * 3
