"""Who agrees with a player of the odd-one-out game, and how little so few trials tell."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from ldm_kit.errors import BadInputError
from ldm_kit.plots.alignment import error_bars
from ldm_kit.plots.template import CHANCE, COLOURS, figure

# Others who are no block stand above the blocks, in a colour of their own.
JUDGES_COLOUR, BLOCK_COLOUR = COLOURS[2], COLOURS[0]
CEILING = "rgba(230, 159, 0, 0.25)"


def agreement_dots(
    table: pd.DataFrame,
    ceiling: tuple[float, float] | None = None,
    *,
    title: str = "Who names the same odd one as you?",
) -> go.Figure:
    """Draw a player's agreement with the judges and each block, with exact intervals.

    Parameters
    ----------
    table : pandas.DataFrame
        From a game's `Session.scores`.
    ceiling : (float, float), optional
        Between which the player's personal ceiling lies, from `Consistency.ceiling`; drawn as a band.
    title : str

    Returns
    -------
    plotly.graph_objects.Figure

    Raises
    ------
    BadInputError
        If nobody can be compared yet.

    Examples
    --------
    >>> lk.plots.agreement_dots(session.scores(), session.consistency().ceiling)  # doctest: +SKIP
    """
    shown = table[table["n_triplets"] > 0]
    if shown.empty:
        raise BadInputError("There is no answer to compare yet. Play a trial first.")
    n = int(shown["n_triplets"].max())
    chance = float(shown["chance"].iloc[0])
    known = ceiling is not None and ceiling[0] == ceiling[0]  # NaN without repeats
    band = (
        f"; yellow: the personal ceiling, {ceiling[0]:.2f} to {ceiling[1]:.2f}" if ceiling and known else ""
    )
    fig = figure(title, f"share of {n} trials answered alike, with exact 95 % intervals{band}", width=860)
    is_block = shown["block"] != ""
    for part, colour, name in (
        (shown[~is_block], JUDGES_COLOUR, "judges"),
        (shown[is_block], BLOCK_COLOUR, "blocks"),
    ):
        if part.empty:
            continue
        fig.add_scatter(
            x=part["accuracy"],
            y=part["other"],
            error_x=error_bars(part) | {"thickness": 2, "width": 6},
            mode="markers",
            name=name,
            marker={"size": 11, "color": colour},
            customdata=part[["agreed", "n_triplets", "ci_low", "ci_high"]].to_numpy(),
            hovertemplate=(
                "%{y}: %{customdata[0]} of %{customdata[1]}<br>[%{customdata[2]:.2f}, %{customdata[3]:.2f}]"
                "<extra></extra>"
            ),
            showlegend=False,
        )
    fig.add_vline(
        x=chance,
        line={"color": CHANCE, "dash": "dash"},
        annotation={"text": f"chance {chance:.2f}", "font": {"color": CHANCE, "size": 12}},
        annotation_position="top right",  # within the axes: above them stands the subtitle
    )
    if ceiling and known:
        low, high = ceiling
        # c = 1 has no width, and is to be seen all the same
        fig.add_vrect(x0=low, x1=max(high, low + 0.006), fillcolor=CEILING, line_width=0, layer="below")
    fig.update_xaxes(title="agreement with the player", range=[-0.02, 1.02], tickformat=".1f")
    # From top to bottom, with room for the word "chance" above the first.
    rows = {"type": "category", "categoryorder": "array", "categoryarray": list(shown["other"])}
    fig.update_yaxes(range=[len(shown) - 0.4, -0.9], **rows)
    fig.update_layout(height=200 + 46 * len(shown))
    return fig
