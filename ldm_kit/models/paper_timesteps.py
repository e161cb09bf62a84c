"""The timesteps that the paper ended up with: its img2img call rounds where the schedule does not."""

from __future__ import annotations

import copy
from typing import Any

from ldm_kit.errors import BadInputError, unknown_name
from ldm_kit.models.noise import check_level

# The steps of the paper's img2img call (Linhardt et al. 2024).
PAPER_STEPS = 100
TIMESTEPS = ("exact", "linhardt2024")


def paper_timestep(level: float, scheduler: Any) -> float:
    """Give the timestep that the paper's img2img call of 100 steps ended up with at a strength.

    Parameters
    ----------
    level : float
        A whole percent, 0.01 to 1: the call's strength.
    scheduler : diffusers scheduler
        The model's own; a copy is asked, so that it carries nothing from one call to the next.

    Returns
    -------
    int or float
        For n percent PNDM gives 10·n + 1, DDIM and Euler 10·n − 9 (T = 1000, "leading" steps, offset 1). Exceptions
        that are the call's own: ``int(100 * strength)`` is one short at 29, 57 and 58 percent, and PNDM,
        which repeats its second step, gives 981 at 99 and 991 at 100.

    Raises
    ------
    BadInputError
        If the level is not a whole percent, or 0, at which the call takes no step.

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
    scheduler.set_timesteps(PAPER_STEPS)
    # The rule of diffusers' img2img pipelines, truncation included.
    start = PAPER_STEPS - min(int(PAPER_STEPS * (percent / 100)), PAPER_STEPS)
    timestep = float(scheduler.timesteps[start * scheduler.order])
    return int(timestep) if timestep.is_integer() else timestep


def check_timesteps(timesteps: str, img2img: bool, family: str) -> None:
    """Raise unless `timesteps` is a way of picking them that the family has.

    Examples
    --------
    >>> check_timesteps("linhardt2024", False, "Flux")
    Traceback (most recent call last):
        ...
    ldm_kit.errors.BadInputError: timesteps='linhardt2024' means what Stable Diffusion's img2img call does; for \
Flux there is no such thing. Use timesteps='exact'.
    """
    if timesteps not in TIMESTEPS:
        raise unknown_name("way to pick timesteps", timesteps, TIMESTEPS, "Choose one of these.")
    if timesteps == "linhardt2024" and not img2img:
        raise BadInputError(
            "timesteps='linhardt2024' means what Stable Diffusion's img2img call does; for "
            f"{family} there is no such thing. Use timesteps='exact'."
        )
