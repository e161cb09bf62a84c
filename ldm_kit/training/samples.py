"""The trained model as a folder, what it draws, and whether a classifier recognises it.

The classifier is a small convolutional network, trained (in a minute or two) on drawings alone. They are noised, blurred and
shifted in brightness, so that it looks at shape and colour and not at the crispness that only a drawing has. Its accuracy on
exemplars that it never saw bounds what its accuracy on samples can mean.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from torch import nn
from torch.nn import functional
from tqdm.auto import tqdm
from transformers import CLIPTextModel, CLIPTokenizer

from ldm_kit.datasets import toybox
from ldm_kit.errors import BadInputError, ModelNotFoundError
from ldm_kit.training.data import as_input, draw, training_vocabulary
from ldm_kit.training.loop import train
from ldm_kit.training.networks import noise_schedule

_HELD_OUT = 10_001  # first exemplar of the held-out drawings, far from any that is trained on

# Precision is changed by torch's own `Module.to`: that of diffusers warns of a list of exceptions that is empty here.


def export(
    folder: Path,
    *,
    vae: AutoencoderKL,
    unet: UNet2DConditionModel,
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    captions: Sequence[str],
) -> StableDiffusionPipeline:
    """Write the model folder aside, in float16 safetensors, and move its components into place.

    Parameters
    ----------
    folder : pathlib.Path
        The model folder; other files in it (a model card) are left alone.
    vae, unet, text_encoder, tokenizer
        The trained components; they stay as they are, in float32.
    captions : sequence of str
        Training captions, for ``words.txt``: the words that the text encoder was trained on.

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
    components: dict[str, nn.Module] = {"vae": vae, "unet": unet, "text_encoder": text_encoder}
    pipe = StableDiffusionPipeline(
        **{name: nn.Module.to(copy.deepcopy(module), torch.float16) for name, module in components.items()},
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
    (aside / "words.txt").write_text("\n".join(training_vocabulary(captions)) + "\n", encoding="utf-8")
    folder.mkdir(parents=True, exist_ok=True)
    for item in sorted(aside.iterdir()):
        target = folder / item.name
        if target.is_dir():
            shutil.rmtree(target)
        item.replace(target)
    aside.rmdir()
    return open_model(folder)


def open_model(folder: Path) -> StableDiffusionPipeline:
    """Open a model folder for sampling on a CPU: its float16 weights, in float32.

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
    >>> open_model(Path("outputs/model"))
    Traceback (most recent call last):
        ...
    ldm_kit.errors.ModelNotFoundError: No model in 'outputs/model': ...
    """
    if not (folder / "model_index.json").exists():
        raise ModelNotFoundError(
            f"No model in {str(folder)!r}: it has no model_index.json. Train one with notebooks/90_train_tiny_ldm.ipynb, "
            "or name a folder that holds one in diffusers format."
        )
    pipe = StableDiffusionPipeline.from_pretrained(folder)
    for component in (pipe.vae, pipe.unet, pipe.text_encoder):
        nn.Module.to(component, torch.float32)
    return pipe


def sample(
    pipe: StableDiffusionPipeline,
    prompts: Sequence[str],
    *,
    steps: int = 25,
    guidance: float = 4.0,
    seed: int = 0,
    batch_size: int = 32,
) -> npt.NDArray[np.uint8]:
    """Sample one image for each prompt.

    Parameters
    ----------
    pipe : diffusers.StableDiffusionPipeline
        The model.
    prompts : sequence of str
        A prompt that comes twice gives two different images.
    steps : int, default 25
        Denoising steps.
    guidance : float, default 4.0
        Strength of classifier-free guidance; 1 is none.
    seed : int, default 0
        Image `i` depends on ``(seed, prompt, i)`` alone, whatever the batch size.
    batch_size : int, default 32
        Images at a time.

    Returns
    -------
    ndarray of uint8, shape (n, size, size, 3)

    Raises
    ------
    BadInputError
        If there is no prompt.

    Examples
    --------
    >>> sample(pipe, ["a photo of a cat"]).shape  # doctest: +SKIP
    (1, 64, 64, 3)
    """
    if not prompts:
        raise BadInputError("There is no prompt. Pass at least one, e.g. ['a photo of a cat'].")
    pipe.set_progress_bar_config(disable=True)
    batches = []
    for start in tqdm(range(0, len(prompts), batch_size), desc="sampling", mininterval=2.0):
        texts = list(prompts[start : start + batch_size])
        noises = [
            torch.Generator().manual_seed(
                int(toybox.generator("sample", seed, text, start + i).integers(2**62))
            )
            for i, text in enumerate(texts)
        ]
        out = pipe(
            texts, num_inference_steps=steps, guidance_scale=guidance, generator=noises, output_type="np"
        )
        batches.append((out.images * 255).round().astype(np.uint8))
    return np.concatenate(batches)


def _classifier(n_objects: int, seed: int) -> nn.Module:
    """Return a fresh convolutional network."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        for inside, outside in ((3, 24), (24, 48), (48, 96), (96, 128)):
            layers += [
                nn.Conv2d(inside, outside, 3, stride=2, padding=1),
                nn.GroupNorm(8, outside),
                nn.SiLU(),
                nn.Conv2d(outside, outside, 3, padding=1),
                nn.GroupNorm(8, outside),
                nn.SiLU(),
            ]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * 128, n_objects))


def _worsen(images: torch.Tensor, rng: np.random.Generator, torch_rng: torch.Generator) -> torch.Tensor:
    """Blur half of a batch and noise all of it, each image by its own amount, so that crispness decides nothing."""
    n = len(images)
    blurred = functional.avg_pool2d(functional.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    mix = torch.from_numpy(rng.uniform(-1, 1, size=n).clip(0).astype(np.float32)).view(-1, 1, 1, 1)
    noise = torch.from_numpy(rng.uniform(0, 0.25, size=n).astype(np.float32)).view(-1, 1, 1, 1)
    light = torch.from_numpy(rng.uniform(-0.15, 0.15, size=(n, 3)).astype(np.float32)).view(-1, 3, 1, 1)
    mixed = images + mix * (blurred - images) + light
    return mixed + noise * torch.randn(images.shape, generator=torch_rng)


def train_classifier(
    out: Path, *, exemplars: int = 60, steps: int = 1200, batch_size: int = 64, seed: int = 0
) -> nn.Module:
    """Train (or go on training) a classifier on Toybox drawings.

    Parameters
    ----------
    out : pathlib.Path
        Folder of its checkpoint ``classifier.safetensors``.
    exemplars : int, default 60
        Drawings an object; exemplar 0 is not among them.
    steps, batch_size, seed
        The recipe.

    Returns
    -------
    torch.nn.Module
        From float32 ``(n, 3, 64, 64)``, -1 to 1, to logits ``(n, 56)``, in the order of `toybox.names`.

    Examples
    --------
    >>> classifier = train_classifier(Path("classifier"), exemplars=1, steps=1, batch_size=2)
    """
    images, names = draw(exemplars, seed=seed, variants=1), toybox.names()
    targets = torch.tensor([names.index(name) for name in images.objects])
    classifier = _classifier(len(names), seed)

    def loss_of_step(_: int, rng: np.random.Generator, torch_rng: torch.Generator) -> torch.Tensor:
        rows = rng.integers(len(images), size=batch_size)
        logits = classifier(_worsen(as_input(images.pixels[rows]), rng, torch_rng))
        return functional.cross_entropy(logits, targets[rows], label_smoothing=0.05)

    averages, _ = train(
        "classifier",
        {"classifier": classifier},
        loss_of_step,
        out=out,
        steps=steps,
        learning_rate=2e-3,
        seed=seed,
        identity={"exemplars": exemplars, "batch_size": batch_size},
        save_every=400,
    )
    trained: nn.Module = averages["classifier"]
    return trained


@torch.no_grad()
def classify(classifier: nn.Module, pixels: npt.NDArray[np.uint8], objects: Sequence[str]) -> pd.DataFrame:
    """Classify images, of drawings or samples.

    Parameters
    ----------
    classifier : torch.nn.Module
        Of `train_classifier`.
    pixels : ndarray of uint8, shape (n, 64, 64, 3)
    objects : sequence of str, length n
        What each image should show.

    Returns
    -------
    pandas.DataFrame
        One row an image, with the columns ``object``, ``predicted`` and ``correct``.

    Examples
    --------
    >>> classifier = train_classifier(Path("classifier"), exemplars=1, steps=1, batch_size=2)
    >>> list(classify(classifier, np.zeros((1, 64, 64, 3), np.uint8), ["cat"]).columns)
    ['object', 'predicted', 'correct']
    """
    names = toybox.names()
    logits = torch.cat([classifier(as_input(pixels[i : i + 128])) for i in range(0, len(pixels), 128)])
    predicted = [names[index] for index in logits.argmax(dim=1).tolist()]
    table = pd.DataFrame({"object": list(objects), "predicted": predicted})
    return table.assign(correct=table["object"] == table["predicted"])


def classifier_accuracy(classifier: nn.Module, *, exemplars: int = 10, seed: int = 0) -> float:
    """Return the share of held-out drawings that a classifier recognises.

    Parameters
    ----------
    classifier : torch.nn.Module
        Of `train_classifier`.
    exemplars : int, default 10
        Drawings an object, none of which it was trained on.
    seed : int, default 0

    Returns
    -------
    float
    """
    images = draw(exemplars, seed=seed, variants=1, first=_HELD_OUT)
    return float(classify(classifier, images.pixels, images.objects)["correct"].mean())
