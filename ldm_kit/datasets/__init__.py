"""Stimuli and human judgements: what a model is compared with."""

from ldm_kit.datasets.choice_files import read_choices
from ldm_kit.datasets.dataset import Dataset
from ldm_kit.datasets.download import DownloadError
from ldm_kit.datasets.embeddings import read_embedding
from ldm_kit.datasets.fetch import fetch_things
from ldm_kit.datasets.loading import load_dataset
from ldm_kit.datasets.stimuli import Stimuli, Stimulus
from ldm_kit.datasets.triplet_files import read_triplets
from ldm_kit.datasets.triplets import Triplets

__all__ = [
    "Dataset",
    "DownloadError",
    "Stimuli",
    "Stimulus",
    "Triplets",
    "fetch_things",
    "load_dataset",
    "read_choices",
    "read_embedding",
    "read_triplets",
]
