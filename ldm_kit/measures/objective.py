"""The probe's objective: softmax cross-entropy of the kept pairs, and its gradient through S = ZZᵀ.

Muttenthaler et al. 2023 (*Human alignment of neural network representations*, eq. 2 and 3) minimise, over
triplets with kept pair (a, b) and odd one c and with Z = XW + b,

    mean of -log( exp(z_a·z_b) / (exp(z_a·z_b) + exp(z_a·z_c) + exp(z_b·z_c)) )  +  λ ‖W‖_F.

All dot products are entries of S = ZZᵀ, so the loss and G = ∂L/∂S take one pass of gathers and scatters over
the triplets, and ∂L/∂Z = (G + Gᵀ)Z, ∂L/∂W = Xᵀ ∂L/∂Z: matrix products whose cost does not depend on them.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ldm_kit.errors import unknown_name
from ldm_kit.measures import kernels
from ldm_kit.measures.grouped import Grouped
from ldm_kit.measures.threads import in_threads

Matrix = npt.NDArray[np.floating]

PENALTIES = ("frobenius", "squared", "identity")


def cross_entropy(S: Matrix, groups: Grouped) -> float:
    """Mean cross-entropy of the kept pairs under the softmax over the three similarities.

    Parameters
    ----------
    S : ndarray, shape (n, n)
    groups : Grouped

    Examples
    --------
    >>> round(cross_entropy(np.zeros((3, 3)), Grouped(np.array([[0, 1, 2]]), 3)), 6)  # log 3
    1.098612
    """
    S = np.ascontiguousarray(S)
    parts = in_threads(
        lambda part: kernels.softmax_loss_only(S, *groups.loops, part[0], part[1]), groups.parts
    )
    return float(sum(parts)) / max(len(groups), 1)


def cross_entropy_slope(Z: Matrix, groups: Grouped) -> tuple[float, Matrix]:
    """Mean cross-entropy, and its derivative by Z.

    Parameters
    ----------
    Z : ndarray, shape (n, k)
    groups : Grouped

    Returns
    -------
    (float, ndarray (n, k))

    Examples
    --------
    >>> loss, slope = cross_entropy_slope(np.eye(3), Grouped(np.array([[0, 1, 2]]), 3))
    >>> round(loss, 4), slope.round(3).tolist()[2]
    (1.0986, [0.333, 0.333, 0.0])
    """
    S = Z @ Z.T

    def work(part: tuple[int, int]) -> tuple[float, Matrix]:
        G = np.zeros_like(S)
        return kernels.softmax_loss(S, *groups.loops, part[0], part[1], G), G

    done = in_threads(work, groups.parts)
    G = done[0][1]
    for _, more in done[1:]:
        G += more
    G = G + G.T
    t = max(len(groups), 1)
    slope = G @ Z
    slope /= S.dtype.type(t)
    return float(sum(loss for loss, _ in done)) / t, slope


def penalty(W: Matrix, beta: float, extra: int, kind: str) -> tuple[float, Matrix, float]:
    """Size of the transform, and its derivatives.

    Parameters
    ----------
    W : ndarray, shape (r, k)
        The transform within the span of the training objects.
    beta : float
        Its value on the `extra` dimensions outside that span, where it is ``beta`` times the identity.
    extra : int
        How many dimensions lie outside.
    kind : {"frobenius", "squared", "identity"}
        ‖W‖_F; ‖W‖²_F; or ‖W - mI‖²_F with m the mean of the diagonal (gLocal, Muttenthaler et al. 2023,
        *Improving neural network representations using human similarity judgments*, eq. 4).

    Returns
    -------
    (float, ndarray (r, k), float)
        Value, derivative by W, derivative by beta.

    Examples
    --------
    >>> penalty(np.diag([3.0, 4.0]), 0.0, 0, "frobenius")[0]
    5.0
    """
    if kind not in PENALTIES:
        raise unknown_name("penalty", kind, PENALTIES, "Pick one of these.")
    if kind == "identity":
        inside = min(W.shape)
        m = (float(np.trace(W)) + beta * extra) / max(inside + extra, 1)
        W = W.copy()
        W[np.arange(inside), np.arange(inside)] -= W.dtype.type(m)
        beta -= m
    square = float(np.vdot(W, W)) + beta**2 * extra
    if kind == "frobenius":
        norm = max(float(np.sqrt(square)), 1e-30)
        return norm, W / W.dtype.type(norm), beta * extra / norm
    return square, 2 * W, 2 * beta * extra
