"""The emoji as a data set: the evaluation images, and choices by simulated observers or a human model.

An observer sees three images, compares the three pairs by the dot product of their embeddings, keeps a pair together with
probability ``softmax(similarity / temperature)`` and names the third the odd one out: the rule by which SPoSE is fitted.
These observers follow feature norms that we wrote (`norms`): no person judged anything. With an embedding that was
fitted to people's choices (SPoSE, VICE), the same rule makes a *human model*.
"""

from __future__ import annotations

import os
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from ldm_kit.datasets import emoji
from ldm_kit.datasets.dataset import Dataset
from ldm_kit.datasets.embeddings import read_embedding
from ldm_kit.datasets.stimuli import Stimuli
from ldm_kit.datasets.text_tables import captioned
from ldm_kit.datasets.things import choices_about
from ldm_kit.datasets.triplet_files import read_triplets
from ldm_kit.datasets.triplets import Ints, Triplets, aggregate_repeated, checked_indices
from ldm_kit.errors import BadInputError, one_of, real_number

Floats = npt.NDArray[np.float64]

# At this temperature the observers of `norms` agree with their majority as often as people do on THINGS' triplets
# judged repeatedly (0.68), which a test checks.
TEMPERATURE = 1.26
# SPoSE and VICE are fitted with a softmax over plain dot products: at 1 they choose as people did.
_HUMAN_MODEL_TEMPERATURE = 1.0
_N_REPEATS = 25  # observers who all see the triplets judged repeatedly


def load_emoji(
    *,
    human_model: str | os.PathLike[str] | None = None,
    triplets: str | os.PathLike[str] | None = None,
    things: str | os.PathLike[str] | None = None,
    captions: str | os.PathLike[str] | None = None,
    n_triplets: int = 105_000,
    seed: int = 0,
) -> Dataset:
    """Load the emoji: drawings of 335 concepts of THINGS, which come with the package.

    ===========  =====================================================================
    images       335, one a concept, in a style that no training of ours sees
    exemplars    1,005 more: the same concepts in three other styles
    categories   23
    choices      105,000, simulated or human model: 100,000 sets judged once, and
                 200 sets judged by 25 observers
    ===========  =====================================================================

    Parameters
    ----------
    human_model : path-like, optional
        An embedding of the THINGS concepts (SPoSE or VICE; text or ``.npy``, with ``unique_id.txt`` or
        ``things_concepts.tsv`` beside it) to draw the choices from; rows are matched by concept name. By
        default the choices come from feature norms that we wrote.
    triplets : path-like, optional
        A file of choices to use instead, with the names of concepts or 0-based indices into the images.
    things : path-like, optional
        The folder of THINGS: to use its people's own choices instead, those whose three concepts are all here.
    captions : path-like, optional
        A file of captions by name, see `load_folder`. By default the captions are our own.
    n_triplets : int
        How many choices to draw, those of sets judged repeatedly included.
    seed : int
        Of the choices. The images are always the same.

    Returns
    -------
    Dataset
        Stimuli ``apple.png``, …; `exemplars` has ``twemoji/apple.png``, …; `embeddings` has the human model, if any,
        and ``"norms"``.

    Raises
    ------
    UnknownNameError
        If a concept has no row in the embedding.
    BadInputError
        If more than one of `human_model`, `triplets` and `things` is given.

    Examples
    --------
    >>> load_emoji(n_triplets=100).triplets
    Triplets(100 simulated choices over 335 stimuli of emoji)
    """
    given = {"human_model": human_model, "triplets": triplets, "things": things}
    if len(asked := [option for option, value in given.items() if value is not None]) > 1:
        raise BadInputError(f"{' and '.join(asked)} each say whose choices to use. Pass one of them.")
    stimuli = _stimuli()
    if captions is not None:
        stimuli = replace(stimuli, captions=captioned(stimuli, captions))
    embeddings = {"norms": _rows(norms(), stimuli, "the norms")}
    sources = {"norms": "simulated"}  # we wrote them, whoever chooses
    if triplets is not None:
        choices = read_triplets(triplets, stimuli, dataset="emoji")
        note = f"Choices are read from {choices.source!r} and taken for {choices.judgements}."
    elif things is not None:
        choices = choices_about(things, dict(zip(stimuli.concepts, stimuli.names, strict=True)))
        note = f"Choices are people's own: the {len(choices):,} of THINGS' {choices.source!r} that are about these concepts alone."
    elif human_model is None:
        choices = _drawn(embeddings["norms"], "simulated", n_triplets, seed, TEMPERATURE)
        note = "Choices are simulated: drawn from feature norms that we wrote, not from people."
    else:
        file = Path(human_model).expanduser()
        vectors = _rows(read_embedding(file), stimuli, repr(file.name))
        embeddings = {file.stem: vectors, **embeddings}
        sources[file.stem] = "human model"
        choices = _drawn(vectors, "human model", n_triplets, seed, _HUMAN_MODEL_TEMPERATURE)
        choices = replace(choices, source=f"{file.name}: {choices.source}")
        note = f"Choices are a human model's: drawn from {file.name!r}, which was fitted to people's choices."
    repeated = aggregate_repeated(choices)
    categories = pd.Series([emoji.category(name) for name in stimuli.concepts], index=stimuli.names)
    return Dataset(
        "emoji",
        stimuli,
        choices,
        repeated=None if repeated.empty else repeated,
        embeddings=embeddings,
        embedding_sources=sources,
        categories=pd.get_dummies(categories),
        exemplars=_exemplars(),
        notes=(
            "Images are Noto's emoji: one of each concept, in a style that no training of ours sees.",
            note,
        ),
    )


