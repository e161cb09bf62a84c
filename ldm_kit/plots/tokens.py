"""What single tokens hold: how long each is, and which others point the same way."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ldm_kit.errors import BadInputError
from ldm_kit.plots.template import DIVERGING, SCALE, heading

Map = npt.NDArray[np.floating]


def token_norms(maps: npt.ArrayLike) -> Map:
    """Give the length of each token, (height, width).

    Parameters
    ----------
    maps : array-like, shape (channels, height, width)

    Examples
    --------
    >>> token_norms([[[3.0]], [[4.0]]]).tolist()
    [[5.0]]
    """
    norms: Map = np.linalg.norm(np.asarray(maps, dtype=np.float64), axis=0)
    return norms


def token_similarity(maps: npt.ArrayLike, row: int, column: int, others: npt.ArrayLike | None = None) -> Map:
    """Give the cosine similarity of one token to all tokens of a map, (height, width).

    Parameters
    ----------
    maps : array-like, shape (channels, height, width)
        Holds the token.
    row, column : int
        Where it is.
    others : array-like, shape (channels, height, width), optional
        Whose tokens it is compared with; by default those of `maps`.

    Examples
    --------
    >>> token_similarity([[[1.0, 0.0]], [[0.0, 2.0]]], 0, 0).tolist()
    [[1.0, 0.0]]
    """
    own = np.asarray(maps, dtype=np.float64)
    if not (0 <= row < own.shape[1] and 0 <= column < own.shape[2]):
        raise BadInputError(
            f"There is no token in row {row}, column {column}: the map has {own.shape[1]} × {own.shape[2]}, "
            "counted from 0."
        )
    token, all_tokens = own[:, row, column], own if others is None else np.asarray(others, dtype=np.float64)
    lengths = np.linalg.norm(token) * np.linalg.norm(all_tokens, axis=0)
    similarity: Map = np.einsum("c,chw->hw", token, all_tokens) / np.maximum(lengths, 1e-12)
    return similarity


def token_maps(
    norms: npt.ArrayLike,
    similarities: Mapping[str, npt.ArrayLike],
    token: tuple[int, int],
    *,
    title: str = "Tokens of a block",
    subtitle: str = "",
    width: int = 860,
) -> go.Figure:
    """Draw token norms, and one token's cosine similarity to others, side by side.

    Parameters
    ----------
    norms : array-like, shape (height, width)
        From `token_norms`.
    similarities : mapping of str to array-like (height, width)
        From `token_similarity`; the key goes above each.
    token : (int, int)
        Row and column of the token, marked where it lies: in the norms and in the first map.
    title, subtitle : str
    width : int
        In pixels.

    Examples
    --------
    >>> fig = token_maps([[5.0, 1.0]], {"this picture": [[1.0, 0.2]]}, (0, 0))
    >>> [trace.type for trace in fig.data]
    ['heatmap', 'heatmap', 'scatter', 'scatter']
    """
    names = ["length (norm)", *similarities]
    fig = make_subplots(cols=len(names), subplot_titles=names, horizontal_spacing=0.11)
    arrays = [np.asarray(norms), *map(np.asarray, similarities.values())]
    right = [fig.layout[f"xaxis{i or ''}"].domain[1] for i in [0, *range(2, len(names) + 1)]]
    for i, array in enumerate(arrays):
        colours = {"colorscale": SCALE} if i == 0 else {"colorscale": DIVERGING, "zmin": -1, "zmax": 1}
        bar = {"x": right[i] + 0.004, "xanchor": "left", "thickness": 10, "len": 0.6}
        fig.add_heatmap(
            z=array,
            **colours,
            showscale=i < 2,
            colorbar={**bar, "title": {"text": "" if i else "norm"}},
            hovertemplate="row %{y}, column %{x}: %{z:.3f}<extra></extra>",
            row=1,
            col=i + 1,
        )
        fig.update_yaxes(autorange="reversed", scaleanchor=f"x{i + 1 if i else ''}", row=1, col=i + 1)
    for i in range(2):
        fig.add_scatter(
            x=[token[1]],
            y=[token[0]],
            mode="markers",
            marker={"symbol": "x-thin", "size": 14, "line": {"width": 4, "color": "#CC79A7"}},
            hoverinfo="skip",
            showlegend=False,
            row=1,
            col=i + 1,
        )
    text = heading(title, [subtitle] if subtitle else [])
    fig.update_layout(
        template="ldm_kit", title={"text": text}, width=width, height=380, margin={"t": 110, "l": 40, "r": 20}
    )
    fig.update_xaxes(constrain="domain", showline=False, ticks="", showgrid=False, nticks=8, tickfont_size=9)
    fig.update_yaxes(constrain="domain", showline=False, ticks="", showgrid=False, nticks=8, tickfont_size=9)
    return fig
