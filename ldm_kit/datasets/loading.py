"""Load a data set by its name."""

from __future__ import annotations

import inspect
import os
from importlib import import_module
from typing import Any

from ldm_kit.datasets.dataset import Dataset
from ldm_kit.errors import BadInputError, unknown_name

# name -> (module, function); imported when asked for, so that `import ldm_kit` stays quick.
DATASETS = {
    "toybox": ("ldm_kit.datasets.bundled", "load_toybox"),
    "things": ("ldm_kit.datasets.things", "load_things"),
    "folder": ("ldm_kit.datasets.folder", "load_folder"),
}


def load_dataset(
    name: str,
    root: str | os.PathLike[str] | None = None,
    *,
    triplets: str | os.PathLike[str] | None = None,
    judgements: str | os.PathLike[str] | None = None,
    captions: str | os.PathLike[str] | None = None,
    **options: Any,
) -> Dataset:
    """Load pictures together with what people said about them.

    ============  =============================  ========================  =====================
    name          pictures                       choices                   needs
    ============  =============================  ========================  =====================
    ``toybox``    56 drawings                    20,000, simulated         nothing
    ``things``    up to 1,854 photographs        up to 4.7 million, human  `root` (or LDM_KIT_THINGS)
    ``folder``    yours                          yours, if any             `root`
    ============  =============================  ========================  =====================

    Parameters
    ----------
    name : {"toybox", "things", "folder"}
    root : path-like, optional
        Where the files are.
    triplets : path-like, optional
        A file of odd-one-out choices, see `read_triplets`; a name within `root` will do.
    judgements : path-like or str, optional
        For ``toybox``: an embedding of the THINGS concepts to draw choices from, labelled "human model". For
        ``folder``: who chose, "human" (default), "human model" or "simulated".
    captions : path-like, optional
        A file of captions by name, see `read_captions`.
    **options
        ``toybox``: `n_triplets`, `seed`. ``things``: `pictures` (which folder), `embeddings` (further
        vectors). ``folder``: `items` (what numbers in `triplets` are). See `load_toybox`, `load_things`, `load_folder`.

    Returns
    -------
    Dataset

    Raises
    ------
    UnknownNameError
        If there is no such data set or option; the nearest comes first in the message.
    BadInputError
        If files are missing or not what they should be; the message says what to do.

    Examples
    --------
    >>> data = load_dataset("toybox", n_triplets=500)  # doctest: +SKIP
    >>> len(data.stimuli), len(data.triplets)  # doctest: +SKIP
    (56, 500)
    """
    if name not in DATASETS:
        raise unknown_name(
            "data set", name, DATASETS, 'For pictures of your own use load_dataset("folder", root=…).'
        )
    module, function = DATASETS[name]
    loader = getattr(import_module(module), function)
    allowed = list(inspect.signature(loader).parameters)
    usual = {"root": root, "triplets": triplets, "judgements": judgements, "captions": captions}
    given = {option: value for option, value in usual.items() if value is not None} | options
    for option in given:
        if option not in allowed:
            if option in usual:
                raise BadInputError(
                    f"The data set {name!r} takes no `{option}`; it takes {', '.join(allowed)}. Leave it out."
                )
            raise unknown_name(f"option of the data set {name!r}", option, allowed, "Pick one of these.")
    dataset: Dataset = loader(**given)
    return dataset
