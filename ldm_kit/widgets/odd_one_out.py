"""The odd-one-out game in a notebook: three images, a click or a key, and how others chose."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from typing import Any

import anywidget
import pandas as pd
import traitlets

from ldm_kit.game.page import Page
from ldm_kit.game.scoring import Consistency
from ldm_kit.game.session import Game, Session


def _data(name: str) -> str:
    return (resources.files("ldm_kit") / "data" / "game" / name).read_text(encoding="utf-8")


class OddOneOut(anywidget.AnyWidget):
    """Play a game: the trials, and at the end the agreement of others with the player.

    Parameters
    ----------
    game : Game
        From `lk.game.Game`.
    player : str, optional
        Whose file is written, or continued. By default the board asks for a name.
    folder : path-like
        Where the answers go.

    Notes
    -----
    The state is `session` and the answers on disk: after a restart of the kernel or a reload of the page, the
    same name continues the same game.

    Examples
    --------
    >>> lk.widgets.OddOneOut(game, player="ann")  # doctest: +SKIP
    """

    _esm = _data("board.js")
    _css = _data("board.css")
    view: Any = traitlets.Dict().tag(sync=True)

    def __init__(self, game: Game, player: str | None = None, folder: Any = "outputs/game") -> None:
        self.page = Page(game, player, folder)
        super().__init__(view=self.page.view)
        self.add_class("ldm-odd-one-out")
        self.on_msg(self._heard)

    @property
    def session(self) -> Session | None:
        """The player's game; None until a name is given."""
        return self.page.session

    def scores(self) -> pd.DataFrame:
        """Agreement so far, as `Session.scores`; no row if nobody has begun."""
        return self.page.scores()

    def consistency(self) -> Consistency:
        """Repeats answered alike so far."""
        return self.page.consistency()

    def _heard(self, _widget: Any, message: Mapping[str, Any], _buffers: Any) -> None:
        self.page.hear(message)
        self.view = self.page.view
