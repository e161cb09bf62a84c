"""Stimuli and human judgements: what a model is compared with."""

import inspect
import os
from collections.abc import Callable
from typing import Any

from ldm_kit.datasets.dataset import Dataset, load_folder
from ldm_kit.datasets.embeddings import read_embedding
from ldm_kit.datasets.fetch import DownloadError, fetch_things
from ldm_kit.datasets.observers import load_emoji
from ldm_kit.datasets.stimuli import Stimuli, Stimulus
from ldm_kit.datasets.things import load_things
from ldm_kit.datasets.triplet_files import read_choices, read_triplets
from ldm_kit.datasets.triplets import Triplets
from ldm_kit.errors import one_of

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

_LOADERS: dict[str, Callable[..., Dataset]] = {
    "emoji": load_emoji,
    "things": load_things,
    "folder": load_folder,
}


def load_dataset(
    name: str,
    root: str | os.PathLike[str] | None = None,
    *,
    triplets: str | os.PathLike[str] | None = None,
    captions: str | os.PathLike[str] | None = None,
    judgements: str | None = None,
    human_model: str | os.PathLike[str] | None = None,
    **options: Any,
) -> Dataset:
    """Load images together with the judgements of them.

    ============  =============================  ========================  =====================
    name          images                         choices                   needs
    ============  =============================  ========================  =====================
    ``emoji``     335 drawings                   105,000, simulated        nothing
    ``things``    up to 1,854 photographs        up to 4.7 million, human  `root` (or LDM_KIT_THINGS)
    ``folder``    yours                          yours, if any             `root`
    ============  =============================  ========================  =====================

    Parameters
    ----------
    name : {"emoji", "things", "folder"}
    root : path-like, optional
        Where the files are.
    triplets : path-like, optional
        A file of odd-one-out choices, see `read_triplets`; a name within `root` will do.
    captions : path-like, optional
        A file of captions by name, see `load_folder`.
    judgements : {"human", "human model", "simulated"}, optional
        ``folder``: who chose; "human" by default.
    human_model : path-like, optional
        ``emoji``: an embedding of the THINGS concepts (SPoSE, VICE) to draw the choices from.
    **options
        ``emoji``: `things` (people's own choices), `n_triplets`, `seed`. ``things``: `images` (which folder), `embeddings` (further
        vectors). ``folder``: `items` (what numbers in `triplets` are). See `load_emoji`, `load_things`, `load_folder`.

    Returns
    -------
    Dataset

    Raises
    ------
    UnknownNameError
        If there is no such data set or option; the message lists the nearest first.
    BadInputError
        If files are missing or malformed; the message advises what to do.

    Examples
    --------
    >>> data = load_dataset("emoji", n_triplets=500)
    >>> len(data.stimuli), len(data.triplets), data.judgements
    (335, 500, 'simulated')
    """
    one_of("data set", name, _LOADERS, 'For images of your own use load_dataset("folder", root=…).')
    usual = {"root": root, "triplets": triplets, "captions": captions}
    usual |= {"judgements": judgements, "human_model": human_model}
    options |= {option: value for option, value in usual.items() if value is not None}
    allowed = list(inspect.signature(_LOADERS[name]).parameters)
    for option in options:
        one_of(f"option of the data set {name!r}", option, allowed, "Choose one of these, or leave it out.")
    return _LOADERS[name](**options)
