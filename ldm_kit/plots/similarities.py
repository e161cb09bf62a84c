"""Similarities in colour: matrices side by side, and one spatial position against the others of a map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ldm_kit.errors import BadInputError
from ldm_kit.plots.template import DIVERGING, SCALE, escaped, heading

Map = npt.NDArray[np.floating]


def matrices(
    arrays: Mapping[str, npt.ArrayLike],
    labels: Sequence[str],
    *,
    title: str = "Similarity of the stimuli",
    subtitle: str = "",
    bar: str = "similarity",
) -> go.Figure:
    """Draw square matrices side by side, all on one colour scale.

    Parameters
    ----------
    arrays : mapping of str to array (n, n)
        Drawn in their order, the key above each.
    labels : sequence of str, length n
        Along both axes.
    title, subtitle, bar : str

    Examples
    --------
    >>> fig = matrices({"none": np.eye(2), "label": np.ones((2, 2))}, ["cat", "dog"])
    >>> [one.text for one in fig.layout.annotations]
    ['none', 'label']
    """
    names = escaped(labels)
    hover = "%{y} – %{x}: %{z:.3f}<extra></extra>"
    fig = make_subplots(
        cols=len(arrays), subplot_titles=escaped(arrays), horizontal_spacing=0.06, shared_yaxes=True
    )
    for i, matrix in enumerate(arrays.values()):
        fig.add_heatmap(
            z=matrix, x=names, y=names, coloraxis="coloraxis", hovertemplate=hover, row=1, col=i + 1
        )
    fig.update_layout(
        template="ldm_kit",
        title={"text": heading(title, [subtitle] if subtitle else [])},
        coloraxis={"colorscale": SCALE, "colorbar": {"title": {"text": bar}}},
        width=120 + 380 * len(arrays),
        height=480,
        margin={"t": 110},
    )
    fig.update_xaxes(tickfont={"size": 9}, tickangle=-60)
    return fig.update_yaxes(autorange="reversed", tickfont={"size": 9})


def token_norms(maps: npt.ArrayLike) -> Map:
    """Return the length of the vector at each spatial position.

    Parameters
    ----------
    maps : array-like, shape (channels, height, width)

    Returns
    -------
    ndarray, shape (height, width)

    Examples
    --------
    >>> token_norms([[[3.0]], [[4.0]]]).tolist()
    [[5.0]]
    """
    norms: Map = np.linalg.norm(np.asarray(maps, dtype=np.float64), axis=0)
    return norms


def token_similarity(maps: npt.ArrayLike, row: int, column: int, others: npt.ArrayLike | None = None) -> Map:
    """Return the cosine similarity of one spatial position to all positions of a map.

    Parameters
    ----------
    maps : array-like, shape (channels, height, width)
        Holds the position.
    row, column : int
        Where it is, counted from 0.
    others : array-like, shape (channels, height, width), optional
        What it is compared with; by default `maps`.

    Returns
    -------
    ndarray, shape (height, width)
        From -1 to 1.

    Raises
    ------
    BadInputError
        If the map has no such position.

    Examples
    --------
    >>> token_similarity([[[1.0, 0.0]], [[0.0, 2.0]]], 0, 0).tolist()
    [[1.0, 0.0]]
    """
    own = np.asarray(maps, dtype=np.float64)
    if not (0 <= row < own.shape[1] and 0 <= column < own.shape[2]):
        raise BadInputError(
            f"There is no position in row {row}, column {column}: the map has {own.shape[1]} × {own.shape[2]}, "
            "counted from 0."
        )
    vector, all_vectors = own[:, row, column], own if others is None else np.asarray(others, dtype=np.float64)
    lengths = np.linalg.norm(vector) * np.linalg.norm(all_vectors, axis=0)
    similarity: Map = np.einsum("c,chw->hw", vector, all_vectors) / np.maximum(lengths, 1e-12)
    return similarity


def token_maps(
    norms: npt.ArrayLike,
    similarities: Mapping[str, npt.ArrayLike],
    token: tuple[int, int],
    *,
    title: str = "Spatial positions of a block",
    subtitle: str = "",
) -> go.Figure:
    """Draw the norms of a map's positions, and one position's cosine similarity to others, side by side.

    Parameters
    ----------
    norms : array-like, shape (height, width)
        From `token_norms`.
    similarities : mapping of str to array-like (height, width)
        From `token_similarity`; the key goes above each.
    token : (int, int)
        Row and column of the position, marked in the norms and in the first map.
    title, subtitle : str

    Examples
    --------
    >>> fig = token_maps([[5.0, 1.0]], {"this image": [[1.0, 0.2]]}, (0, 0))
    >>> [trace.type for trace in fig.data]
    ['heatmap', 'heatmap', 'scatter', 'scatter']
    """
    names = ["length (norm)", *escaped(similarities)]
    arrays = [np.asarray(one) for one in (norms, *similarities.values())]
    fig = make_subplots(cols=len(names), subplot_titles=names, horizontal_spacing=0.11)
    for i, array in enumerate(arrays):
        colours = {"colorscale": DIVERGING, "zmin": -1, "zmax": 1} if i else {"colorscale": SCALE}
        axis = f"x{i + 1 if i else ''}"
        right = fig.layout[axis.replace("x", "xaxis")].domain[1] + 0.004
        bar = {"x": right, "xanchor": "left", "thickness": 10, "len": 0.6, "title_text": "" if i else "norm"}
        fig.add_heatmap(
            z=array,
            **colours,
            showscale=i < 2,
            colorbar=bar,
            hovertemplate="row %{y}, column %{x}: %{z:.3f}<extra></extra>",
            row=1,
            col=i + 1,
        )
        fig.update_yaxes(autorange="reversed", scaleanchor=axis, row=1, col=i + 1)
    cross = {"symbol": "x-thin", "size": 14, "line": {"width": 4, "color": "#CC79A7"}}
    mark = {"x": [token[1]], "y": [token[0]], "mode": "markers", "marker": cross}
    for column in (1, 2):
        fig.add_scatter(**mark, hoverinfo="skip", showlegend=False, row=1, col=column)
    text = heading(title, [subtitle] if subtitle else [])
    fig.update_layout(
        template="ldm_kit", title_text=text, width=860, height=380, margin={"t": 110, "l": 40, "r": 20}
    )
    axes = {
        "constrain": "domain",
        "showline": False,
        "ticks": "",
        "showgrid": False,
        "nticks": 8,
        "tickfont_size": 9,
    }
    return fig.update_xaxes(**axes).update_yaxes(**axes)
