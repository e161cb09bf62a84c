"""How tiny-ldm is made: drawings, an autoencoder, a text encoder, a denoiser, and what its samples look like to a classifier."""

from ldm_kit.training.data import TrainingImages, draw, evaluation_images
from ldm_kit.training.loop import pick_device
from ldm_kit.training.networks import encode, reconstruct, train_autoencoder, train_denoiser
from ldm_kit.training.samples import (
    classify,
    export,
    loss_by_prompt,
    open_model,
    sample,
    train_classifier,
)
from ldm_kit.training.text import build_tokenizer, train_text_encoder, training_vocabulary

__all__ = [
    "TrainingImages",
    "build_tokenizer",
    "classify",
    "draw",
    "encode",
    "evaluation_images",
    "export",
    "loss_by_prompt",
    "open_model",
    "pick_device",
    "reconstruct",
    "sample",
    "train_autoencoder",
    "train_classifier",
    "train_denoiser",
    "train_text_encoder",
    "training_vocabulary",
]