@cache
def _norms() -> pd.DataFrame:
    grades = pd.read_csv(emoji.FOLDER / "norms.csv", index_col="concept").astype(float)
    weights = pd.read_csv(emoji.FOLDER / "dimensions.csv", index_col="dimension")["weight"]
    weighted: pd.DataFrame = grades * np.sqrt(weights[list(grades.columns)].to_numpy(float))
    return weighted


def norms() -> pd.DataFrame:
    """Feature norms of the emoji's concepts, weighted.

    Returns
    -------
    pandas.DataFrame of float, shape (335, 60)
        Rows are concepts; columns are properties ("food", "made of metal", "round", …): the grade, from 0 (not at all) to 1
        (fully), times the square root of the property's weight, so that a dot product counts each property by its weight.
        We wrote grades and weights (`norms.csv` and `dimensions.csv` in ``ldm_kit/data/emoji``); no person rated anything.

    Examples
    --------
    >>> norms().loc[["apple", "hammer"], "food"].round(2).tolist()
    [2.01, 0.0]
    """
    return _norms().copy()


def choice_probabilities(
    embedding: npt.ArrayLike, triplets: npt.ArrayLike, temperature: float = 1.0
) -> Floats:
    """Probability that each item of a triplet is named the odd one out.

    Parameters
    ----------
    embedding : array_like of float, shape (n, d)
        One row an object.
    triplets : array_like of int, shape (t, 3)
        0-based rows of `embedding`.
    temperature : float, default 1.0
        Lower means more certain; SPoSE's own rule has 1.

    Returns
    -------
    ndarray of float64, shape (t, 3)
        Column `c` belongs to item `c` of the triplet; rows sum to 1.

    Raises
    ------
    BadInputError
        If the temperature is not positive, the embedding not finite, a shape is wrong or an index out of range.

    Examples
    --------
    >>> choice_probabilities([[1, 0], [1, 0], [0, 1]], [[0, 1, 2]]).round(2)
    array([[0.21, 0.21, 0.58]])
    """
    table = np.asarray(embedding, dtype=np.float64)
    if table.ndim != 2 or not np.isfinite(table).all():
        raise BadInputError(f"The embedding has shape {table.shape}: finite numbers (n, d) are needed.")
    first, second, third = table[checked_indices(triplets, len(table)).T]
    # column c: the similarity of the two items that stay together when c goes
    pairs = [(second * third).sum(1), (first * third).sum(1), (first * second).sum(1)]
    scaled = np.stack(pairs, axis=1) / real_number("temperature", temperature, positive=True)
    weights = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    probabilities: Floats = weights / weights.sum(axis=1, keepdims=True)
    return probabilities


