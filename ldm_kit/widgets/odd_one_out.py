"""The odd-one-out game on the page: three pictures, a click or a key, and what the others said."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from importlib import resources
from typing import Any

import anywidget
import ipywidgets
import pandas as pd
import plotly.graph_objects as go
import traitlets
from PIL import Image

from ldm_kit.errors import LdmKitError
from ldm_kit.game.scoring import Consistency, agreement_table, trials_said
from ldm_kit.game.session import Feedback, Game, Session
from ldm_kit.plots.agreement import agreement_dots
from ldm_kit.plots.template import CONFIG

SIDE = 320  # pixels; larger pictures are made smaller before they are sent
KEYS = "Click a picture, or press 1, 2 or 3. Which is the odd one out?"


def _data(name: str) -> str:
    return (resources.files("ldm_kit") / "data" / "game" / name).read_text(encoding="utf-8")


class Board(anywidget.AnyWidget):
    """What is drawn. `view` is all of it; what the player does comes back as messages.

    Examples
    --------
    >>> Board(view={"phase": "name"}).view["phase"]  # doctest: +SKIP
    'name'
    """

    _esm = _data("board.js")
    _css = _data("board.css")
    view: Any = traitlets.Dict().tag(sync=True)


class OddOneOut(ipywidgets.VBox):  # type: ignore[misc]
    """Play a game: the board, and at the end one figure of who agreed with the player.

    Parameters
    ----------
    game : Game
        From `lk.game.Game`.
    player : str, optional
        Whose file is written, or gone on with. By default the board asks for a name, so that every visitor
        of a page served to a class has a file of his own.
    folder : path-like
        Where the answers go.

    Notes
    -----
    The state is `session` and the answers on disk. Whoever restarts the kernel, or reloads the page, and
    gives the same name goes on where he was.

    Examples
    --------
    >>> lk.widgets.OddOneOut(game, player="ann")  # doctest: +SKIP
    """

    def __init__(self, game: Game, player: str | None = None, folder: Any = "outputs/game") -> None:
        self.game, self.folder = game, folder
        self.session: Session | None = None
        self.figure: go.FigureWidget | None = None
        self._asks_name = player is None
        self._pictures: dict[str, dict[str, Any]] = {}
        self._turn = 0
        self.board = Board()
        self.board.on_msg(self._heard)
        super().__init__([self.board])
        self.add_class("ldm-odd-one-out")
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
        self._drop_figure()
        self._show_next()

    def answer(self, trial: int, choice: int, seconds: float | None = None) -> None:
        """Take an answer to a trial, counted from 1; one to another trial than the current is ignored.

        A second click, or a page that was left open, cannot answer a trial that it does not show.
        """
        session = self.session
        if session is None or session.finished or trial != len(session.choices) + 1:
            return
        if self.board.view["phase"] != "play":
            return
        try:
            told = session.answer(choice, seconds)
        except LdmKitError as error:
            session.reload()
            self._show_next(str(error))
            return
        self._show_feedback(told)

    def go_on(self) -> None:
        """Show the next trial, the end, or, after it, the form for another player's name."""
        phase = self.board.view["phase"]
        if phase == "feedback":
            self._show_next()
        elif phase == "end" and self._asks_name:
            self._drop_figure()
            self._show_name()

    def scores(self) -> pd.DataFrame:
        """Agreement so far, as `Session.scores`; no row if nobody has begun."""
        return self.session.scores() if self.session else agreement_table([], {}, {})

    def consistency(self) -> Consistency:
        """Repeats answered alike so far."""
        return self.session.consistency() if self.session else Consistency(0, 0)

    def _heard(self, _board: Any, message: Mapping[str, Any], _buffers: Any) -> None:
        kind = message.get("kind")
        if kind == "start":
            self.start(str(message.get("player", "")))
        elif kind == "answer":
            seconds = message.get("seconds")
            self.answer(
                int(message["trial"]), int(message["choice"]), None if seconds is None else float(seconds)
            )
        elif kind == "next":
            self.go_on()

    def _show(self, phase: str, **view: Any) -> None:
        self._turn += 1
        self.board.view = {"phase": phase, "turn": self._turn, **view}

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
            pictures=[self._picture(name) for name in session.pictures],
            hint=KEYS,
            error=error,
        )

    def _show_feedback(self, told: Feedback) -> None:
        session = self.session
        assert session is not None
        done, total = told.trial, len(session.plan)
        shown = session.game._names(session.plan[told.trial - 1])
        pictures = [
            self._picture(name) | {"who": who_named(told, side, self.game.judges)}
            for side, name in enumerate(shown, 1)
        ]
        self._show(
            "feedback",
            title=f"Trial {done} of {total}",
            trial=done,
            done=done,
            total=total,
            player=session.player,
            choice=told.choice,
            pictures=pictures,
            said=feedback_said(told, [self._label(name) for name in shown], self.game.judges),
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
        )
        if scores["n_triplets"].max() > 0:
            self.figure = go.FigureWidget(agreement_dots(scores, consistency.ceiling))
            self.figure._config = CONFIG
            self.children = [self.board, self.figure]

    def _drop_figure(self) -> None:
        if self.figure is not None:
            self.children = [self.board]
            self.figure.close()
            self.figure = None

    def _picture(self, name: str) -> dict[str, Any]:
        if name not in self._pictures:
            with self.game.stimuli.open(name) as opened:
                picture = opened.convert("RGB")
            small = max(picture.size) < SIDE / 2
            self._pictures[name] = {"src": data_uri(picture), "alt": self._label(name), "small": small}
        return self._pictures[name]

    def _label(self, name: str) -> str:
        return self.game.stimuli[self.game.stimuli.index(name)].label


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
