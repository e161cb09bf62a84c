"""The game as one player's page shows it: a `view` that fits into JSON, and what comes of each message."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import pandas as pd
from PIL import Image

from ldm_kit.errors import LdmKitError
from ldm_kit.game.scoring import CHANCE, Consistency, agreement_table, trials_said
from ldm_kit.game.session import Feedback, Game, Session

SIDE = 320  # pixels; larger images are made smaller before they are sent
KEYS = "Click a picture, or press 1, 2 or 3. Which is the odd one out?"
LONGEST = 86_400  # seconds; a time that is longer, negative or no number is not written


class Page:
    """One player's page. It is drawn by ``data/game/board.js``, in a notebook or served to a class.

    Parameters
    ----------
    game : Game
    player : str, optional
        Whose file is written, or gone on with. By default the page asks for a name.
    folder : path-like
        Where the answers go.

    Attributes
    ----------
    view : dict
        All that is shown.
    session : Session or None
        The player's game; None until a name is given.

    Examples
    --------
    >>> page = Page(game)  # doctest: +SKIP
    >>> page.hear({"kind": "start", "player": "ann"})  # doctest: +SKIP
    >>> page.view["title"]  # doctest: +SKIP
    'Trial 1 of 13'
    """

    def __init__(self, game: Game, player: str | None = None, folder: Any = "outputs/game") -> None:
        self.game, self.folder = game, folder
        self.session: Session | None = None
        self.view: dict[str, Any] = {}
        self._asks_name = player is None
        self._turn = 0
        if player is None:
            self._show_name()
        else:
            self.start(player)

    def start(self, player: str) -> None:
        """Begin as this player, or go on where the player's file ends."""
        try:
            self.session = self.game.start(player, self.folder)
        except LdmKitError as error:
            self._show_name(player, str(error))
            return
        self._show_next()

    def answer(self, trial: int, choice: int, seconds: float | None = None) -> None:
        """Take an answer to the trial that is shown, counted from 1; one to a later trial is ignored.

        The same answer to a trial that has it already, from a page that heard no reply to the first, is told
        what the others said; another one is not written.
        """
        session, error = self.session, ""
        if session is None:
            return
        if trial == len(session.choices) + 1 and self.view["phase"] == "play":
            try:
                session.answer(choice, seconds)
            except LdmKitError as problem:
                error = str(problem)
                try:
                    session.reload()
                except LdmKitError as worse:
                    self._show_name(session.player, str(worse))
                    return
        if 1 <= trial <= len(session.choices):
            if session.choices[trial - 1] == choice:
                self._show_feedback(session.feedback(trial))
            elif self.view["phase"] != "feedback":
                told = f"Trial {trial} has another answer already. Is the same name being played in another window?"
                self._show_next(error or told)
        elif error:
            self._show_next(error)

    def go_on(self) -> None:
        """Show the next trial, the end, or, after it, the form for another player's name."""
        phase = self.view["phase"]
        if phase == "feedback":
            self._show_next()
        elif phase == "end" and self._asks_name:
            self._show_name()

    def scores(self) -> pd.DataFrame:
        """Agreement so far, as `Session.scores`; no row if nobody has begun."""
        return self.session.scores() if self.session else agreement_table([], {}, {})

    def consistency(self) -> Consistency:
        """Repeats answered alike so far."""
        return self.session.consistency() if self.session else Consistency(0, 0)

    def hear(self, message: Mapping[str, Any]) -> None:
        """Do what the browser asks: ``start``, ``answer`` or ``next``."""
        kind = message.get("kind")
        if kind == "start":
            self.start(str(message.get("player", "")))
        elif kind == "answer":
            seconds = float(message.get("seconds") or 0)
            self.answer(
                int(message["trial"]), int(message["choice"]), seconds if 0 < seconds < LONGEST else None
            )
        elif kind == "next":
            self.go_on()

    def _show(self, phase: str, **view: Any) -> None:
        self._turn += 1
        self.view = {"phase": phase, "turn": self._turn, **view}

    def _show_name(self, player: str = "", error: str = "") -> None:
        n, again = self.game.n_trials, self.game.n_catch
        lines = [
            f"You will see three pictures, {n + again} times. Name the one that fits least with the other two. "
            "There is no right answer."
        ]
        if again:
            lines.append(
                f"{again} of the {n + again} come a second time: they measure how sure you are of yourself."
            )
        hint = "Your answers go into a file of this name. Give the same name again to go on where you were."
        self._show(
            "name",
            title="Which is the odd one out?",
            lines=lines,
            go="Start",
            player=player,
            error=error,
            hint=hint,
        )

    def _show_next(self, error: str = "") -> None:
        session = self.session
        assert session is not None
        if session.finished:
            self._show_end()
            return
        done, total = len(session.choices), len(session.plan)
        self._show(
            "play",
            title=f"Trial {done + 1} of {total}",
            trial=done + 1,
            done=done,
            total=total,
            player=session.player,
            game=session.key,
            pictures=[shown_image(session.game, name) for name in session.pictures],
            hint=KEYS,
            error=error,
        )

    def _show_feedback(self, told: Feedback) -> None:
        session = self.session
        assert session is not None
        done, total = told.trial, len(session.plan)
        shown = session.game._names(session.plan[told.trial - 1])
        pictures = [
            shown_image(session.game, name) | {"who": who_named(told, side, self.game.judges)}
            for side, name in enumerate(shown, 1)
        ]
        self._show(
            "feedback",
            title=f"Trial {done} of {total}",
            trial=done,
            done=done,
            total=total,
            player=session.player,
            game=session.key,
            choice=told.choice,
            pictures=pictures,
            said=feedback_said(told, [label_of(session.game, name) for name in shown], self.game.judges),
            go="See the result" if session.finished else "Next",
            hint="Enter goes on.",
        )

    def _show_end(self) -> None:
        session = self.session
        assert session is not None
        scores, consistency = session.scores(), session.consistency()
        lines = [trials_said(scores), consistency.said, *chosen_said(self.game)]
        lines.append(f"Your answers are in {session.file.path.as_posix()}.")
        self._show(
            "end",
            title=f"Thank you, {session.player}",
            lines=lines,
            done=len(session.plan),
            total=len(session.plan),
            player=session.player,
            go="Another player" if self._asks_name else "",
            agreement=agreement_shown(scores, consistency),
        )


