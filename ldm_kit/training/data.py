"""What the model is trained on, Toybox images and their captions as arrays, and the tokenizer learnt from the captions.

Exemplar 0 of every object is left out, always: it is the evaluation image.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from tqdm.auto import tqdm
from transformers import CLIPTokenizer

from ldm_kit.datasets import toybox
from ldm_kit.errors import BadInputError, whole_number

MAX_LENGTH = 32  # tokens of a prompt
_MERGES = 600  # bytes inside a word, and pairs merged; the 256 bytes at the end of a word come on top
_START, _END = "<|startoftext|>", "<|endoftext|>"


@dataclass(frozen=True)
class TrainingImages:
    """Rendered images, each with several captions.

    Attributes
    ----------
    pixels : ndarray of uint8, shape (n, 64, 64, 3)
    objects : tuple of str, length n
        What each image shows.
    captions : tuple of tuple of str, n by variants
    """

    pixels: npt.NDArray[np.uint8]
    objects: tuple[str, ...]
    captions: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.objects)


def draw(
    exemplars: int,
    *,
    seed: int = 0,
    variants: int = 6,
    first: int = 1,
    objects: Sequence[str] | None = None,
) -> TrainingImages:
    """Render training images: for each object, exemplars ``first`` to ``first + exemplars - 1``.

    Parameters
    ----------
    exemplars : int
        Images an object.
    seed : int, default 0
        Toybox's seed.
    variants : int, default 6
        Captions an image; about half of them are the plain label prompt.
    first : int, default 1
        First exemplar; a later one gives held-out images.
    objects : sequence of str, optional
        All of Toybox by default.

    Returns
    -------
    TrainingImages
        Exemplar by exemplar, each of all objects.

    Raises
    ------
    BadInputError
        If `first` or `exemplars` is below 1: exemplar 0 is for evaluation.

    Examples
    --------
    >>> draw(2, objects=["apple", "cat"]).pixels.shape
    (4, 64, 64, 3)
    """
    whole_number("exemplars", exemplars, 1)
    if first < 1:
        raise BadInputError(f"first={first}: exemplar 0 is the evaluation image, which no training may see.")
    objects = toybox.names() if objects is None else objects
    which = [(name, exemplar) for exemplar in range(first, first + exemplars) for name in objects]
    bar = tqdm(which, desc="drawing", mininterval=2.0)
    return TrainingImages(
        np.stack([np.asarray(toybox.render(name, exemplar, seed)) for name, exemplar in bar]),
        tuple(name for name, _ in which),
        tuple(tuple(toybox.caption(*one, seed, variant) for variant in range(variants)) for one in which),
    )


def as_input(pixels: npt.NDArray[np.uint8]) -> torch.Tensor:
    """Return pixels as the networks take them: float32 from -1 to 1, channels first."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1


def as_pixels(tensor: torch.Tensor) -> npt.NDArray[np.uint8]:
    """Return what a network paints, ``(n, 3, h, w)`` from -1 to 1, as ``(n, h, w, 3)`` of uint8.

    Examples
    --------
    >>> pixels = np.arange(48, dtype=np.uint8).reshape(1, 4, 4, 3)
    >>> bool((as_pixels(as_input(pixels)) == pixels).all())
    True
    """
    scaled = ((tensor.detach().float().cpu() + 1) * 127.5).round().clamp(0, 255)
    return scaled.to(torch.uint8).permute(0, 2, 3, 1).numpy()


def training_vocabulary(captions: Iterable[str]) -> list[str]:
    """Return the words of the captions, sorted: a word outside them means nothing to the model.

    Parameters
    ----------
    captions : iterable of str

    Returns
    -------
    list of str

    Examples
    --------
    >>> training_vocabulary(["a photo of a cat", "a red t-shirt"])
    ['a', 'cat', 'of', 'photo', 'red', 'shirt', 't']
    """
    return sorted({word for text in captions for word in re.findall(r"[a-z]+", text.lower())})


def build_tokenizer(captions: Sequence[str]) -> CLIPTokenizer:
    """Learn a vocabulary of CLIP's kind (byte-level pairs, ``</w>`` at word ends) of a few hundred tokens.

    Any text can be spelled with it, and words of the captions are single tokens.

    Parameters
    ----------
    captions : sequence of str
        Training captions.

    Returns
    -------
    transformers.CLIPTokenizer
        Padding to 32 tokens.

    Examples
    --------
    >>> build_tokenizer(["a photo of a cat"]).tokenize("a cat")
    ['a</w>', 'cat</w>']
    """
    learner = Tokenizer(models.BPE(unk_token=None, end_of_word_suffix="</w>", continuing_subword_prefix=""))
    learner.normalizer = normalizers.Lowercase()
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    learner.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    endings = [letter + "</w>" for letter in alphabet]
    learner.train_from_iterator(
        sorted(set(captions)),
        trainers.BpeTrainer(
            vocab_size=_MERGES + len(endings),
            # Numbered beforehand: otherwise in the order of a random hash, by which equally frequent pairs
            # would be merged in another order each time.
            special_tokens=endings,
            min_frequency=1,
            show_progress=False,
            end_of_word_suffix="</w>",
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    tokens = dict.fromkeys([*alphabet, *endings, *map("".join, merges), _START, _END])
    return CLIPTokenizer(
        vocab={token: index for index, token in enumerate(tokens)},
        merges=merges,
        unk_token=_END,
        bos_token=_START,
        eos_token=_END,
        pad_token=_END,
        model_max_length=MAX_LENGTH,
    )
