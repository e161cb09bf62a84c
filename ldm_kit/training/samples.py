"""The trained model as a folder, what it draws, and whether a classifier recognises it.

The classifier is a small convolutional network, trained on drawings alone. They are noised, blurred and
shifted in brightness, so that it looks at shape and colour and not at the crispness that only a drawing has. Its accuracy on
drawings that it never saw bounds what its accuracy on samples can mean.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Mapping, Sequence
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

from ldm_kit.datasets import emoji
from ldm_kit.errors import BadInputError, ModelNotFoundError
from ldm_kit.training.data import TrainingImages, as_input
from ldm_kit.training.loop import pick_device, train
from ldm_kit.training.networks import encode, noise_schedule
from ldm_kit.training.text import build_image_encoder, encode_text, training_vocabulary

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
                int(emoji.generator("sample", seed, text, start + i).integers(2**62))
            )
            for i, text in enumerate(texts)
        ]
        out = pipe(
            texts, num_inference_steps=steps, guidance_scale=guidance, generator=noises, output_type="np"
        )
        batches.append((out.images * 255).round().astype(np.uint8))
    return np.concatenate(batches)


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
    images: TrainingImages,
    out: Path,
    *,
    steps: int = 2000,
    batch_size: int = 64,
    seed: int = 0,
    device: str = "cpu",
) -> nn.Module:
    """Train (or go on training) a classifier on drawings.

    Parameters
    ----------
    images : TrainingImages
        Of `draw`.
    out : pathlib.Path
        Folder of its checkpoint ``classifier.safetensors``.
    steps, batch_size, seed, device
        The recipe.

    Returns
    -------
    torch.nn.Module
        From float32 ``(n, 3, 64, 64)``, -1 to 1, to logits ``(n, 335)``, in the order of `emoji.names`.

    Examples
    --------
    >>> from ldm_kit.training import draw
    >>> classifier = train_classifier(draw(1, concepts=["cat"]), Path("classifier"), steps=1, batch_size=2)
    """
    names, place = emoji.names(), pick_device(device)
    targets = torch.tensor([names.index(name) for name in images.concepts])
    classifier = build_image_encoder(len(names), seed).to(place)

    def loss_of_step(_: int, rng: np.random.Generator, torch_rng: torch.Generator) -> torch.Tensor:
        rows = rng.integers(len(images), size=batch_size)
        logits = classifier(_worsen(as_input(images.pixels[rows]), rng, torch_rng).to(place))
        return functional.cross_entropy(logits, targets[rows].to(place), label_smoothing=0.05)

    averages, _ = train(
        "classifier",
        {"classifier": classifier},
        loss_of_step,
        out=out,
        steps=steps,
        learning_rate=2e-3,
        seed=seed,
        identity={"images": len(images), "batch_size": batch_size},
        save_every=400,
    )
    trained: nn.Module = averages["classifier"]
    return trained


@torch.no_grad()
def classify(classifier: nn.Module, pixels: npt.NDArray[np.uint8], concepts: Sequence[str]) -> pd.DataFrame:
    """Classify images, of drawings or samples.

    Parameters
    ----------
    classifier : torch.nn.Module
        Of `train_classifier`.
    pixels : ndarray of uint8, shape (n, 64, 64, 3)
    concepts : sequence of str, length n
        What each image should show.

    Returns
    -------
    pandas.DataFrame
        One row an image, with the columns ``concept``, ``predicted`` and ``correct``.

    Examples
    --------
    >>> from ldm_kit.training import draw
    >>> classifier = train_classifier(draw(1, concepts=["cat"]), Path("classifier"), steps=1, batch_size=2)
    >>> list(classify(classifier, np.zeros((1, 64, 64, 3), np.uint8), ["cat"]).columns)
    ['concept', 'predicted', 'correct']
    """
    names = emoji.names()
    logits = torch.cat([classifier(as_input(pixels[i : i + 128])) for i in range(0, len(pixels), 128)])
    predicted = [names[index] for index in logits.argmax(dim=1).tolist()]
    table = pd.DataFrame({"concept": list(concepts), "predicted": predicted})
    return table.assign(correct=table["concept"] == table["predicted"])


@torch.no_grad()
def loss_by_prompt(
    pipe: StableDiffusionPipeline,
    pixels: npt.NDArray[np.uint8],
    prompts: Mapping[str, Sequence[str]],
    *,
    noise_levels: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.9),
    n_noise: int = 4,
    seed: int = 0,
) -> pd.DataFrame:
    """Return the denoiser's loss on images under several prompts: does it use its text?

    Parameters
    ----------
    pipe : diffusers.StableDiffusionPipeline
        The model.
    pixels : ndarray of uint8, shape (n, 64, 64, 3)
        Images, best held-out ones.
    prompts : mapping of str to sequence of str, length n
        ``{"label": […], "shuffled": […]}``: one prompt an image and conditioning. All see the same noise.
    noise_levels : sequence of float
        From 0 to 1.
    n_noise : int, default 4
        Noise samples an image.
    seed : int, default 0

    Returns
    -------
    pandas.DataFrame
        One row an image, noise level and conditioning, with the columns ``image`` (its row), ``noise_level``,
        ``conditioning`` and ``loss`` (mean squared error of the predicted noise, over `n_noise` samples).
    """
    latents = encode(pipe.vae, pixels).repeat_interleave(n_noise, dim=0)
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(seed))
    scheduler = noise_schedule()
    last = scheduler.config.num_train_timesteps - 1
    tables = []
    for conditioning, texts in prompts.items():
        text = encode_text(pipe.text_encoder, pipe.tokenizer, texts).repeat_interleave(n_noise, dim=0)
        for level in noise_levels:
            timestep = torch.tensor([min(last, round(level * (last + 1)))])
            noisy = scheduler.add_noise(latents, noise, timestep)
            errors = [
                (pipe.unet(noisy[i : i + 64], timestep, text[i : i + 64]).sample - noise[i : i + 64])
                .square()
                .mean(dim=(1, 2, 3))
                for i in range(0, len(latents), 64)
            ]
            loss = torch.cat(errors).view(-1, n_noise).mean(dim=1).numpy()
            tables.append(
                pd.DataFrame(
                    {
                        "image": np.arange(len(loss)),
                        "noise_level": level,
                        "conditioning": conditioning,
                        "loss": loss,
                    }
                )
            )
    return pd.concat(tables, ignore_index=True)
