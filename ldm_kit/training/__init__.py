"""How tiny-ldm is made: Toybox images, an autoencoder, a tokenizer, a denoiser, and a classifier of its samples."""

from ldm_kit.training.data import TrainingImages, build_tokenizer, draw, training_vocabulary
from ldm_kit.training.loop import pick_device
from ldm_kit.training.networks import encode, reconstruct, train_autoencoder, train_denoiser
from ldm_kit.training.samples import (
    classifier_accuracy,
    classify,
    export,
    open_model,
    sample,
    train_classifier,
)

__all__ = [
    "TrainingImages",
    "build_tokenizer",
    "classifier_accuracy",
    "classify",
    "draw",
    "encode",
    "export",
    "open_model",
    "pick_device",
    "reconstruct",
    "sample",
    "train_autoencoder",
    "train_classifier",
    "train_denoiser",
    "training_vocabulary",
]
