"""The feature store: one labelled array per block × noise level × conditioning (× noise sample), in zarr, and views of it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import zarr

from ldm_kit.datasets.stimuli import Stimuli
from ldm_kit.errors import BadInputError, LdmKitError, MismatchError, unknown_name
from ldm_kit.features.conditioning import shuffled_concepts
from ldm_kit.features.request import as_list
from ldm_kit.features.store_files import (
    METADATA_ERRORS,
    SAME_LEVEL,
    CellKey,
    bad_chunks,
    check_metadata,
    damaged,
    description,
    file_of,
    first_column,
    label_problem,
    problem_of,
    read,
)

NOT_APART = (
    "this store shows no noise samples of their own; its features are of one, or the mean of several. `extract` keeps them "
    "with draws='apart'."
)


class FeatureStore:
    """Read features that `extract` wrote.

    Parameters
    ----------
    group : zarr.Group
        The store's root.
    where : str
        Its path, for messages; ``"memory"`` if it has none.
    keys : sequence of CellKey, optional
        Show only these cells.

    Examples
    --------
    >>> _ = lk.extract(model, data.stimuli[:4], blocks="mid_block", noise_levels=[0.3], out="features", progress=False)
    >>> store = lk.FeatureStore.open("features")
    >>> store["mid_block", 0.3, "none"].shape
    (4, 128)
    >>> len(store.select(blocks=["mid_block"], names=store.names[:2]))
    2

    Notes
    -----
    On disk it is a plain zarr v3 hierarchy, ``BLOCK/LEVEL/CONDITIONING``, and below that ``DRAW``, the number of a noise
    sample, if `extract` kept them apart. Each array is (stimuli, channels)
    in float32 or float16 with zstd and a checksum (crc32c), in chunks of 32 stimuli; with ``pooling="tokens"`` (stimuli, tokens,
    channels), with ``"none"`` (stimuli, channels, y, x) for maps. Dimensions are named, per block but for
    ``stimulus``. A row of NaN was not computed yet, one of infinity was computed and not finite. The root's
    attribute ``ldm_kit`` holds the request, the stimuli's names, concepts and fingerprints, the prompts,
    images that were refused and the package versions; each array's attributes hold its block, depth,
    noise level, timestep, sigma, signal share, conditioning, pooling and, if it has one, draw. So it can be read without ldm_kit:

    >>> zarr.open_array("features/mid_block/0.3/none", mode="r").shape
    (4, 128)
    >>> len(zarr.open_group("features", mode="r").attrs["ldm_kit"]["stimuli"]["names"])
    4
    >>> xarray.open_zarr("features", group="mid_block/0.3", consolidated=False)  # doctest: +SKIP
    """

    def __init__(
        self, group: zarr.Group, where: str = "memory", keys: Sequence[CellKey] | None = None
    ) -> None:
        self._group, self.where = group, where
        self._about = description(group, where, sealed=False)  # as often as a store is selected from
        found = _keys_in(group, self._about["prompts"]) if keys is None else keys
        # the arrays that each cell shown is the mean of
        self._arrays_of: dict[CellKey, tuple[CellKey, ...]] = {key: (key,) for key in found}
        refused = self._about.get("refused", {})
        names = self._about["stimuli"]["names"]
        # the row of each name in the arrays
        self._row_of = {name: row for row, name in enumerate(names) if name not in refused}

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> FeatureStore:
        """Open a store for reading.

        Raises
        ------
        BadInputError
            If there is none at `path`, it has another format, or a ``zarr.json`` is damaged or missing.
        """
        if "://" not in str(path) and not (Path(path) / "zarr.json").exists():
            raise _no_store(path)
        arrays = check_metadata(Path(path))
        try:
            group = zarr.open_group(str(path), mode="r", zarr_format=3)
        except METADATA_ERRORS as error:
            check_metadata(Path(path), thorough=True)
            raise _no_store(path) from error
        if not description(group, str(path)):
            raise _no_store(path)
        try:
            store = cls(group, str(path))
        except METADATA_ERRORS as error:
            if not isinstance(error, LdmKitError):
                check_metadata(Path(path), thorough=True)
            raise
        if len(store.cells()) < arrays:  # zarr passes over some descriptions that it cannot use
            check_metadata(Path(path), thorough=True)
        return store

    # What is there --------------------------------------------------------------------------------

    @property
    def names(self) -> tuple[str, ...]:
        """Stimulus names, one a row of every array."""
        return tuple(self._row_of)

    @property
    def concepts(self) -> tuple[str, ...]:
        """The object that each stimulus shows."""
        concepts = self._about["stimuli"]["concepts"]
        return tuple(concepts[row] for row in self._row_of.values())

    @property
    def request(self) -> dict[str, Any]:
        """The store's identity, as plain data."""
        return dict(self._about["request"])

    @property
    def versions(self) -> dict[str, str]:
        """Versions of the packages that the store was begun with."""
        return dict(self._about["versions"])

    @property
    def refused(self) -> dict[str, str]:
        """Images that could not be opened, and why (see `extract`'s `on_error`); they are not among `names`."""
        return dict(self._about.get("refused", {}))

    def cells(self) -> tuple[CellKey, ...]:
        """Keys of all arrays: by depth, then noise level, conditioning and draw."""
        return tuple(self._arrays_of)

    @property
    def blocks(self) -> tuple[str, ...]:
        """Blocks, in network order."""
        return tuple(dict.fromkeys(key.block for key in self._arrays_of))

    @property
    def noise_levels(self) -> tuple[float, ...]:
        """Noise levels, ascending."""
        return tuple(sorted({key.noise_level for key in self._arrays_of}))

    @property
    def conditionings(self) -> tuple[str, ...]:
        """Conditionings, in the order in which they were first requested."""
        return tuple(dict.fromkeys(key.conditioning for key in self._arrays_of))

    @property
    def draws(self) -> tuple[int, ...]:
        """Numbers of the noise samples that have cells of their own, ascending; none where features are their mean."""
        return tuple(sorted({key.draw for key in self._arrays_of if key.draw is not None}))

    def prompts(self, conditioning: str) -> tuple[str, ...]:
        """Give the prompt of each stimulus under a conditioning."""
        prompts = self._about["prompts"]
        if conditioning not in prompts:
            raise unknown_name(
                "conditioning", conditioning, prompts, "Extract it first, into the same `out`."
            )
        return tuple(prompts[conditioning][row] for row in self._row_of.values())

    def labels(self, key: CellKey) -> dict[str, Any]:
        """Give the columns of the tidy table that describe the array at `key`.

        There is a `draw` if the cell is of one noise sample, and an `n_noise` if it is a mean over several.
        """
        key = key if key in self._arrays_of else self._find(key)
        arrays, request = self._arrays_of[key], self._about["request"]
        attributes = dict(self._array(arrays[0]).attrs)
        shared = {"model": request["model"], "dataset": request["dataset"], "seed": request["seed"]}
        averaged = len(arrays) if key not in arrays else request.get("n_noise", 1)
        if key.draw is None:
            attributes.pop("draw", None)
        return {**shared, **attributes, **({"n_noise": averaged} if averaged > 1 else {})}

    def table(self) -> pd.DataFrame:
        """List what is there: one row an array, with its labels, shape, share computed, rows not finite.

        Examples
        --------
        >>> len(store.table()) == len(store.cells())
        True
        """
        rows = []
        for key, arrays in self._arrays_of.items():
            first = self._first(key)
            counts = {"done": 1 - np.isnan(first).mean(), "not_finite": int(np.isinf(first).sum())}
            shape = self._array(arrays[0]).shape[1:]
            rows.append({**self.labels(key), "n": len(self), "shape": shape, **counts})
        return pd.DataFrame(rows)

    def verify(self) -> pd.DataFrame:
        """Read every chunk of every array shown, and list those that cannot be read or are not what was written.

        Returns
        -------
        pandas.DataFrame
            One row a bad chunk: block, noise_level, conditioning, draw if they are apart, file, problem. Empty if all
            are sound.

        Examples
        --------
        >>> store.verify().empty
        True
        """
        keys = [key for arrays in self._arrays_of.values() for key in arrays]
        rows = [
            {**key._asdict(), "file": file, "problem": problem_of(problem)}
            for key in keys
            for file, problem in bad_chunks(self._array(key))
        ]
        fields = [
            field for field in CellKey._fields if field != "draw" or any(k.draw is not None for k in keys)
        ]
        return pd.DataFrame(rows, columns=[*fields, "file", "problem"])

    def finite(self) -> FeatureStore:
        """Show only the stimuli whose activations were finite in every cell shown (see `extract`'s `on_nonfinite`).

        Examples
        --------
        >>> finite = store.finite()
        >>> len(lk.odd_one_out(finite, data.triplets.among(finite.names))) == len(finite.cells())
        True
        """
        bad = np.zeros(len(self), dtype=bool)
        for key in self._arrays_of:
            bad |= np.isinf(self._first(key))
        return self.select(names=np.array(self.names)[~bad].tolist())

    def __len__(self) -> int:
        return len(self._row_of)

    def __repr__(self) -> str:
        draws = f" × {len(self.draws)} noise samples" if self.draws else ""
        return (
            f"FeatureStore({len(self)} stimuli × {len(self.blocks)} blocks × {len(self.noise_levels)} noise levels "
            f"× {len(self.conditionings)} conditionings{draws} of {self._about['request']['model']}, in {self.where})"
        )

    # Getting at it --------------------------------------------------------------------------------

    def __getitem__(
        self, key: tuple[str, float, str] | tuple[str, float, str, int | None]
    ) -> npt.NDArray[np.floating]:
        """Return the array of one cell, (n, channels), rows as in `names`.

        Parameters
        ----------
        key : CellKey or tuple
            Block, noise level, conditioning and, if the store shows several noise samples, draw.

        Raises
        ------
        UnknownNameError
            If there is no such block, noise level, conditioning or draw; the nearest come first.
        MismatchError
            If some of its stimuli were never computed.
        BadInputError
            If one of its files is damaged, or no draw is named where there are several.
        """
        found = self._find(key)
        arrays = [self._shown(read(self._array(one))) for one in self._arrays_of[found]]
        array = arrays[0] if len(arrays) == 1 else np.asarray(np.mean(arrays, axis=0, dtype=np.float32))
        missing = np.isnan(array.reshape(len(array), -1)[:, 0])
        if missing.any():
            first = self.names[int(np.flatnonzero(missing)[0])]
            raise MismatchError(
                f"{int(missing.sum())} of {len(self)} stimuli have no features at {found.path!r} yet, the first is "
                f"{first!r}. Run the same `lk.extract` again: it computes only what is missing. Or show fewer: "
                "`store.select(names=…)`."
            )
        return array

    def select(
        self,
        *,
        blocks: str | Sequence[str] | None = None,
        noise_levels: float | Sequence[float] | None = None,
        conditionings: str | Sequence[str] | None = None,
        names: Iterable[str] | None = None,
        draws: int | Sequence[int] | None = None,
    ) -> FeatureStore:
        """Show a part of the store; nothing is copied.

        Parameters
        ----------
        blocks, noise_levels, conditionings : one or a sequence, optional
            What to keep; None keeps all.
        names : iterable of str, optional
            Stimuli to keep, in this order; what is named twice is shown once.
        draws : int or sequence of int, optional
            Noise samples to keep, of those in `draws`.

        Raises
        ------
        UnknownNameError
            For anything that is not there.
        BadInputError
            If `draws` is given and the noise samples are not apart.
        """
        if draws is not None and not self.draws:
            raise BadInputError(f"draws={draws!r}: {NOT_APART}")
        keys = list(self._arrays_of)
        wanted = {"block": blocks, "noise_level": noise_levels, "conditioning": conditionings, "draw": draws}
        for field, values in wanted.items():
            if values is not None:
                there = sorted({getattr(key, field) for key in self._arrays_of})
                matched = {_match(field.replace("_", " "), value, there) for value in as_list(values)}
                keys = [key for key in keys if getattr(key, field) in matched]
        view = FeatureStore(self._group, self.where, keys)
        view._arrays_of = {key: self._arrays_of[key] for key in keys}
        chosen = self.names if names is None else tuple(names)
        for name in chosen:
            if name not in self._row_of:
                raise unknown_name("stimulus", name, self.names, "`store.names` lists them.")
        view._row_of = {name: self._row_of[name] for name in chosen}
        return view

    def renamed(self, new_names: Mapping[str, str]) -> FeatureStore:
        """Show the same arrays under other stimulus names; nothing is copied.

        Parameters
        ----------
        new_names : mapping of str to str
            A new name for each name, all different.

        Raises
        ------
        BadInputError
            If a stimulus has none, or two have the same.

        Examples
        --------
        >>> two = store.select(names=store.names[:2])
        >>> two.renamed(dict(zip(two.names, ("a.png", "b.png")))).names
        ('a.png', 'b.png')
        """
        lacking = [name for name in self.names if name not in new_names]
        if lacking:
            raise BadInputError(
                f"{len(lacking)} of {len(self)} stimuli have no new name, the first is {lacking[0]!r}. Give every "
                "stimulus one; `{name: name}` keeps it."
            )
        view = self.select()
        view._row_of = {new_names[name]: row for name, row in self._row_of.items()}
        if len(view) < len(self):
            raise BadInputError("Two stimuli would bear the same name. Give each its own.")
        return view

    def mean_of_draws(self) -> FeatureStore:
        """Show the mean over the noise samples, for a store that has them apart; another is returned as it is.

        The means are what `extract` gives with ``draws="mean"``, but for rounding. They are taken as a cell is read.

        Raises
        ------
        BadInputError
            If the cells shown do not all have the same noise samples.

        Examples
        --------
        >>> ask = {"blocks": "mid_block", "noise_levels": [0.9], "n_noise": 2, "progress": False}
        >>> store = lk.extract(model, data.stimuli[:4], draws="apart", **ask)
        >>> store.draws, store["mid_block", 0.9, "none", 1].shape
        ((0, 1), (4, 128))
        >>> mean = lk.extract(model, data.stimuli[:4], draws="mean", **ask)
        >>> np.allclose(store.mean_of_draws()["mid_block", 0.9, "none"], mean["mid_block", 0.9, "none"], atol=1e-5)
        True
        """
        draws = self.draws
        if not draws:
            return self
        view = self.select()
        view._arrays_of = {}
        for key in self._arrays_of:
            mean = key._replace(draw=None)
            view._arrays_of[mean] = (*view._arrays_of.get(mean, ()), key)
        for mean, keys in view._arrays_of.items():
            if len(keys) < len(draws):
                raise BadInputError(
                    f"{mean.path!r} has noise samples {[key.draw for key in keys]}, other cells have {list(draws)}. Extract "
                    "the rest, or show those that all have: `store.select(draws=…)`."
                )
        return view

    def _find(self, key: tuple[Any, ...]) -> CellKey:
        if not isinstance(key, tuple) or len(key) not in (3, 4):
            raise BadInputError(
                "A cell is named by three things, store[block, noise_level, conditioning], or by four, with the draw, if "
                f"its noise samples are apart; got {key!r}."
            )
        block = _match("block", key[0], self.blocks)
        level = _match("noise level", key[1], self.noise_levels)
        conditioning = _match("conditioning", key[2], self.conditionings)
        found = CellKey(block, level, conditioning, self._find_draw(key[3] if len(key) == 4 else None))
        if found not in self._arrays_of:
            raise unknown_name(
                "cell", found.path, [k.path for k in self._arrays_of], "`store.table()` lists what is there."
            )
        return found

    def _find_draw(self, draw: int | None) -> int | None:
        """Match the draw that a key names; it may be left out if there is just one."""
        draws = self.draws
        if draw is None and len(draws) > 1:
            raise BadInputError(
                f"The store shows the noise samples {', '.join(map(str, draws))}, each in cells of its own: name one, "
                "store[block, noise_level, conditioning, draw], or take their mean, store.mean_of_draws()."
            )
        if draw is None:
            return draws[0] if draws else None
        if not draws:
            raise BadInputError(f"Draw {draw!r}: {NOT_APART}")
        return int(_match("draw", draw, draws))

    def _first(self, key: CellKey) -> npt.NDArray[np.floating]:
        """Read one number a stimulus shown: NaN where nothing was computed, infinity where it was not finite."""
        found = [self._shown(first_column(self._array(one))) for one in self._arrays_of[key]]
        return found[0] if len(found) == 1 else np.sum(found, axis=0, dtype=np.float32)

    def _shown(self, rows: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        """Pick the rows of the stimuli shown; those that joined the store later than an array grew are NaN."""
        places = np.fromiter(self._row_of.values(), np.int64, len(self))
        shown = rows[np.minimum(places, len(rows) - 1)]
        shown[places >= len(rows)] = np.nan
        return shown

    def _array(self, key: CellKey) -> zarr.Array[Any]:
        array = self._group[key.path]
        assert isinstance(array, zarr.Array)
        return array


class SideBySide:
    """Cells of several stores under new conditionings; see `ldm_kit.measures.cells.Store`.

    Parameters
    ----------
    parts : mapping of str to FeatureStore
        Each of one conditioning, which is shown under the key. All hold the first one's stimuli.

    Examples
    --------
    >>> both = SideBySide({name: store.select(conditionings=name) for name in ("none", "label")})
    >>> set(lk.compare(both, data.triplets, by="conditioning", reference="none")["a"])
    {'label'}
    """

    def __init__(self, parts: Mapping[str, FeatureStore]) -> None:
        first = next(iter(parts.values()))
        self.names, self.concepts = first.names, first.concepts
        self._parts = {name: part.select(names=self.names) for name, part in parts.items()}

    def cells(self) -> list[tuple[str, CellKey]]:
        """Keys of all arrays."""
        return [(name, key) for name, part in self._parts.items() for key in part.cells()]

    def labels(self, key: tuple[str, CellKey]) -> dict[str, Any]:
        """Give the columns of the tidy table that describe the array at `key`."""
        name, cell = key
        return {**self._parts[name].labels(cell), "conditioning": name}

    def __getitem__(self, key: tuple[str, CellKey]) -> npt.NDArray[np.floating]:
        name, cell = key
        return self._parts[name][cell]


def relabel_by_prompt(store: FeatureStore, stimuli: Stimuli) -> FeatureStore:
    """Name features extracted with shuffled labels by the object in the *prompt*.

    Scored under its own names, a store shows whether a representation follows the image; under these,
    whether it follows the prompt.

    Parameters
    ----------
    store : FeatureStore
        With the conditioning ``"shuffled"`` alone, extracted from these stimuli; its seed determines the prompts.
    stimuli : Stimuli
        The whole dataset's, one image a concept.

    Returns
    -------
    FeatureStore
        The same arrays; each row has the name of the image whose label was its prompt.

    Raises
    ------
    BadInputError
        If a concept has several images, so that a prompt names no single one, or the store has other conditionings.
    MismatchError
        If the prompts in the store are not those of these stimuli.

    Examples
    --------
    >>> by_prompt = lk.relabel_by_prompt(store.select(conditionings="shuffled"), data.stimuli)
    >>> sorted(by_prompt.names) == sorted(store.names), by_prompt.names == store.names
    (True, False)
    """
    if store.conditionings != ("shuffled",):
        raise BadInputError(
            f"The store shows the conditionings {store.conditionings}; only shuffled labels can be renamed by their prompt. "
            "Give `store.select(conditionings='shuffled')`."
        )
    image_of = dict(zip(stimuli.concepts, stimuli.names, strict=True))
    if len(image_of) < len(stimuli):
        raise BadInputError(
            f"{len(stimuli)} stimuli show {len(image_of)} concepts: with several images a concept, a prompt "
            "names no single one. Select one image a concept first."
        )
    partner = shuffled_concepts(stimuli.all_concepts, store.request["seed"])
    concept_of = dict(zip(stimuli.names, stimuli.concepts, strict=True))
    renamed = {name: image_of.get(partner[concept_of[name]]) for name in store.names}
    missing = [name for name, new in renamed.items() if new is None]
    if missing:
        raise BadInputError(
            f"The prompt of {missing[0]!r} names {partner[concept_of[missing[0]]]!r}, which has no image "
            "among these stimuli. Extract the whole dataset."
        )
    label_of = dict(zip(stimuli.all_concepts, stimuli.all_labels, strict=True))
    for name, prompt in zip(store.names, store.prompts("shuffled"), strict=True):
        expected = store.request["template"].replace("{name}", label_of[partner[concept_of[name]]])
        if prompt != expected:
            raise MismatchError(
                f"The prompt of {name!r} is {prompt!r} in the store {store.where!r}, and would be {expected!r} among "
                "these stimuli. Give the stimuli that the store was extracted from."
            )
    return store.renamed({name: str(new) for name, new in renamed.items()})


def _match(kind: str, given: Any, there: Sequence[Any]) -> Any:
    """Find `given` in `there`; noise levels match within rounding."""
    of_numbers = bool(there) and isinstance(there[0], float)
    if of_numbers and isinstance(given, str):
        raise BadInputError(
            f"The {kind} {given!r} is text. Give a number, one of {', '.join(map(str, there))}."
        )
    for item in there:
        if abs(item - given) < SAME_LEVEL if of_numbers else item == given:
            return item
    raise unknown_name(kind, given, there, "`store.table()` lists what is there; extract the rest.")


def _keys_in(group: zarr.Group, conditionings: Iterable[str]) -> list[CellKey]:
    """Find all cells by the arrays' own attributes: in network order, then by noise level, conditioning and draw."""
    order = list(conditionings)
    found: list[tuple[int, float, int, int, CellKey]] = []
    for _, member in group.members(max_depth=None):
        if isinstance(member, zarr.Array):
            problem = label_problem(member)
            if problem:
                raise damaged(file_of(member, "zarr.json"), problem)
            labels: Any = dict(member.attrs)
            key = CellKey.of({**labels, "noise_level": float(labels["noise_level"])})
            found.append(
                (labels["depth"], key.noise_level, order.index(key.conditioning), key.draw or 0, key)
            )
    return [key for *_, key in sorted(found)]


def _no_store(path: str | os.PathLike[str]) -> BadInputError:
    """Build the error for a folder that is no store."""
    if any((Path(path) / name).exists() for name in (".zgroup", ".zarray")):
        return BadInputError(
            f"{str(path)!r} is of zarr version 2; feature stores are of version 3. Extract again into another folder."
        )
    return BadInputError(
        f"There is no feature store at {str(path)!r}. Make one with `lk.extract(..., out={str(path)!r})`, "
        "or check the path."
    )
