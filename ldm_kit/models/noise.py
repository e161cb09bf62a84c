"""Noise that depends on the seed and the stimulus's name alone, and the noise levels and timesteps it is added at."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ldm_kit.errors import BadInputError, one_of

if TYPE_CHECKING:
    from torch import Tensor

# The steps of the img2img call of Linhardt et al. (2024).
_PAPER_STEPS = 100
TIMESTEPS = ("exact", "linhardt2024")


@dataclass(frozen=True)
class NoiseLevel:
    """One noise level in four notations.

    Parameters
    ----------
    level : float
        Position in the training schedule, 0 (its least noise) to 1 (its most). In a variance-preserving schedule level 0
        is timestep 0, which has a little noise, and level 1 may leave some signal; with flow matching, where the level
        is sigma, 0 is clean and 1 is noise. `signal_share` is how much is left.
    timestep : int or float
        The denoiser's own step, 0 to T - 1; with flow matching ``sigma * T``, which need not be whole.
    sigma : float
        Standard deviation of the noise over that of the signal, sqrt((1 - ᾱ) / ᾱ); with flow matching
        the noise's share, 0 to 1.
    signal : float
        Factor of the clean latent: sqrt(ᾱ), or ``1 - sigma`` with flow matching.
    noise : float
        Factor of the noise: sqrt(1 - ᾱ), or ``sigma`` with flow matching.

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
        """The signal's share of the variance of the denoiser's input, 0 to 1.

        ``signal² / (signal² + noise²)``, for latents and noise of variance 1: ᾱ in a variance-preserving schedule,
        and comparable between kinds of schedule.
        """
        return self.signal**2 / (self.signal**2 + self.noise**2)


def draw_noise(name: str, shape: Sequence[int], seed: int = 0, draw: int = 0) -> npt.NDArray[np.float32]:
    """Sample the noise of one stimulus: standard normal, the same on every machine.

    A counter-based generator (Philox) is keyed by a hash of seed, sample number and the stimulus's name, so that no
    sample depends on another one, nor on level, block, conditioning, batch size, order or device.

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

    ``timestep = min(T - 1, round(level * T))``, unless `timestep` is passed; between two whole timesteps the noise's
    standard deviation is interpolated as Euler's sampler does. The denoiser's input is ``signal * latent +
    noise * sample`` (Ho et al. 2020, eq. 4). Samplers that scale differently (Euler's sigma space) pass the network
    this same input after their `scale_model_input`, so none is needed here.

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

    The scheduler's ``shift`` moves which sigmas a sampler visits, not what a sigma means to the network, and is
    not used here.

    Examples
    --------
    >>> flow_matching_level(0.25)
    NoiseLevel(level=0.25, timestep=250.0, sigma=0.25, signal=0.75, noise=0.25)
    """
    check_level(level)
    sigma = float(level)
    return NoiseLevel(sigma, round(sigma * steps, 6), sigma, 1 - sigma, sigma)


def paper_timestep(level: float, scheduler: Any) -> float:
    """Return the timestep at which the img2img call of Linhardt et al. (2024) starts, 100 steps at this strength.

    For n percent PNDM starts at 10·n + 1, DDIM and Euler 10·n − 9 (T = 1000, "leading" steps, offset 1). Exceptions
    that are the call's own: ``int(100 * strength)`` is one short at 29, 57 and 58 percent, and PNDM,
    which repeats its second step, starts at 981 at 99 and 991 at 100. The scheduler itself stays as it was.

    Examples
    --------
    >>> from diffusers import DDIMScheduler
    >>> paper_timestep(0.3, DDIMScheduler(steps_offset=1))
    291
    """
    check_level(level)
    percent = round(float(level) * 100)
    if percent == 0 or abs(float(level) * 100 - percent) > 1e-6:
        raise BadInputError(
            f"Noise level {level:g} with timesteps='linhardt2024': give whole percents from 0.01 to 1, such as "
            f"{max(1, percent) / 100:g}; the paper's call takes 100 steps. timesteps='exact' takes any level."
        )
    scheduler = copy.deepcopy(scheduler)
    scheduler.set_timesteps(_PAPER_STEPS)
    # The rule of diffusers' img2img pipelines, truncation included.
    start = _PAPER_STEPS - min(int(_PAPER_STEPS * (percent / 100)), _PAPER_STEPS)
    timestep = float(scheduler.timesteps[start * scheduler.order])
    return int(timestep) if timestep.is_integer() else timestep


def check_timesteps(timesteps: str, img2img: bool, family: str) -> None:
    """Raise unless `timesteps` is a way of choosing them that the family has."""
    one_of("way to choose timesteps", timesteps, TIMESTEPS)
    if timesteps == "linhardt2024" and not img2img:
        raise BadInputError(
            "timesteps='linhardt2024' means what Stable Diffusion's img2img call does; for "
            f"{family} there is no such thing. Use timesteps='exact'."
        )


def clean_from_prediction(kind: str, noised: Tensor, prediction: Tensor, level: NoiseLevel) -> Tensor:
    """Compute predicted x₀, the clean latent that a denoiser's prediction implies.

    `kind` is the scheduler's ``prediction_type``: the noise, the velocity of Salimans & Ho (2022, appendix D), or the
    clean latent; ``"flow"`` is flow matching's velocity, noise minus clean latent. With ``"epsilon"`` the result is
    infinite or NaN where the level leaves no signal.

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
    """Raise unless `level` is a number within 0–1."""
    if isinstance(level, bool) or not isinstance(level, (int, float, np.number)):
        raise BadInputError(
            f"Noise level {level!r} is not a number. Pass numbers from 0 to 1, positions in the training schedule."
        )
    if not 0 <= level <= 1:
        raise BadInputError(
            f"Noise level {level:g} is outside 0 to 1. It is a position in the training schedule: "
            f"for {level:g} percent write {level / 100:g}, for timestep {level:g} of 1000 write {level / 1000:g}."
        )
