"""Dataset: stimuli together with all judgements of them; and the simplest one, a folder of one's own images."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from ldm_kit.datasets.stimuli import SUFFIXES, Stimuli
from ldm_kit.datasets.text_tables import captioned
from ldm_kit.datasets.triplet_files import read_triplets
from ldm_kit.datasets.triplets import Triplets
from ldm_kit.errors import BadInputError, MismatchError

_CAPTIONS = ("captions.csv", "captions.tsv", "captions.json")
_TRIPLETS = ("triplets.csv", "triplets.tsv", "triplets.txt", "triplets.npy")


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Stimuli and human (or simulated) judgements of them, all matched by stimulus name.

    Parameters
    ----------
    name : str
        ``"emoji"``, ``"things"``, ``"folder"``: goes into the tables.
    stimuli : Stimuli
        The images.
    triplets : Triplets, optional
        Odd-one-out choices; their `names` are the stimuli's.
    repeated : pandas.DataFrame, optional
        Triplets judged repeatedly, aggregated: columns ``i``, ``j``, ``k`` (stimulus names), ``n`` (how
        many judged it), ``share`` (share of the majority's answer, 1/3 to 1). For noise ceilings.
    embeddings : mapping of str to pandas.DataFrame, optional
        Dimensions fitted to or written by people, ``{"SPoSE-66": …}``: rows are stimulus names, columns
        dimensions. The one that the choices were drawn from, where it is known, comes first.
    embedding_sources : mapping of str to str, optional
        Whose dimensions an embedding holds: "human model" (fitted to people's choices) or "simulated". This
        describes the embedding itself, whoever made the choices.
    categories : pandas.DataFrame of bool, optional
        Rows are stimulus names, columns categories; a stimulus may be in several or in none.
    rdm : pandas.DataFrame, optional
        Human dissimilarities (0 to 1) of some of the stimuli, symmetric; rows and columns are their names.
    exemplars : Stimuli, optional
        Other images of the same concepts, about which there are no judgements.
    notes : tuple of str
        What a reader must know, e.g. what was dropped and what is simulated.

    Raises
    ------
    MismatchError
        If judgements are about a stimulus that is not among `stimuli`.

    Examples
    --------
    >>> data = Dataset("demo", Stimuli(("apple.jpg", "bat1.jpg")), notes=("Two images.",))
    >>> data.subset(["apple"]).stimuli.names
    ('apple.jpg',)
    """

    name: str
    stimuli: Stimuli
    triplets: Triplets | None = None
    repeated: pd.DataFrame | None = None
    embeddings: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    embedding_sources: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    categories: pd.DataFrame | None = None
    rdm: pd.DataFrame | None = None
    exemplars: Stimuli | None = field(default=None, kw_only=True)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.triplets is not None and self.triplets.names != self.stimuli.names:
            raise MismatchError("The triplets are about other stimuli: use `triplets.among(stimuli.names)`.")
        parts = [*self.embeddings.items(), ("categories", self.categories), ("rdm", self.rdm)]
        for part, frame in parts:
            rows = () if frame is None else frame.index
            unknown = [str(row) for row in rows if row not in self.stimuli]
            if unknown:
                first = ", ".join(unknown[:5])
                raise MismatchError(f"{len(unknown)} rows of {part!r} are not among the stimuli: {first}.")

    def __len__(self) -> int:
        return len(self.stimuli)

    def __repr__(self) -> str:
        lines = [f"Dataset {self.name!r}: {len(self.stimuli):,} images"]
        if self.triplets is not None:
            lines.append(f"  triplets    {len(self.triplets):,} {self.triplets.judgements} choices")
        if self.repeated is not None:
            lines.append(f"  repeated    {len(self.repeated):,} triplets judged repeatedly")
        for key, frame in self.embeddings.items():
            described = self.describe_embedding(key)
            lines.append(f"  embedding   {described}: {frame.shape[1]} dimensions, {len(frame):,} images")
        if self.categories is not None:
            members = int(self.categories.any(axis=1).sum())
            lines.append(f"  categories  {self.categories.shape[1]}, with {members:,} images")
        if self.rdm is not None:
            lines.append(f"  rdm         {len(self.rdm)} images")
        if self.exemplars is not None:
            lines.append(f"  exemplars   {len(self.exemplars):,} more images of the same concepts")
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])

    @property
    def judgements(self) -> str:
        """Who made the choices: "human", "human model" or "simulated".

        Raises
        ------
        BadInputError
            If there are no choices.
        """
        if self.triplets is None or not len(self.triplets):
            raise BadInputError(
                f"The data set {self.name!r} has no triplets to compare a model with. Put triplets.csv beside its images (three "
                "names a line, the odd one last), or pass a file by `triplets=`. Notebooks 01 and 05 need none."
            )
        return self.triplets.judgements

    @property
    def default_embedding(self) -> str | None:
        """The embedding to set beside a block: the one the choices were drawn from, where known; None if there is none."""
        return next(iter(self.embeddings), None)

    def describe_embedding(self, embedding: str) -> str:
        """Name an embedding together with what it is.

        Parameters
        ----------
        embedding : str
            A key of `embeddings`.

        Examples
        --------
        >>> frame = pd.DataFrame({"animal-related": [2.1]}, index=["cat"])
        >>> sources = {"SPoSE-66": "human model"}
        >>> data = Dataset("demo", Stimuli(("cat",)), embeddings={"SPoSE-66": frame}, embedding_sources=sources)
        >>> data.describe_embedding("SPoSE-66")
        'SPoSE-66 (human model)'
        """
        source = self.embedding_sources.get(embedding, "")
        return f"{embedding} ({source})" if source else embedding

    def subset(self, names: Iterable[str]) -> Dataset:
        """Keep some stimuli, and the judgements that are about them alone.

        Parameters
        ----------
        names : iterable of str
            Stimulus names or concepts, in the order wanted.

        Returns
        -------
        Dataset
            Triplets and repeated triplets are those with all three stimuli in `names`.

        Raises
        ------
        UnknownNameError
            If a name is neither a stimulus nor a concept.

        Examples
        --------
        >>> data = Dataset("demo", Stimuli(("apple.jpg", "bat1.jpg", "cat.jpg")))
        >>> data.subset(["cat", "apple"]).stimuli.names
        ('cat.jpg', 'apple.jpg')
        """
        stimuli = self.stimuli.select(names)

        def rows(frame: pd.DataFrame) -> pd.DataFrame:
            return frame.loc[[name for name in stimuli.names if name in frame.index]]

        repeated, rdm = self.repeated, self.rdm
        if repeated is not None:
            inside = repeated[["i", "j", "k"]].isin(stimuli.names).all(axis=1)
            repeated = repeated[inside].reset_index(drop=True)
        if rdm is not None:
            rdm = rows(rdm)
            rdm = rdm[list(rdm.index)]
        return replace(
            self,
            stimuli=stimuli,
            triplets=None if self.triplets is None else self.triplets.among(stimuli.names),
            repeated=repeated,
            embeddings={key: rows(frame) for key, frame in self.embeddings.items()},
            categories=None if self.categories is None else rows(self.categories),
            rdm=rdm,
            notes=(*self.notes, f"A subset: {len(stimuli):,} of {len(self.stimuli):,} images."),
        )


