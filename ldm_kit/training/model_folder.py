"""From trained parts to a model folder that `StableDiffusionPipeline.from_pretrained` opens."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextModel, CLIPTokenizer

from ldm_kit.errors import ModelNotFoundError
from ldm_kit.training.denoiser import noise_schedule
from ldm_kit.training.words import known_words

# Precision is changed by torch's own `Module.to`: that of diffusers warns of a list of exceptions that is empty here.

__all__ = ["export", "open_model"]


def export(
    folder: Path,
    *,
    vae: AutoencoderKL,
    unet: UNet2DConditionModel,
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    captions: Sequence[str],
) -> StableDiffusionPipeline:
    """Write the model folder aside, in float16 safetensors, and move its parts into place.

    Parameters
    ----------
    folder : pathlib.Path
        The model folder; other files in it (a model card) are left alone.
    vae, unet, text_encoder, tokenizer
        The trained parts; they stay as they are, in float32.
    captions : sequence of str
        Training captions, for ``words.txt``: the words that the text encoder knows.

    Returns
    -------
    diffusers.StableDiffusionPipeline
        Loaded back from `folder`: exactly what a user gets.

    Examples
    --------
    >>> pipe = export(Path("outputs/model"), vae=vae, unet=unet, text_encoder=text_encoder, tokenizer=tokenizer,
    ...               captions=captions)  # doctest: +SKIP
    """
    aside = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    parts: dict[str, nn.Module] = {"vae": vae, "unet": unet, "text_encoder": text_encoder}
    pipe = StableDiffusionPipeline(
        **{name: nn.Module.to(copy.deepcopy(module), torch.float16) for name, module in parts.items()},
        tokenizer=tokenizer,
        scheduler=noise_schedule(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.save_pretrained(aside, safe_serialization=True)
    # transformers loads in the precision that this names, diffusers in float32: let them agree.
    config = aside / "text_encoder" / "config.json"
    about = {**json.loads(config.read_text(encoding="utf-8")), "dtype": "float32"}
    config.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    (aside / "words.txt").write_text("\n".join(known_words(captions)) + "\n", encoding="utf-8")
    folder.mkdir(parents=True, exist_ok=True)
    for part in sorted(aside.iterdir()):
        target = folder / part.name
        if target.is_dir():
            shutil.rmtree(target)
        part.replace(target)
    aside.rmdir()
    return open_model(folder)


def open_model(folder: Path) -> StableDiffusionPipeline:
    """Open a model folder for drawing on a CPU: its float16 weights, in float32.

    Parameters
    ----------
    folder : pathlib.Path
        A model folder of `export`.

    Returns
    -------
    diffusers.StableDiffusionPipeline

    Raises
    ------
    ModelNotFoundError
        If there is no model in the folder.

    Examples
    --------
    >>> pipe = open_model(Path("outputs/model"))  # doctest: +SKIP
    """
    if not (folder / "model_index.json").exists():
        raise ModelNotFoundError(
            f"No model in {str(folder)!r}: it has no model_index.json. Train one with notebooks/90_train_tiny_ldm.ipynb, "
            "or name a folder that holds one in diffusers format."
        )
    pipe = StableDiffusionPipeline.from_pretrained(folder)
    for part in (pipe.vae, pipe.unet, pipe.text_encoder):
        nn.Module.to(part, torch.float32)
    return pipe
