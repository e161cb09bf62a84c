"""Noise that depends on the seed and the stimulus's name alone, and the levels it is added at."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ldm_kit.errors import BadInputError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class NoiseLevel:
    """One noise level told four ways.

    Parameters
    ----------
    level : float
        Position in the training schedule, 0 (its least noise) to 1 (its most). In a variance-preserving schedule level 0
        is timestep 0, which has a little noise, and level 1 may leave some signal; with flow matching, where the level
        is sigma, 0 is clean and 1 is noise. `signal_share` tells how much is left.
    timestep : int or float
        The denoiser's own step, 0 to T - 1; with flow matching ``sigma * T``, which need not be whole.
    sigma : float
        Standard deviation of the noise over that of the signal, sqrt((1 - ᾱ) / ᾱ); with flow matching
        the noise's share, 0 to 1.
    signal : float
        What the clean latent is multiplied with: sqrt(ᾱ), or ``1 - sigma`` with flow matching.
    noise : float
        What the noise is multiplied with: sqrt(1 - ᾱ), or ``sigma`` with flow matching.

    Examples
    --------
    >>> NoiseLevel(0.5, 500, 1.0, 0.7071, 0.7071).timestep
    500
    """

    level: float
    timestep: float
    sigma: float
    signal: float
    noise: float

    @property
    def signal_share(self) -> float:
        """The signal's share of the variance of what the denoiser is shown, 0 to 1.

        ``signal² / (signal² + noise²)``, for latents and noise of variance 1: ᾱ in a variance-preserving schedule,
        and comparable between kinds of schedule.
        """
        return self.signal**2 / (self.signal**2 + self.noise**2)


def draw_noise(name: str, shape: Sequence[int], seed: int = 0, draw: int = 0) -> npt.NDArray[np.float32]:
    """Draw the noise of one stimulus: standard normal, the same on every machine.

    Parameters
    ----------
    name : str
        The stimulus's name.
    shape : sequence of int
        Shape of one latent, (channels, height, width).
    seed : int
        The request's seed.
    draw : int
        Which of several draws, when features are averaged over draws.

    Returns
    -------
    ndarray of float32
        The same draw for every noise level, block, conditioning, batch size, order and device. A
        counter-based generator (Philox) is keyed by a hash, so that no draw depends on another one.

    Examples
    --------
    >>> bool((draw_noise("apple.png", (4, 2, 2)) == draw_noise("apple.png", (4, 2, 2))).all())
    True
    """
    digest = hashlib.sha256(f"{seed}\n{draw}\n{name}".encode()).digest()
    generator = np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))
    return generator.standard_normal(tuple(shape), dtype=np.float32)


def variance_preserving_level(
    level: float, alphas_cumprod: npt.NDArray[np.float64], timestep: float | None = None
) -> NoiseLevel:
    """Place a noise level in a variance-preserving schedule (DDPM, and all that sample from it).

    Parameters
    ----------
    level : float
        0 to 1.
    alphas_cumprod : ndarray, shape (T,)
        ᾱ of the training schedule (Ho et al. 2020, eq. 4).
    timestep : int or float, optional
        Takes the place of the level's own; see `ldm_kit.models.paper_timesteps`. Between two whole ones, the noise's
        standard deviation is interpolated as Euler's sampler does.

    Returns
    -------
    NoiseLevel
        With ``timestep = min(T - 1, round(level * T))``. The denoiser's input is
        ``signal * latent + noise * draw``. Samplers that scale differently (Euler's sigma space)
        give the network this same input after their `scale_model_input`, so none is needed here.

    Raises
    ------
    BadInputError
        If `level` is not within 0–1.

    Examples
    --------
    >>> variance_preserving_level(0.5, np.linspace(0.999, 0.001, 1000)).timestep
    500
    """
    check_level(level)
    steps = len(alphas_cumprod)
    if timestep is None:
        timestep = min(steps - 1, round(level * steps))
    if float(timestep).is_integer():
        timestep = int(timestep)
        alpha = float(alphas_cumprod[timestep])
    else:
        sigmas = ((1 - alphas_cumprod) / alphas_cumprod) ** 0.5
        alpha = 1 / (1 + float(np.interp(timestep, np.arange(steps), sigmas)) ** 2)
    sigma = ((1 - alpha) / alpha) ** 0.5 if alpha > 0 else float("inf")
    return NoiseLevel(float(level), timestep, sigma, alpha**0.5, (1 - alpha) ** 0.5)


def flow_matching_level(level: float, steps: int = 1000) -> NoiseLevel:
    """Place a noise level in flow matching (rectified flow; Lipman et al. 2023): the level *is* sigma.

    Parameters
    ----------
    level : float
        0 to 1.
    steps : int
        T, what the denoiser's timestep counts to.

    Returns
    -------
    NoiseLevel
        With ``sigma = noise = level``, ``signal = 1 - level`` and ``timestep = level * T``, not rounded. The
        scheduler's ``shift`` moves which sigmas a sampler visits, not what a sigma means to the network:
        it plays no part here.

    Raises
    ------
    BadInputError
        If `level` is not within 0–1.

    Examples
    --------
    >>> flow_matching_level(0.25)
    NoiseLevel(level=0.25, timestep=250.0, sigma=0.25, signal=0.75, noise=0.25)
    """
    check_level(level)
    sigma = float(level)
    return NoiseLevel(sigma, round(sigma * steps, 6), sigma, 1 - sigma, sigma)


def clean_from_prediction(kind: str, noised: Tensor, prediction: Tensor, level: NoiseLevel) -> Tensor:
    """Turn a denoiser's prediction into its estimate of the clean latent.

    Parameters
    ----------
    kind : {"epsilon", "v_prediction", "sample", "flow"}
        What it predicts: the noise, the velocity of Salimans & Ho (2022, appendix D), the clean latent, or
        flow matching's velocity (noise minus clean latent).
    noised, prediction : Tensor, same shape
    level : NoiseLevel
        Where `noised` is.

    Returns
    -------
    Tensor
        For ``"epsilon"`` infinite or NaN where the level leaves no signal.

    Raises
    ------
    BadInputError
        For another kind.

    Examples
    --------
    >>> import torch
    >>> clean_from_prediction("flow", torch.ones(1), torch.ones(1), flow_matching_level(0.25))
    tensor([0.7500])
    """
    if kind == "epsilon":
        return (noised - level.noise * prediction) / level.signal
    if kind == "v_prediction":
        return level.signal * noised - level.noise * prediction
    if kind == "sample":
        return prediction
    if kind == "flow":
        return noised - level.sigma * prediction
    raise BadInputError(f"The scheduler predicts {kind!r}; known are epsilon, v_prediction, sample and flow.")


def check_level(level: float) -> None:
    """Raise unless `level` is a number within 0–1.

    Examples
    --------
    >>> check_level(30)
    Traceback (most recent call last):
        ...
    ldm_kit.errors.BadInputError: Noise level 30 is outside 0 to 1. It is a position in the \
training schedule: for 30 percent write 0.3, for timestep 30 of 1000 write 0.03.
    """
    if isinstance(level, bool) or not isinstance(level, (int, float, np.number)):
        raise BadInputError(
            f"Noise level {level!r} is not a number. Give numbers from 0 to 1, positions in the training schedule."
        )
    if not 0 <= level <= 1:
        raise BadInputError(
            f"Noise level {level:g} is outside 0 to 1. It is a position in the training schedule: "
            f"for {level:g} percent write {level / 100:g}, for timestep {level:g} of 1000 write {level / 1000:g}."
        )