def load_folder(
    root: str | os.PathLike[str] | None = None,
    *,
    triplets: str | os.PathLike[str] | None = None,
    captions: str | os.PathLike[str] | None = None,
    judgements: str = "human",
    items: str | None = None,
) -> Dataset:
    r"""Load any folder of images, sub-folders included.

    Parameters
    ----------
    root : path-like
        The folder. An image's name is its path within it, sorted; its concept is its sub-folder's name if
        it lies in one, else its file's name without the extension. Hidden files are left out.
    triplets : path-like, optional
        A file that `read_triplets` reads, with indices into the sorted names ("10.png" comes before "2.png"), or
        with names (or concepts that have one image). By default ``triplets.csv``, ``.tsv``, ``.txt`` or ``.npy`` in `root`.
    captions : path-like, optional
        A file of captions by name or concept: ``.json`` (an object of strings), ``.csv`` or ``.tsv`` (the columns
        ``name`` and ``caption``, or two columns without a header). By default ``captions.csv``, ``.tsv`` or ``.json``
        in `root`.
    judgements : {"human", "human model", "simulated"}
        Who chose.
    items : {"names", "indices"}, optional
        What the numbers in `triplets` are, where the images have numbers for names: see `read_triplets`.

    Returns
    -------
    Dataset

    Raises
    ------
    BadInputError
        If there is no such folder, or no image in it.

    Examples
    --------
    >>> from PIL import Image
    >>> for name in ("cat.png", "dog.png", "tea_cup.png"):
    ...     Image.new("RGB", (8, 8)).save(name)
    >>> _ = Path("triplets.csv").write_text("cat,dog,tea_cup\n")
    >>> data = load_folder(".")
    >>> data.stimuli.labels, data.triplets.indices.tolist()
    (('cat', 'dog', 'tea cup'), [[0, 1, 2]])
    """
    folder = Path(root or "").expanduser()
    if root is None or not folder.is_dir():
        raise BadInputError(f"There is no folder {str(root)!r}. Pass `root=`, a folder of images.")
    stimuli = _stimuli_in(folder)
    notes = []
    file = _named_or_usual(folder, captions, _CAPTIONS)
    if file is not None:
        stimuli = replace(stimuli, captions=captioned(stimuli, file))
        n = sum(caption is not None for caption in stimuli.captions)
        notes.append(f"{n:,} of {len(stimuli):,} images have a caption in {file.name!r}.")
    file = _named_or_usual(folder, triplets, _TRIPLETS)
    choices = None
    if file is not None:
        choices = read_triplets(file, stimuli, items=items, judgements=judgements, dataset="folder")
    else:
        notes.append("No triplets: pass some with `triplets=` to compare a model with people.")
    return Dataset("folder", stimuli, choices, notes=tuple(notes))


def within(root: Path, file: str | os.PathLike[str]) -> Path:
    """Return a path as it is, or within `root` if it is a file only there."""
    path = Path(file).expanduser()
    return path if path.exists() or not (root / path).is_file() else root / path


def _stimuli_in(root: Path) -> Stimuli:
    """The images of a folder, hidden ones left out, sorted by name."""
    files = (path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    found = sorted((path.relative_to(root) for path in files), key=lambda path: path.as_posix())
    found = [path for path in found if not any(part.startswith(".") for part in path.parts)]
    if not found:
        endings = ", ".join(SUFFIXES)
        raise BadInputError(f"There is no image in {str(root)!r} or below. Images end in {endings}.")
    return Stimuli(
        names=tuple(path.as_posix() for path in found),
        concepts=tuple(path.parent.name or path.stem for path in found),
        root=str(root),
        dataset="folder",
    )


def _named_or_usual(root: Path, file: str | os.PathLike[str] | None, usual: tuple[str, ...]) -> Path | None:
    """A file that was named, or else the first of those that usually lie in a folder."""
    if file is not None:
        return within(root, file)
    return next((root / name for name in usual if (root / name).is_file()), None)
