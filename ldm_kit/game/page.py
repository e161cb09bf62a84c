"""What a player's page shows: a `view` that fits into JSON, which ``data/game/board.js`` draws.

A view follows from the last message of the page and the answers on disk alone. So whoever shows the page (a notebook's
widget, a server of many) keeps nothing of its players, and a message may be sent again.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import pandas as pd
from PIL import Image

from ldm_kit.errors import LdmKitError
from ldm_kit.game.answers import Consistency, describe_agreement
from ldm_kit.game.game import Feedback, Game, Session
from ldm_kit.measures.zero_shot import CHANCE

SIDE = 320  # pixels; larger images are made smaller before they are sent
_LONGEST = 86_400  # seconds; a time that is longer, negative or no number is not written

View = dict[str, Any]


def reply(
    game: Game,
    folder: str | os.PathLike[str],
    message: Mapping[str, Any],
    *,
    another: bool = True,
) -> View:
    """Return what a page shows after a message.

    Parameters
    ----------
    game : Game
    folder : path-like
        Where the answers go.
    message : mapping
        ``kind``: "start" (with ``player``), "answer" (with ``trial``, from 1, ``choice`` and ``seconds``), "next", or
        none when the page is opened. Beside it ``player``, ``game`` and ``phase``, as the page's view has them.
    another : bool
        Whether the page requests another player's name at the end.

    Returns
    -------
    dict

    Examples
    --------
    >>> game = lk.game.new_game(model, data, "features", blocks="mid_block", n_candidates=20)
    >>> reply(game, "answers", {"kind": "start", "player": "ann"})["title"]
    'Trial 1 of 13'
    """
    kind, player = message.get("kind"), str(message.get("player", ""))
    if not kind or (kind == "next" and message.get("phase") == "end" and another):
        return _name_form(game)
    try:
        session = game.start(player, folder)
        if kind != "answer":
            return _next(session, another)
        if message.get("game") != session.key:
            error = "The game has other trials than this page showed. This is where you are in it."
            return _next(session, another, error)
        return _answered(session, message, another)
    except LdmKitError as error:
        return _name_form(game, player, str(error))


def _answered(session: Session, message: Mapping[str, Any], another: bool) -> View:
    """Write an answer to the current trial; the same answer to an earlier one shows its feedback again."""
    trial, choice, error = int(message["trial"]), int(message["choice"]), ""
    seconds = float(message.get("seconds") or 0)
    if trial == len(session.choices) + 1 and message.get("phase") != "feedback":  # it is not shown yet
        try:
            session.answer(choice, seconds if 0 < seconds < _LONGEST else None)
        except LdmKitError as problem:
            error = str(problem)
            session.reload()
    if 1 <= trial <= len(session.choices):
        if session.choices[trial - 1] == choice:
            return _feedback(session, session.feedback(trial))
        other = f"Trial {trial} has another answer already. Is the same name being played in another window?"
        error = error or other
    return _next(session, another, error)


def _name_form(game: Game, player: str = "", error: str = "") -> View:
    n, again = game.n_trials + game.n_catch, game.n_catch
    lines = [
        f"You will see three images, {n} times. Choose the one that fits least with the other two. "
        "There is no right answer."
    ]
    if again:
        lines.append(f"{again} of the {n} come a second time: they measure how sure you are of yourself.")
    return {
        "phase": "name",
        "title": "Which is the odd one out?",
        "lines": lines,
        "go": "Start",
        "player": player,
        "error": error,
        "hint": "Your answers go into a file of this name. Enter the same name again to go on where you were.",
    }


def _of(session: Session, phase: str, done: int, **view: Any) -> View:
    """What every view of a session has, and the rest."""
    common = {"done": done, "total": len(session.plan), "player": session.player, "game": session.key}
    return {"phase": phase, **common, **view}


def _next(session: Session, another: bool, error: str = "") -> View:
    """The next trial, or the end."""
    if session.finished:
        return _end(session, another)
    done = len(session.choices)
    return _of(
        session,
        "play",
        done,
        title=f"Trial {done + 1} of {len(session.plan)}",
        trial=done + 1,
        images=[shown_image(session.game, name) for name in session.images],
        hint="Click an image, or press 1, 2 or 3. Which is the odd one out?",
        error=error,
    )


def _feedback(session: Session, feedback: Feedback) -> View:
    game = session.game
    images = [shown_image(game, name) for name in game.images(session.plan[feedback.trial - 1])]
    chosen_by = [_chosen_by(feedback, side, game.participants) for side in (1, 2, 3)]
    return _of(
        session,
        "feedback",
        feedback.trial,
        title=f"Trial {feedback.trial} of {len(session.plan)}",
        trial=feedback.trial,
        choice=feedback.choice,
        images=[image | {"who": who} for image, who in zip(images, chosen_by, strict=True)],
        status=describe_feedback(feedback, [image["alt"] for image in images], game.participants),
        go="See the result" if session.finished else "Next",
        hint="Enter goes on.",
    )


def _end(session: Session, another: bool) -> View:
    game, scores, consistency = session.game, session.scores(), session.consistency()
    lines = [describe_agreement(scores), consistency.sentence]
    if game.how == "informative" and len(game.answers) > 1:
        lines.append(
            f"Trials on which the blocks disagree were preferred ({game.n_informative} of {game.n_trials}): "
            "they tell blocks apart, but a block agrees on them less often than on random ones."
        )
    lines.append(f"Your answers are in {session.file.path.as_posix()}.")
    return _of(
        session,
        "end",
        len(session.plan),
        title=f"Thank you, {session.player}",
        lines=lines,
        go="Another player" if another else "",
        agreement=_agreement(scores, consistency),
    )


def _agreement(scores: pd.DataFrame, own: Consistency) -> View:
    """What the board draws at the end: the share of each of the others, with its interval, beside the ceiling."""
    rows = [
        {
            "name": str(row["other"]),
            "kind": "block" if row["block"] else "participants",
            "share": float(row["accuracy"]),
            "low": float(row["ci_low"]),
            "high": float(row["ci_high"]),
            "count": f"{row['agreed']} of {row['n_triplets']}",
        }
        for _, row in scores[scores["n_triplets"] > 0].iterrows()
    ]
    caption = (
        f"From 0 to 1: the share answered alike, with exact 95 % intervals. Dashed: chance, {CHANCE:.2f}."
    )
    if own.n:
        caption += f" Yellow: your personal ceiling, {own.ceiling[0]:.2f} to {own.ceiling[1]:.2f}."
    ceiling = list(own.ceiling) if own.n else None
    return {"rows": rows, "chance": CHANCE, "ceiling": ceiling, "caption": caption}


def _chosen_by(feedback: Feedback, side: int, participants: str) -> list[dict[str, str]]:
    """Who chose the image of a side: the player, the participants with their votes, blocks."""
    who = [{"kind": "you", "text": "you"}] if feedback.choice == side else []
    if participants and feedback.votes[side - 1]:
        text = f"{feedback.votes[side - 1]} of {sum(feedback.votes)} {participants}"
        who.append({"kind": "participants", "text": text})
    blocks = [name for name, chosen in feedback.others.items() if chosen == side and name != participants]
    return who + [{"kind": "block", "text": name} for name in blocks]


def describe_feedback(feedback: Feedback, labels: list[str], participants: str) -> str:
    """Describe who chose what in a sentence, which a screen reader reads out.

    Examples
    --------
    >>> feedback = Feedback(1, 2, {"people": 2, "mid_block": 1, "up_blocks.0": 0}, (1, 4, 0))
    >>> describe_feedback(feedback, ["cat", "bus", "dog"], "people")
    'You: bus. People: bus (4 of 5). mid_block: cat. up_blocks.0: undecided.'
    """
    sentences = [f"You: {labels[feedback.choice - 1]}."]
    for name, side in feedback.others.items():
        chosen = labels[side - 1] if side else "undecided"
        if name == participants:
            votes = f"{max(feedback.votes)} of {sum(feedback.votes)}"
            sentences.append(f"{name[0].upper()}{name[1:]}: {chosen} ({votes}).")
        else:
            sentences.append(f"{name}: {chosen}.")
    return " ".join(sentences)


@lru_cache(maxsize=1024)
def shown_image(game: Game, name: str) -> dict[str, Any]:
    """Return an image of a game as the view holds it: PNG if it is small, else JPEG of at most `SIDE` pixels."""
    with game.stimuli.open(name) as opened:
        image = opened.convert("RGB")
    small = max(image.size) < SIDE / 2
    label = game.stimuli[game.stimuli.index(name)].label
    return {"src": data_uri(image, small), "alt": label, "small": small}


def data_uri(image: Image.Image, small: bool) -> str:
    """Return an image as text that a page can show.

    Examples
    --------
    >>> data_uri(Image.new("RGB", (8, 8)), small=True)[:22]
    'data:image/png;base64,'
    """
    image = image.copy()
    image.thumbnail((SIDE, SIDE))
    buffer, kind = io.BytesIO(), "png" if small else "jpeg"
    image.save(buffer, format=kind, **({} if small else {"quality": 88}))
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
