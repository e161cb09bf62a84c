"""How tiny-ldm is made: Toybox pictures, an autoencoder, a tokenizer, a denoiser, and a judge of what it draws."""

from ldm_kit.training.autoencoder import encode, level_channels, reconstruct, train_autoencoder
from ldm_kit.training.denoiser import noise_schedule, train_denoiser
from ldm_kit.training.loop import pick_device
from ldm_kit.training.model_folder import export, open_model
from ldm_kit.training.pictures import Pictures, draw
from ldm_kit.training.samples import contact_sheet, sample
from ldm_kit.training.words import build_tokenizer, known_words

# `judge` is left out: it is run with `python -m`, which wants to import it itself

__all__ = [
    "Pictures",
    "build_tokenizer",
    "contact_sheet",
    "draw",
    "encode",
    "export",
    "known_words",
    "level_channels",
    "noise_schedule",
    "open_model",
    "pick_device",
    "reconstruct",
    "sample",
    "train_autoencoder",
    "train_denoiser",
]
