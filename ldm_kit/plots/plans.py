"""Plans of a study: what more people, triplets or noise samples would bring."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from ldm_kit.errors import BadInputError, one_of
from ldm_kit.plots.template import COLOURS, add_line, figure

AXES = {"n_people": "people", "n_triplets": "triplets judged in all", "n_draws": "noise samples"}
OTHERS = {
    "n_people": "{} people",
    "n_triplets": "{} triplets",
    "n_draws": "{} noise samples",
    "n_objects": "{} objects",
}
DASHES = ("solid", "dash", "dot")


def study_plan(table: pd.DataFrame, x: str = "n_people") -> go.Figure:
    """Draw the half-width (or the power) of designs over a number, one line per number of objects.

    Parameters
    ----------
    table : pandas.DataFrame
        From `ldm_kit.plan_study`, with several values of `x` and one or more of `n_objects`.
    x : {"n_people", "n_triplets", "n_draws"}
        What runs along the axis, which is logarithmic.

    Returns
    -------
    plotly.graph_objects.Figure
        What is wanted is a dashed line. Half-widths that are infinite are left out.

    Raises
    ------
    BadInputError
        If `x` or the number of objects is missing in a design, or designs differ in something that is not drawn.

    Examples
    --------
    >>> table = lk.plan_study(half_width=0.03, n_objects=[100, 335], n_people=[10, 30], triplets_per_person=100)
    >>> [line.name for line in study_plan(table).data]
    ['100', '335']
    """
    one_of("axis", x, AXES)
    drawn = [x, "n_objects"]
    if table.empty or table[drawn].isna().any(axis=None):
        raise BadInputError(
            f"Not every design has a number of {x} and of n_objects. Fix both in `plan_study`, for example "
            f"{x}=[10, 30, 100], n_objects=[100, 300]."
        )
    if table.duplicated(drawn).any():
        more = [name for name in OTHERS if name not in drawn and table[name].nunique(dropna=False) > 1]
        raise BadInputError(
            f"Designs of the same {x} and n_objects differ in {more}. Select the rows of one value."
        )
    effect = table["effect"].iloc[0]
    value, name = (
        ("half_width", "half-width of the 95 % interval") if np.isnan(effect) else ("power", "power")
    )
    title = (
        "How precise would the study be?"
        if value == "half_width"
        else f"Would an effect of {effect:g} be found?"
    )
    fixed = [
        form.format(table[name].iloc[0])
        for name, form in OTHERS.items()
        if name != x and _same(table[name]) and (name, table[name].iloc[0]) != ("n_draws", 1)
    ]
    each = (table["n_triplets"] / table["n_people"]).dropna().unique()
    if x != "n_draws" and len(each) == 1 and not _same(table["n_triplets"]):
        fixed.append(f"{each[0]:g} triplets a person")
    fig = figure(title, f"{name} as planned{'; ' if fixed else ''}{', '.join(fixed)}")
    for i, (n, rows) in enumerate(table.sort_values(x).groupby("n_objects")):
        finite = rows[np.isfinite(rows[value])]
        line = {"color": COLOURS[i % len(COLOURS)], "dash": DASHES[i // len(COLOURS) % len(DASHES)]}
        fig.add_scatter(
            x=finite[x].astype(int),
            y=finite[value],
            name=f"{n:,}",
            mode="lines+markers",
            line=line,
            marker={"symbol": i, "size": 9},
            customdata=finite["limited_by"],
            hovertemplate=f"{n:,} objects, %{{x:,}} {AXES[x]}<br>{name} %{{y:.3f}}<br>limited by %{{customdata}}<extra></extra>",
        )
    wanted = table["wanted"].iloc[0]
    add_line(fig, wanted, f"wanted {wanted:g}")
    ticks = sorted(table[x].astype(int).unique().tolist())
    fig.update_xaxes(
        title=AXES[x], type="log", tickvals=ticks, ticktext=[f"{one:,}" for one in ticks], minor_ticks=""
    )
    fig.update_yaxes(title=name, rangemode="tozero")
    if value == "power":
        fig.update_yaxes(range=[0, 1.02])
    fig.update_layout(legend_title_text="objects", showlegend=True)
    return fig


def _same(column: pd.Series[int]) -> bool:
    """Whether a column holds one number in all rows."""
    return bool(column.nunique(dropna=False) == 1 and column.notna().all())
