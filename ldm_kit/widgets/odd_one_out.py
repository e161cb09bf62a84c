"""The odd-one-out game in a notebook: three images, a click or a key, and what the others chose."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from importlib import resources
from typing import Any

import anywidget
import pandas as pd
import traitlets

from ldm_kit.game.answers import Consistency, agreement_table
from ldm_kit.game.game import Game, Session
from ldm_kit.game.page import reply


def _data(name: str) -> str:
    return (resources.files("ldm_kit") / "data" / "game" / name).read_text(encoding="utf-8")


class OddOneOut(anywidget.AnyWidget):
    """Play a game: the trials, and at the end who agreed with the player.

    Parameters
    ----------
    game : Game
        From `lk.game.new_game`.
    player : str, optional
        Whose file is written, or continued. By default the board requests a name.
    folder : path-like
        Where the answers go.

    Notes
    -----
    The state is the answers on disk. Whoever restarts the kernel, or reloads the page, and enters the same
    name goes on where that player was.

    Examples
    --------
    >>> game = lk.game.new_game(model, data, "features", blocks="mid_block", n_candidates=20)
    >>> board = lk.widgets.OddOneOut(game, player="ann", folder="answers")
    """

    _esm = _data("board.js")
    _css = _data("board.css")
    view: Any = traitlets.Dict().tag(sync=True)

    def __init__(self, game: Game, player: str | None = None, folder: Any = "outputs/game") -> None:
        self.game, self.folder = game, folder
        self._another, self._turns = player is None, itertools.count(1)
        self._player = ""
        super().__init__()
        self._heard(self, {} if player is None else {"kind": "start", "player": player}, None)
        self.add_class("ldm-odd-one-out")
        self.on_msg(self._heard)

    @property
    def session(self) -> Session | None:
        """The game of the player on the page, or of the last one; None until a name is entered."""
        return self.game.start(self._player, self.folder) if self._player else None

    def scores(self) -> pd.DataFrame:
        """Agreement so far, as `Session.scores`; no row if nobody has begun."""
        return self.session.scores() if self.session else agreement_table([], {}, {})

    def consistency(self) -> Consistency:
        """Repeats answered alike so far."""
        return self.session.consistency() if self.session else Consistency(0, 0)

    def _heard(self, _widget: Any, message: Mapping[str, Any], _buffers: Any) -> None:
        view = reply(self.game, self.folder, message, another=self._another)
        if "game" in view:
            self._player = view["player"]
        self.view = {**view, "turn": next(self._turns)}  # the board draws each view once, alike or not