def reply(game: Game, folder: Any, message: Mapping[str, Any]) -> dict[str, Any]:
    """What a page shows after a message, from nothing but the message and the answers on disk.

    So a server keeps nothing of its visitors, and a message may be sent again. Beside what `Page.hear` takes, a
    message names the player, the game and the phase that its page shows.

    Examples
    --------
    >>> reply(game, "outputs/game", {"kind": "start", "player": "ann"})["title"]  # doctest: +SKIP
    'Trial 1 of 13'
    """
    page = Page(game, folder=folder)
    kind, player = message.get("kind"), str(message.get("player", ""))
    if kind not in ("start", "answer") and message.get("phase") != "feedback":
        return page.view
    page.start(player)
    if kind == "answer" and page.session is not None:
        if message.get("game") == page.session.key:
            page.hear(message)
        else:
            page._show_next("The game has other trials than this page showed. This is where you are in it.")
    return page.view


def agreement_shown(scores: pd.DataFrame, own: Consistency) -> dict[str, Any]:
    """What the board draws at the end: the share of each of the others, with its interval, beside the ceiling.

    Examples
    --------
    >>> table = agreement_table([0, 1, 2], {"people": [0, 1, -1]}, {})
    >>> agreement_shown(table, Consistency(0, 0))["rows"][0]["said"]
    '2 of 2'
    """
    rows = [
        {
            "name": str(row["other"]),
            "kind": "block" if row["block"] else "judges",
            "share": float(row["accuracy"]),
            "low": float(row["ci_low"]),
            "high": float(row["ci_high"]),
            "said": f"{row['agreed']} of {row['n_triplets']}",
        }
        for _, row in scores[scores["n_triplets"] > 0].iterrows()
    ]
    caption = (
        f"From 0 to 1: the share answered alike, with exact 95 % intervals. Dashed: chance, {CHANCE:.2f}."
    )
    if own.n:
        caption += f" Yellow: your personal ceiling, {own.ceiling[0]:.2f} to {own.ceiling[1]:.2f}."
    return {
        "rows": rows,
        "chance": CHANCE,
        "ceiling": list(own.ceiling) if own.n else None,
        "caption": caption,
    }


