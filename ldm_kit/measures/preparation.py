"""What is done to features before a probe sees them, fitted on training objects alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ldm_kit.errors import BadInputError, MismatchError

Matrix = npt.NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class Preparation:
    """Subtract a mean, divide by a scale, and (with PCA) keep the leading components.

    Attributes
    ----------
    mean : ndarray, shape (d,)
    scale : ndarray, shape (d,)
        One number repeated, or each dimension's standard deviation times one number.
    components : ndarray, shape (d, k), or None
        PCA axes.

    Examples
    --------
    >>> X = np.array([[0.0, 0.0], [2.0, 0.0]])
    >>> Preparation.fit(X)(X).tolist()
    [[-1.0, 0.0], [1.0, 0.0]]
    """

    mean: Matrix
    scale: Matrix
    components: Matrix | None = None

    @classmethod
    def fit(cls, X: Matrix, *, standardise: bool = False, n_components: int | None = None) -> Preparation:
        """Fit on the training objects, so that their mean squared norm becomes 1.

        Parameters
        ----------
        X : ndarray, shape (n, d)
        standardise : bool
            Give each dimension unit variance first; dimensions that don't vary are left alone.
        n_components : int, optional
            Keep this many principal components.

        Raises
        ------
        BadInputError
            If all rows are equal, or there are fewer rows or dimensions than components.
        """
        mean = X.mean(axis=0, dtype=np.float64)
        centred = X - mean
        scale = np.ones(X.shape[1])
        if standardise:
            deviation = centred.std(axis=0)
            scale[deviation > 1e-6 * deviation.max(initial=0)] = deviation[
                deviation > 1e-6 * deviation.max(initial=0)
            ]
            centred = centred / scale
        norm = np.sqrt(np.mean(np.sum(centred**2, axis=1))) if len(X) else 0.0
        if not norm > 1e-7 * np.sqrt(np.mean(np.sum((X / scale).astype(np.float64) ** 2, axis=1))):
            raise BadInputError(
                f"The features of the {len(X)} training objects are all the same, so there is nothing to learn. "
                "Check the extraction, or choose another cell."
            )
        scale = scale * norm
        components = None
        if n_components is not None:
            if not 1 <= n_components <= min(X.shape):
                raise BadInputError(
                    f"n_components={n_components}, but the training features are {X.shape[0]} objects × "
                    f"{X.shape[1]} dimensions. Use 1 to {min(X.shape)}, or None for all."
                )
            components = principal_axes(centred / norm, n_components).astype(X.dtype)
        return cls(mean.astype(X.dtype), scale.astype(X.dtype), components)

    def __call__(self, X: Matrix) -> Matrix:
        """Prepare the rows of `X`, fitted on or not."""
        if X.shape[1] != len(self.mean):
            raise MismatchError(
                f"The features have {X.shape[1]} dimensions, the probe was fitted on {len(self.mean)}. "
                "Give features of the same block and pooling."
            )
        out = (X - self.mean) / self.scale
        return out if self.components is None else out @ self.components

    @property
    def width(self) -> int:
        """Dimensions of the prepared features."""
        return len(self.mean) if self.components is None else self.components.shape[1]


def principal_axes(centred: Matrix, k: int) -> Matrix:
    """The leading `k` principal axes of centred rows, from the smaller of the two Gram matrices.

    Parameters
    ----------
    centred : ndarray of float64, shape (n, d)
    k : int
        At most min(n, d). Axes without variance are arbitrary, but orthonormal.

    Returns
    -------
    ndarray, shape (d, k)

    Examples
    --------
    >>> abs(principal_axes(np.array([[1.0, 0.0], [-1.0, 0.0]]), 1)).round(6).ravel().tolist()
    [1.0, 0.0]
    """
    n, d = centred.shape
    if d <= n:
        axes: Matrix = np.linalg.eigh(centred.T @ centred)[1][:, ::-1][:, :k]
        return axes
    values, vectors = np.linalg.eigh(centred @ centred.T)
    leading = np.argsort(values)[::-1][:k]
    # through QR, so that axes without variance come out orthonormal as well
    basis, triangle = np.linalg.qr(centred.T @ vectors[:, leading])
    signs = np.where(np.diag(triangle) < 0, -1.0, 1.0)
    return basis * signs
