"""Look at one stimulus inside the model: what it is shown, what it guesses, what a block holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from ldm_kit.datasets.stimuli import Stimuli
from ldm_kit.models.opened import OpenedModel


@dataclass(frozen=True, eq=False)
class Look:
    """One forward pass on one stimulus, to be seen.

    Parameters
    ----------
    stimulus : str
    level : float
        Noise level, 0–1.
    timestep : int or float
    block : str
    noised : PIL.Image
        The noised latent, decoded.
    estimate : PIL.Image
        The model's estimate of the clean picture from that latent, in one step.
    maps : ndarray, shape (channels, height, width)
        What the block held; tokens are given as (channels, tokens, 1).
    """

    stimulus: str
    level: float
    timestep: float
    block: str
    noised: Image.Image
    estimate: Image.Image
    maps: npt.NDArray[np.float32]


def look(
    model: OpenedModel,
    stimuli: Stimuli,
    name: str,
    noise_levels: Sequence[float],
    block: str,
    prompt: str = "",
    seed: int = 0,
) -> list[Look]:
    """Look at a stimulus at some noise levels, with the very noise that `extract` adds.

    Parameters
    ----------
    model : OpenedModel
    stimuli : Stimuli
    name : str
        The stimulus's name, or a concept with one picture.
    noise_levels : sequence of float
    block : str
        One block.
    prompt : str
        What the text encoder is given.
    seed : int

    Returns
    -------
    list of Look
        One a noise level.

    Raises
    ------
    UnknownNameError
        If there is no such stimulus or block.

    Examples
    --------
    >>> lk.look(model, data.stimuli, "apple", [0.3], "mid_block")[0].estimate  # doctest: +SKIP
    """
    (path,) = model.select_blocks(block)[-1:]
    name = stimuli.names[stimuli.index(name)]
    latent = model.encode([stimuli.open(name)])
    noise, text = model.noise([name], seed), model.texts([prompt])
    looks = []
    for level in map(model.level, noise_levels):
        noised = model.add_noise(latent, noise, level)
        held = model.watch(noised, level, text, [path]).seen[path][0].float().cpu().numpy()
        estimate = model.clean_estimate(noised, model.denoise(noised, level, text), level)
        maps = held if held.ndim == 3 else held.T[:, :, None]
        shown = model.decode(noised)[0], model.decode(estimate)[0]
        looks.append(Look(name, level.level, level.timestep, path, *shown, maps))
    return looks