def simulate_choices(
    embedding: npt.ArrayLike,
    n_triplets: int = 105_000,
    temperature: float = TEMPERATURE,
    seed: int = 0,
    n_repeated: int = 200,
    n_repeats: int = _N_REPEATS,
) -> tuple[Ints, Ints]:
    """Draw odd-one-out judgements.

    Parameters
    ----------
    embedding : array_like of float, shape (n, d)
        One row an object, at least 3 rows.
    n_triplets : int, default 105000
        Judgements in all, the repeated ones included.
    temperature : float
        The default suits `norms`; 1 suits SPoSE and VICE.
    seed : int, default 0
        Same seed, same judgements.
    n_repeated : int, default 200
        How many triplets every observer sees, for the noise ceiling.
    n_repeats : int, default 25
        How many observers there are.

    Returns
    -------
    triplets : ndarray of int64, shape (n_triplets, 3)
        Column 2 is the odd one out; the pair kept together stands in columns 0 and 1 in random order.
    subjects : ndarray of int64, shape (n_triplets,)
        Which simulated observer, 0 to ``n_repeats - 1``.

    Raises
    ------
    BadInputError
        If there are fewer than three objects or the repeated judgements exceed `n_triplets`.

    Examples
    --------
    >>> triplets, subjects = simulate_choices(norms(), n_triplets=1000, n_repeated=10, n_repeats=20)
    >>> triplets.shape, int(subjects.max())
    ((1000, 3), 19)
    """
    table = np.asarray(embedding, dtype=np.float64)
    n_single = n_triplets - n_repeated * n_repeats
    if len(table) < 3 or min(n_triplets, n_repeats) < 1 or n_repeated < 0 or n_single < 0:
        raise BadInputError(
            f"Cannot draw {n_triplets} judgements of {len(table)} objects with {n_repeated} triplets judged {n_repeats} times: "
            "at least 3 objects are needed, and no more repeats than judgements."
        )
    rng = np.random.default_rng(seed)
    shown = _distinct_triplets(len(table), n_repeated + n_single, rng)
    rows = np.concatenate([np.repeat(shown[:n_repeated], n_repeats, axis=0), shown[n_repeated:]])
    subjects = np.concatenate([np.tile(np.arange(n_repeats), n_repeated), np.arange(n_single) % n_repeats])
    odd = _draw(choice_probabilities(table, rows, temperature), rng.random(len(rows)))
    swap = rng.integers(2, size=len(rows))
    columns = np.stack([(odd + 1 + swap) % 3, (odd + 2 - swap) % 3, odd], axis=1)
    order = rng.permutation(len(rows))
    return np.take_along_axis(rows, columns, axis=1)[order], subjects[order].astype(np.int64)


def _distinct_triplets(n: int, count: int, rng: np.random.Generator) -> Ints:
    """`count` different sets of three out of n, each sorted; repeats only once there is no other set left."""
    sizes = np.arange(n + 1, dtype=np.int64)
    pairs, threes = sizes * (sizes - 1) // 2, sizes * (sizes - 1) * (sizes - 2) // 6
    total = int(threes[n])
    starts = range(0, count, total)
    rank = np.concatenate([rng.choice(total, min(total, count - start), replace=False) for start in starts])
    # number sets of three as combinations are numbered, and read the number back: no set is drawn by trial and error
    largest = np.searchsorted(threes, rank, side="right") - 1
    rank = rank - threes[largest]
    middle = np.searchsorted(pairs, rank, side="right") - 1
    return np.stack([rank - pairs[middle], middle, largest], axis=1).astype(np.int64)


def _draw(probabilities: Floats, uniform: Floats) -> Ints:
    """Column chosen in each row, by where a uniform number falls among the cumulative probabilities."""
    chosen: Ints = (uniform[:, None] > probabilities.cumsum(axis=1)[:, :2]).sum(axis=1).astype(np.int64)
    return chosen


def _drawn(vectors: pd.DataFrame, judgements: str, n: int, seed: int, temperature: float) -> Triplets:
    """Choices drawn from an embedding whose rows are stimuli; a quarter of them are of triplets judged repeatedly."""
    n_repeated = min(200, n // (4 * _N_REPEATS))
    indices, subjects = simulate_choices(vectors.to_numpy(float), n, temperature, seed, n_repeated)
    source = f"softmax over dot products at temperature {temperature:g}, seed {seed}"
    return Triplets(indices, tuple(vectors.index), judgements, "emoji", subjects, source=source)


def _stimuli() -> Stimuli:
    """One image a concept, in the style for evaluation."""
    concepts = emoji.names()
    return Stimuli(
        names=tuple(f"{concept}.png" for concept in concepts),
        concepts=tuple(concepts),
        labels=tuple(map(emoji.label, concepts)),
        captions=tuple(emoji.captions(concept)[0] for concept in concepts),
        root=str(emoji.FOLDER / "images" / emoji.EVALUATION_STYLE),
        dataset="emoji",
    )


def _exemplars() -> Stimuli:
    """The same concepts in the other styles."""
    pairs = [(style, concept) for style in emoji.TRAINING_STYLES for concept in emoji.names()]
    return Stimuli(
        names=tuple(f"{style}/{concept}.png" for style, concept in pairs),
        concepts=tuple(concept for _, concept in pairs),
        labels=tuple(emoji.label(concept) for _, concept in pairs),
        captions=tuple(emoji.captions(concept)[0] for _, concept in pairs),
        root=str(emoji.FOLDER / "images"),
        dataset="emoji",
    )


def _rows(vectors: pd.DataFrame, stimuli: Stimuli, source: str) -> pd.DataFrame:
    """The rows of the stimuli's concepts, renamed to stimuli."""
    advice = "The emoji are matched by THINGS' concept names: check the list beside the embedding."
    known = list(vectors.index)
    for concept in stimuli.concepts:
        one_of(f"concept of {source}", concept, known, advice)
    return vectors.loc[list(stimuli.concepts)].set_axis(list(stimuli.names))