@lru_cache(maxsize=1024)
def shown_image(game: Game, name: str) -> dict[str, Any]:
    """An image of a game as the view holds it.

    Examples
    --------
    >>> shown_image(game, "car.png")["alt"]  # doctest: +SKIP
    'car'
    """
    with game.stimuli.open(name) as opened:
        image = opened.convert("RGB")
    return {"src": data_uri(image), "alt": label_of(game, name), "small": max(image.size) < SIDE / 2}


def label_of(game: Game, name: str) -> str:
    """The label of an image of a game.

    Examples
    --------
    >>> label_of(game, "car.png")  # doctest: +SKIP
    'car'
    """
    return game.stimuli[game.stimuli.index(name)].label


def who_named(told: Feedback, side: int, judges: str) -> list[dict[str, str]]:
    """Who named the picture of a side: the player, the judges with their votes, blocks.

    Examples
    --------
    >>> told = Feedback(1, 2, {"people": 2, "mid_block": 1}, (1, 4, 0))
    >>> [entry["text"] for entry in who_named(told, 2, "people")]
    ['you', '4 of 5 people']
    """
    who = [{"kind": "you", "text": "you"}] if told.choice == side else []
    if judges and told.votes[side - 1]:
        who.append({"kind": "judges", "text": f"{told.votes[side - 1]} of {sum(told.votes)} {judges}"})
    blocks = [name for name, named in told.said.items() if named == side and name != judges]
    return who + [{"kind": "block", "text": name} for name in blocks]


def feedback_said(told: Feedback, labels: list[str], judges: str) -> str:
    """The same in a sentence, which a screen reader reads out.

    Examples
    --------
    >>> told = Feedback(1, 2, {"people": 2, "mid_block": 1, "up_blocks.0": 0}, (1, 4, 0))
    >>> feedback_said(told, ["cat", "bus", "dog"], "people")
    'You: bus. People: bus (4 of 5). mid_block: cat. up_blocks.0: undecided.'
    """
    parts = [f"You: {labels[told.choice - 1]}."]
    for name, side in told.said.items():
        named = labels[side - 1] if side else "undecided"
        if name == judges:
            said = f"{name[0].upper()}{name[1:]}"
            parts.append(f"{said}: {named} ({max(told.votes)} of {sum(told.votes)}).")
        else:
            parts.append(f"{name}: {named}.")
    return " ".join(parts)


def chosen_said(game: Game) -> list[str]:
    """How the trials were chosen, and what that forbids to conclude.

    Examples
    --------
    >>> chosen_said(game)  # doctest: +SKIP
    ['The trials were chosen because the blocks disagree on them, …']
    """
    if game.how == "random" or len(game.answers) < 2:
        return []
    return [
        f"The trials were chosen because the blocks disagree on them ({game.n_informative} of {game.n_trials}): they "
        "tell blocks apart, but a block agrees on them less often than on random ones."
    ]


def data_uri(picture: Image.Image) -> str:
    """A picture as text that a page can show: PNG if it is small, else JPEG of at most `SIDE` pixels.

    Examples
    --------
    >>> data_uri(Image.new("RGB", (8, 8)))[:22]
    'data:image/png;base64,'
    """
    small = max(picture.size) < SIDE / 2
    picture = picture.copy()
    picture.thumbnail((SIDE, SIDE))
    buffer, kind = io.BytesIO(), "png" if small else "jpeg"
    picture.save(buffer, format=kind, **({} if small else {"quality": 88}))
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
