"""The probing protocol of Linhardt et al. 2024, for comparison with published numbers. It peeks.

What it does otherwise than ours (read from the paper's public code): features are standardised by one mean and
one standard deviation of *all* objects, PCA is fitted on all objects, the held-out fold's cross-entropy decides
when to stop (and here which λ is taken), and the same fold is reported. A held-out triplet is right only if the
kept pair's probability is the largest and equals no other after rounding to two decimals.
Not reproduced: minibatches of Adam from small random weights; the solver and its start are ours.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from sklearn.base import clone

from ldm_kit.errors import BadInputError
from ldm_kit.measures.descent import Descent
from ldm_kit.measures.grouped import Grouped
from ldm_kit.measures.linear_probe import LinearProbe
from ldm_kit.measures.preparation import Preparation, principal_axes
from ldm_kit.measures.probe import Matrix, Probe

NAME = "linhardt2024"


def fit(
    probe: Probe,
    X: Matrix,
    train: npt.NDArray[np.int64],
    test: npt.NDArray[np.int64],
    train_triplets: npt.NDArray[np.int64],
    test_triplets: npt.NDArray[np.int64],
) -> LinearProbe:
    """Fit a linear probe on training objects; stop, and choose λ, on the held-out ones.

    Parameters
    ----------
    probe : LinearProbe
        Its settings; `patience`, `lambdas` and `max_iterations` hold, `n_folds` does not.
    X : ndarray, shape (n, d)
        All objects.
    train, test : ndarray of int
        Rows of `X`.
    train_triplets, test_triplets : ndarray of int, shape (t, 3)
        Positions in `train` and in `test`.

    Returns
    -------
    LinearProbe

    Raises
    ------
    BadInputError
        For another kind of probe.
    """
    if not isinstance(probe, LinearProbe):
        raise BadInputError(
            f"protocol={NAME!r} is for a LinearProbe; a {type(probe).__name__} was given. Give a LinearProbe, or "
            "leave `protocol` out."
        )
    probe.check_parameters()
    fitted: LinearProbe = clone(probe)
    preparation = _standardised(X, probe.n_components)
    descent = Descent(preparation(X[train]), train_triplets, penalty=probe.penalty, bias=probe.bias)
    held = descent.held(preparation(X[test]), test_triplets)
    best = (np.inf, 0, descent.start, 0.0)
    for lam in [probe.lam] if probe.lam is not None else probe.lambdas:
        losses: list[float] = []
        iterates: list[Matrix] = []

        def seen(_: int, x: Matrix, losses: list[float] = losses, iterates: list[Matrix] = iterates) -> bool:
            losses.append(held.cross_entropy(x))
            if losses[-1] <= min(losses):
                iterates[:] = [x]
            return len(losses) - 1 - int(np.argmin(losses)) >= probe.patience

        descent.run(float(lam), max_iterations=probe.max_iterations, seen=seen)
        if min(losses) < best[0]:
            best = (min(losses), int(np.argmin(losses)), iterates[0], float(lam))
    _, fitted.n_iter_, x, fitted.lam_ = best
    fitted.n_objects_, fitted.n_features_in_ = len(train), X.shape[1]
    fitted.W_, fitted.b_ = descent.full(x)
    fitted.mean_, fitted.scale_ = preparation.mean, preparation.scale
    fitted.components_ = preparation.components
    return fitted


def scores(S: Matrix, groups: Grouped) -> npt.NDArray[np.float64]:
    """The paper's score of a probe's choices: any tie is wrong, equality after rounding included.

    Parameters
    ----------
    S : ndarray, shape (n, n)
        Dot products of the transformed objects.
    groups : Grouped

    Returns
    -------
    ndarray of float, shape (t,)
        0 or 1, grouped order.

    Examples
    --------
    >>> one = Grouped(np.array([[0, 1, 2]]), 3)
    >>> S = np.array([[0.0, 0.01, 0.0], [0.01, 0.0, 0.0], [0.0, 0.0, 0.0]])
    >>> scores(S, one).tolist(), scores(100 * S, one).tolist()  # 0.34 and 0.33; 0.58 and 0.21
    ([1.0], [1.0])
    >>> scores(0.1 * S, one).tolist()  # 0.33 thrice
    [0.0]
    """
    indices = groups.indices[groups.order]
    a, b, c = indices.T
    logits = np.stack([S[a, b], S[a, c], S[b, c]], axis=1).astype(np.float64)
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    p = np.round(odds / odds.sum(axis=1, keepdims=True), 2)
    right = (logits[:, 0] == logits.max(axis=1)) & (p[:, 0] > p[:, 1]) & (p[:, 0] > p[:, 2])
    score: npt.NDArray[np.float64] = right.astype(np.float64)
    return score


def _standardised(X: Matrix, n_components: int | None) -> Preparation:
    """One mean and one scale for all dimensions and all objects; PCA on all objects."""
    d = X.shape[1]
    mean = np.full(d, X.mean(dtype=np.float64), X.dtype)
    scale = np.full(d, X.std(dtype=np.float64) * np.sqrt(d), X.dtype)
    if not scale[0] > 0:
        raise BadInputError("The features are all the same number. Check the extraction.")
    if n_components is None:
        return Preparation(mean, scale)
    if not 1 <= n_components <= min(X.shape):
        raise BadInputError(f"n_components={n_components} is outside 1 to {min(X.shape)}. Give one inside.")
    centre = X.mean(axis=0, dtype=np.float64).astype(X.dtype)
    axes = principal_axes((X - centre) / scale.astype(np.float64), n_components)
    return Preparation(centre, scale, axes.astype(X.dtype))
