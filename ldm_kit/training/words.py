"""The tokenizer and the text encoder, both learnt from Toybox's captions alone.

The vocabulary is CLIP's in kind (byte-level pairs, ``</w>`` at word ends) but has a few hundred entries: any text can be
spelled with it, and words of the captions are single tokens. `known_words` says which words those are, since a word that
was never in a caption means nothing to the model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from ldm_kit.files import write_text

__all__ = ["build_text_encoder", "build_tokenizer", "known_words", "tokenize"]

START, END = "<|startoftext|>", "<|endoftext|>"
MAX_LENGTH = 32


def known_words(captions: Iterable[str]) -> list[str]:
    """Words of the captions, sorted.

    Examples
    --------
    >>> known_words(["a photo of a cat", "a red t-shirt"])
    ['a', 'cat', 'of', 'photo', 'red', 'shirt', 't']
    """
    return sorted({word for text in captions for word in re.findall(r"[a-z]+", text.lower())})


def build_tokenizer(captions: Sequence[str], folder: Path, *, vocabulary: int = 600) -> CLIPTokenizer:
    """Learn a byte-level vocabulary from captions and save it as a CLIP tokenizer.

    Parameters
    ----------
    captions : sequence of str
        Training captions.
    folder : pathlib.Path
        Where ``vocab.json``, ``merges.txt`` and the configuration are written.
    vocabulary : int, default 600
        Most bytes inside a word and merges; the 256 bytes at the end of a word come on top.

    Returns
    -------
    transformers.CLIPTokenizer
        Loaded from `folder`, padding to 32 tokens.

    Examples
    --------
    >>> build_tokenizer(["a photo of a cat"], Path("outputs/tokenizer"))  # doctest: +SKIP
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
            vocab_size=vocabulary + len(endings),
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
    entries = alphabet + endings
    entries += [token for token in map("".join, merges) if token not in set(entries)]
    vocab = {token: index for index, token in enumerate([*dict.fromkeys(entries), START, END])}
    write_text(folder / "vocab.json", json.dumps(vocab, ensure_ascii=False))
    write_text(folder / "merges.txt", "#version: 0.2\n" + "\n".join(" ".join(pair) for pair in merges) + "\n")
    tokenizer = CLIPTokenizer(
        vocab=vocab,
        merges=merges,
        unk_token=END,
        bos_token=START,
        eos_token=END,
        pad_token=END,
        model_max_length=MAX_LENGTH,
    )
    tokenizer.save_pretrained(folder)
    return CLIPTokenizer.from_pretrained(folder)


def tokenize(tokenizer: CLIPTokenizer, texts: Sequence[str]) -> torch.Tensor:
    """Token numbers as Stable Diffusion's pipeline makes them.

    Returns
    -------
    torch.Tensor of int64, shape (n, 32)

    Examples
    --------
    >>> tokenize(tokenizer, ["a photo of a cat"]).shape  # doctest: +SKIP
    torch.Size([1, 32])
    """
    ids: torch.Tensor = tokenizer(
        list(texts), padding="max_length", max_length=MAX_LENGTH, truncation=True, return_tensors="pt"
    ).input_ids
    return ids


def build_text_encoder(
    tokenizer: CLIPTokenizer, *, width: int = 96, layers: int = 2, heads: int = 3, seed: int = 0
) -> CLIPTextModel:
    """A fresh CLIP text encoder for a tokenizer.

    Examples
    --------
    >>> build_text_encoder(tokenizer).config.hidden_size  # doctest: +SKIP
    96
    """
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        projection_dim=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=MAX_LENGTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        attn_implementation="sdpa",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CLIPTextModel(config)
