"""Look at one stimulus inside the model: what it is shown, what it guesses, what a block holds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from ldm_kit.datasets.stimuli import Stimuli
from ldm_kit.models.model import OpenedModel


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
        The clean image that the model predicts from that latent, in one step.
    maps : ndarray, shape (channels, height, width)
        The activation of the block. Tokens are laid out as the square that they are, row by row, or as
        (channels, tokens, 1) if their number is no square.
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
    prompt: str | None = None,
    seed: int = 0,
) -> list[Look]:
    """Look at a stimulus at some noise levels, with the very noise that `extract` adds.

    Parameters
    ----------
    model : OpenedModel
    stimuli : Stimuli
    name : str
        The stimulus's name, or a concept with one image.
    noise_levels : sequence of float
    block : str
        One block.
    prompt : str, optional
        The prompt; None is the conditioning ``"none"``.
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
    >>> lk.look(model, data.stimuli, "apple", [0.3], "mid_block")[0].estimate.size
    (64, 64)
    """
    name = stimuli.names[stimuli.index(name)]
    return list(looks_at(model, stimuli.open(name), name, noise_levels, block, prompt, seed))


def looks_at(
    model: OpenedModel,
    image: Image.Image,
    name: str,
    noise_levels: Sequence[float],
    block: str,
    prompt: str | None = None,
    seed: int = 0,
) -> Iterator[Look]:
    """Look at any image, one noise level at a time, so that one may stop in between.

    Parameters
    ----------
    model : OpenedModel
    image : PIL.Image
        Of any size; scaled and cropped as the model's stimuli are.
    name : str
        Its noise is drawn from this name and the seed.
    noise_levels : sequence of float
    block : str
        One block.
    prompt : str, optional
        As for `look`.
    seed : int

    Yields
    ------
    Look
        One a noise level.

    Raises
    ------
    UnknownNameError
        If there is no such block.

    Examples
    --------
    >>> image = data.stimuli.open("apple.png")
    >>> [view.timestep for view in lk.features.looks_at(model, image, "mine.jpg", [0.1, 0.9], "mid_block")]
    [100, 900]
    """
    (path,) = model.select_blocks(block)[-1:]
    latent, noise, text = model.encode([image]), model.noise([name], seed), model.texts([prompt])
    for level in map(model.level, noise_levels):
        noised = model.add_noise(latent, noise, level)
        held = model.watch(noised, level, text, [path]).seen[path][0].float().cpu().numpy()
        estimate = model.clean_estimate(noised, model.denoise(noised, level, text), level)
        shown = model.decode(noised)[0], model.decode(estimate)[0]
        yield Look(name, level.level, level.timestep, path, *shown, _over_space(held))


def _over_space(held: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Lay tokens, (tokens, channels), out over space; maps are laid out already."""
    if held.ndim == 3:
        return held
    side = math.isqrt(len(held))
    shape = (side, side) if side * side == len(held) else (len(held), 1)
    return held.T.reshape(-1, *shape)
