"""How CLIP and T5 text encoders are asked, as diffusers' pipelines ask them: one prompt, padded to full length."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def tokens_of(tokenizer: Any, prompt: str, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Turn a prompt into token numbers.

    Parameters
    ----------
    tokenizer : transformers tokenizer
    prompt : str
        What is longer than `length` is cut off.
    length : int
        In tokens, padding included: the result does not depend on which prompts share a batch.
    device : torch.device

    Returns
    -------
    ids, mask : Tensor, shape (1, length)
        The mask is 1 for the prompt and 0 for padding.

    Examples
    --------
    >>> ids, mask = tokens_of(tokenizer, "a cat", 77, torch.device("cpu"))  # doctest: +SKIP
    """
    tokens = tokenizer(prompt, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    return tokens.input_ids.to(device), tokens.attention_mask.to(device)


def clip_penultimate(encoder: Any, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Give what SDXL and SD3 take of a CLIP text encoder.

    Parameters
    ----------
    encoder : CLIPTextModel or CLIPTextModelWithProjection
    ids : Tensor, shape (1, tokens)

    Returns
    -------
    sequence : Tensor, shape (1, tokens, channels)
        The hidden states before the last layer, without the final norm.
    first : Tensor
        The encoder's first output: with a projection the pooled vector, (1, channels).

    Examples
    --------
    >>> sequence, pooled = clip_penultimate(encoder, ids)  # doctest: +SKIP
    """
    output = encoder(ids, output_hidden_states=True)
    return output.hidden_states[-2], output[0]
