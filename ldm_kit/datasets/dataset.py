"""Dataset: stimuli together with everything that people have said about them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from ldm_kit.datasets.stimuli import Stimuli
from ldm_kit.datasets.triplets import Triplets
from ldm_kit.errors import BadInputError, MismatchError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Stimuli and human (or simulated) judgements of them, all matched by stimulus name.

    Parameters
    ----------
    name : str
        ``"toybox"``, ``"things"``, ``"folder"``: goes into the tables.
    stimuli : Stimuli
        The pictures.
    triplets : Triplets, optional
        Odd-one-out choices; their `names` are the stimuli's.
    repeated : pandas.DataFrame, optional
        Triplets judged repeatedly, aggregated: columns ``i``, ``j``, ``k`` (stimulus names), ``n`` (how
        many judged it), ``share`` (share of the majority's answer, 1/3 to 1). For noise ceilings.
    embeddings : mapping of str to pandas.DataFrame, optional
        Dimensions fitted to or written by people, ``{"SPoSE-66": …}``: rows are stimulus names, columns
        dimensions. The one that the judges chose by, where it is known, comes first.
    embedding_sources : mapping of str to str, optional
        Whose dimensions an embedding holds: "human model" (fitted to people's choices) or "simulated". This
        says what the embedding *is*, whoever made the choices.
    categories : pandas.DataFrame of bool, optional
        Rows are stimulus names, columns categories; a stimulus may be in several or in none.
    rdm : pandas.DataFrame, optional
        Human dissimilarities (0 to 1) of some of the stimuli, symmetric; rows and columns are their names.
    notes : tuple of str
        What a reader must be told: what was dropped, what is simulated.

    Raises
    ------
    MismatchError
        If a part speaks of a stimulus that is not among `stimuli`.

    Examples
    --------
    >>> data = Dataset("demo", Stimuli(("apple.jpg", "bat1.jpg")), notes=("Two pictures.",))
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
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "embeddings", MappingProxyType(dict(self.embeddings)))
        object.__setattr__(self, "embedding_sources", MappingProxyType(dict(self.embedding_sources)))
        object.__setattr__(self, "notes", tuple(self.notes))
        if self.triplets is not None and self.triplets.names != self.stimuli.names:
            raise MismatchError(
                f"The triplets are about {len(self.triplets.names)} stimuli, which are not the "
                f"{len(self.stimuli)} of the dataset in their order. Re-index them with "
                "`triplets.among(stimuli.names)`."
            )
        for part, frame in [
            *((f"the embedding {key!r}", frame) for key, frame in self.embeddings.items()),
            ("the categories", self.categories),
            ("the dissimilarities", self.rdm),
        ]:
            strangers = [] if frame is None else [name for name in frame.index if name not in self.stimuli]
            if strangers:
                raise MismatchError(
                    f"{len(strangers)} rows of {part} are not stimuli: {', '.join(map(str, strangers[:5]))}. "
                    "Name the rows by stimulus, and keep only those with a picture."
                )

    def __len__(self) -> int:
        return len(self.stimuli)

    def __repr__(self) -> str:
        lines = [f"Dataset {self.name!r}: {len(self.stimuli):,} pictures"]
        if self.triplets is not None:
            lines.append(f"  triplets    {len(self.triplets):,} {self.triplets.judgements} choices")
        if self.repeated is not None:
            lines.append(f"  repeated    {len(self.repeated):,} triplets judged repeatedly")
        for key, frame in self.embeddings.items():
            lines.append(
                f"  embedding   {self.describe_embedding(key)}: {frame.shape[1]} dimensions, {len(frame):,} pictures"
            )
        if self.categories is not None:
            members = int(self.categories.any(axis=1).sum())
            lines.append(f"  categories  {self.categories.shape[1]}, with {members:,} pictures")
        if self.rdm is not None:
            lines.append(f"  rdm         {len(self.rdm)} pictures")
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
                f"The data set {self.name!r} has no triplets, so there is nobody to agree with. Put a file of "
                "choices beside its pictures (triplets.csv: three names a line, the odd one last) or name one "
                "with `triplets=`. Notebooks 01 and 05 need none."
            )
        return self.triplets.judgements

    @property
    def default_embedding(self) -> str | None:
        """The embedding to set beside a block: the judges' own, where it is known; None if there is none."""
        return next(iter(self.embeddings), None)

    def describe_embedding(self, embedding: str) -> str:
        """Name an embedding together with what it is.

        Examples
        --------
        >>> data.describe_embedding("SPoSE-66")  # doctest: +SKIP
        'SPoSE-66 (human model)'
        """
        kind = self.embedding_sources.get(embedding, "")
        return f"{embedding} ({kind})" if kind else embedding

    def subset(self, names: Iterable[str]) -> Dataset:
        """Keep some stimuli, and of every part what is about them alone.

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
        >>> data.subset(["apple", "banana", "car"])  # doctest: +SKIP
        """
        stimuli = self.stimuli.select(names)
        kept = set(stimuli.names)
        repeated = self.repeated
        if repeated is not None:
            repeated = repeated[repeated[["i", "j", "k"]].isin(kept).all(axis=1)].reset_index(drop=True)

        def rows(frame: pd.DataFrame) -> pd.DataFrame:
            there = set(frame.index)
            return frame.loc[[name for name in stimuli.names if name in there]]

        rdm = self.rdm
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
            notes=(*self.notes, f"A subset: {len(stimuli):,} of {len(self.stimuli):,} pictures."),
        )
