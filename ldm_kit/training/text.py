"""The text encoder, trained as Stable Diffusion's was: contrastively, on pairs of images and captions, before any denoising.

A small CLIP of our own (Radford et al. 2021): an image and two of its captions, encoded apart, are to be more alike than those
of other concepts in the batch. The captions describe (kind, parts, use, place), so that a label's vector comes to hold what its
descriptions say, and not the drawing alone. The temperature is fixed and mild: a sharp one would pull all concepts equally far apart.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import nn
from torch.nn import functional
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from ldm_kit.training.data import TrainingImages, as_input
from ldm_kit.training.loop import pick_device, train

MAX_LENGTH = 32  # tokens of a prompt
_MERGES = 6000  # more than there are: every word of the captions becomes one token
_START, _END = "<|startoftext|>", "<|endoftext|>"
TEXT_WIDTH = 128
_TEMPERATURE = 0.3
_DROPPED = 0.8  # share of a caption's words that are left out, at the most
_NAMES_ONLY = 6  # words of the longest prompt that only names a concept


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
    """Learn a vocabulary of CLIP's kind (byte-level pairs, ``</w>`` at word ends).

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


def tokens_of(tokenizer: CLIPTokenizer, texts: Sequence[str]) -> torch.Tensor:
    """Return padded token numbers, int64 of shape ``(n, 32)``."""
    ids: torch.Tensor = tokenizer(
        list(texts), padding="max_length", max_length=MAX_LENGTH, truncation=True, return_tensors="pt"
    ).input_ids
    return ids


@torch.no_grad()
def encode_text(text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer, texts: Sequence[str]) -> torch.Tensor:
    """Return the text encoder's hidden states, float32 of shape ``(n, 32, width)``, as a denoiser reads them."""
    ids = tokens_of(tokenizer, texts)
    return torch.cat([text_encoder(ids[i : i + 256]).last_hidden_state for i in range(0, len(ids), 256)])


def build_text_encoder(tokenizer: CLIPTokenizer, seed: int = 0) -> CLIPTextModel:
    """Return a fresh CLIP text encoder for a tokenizer."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        intermediate_size=4 * TEXT_WIDTH,
        projection_dim=TEXT_WIDTH,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=MAX_LENGTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        attn_implementation="sdpa",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CLIPTextModel(config)


def build_image_encoder(n_outputs: int, seed: int = 0) -> nn.Module:
    """Return a fresh convolutional network from float32 ``(n, 3, 64, 64)`` to ``(n, n_outputs)``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        for inside, outside in ((3, 24), (24, 48), (48, 96), (96, 160)):
            layers += [
                nn.Conv2d(inside, outside, 3, stride=2, padding=1),
                nn.GroupNorm(8, outside),
                nn.SiLU(),
                nn.Conv2d(outside, outside, 3, padding=1),
                nn.GroupNorm(8, outside),
                nn.SiLU(),
            ]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * 160, n_outputs))


def thin_out(caption: str, rng: np.random.Generator) -> str:
    """Leave out some words of a caption, up to 80 %; a prompt that only names a concept stays whole.

    What is left fits several concepts ("small … lives in … sea"), so that every word comes to mean something, and captions
    that share words come to lie close. Without this the encoder learns captions by heart and pulls all concepts equally far apart.
    """
    words = caption.split()
    if len(words) <= _NAMES_ONLY:
        return caption
    left = rng.random(len(words)) >= _DROPPED * rng.random()
    return " ".join(word for word, stays in zip(words, left, strict=True) if stays) or caption


def contrast(one: torch.Tensor, two: torch.Tensor) -> torch.Tensor:
    """Return CLIP's loss of two ``(n, d)`` encodings of the same `n` things."""
    similarity = functional.normalize(one) @ functional.normalize(two).T / _TEMPERATURE
    target = torch.arange(len(one), device=one.device)
    loss: torch.Tensor = functional.cross_entropy(similarity, target) + functional.cross_entropy(
        similarity.T, target
    )
    return loss / 2


def train_text_encoder(
    images: TrainingImages,
    tokenizer: CLIPTokenizer,
    *,
    out: Path,
    steps: int,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    seed: int = 0,
    save_every: int = 200,
    device: str = "cpu",
) -> tuple[CLIPTextModel, nn.Module, pd.DataFrame]:
    """Train (or go on training) the text encoder beside an image encoder.

    Parameters
    ----------
    images : TrainingImages
        Images and captions; a batch has one image and two captions of each of `batch_size` concepts (or of all, if fewer).
    tokenizer : transformers.CLIPTokenizer
        Of `build_tokenizer`.
    out : pathlib.Path
        Folder of the checkpoint ``text_encoder.safetensors``.
    steps, batch_size, learning_rate, seed, save_every, device
        The recipe, as for `train_autoencoder`.

    Returns
    -------
    text_encoder : transformers.CLIPTextModel
        Averaged weights.
    image_encoder : torch.nn.Module
        From float32 ``(n, 3, 64, 64)`` to vectors beside the text encoder's ``pooler_output``.
    losses : pandas.DataFrame
        Columns ``step`` and ``loss``.

    Examples
    --------
    >>> from ldm_kit.training import draw
    >>> images = draw(1, concepts=["apple", "cat"])
    >>> tokenizer = build_tokenizer([text for several in images.captions for text in several])
    >>> encoder, _, losses = train_text_encoder(images, tokenizer, out=Path("run"), steps=2)
    >>> len(losses)
    2
    """
    place = pick_device(device)
    text_encoder = build_text_encoder(tokenizer, seed).to(place)
    image_encoder = build_image_encoder(TEXT_WIDTH, seed).to(place)
    concepts = list(dict.fromkeys(images.concepts))
    rows_of = [np.flatnonzero(np.array(images.concepts) == concept) for concept in concepts]
    # every distinct caption once: the plain prompt as often as any other here
    texts = [list(dict.fromkeys(images.captions[rows[0]])) for rows in rows_of]

    def loss_of_step(_: int, rng: np.random.Generator, _torch_rng: torch.Generator) -> torch.Tensor:
        chosen = rng.permutation(len(concepts))[:batch_size]
        pixels = images.pixels[[rng.choice(rows_of[c]) for c in chosen]]
        pairs = [rng.choice(len(texts[c]), size=2, replace=False) for c in chosen]
        said = [
            thin_out(texts[c][pair[side]], rng)
            for side in (0, 1)
            for c, pair in zip(chosen, pairs, strict=True)
        ]
        ids = tokens_of(tokenizer, said)
        ids = ids[
            :, : int((ids != tokenizer.pad_token_id).sum(dim=1).max()) + 1
        ]  # what follows the end tells nothing
        first, second = text_encoder(ids.to(place)).pooler_output.chunk(2)
        seen = image_encoder(as_input(pixels).to(place))
        return (contrast(seen, first) + contrast(seen, second) + contrast(first, second)) / 3

    averages, losses = train(
        "text_encoder",
        {"text_encoder": text_encoder, "image_encoder": image_encoder},
        loss_of_step,
        out=out,
        steps=steps,
        learning_rate=learning_rate,
        seed=seed,
        identity={"batch_size": batch_size, "images": list(images.pixels.shape), "tokens": len(tokenizer)},
        save_every=save_every,
    )
    return averages["text_encoder"], averages["image_encoder"], losses
