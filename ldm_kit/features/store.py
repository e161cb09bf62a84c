"""The feature store: one labelled array per block × noise level × conditioning, in zarr."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import zarr

from ldm_kit.errors import BadInputError, LdmKitError, MismatchError, unknown_name
from ldm_kit.features.damage import METADATA_ERRORS, bad_chunks, check_metadata, damaged, file_of, read, told

FORMAT = 2  # 1 had no checksums
LABELS = ("block", "depth", "noise_level", "timestep", "sigma", "conditioning", "pooling")
SAME_LEVEL = 1e-6  # noise levels closer than this are one: a path names six digits


class CellKey(NamedTuple):
    """What names one array of a store."""

    block: str
    noise_level: float
    conditioning: str

    @property
    def path(self) -> str:
        """The array's path in the zarr hierarchy, e.g. ``up_blocks.1/0.3/label``."""
        return f"{self.block}/{self.noise_level:.6g}/{self.conditioning}"


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
    >>> store = lk.FeatureStore.open("outputs/run/features")  # doctest: +SKIP
    >>> store["up_blocks.1", 0.3, "label"].shape  # doctest: +SKIP
    (56, 96)
    >>> store.select(blocks=["mid_block"], names=store.names[:10])  # doctest: +SKIP

    Notes
    -----
    On disk it is a plain zarr v3 hierarchy, ``BLOCK/LEVEL/CONDITIONING``, each array (stimuli, channels)
    in float32 or float16 with zstd and a checksum (crc32c), in chunks of 32 stimuli; with ``pooling="tokens"`` (stimuli, tokens,
    channels), with ``"none"`` (stimuli, channels, y, x) for maps. Dimensions are named, per block but for
    ``stimulus``. A row of NaN was not computed yet, one of infinity was computed and not finite. The root's
    attribute ``ldm_kit`` holds the request, the stimuli's names, concepts and fingerprints, the prompts,
    pictures that were refused and the package versions; each array's attributes hold its block, depth,
    noise level, timestep, sigma, signal share, conditioning and pooling. So it can be read without ldm_kit:

    >>> array = zarr.open_array("outputs/run/features/mid_block/0.3/none")  # doctest: +SKIP
    >>> names = zarr.open_group("outputs/run/features").attrs["ldm_kit"]["stimuli"]["names"]  # doctest: +SKIP
    >>> xarray.open_zarr("outputs/run/features", group="mid_block/0.3", consolidated=False)  # doctest: +SKIP
    """

    def __init__(
        self,
        group: zarr.Group,
        where: str = "memory",
        keys: Sequence[CellKey] | None = None,
    ) -> None:
        self._group = group
        self._about = description(group, where, sealed=False)  # as often as a store is selected from
        self.where = where
        self._keys = tuple(keys) if keys is not None else tuple(_keys_in(group))
        names, refused = self._about["stimuli"]["names"], self.refused
        self._names: tuple[str, ...] = tuple(name for name in names if name not in refused)
        # where each name's row lies in the arrays
        self._rows = np.array([row for row, name in enumerate(names) if name not in refused], dtype=np.int64)

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
        return self._names

    @property
    def concepts(self) -> tuple[str, ...]:
        """The object that each stimulus shows."""
        concepts = self._about["stimuli"]["concepts"]
        return tuple(concepts[row] for row in self._rows)

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
        """Pictures that could not be opened, and why (see `extract`'s `errors`); they are not among `names`."""
        return dict(self._about.get("refused", {}))

    def cells(self) -> tuple[CellKey, ...]:
        """Keys of all arrays: by depth, then noise level, then conditioning."""
        return self._keys

    @property
    def blocks(self) -> tuple[str, ...]:
        """Blocks, in network order."""
        return tuple(dict.fromkeys(key.block for key in self._keys))

    @property
    def noise_levels(self) -> tuple[float, ...]:
        """Noise levels, ascending."""
        return tuple(sorted({key.noise_level for key in self._keys}))

    @property
    def conditionings(self) -> tuple[str, ...]:
        """Conditionings, in the order in which they were first asked for."""
        return tuple(dict.fromkeys(key.conditioning for key in self._keys))

    def prompts(self, conditioning: str) -> tuple[str, ...]:
        """Give the prompt of each stimulus under a conditioning."""
        prompts = self._about["prompts"]
        if conditioning not in prompts:
            raise unknown_name(
                "conditioning", conditioning, prompts, "Extract it first, into the same `out`."
            )
        return tuple(prompts[conditioning][row] for row in self._rows)

    def labels(self, key: CellKey) -> dict[str, Any]:
        """Give the columns of the tidy table that describe the array at `key`."""
        attributes = dict(self._array(key).attrs)
        request = self._about["request"]
        shared = {"model": request["model"], "dataset": request["dataset"], "seed": request["seed"]}
        return {**shared, **attributes}

    def table(self) -> pd.DataFrame:
        """List what is there: one row an array, with its labels, shape, share computed, rows not finite.

        Examples
        --------
        >>> store.table()  # doctest: +SKIP
        """
        rows = []
        for key in self._keys:
            first = self._first(key)
            counts = {"done": 1 - np.isnan(first).mean(), "not_finite": int(np.isinf(first).sum())}
            shape = self._array(key).shape[1:]
            rows.append({**self.labels(key), "n": len(self), "shape": shape, **counts})
        return pd.DataFrame(rows)

    def verify(self) -> pd.DataFrame:
        """Read every chunk of every array shown, and list those that cannot be read or are not what was written.

        Returns
        -------
        pandas.DataFrame
            One row a bad chunk: block, noise_level, conditioning, file, problem. Empty if all are sound.

        Examples
        --------
        >>> store.verify().empty  # doctest: +SKIP
        True
        """
        rows = [
            {**key._asdict(), "file": file, "problem": told(problem)}
            for key in self._keys
            for file, problem in bad_chunks(self._array(key))
        ]
        return pd.DataFrame(rows, columns=[*CellKey._fields, "file", "problem"])

    def finite(self) -> FeatureStore:
        """Show only the stimuli whose activations were finite in every cell shown (see `extract`'s `nan`).

        Examples
        --------
        >>> lk.odd_one_out(store.finite(), data.triplets.among(store.finite().names))  # doctest: +SKIP
        """
        bad = np.zeros(len(self), dtype=bool)
        for key in self._keys:
            bad |= np.isinf(self._first(key))
        return self.select(names=[name for name, is_bad in zip(self._names, bad, strict=True) if not is_bad])

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        return (
            f"FeatureStore({len(self)} stimuli × {len(self.blocks)} blocks × {len(self.noise_levels)} noise levels "
            f"× {len(self.conditionings)} conditionings of {self._about['request']['model']}, in {self.where})"
        )

    # Getting at it --------------------------------------------------------------------------------

    def __getitem__(self, key: tuple[str, float, str]) -> npt.NDArray[np.floating]:
        """Return the array of one cell, (n, channels), rows as in `names`.

        Raises
        ------
        UnknownNameError
            If there is no such block, noise level or conditioning; the nearest come first.
        MismatchError
            If some of its stimuli were never computed.
        BadInputError
            If one of its files is damaged.
        """
        array = _whole(read(self._array(self._find(key))), len(self._about["stimuli"]["names"]))[self._rows]
        missing = np.isnan(array.reshape(len(array), -1)[:, 0])
        if missing.any():
            first = self._names[int(np.flatnonzero(missing)[0])]
            raise MismatchError(
                f"{int(missing.sum())} of {len(self)} stimuli have no features at {tuple(key)} yet, the first is "
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
    ) -> FeatureStore:
        """Show a part of the store; nothing is copied.

        Parameters
        ----------
        blocks, noise_levels, conditionings : one or a sequence, optional
            What to keep; None keeps all.
        names : iterable of str, optional
            Stimuli to keep, in this order.

        Raises
        ------
        UnknownNameError
            For anything that is not there.
        """
        blocks = [blocks] if isinstance(blocks, str) else blocks
        noise_levels = None if noise_levels is None else np.atleast_1d(np.asarray(noise_levels)).tolist()
        conditionings = [conditionings] if isinstance(conditionings, str) else conditionings
        kept = set(self._keys)
        for field, wanted in (
            ("block", blocks),
            ("noise_level", noise_levels),
            ("conditioning", conditionings),
        ):
            if wanted is not None:
                there = sorted({getattr(key, field) for key in self._keys})
                matched = {_match(field.replace("_", " "), item, there) for item in wanted}
                kept = {key for key in kept if getattr(key, field) in matched}
        view = FeatureStore(self._group, self.where, [k for k in self._keys if k in kept])
        view._names, view._rows = self._names, self._rows
        if names is not None:
            chosen = tuple(names)
            position = {name: i for i, name in enumerate(self._names)}
            for name in chosen:
                if name not in position:
                    raise unknown_name("stimulus", name, self._names, "`store.names` lists them.")
            view._names, view._rows = chosen, self._rows[[position[name] for name in chosen]]
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
        >>> store.renamed({"apple.png": "pear.png", "pear.png": "apple.png"})  # doctest: +SKIP
        """
        lacking = [name for name in self._names if name not in new_names]
        if lacking:
            raise BadInputError(
                f"{len(lacking)} of {len(self)} stimuli have no new name, the first is {lacking[0]!r}. Give every "
                "stimulus one; `{name: name}` keeps it."
            )
        names = [new_names[name] for name in self._names]
        if len(set(names)) < len(names):
            raise BadInputError("Two stimuli would bear the same name. Give each its own.")
        view = self.select()
        view._names = tuple(names)
        return view

    def _find(self, key: tuple[str, float, str]) -> CellKey:
        if not isinstance(key, tuple) or len(key) != 3:
            raise BadInputError(
                f"A cell is named by three things, store[block, noise_level, conditioning]; got {key!r}."
            )
        block = _match("block", key[0], self.blocks)
        level = _match("noise level", key[1], self.noise_levels)
        conditioning = _match("conditioning", key[2], self.conditionings)
        found = CellKey(block, level, conditioning)
        if found not in self._keys:
            raise unknown_name(
                "cell", found.path, [k.path for k in self._keys], "`store.table()` lists what is there."
            )
        return found

    def _first(self, key: CellKey) -> npt.NDArray[np.floating]:
        """One number a stimulus shown: NaN where nothing was computed, infinity where it was not finite."""
        first = _first_column(self._array(key))
        return _whole(first, len(self._about["stimuli"]["names"]))[self._rows]

    def _array(self, key: CellKey) -> zarr.Array[Any]:
        array = self._group[key.path]
        assert isinstance(array, zarr.Array)
        return array


def _match(kind: str, given: Any, there: Sequence[Any]) -> Any:
    """Find `given` in `there`; noise levels match within rounding."""
    if isinstance(given, str) and there and isinstance(there[0], float):
        raise BadInputError(
            f"The {kind} {given!r} is text. Give a number, one of {', '.join(map(str, there))}."
        )
    for item in there:
        same = (
            abs(item - given) < SAME_LEVEL
            if isinstance(item, float) and not isinstance(given, str)
            else item == given
        )
        if same:
            return item
    raise unknown_name(kind, given, there, "`store.table()` lists what is there; extract the rest.")


def _keys_in(group: zarr.Group) -> list[CellKey]:
    """Find all cells by the arrays' own attributes, in network order."""
    found: list[tuple[int, float, int, CellKey]] = []
    order = list(group.attrs["ldm_kit"]["prompts"])  # type: ignore[index, call-overload, arg-type]
    for _, member in group.members(max_depth=None):
        if isinstance(member, zarr.Array):
            problem = label_problem(member)
            if problem:
                raise damaged(file_of(member, "zarr.json"), problem)
            about: Any = member.attrs
            key = CellKey(about["block"], float(about["noise_level"]), about["conditioning"])
            found.append((about["depth"], key.noise_level, order.index(key.conditioning), key))
    return [key for *_, key in sorted(found)]


def label_problem(array: zarr.Array[Any]) -> str:
    """Say what is wrong with an array's attributes and shape, which its path and chunks say as well; or nothing."""
    about: Any = dict(array.attrs)
    lacking = [name for name in LABELS if name not in about]
    if lacking:
        return f"its attributes lack {lacking[0]!r}"
    if f"{about['block']}/{about['noise_level']:.6g}/{about['conditioning']}" != array.path:
        return "its attributes are those of another array"
    if array.shape[1:] != array.chunks[1:]:
        return f"a stimulus has the shape {array.shape[1:]}, and in its chunks {array.chunks[1:]}"
    return ""


def _whole(rows: npt.NDArray[np.floating], n: int) -> npt.NDArray[np.floating]:
    """Lengthen to `n` rows by NaN: stimuli that joined the store later have no rows in arrays not asked for since."""
    lacking = np.full((n - len(rows), *rows.shape[1:]), np.nan, rows.dtype)
    return np.concatenate([rows, lacking]) if n > len(rows) else rows


def _first_column(array: zarr.Array[Any]) -> npt.NDArray[np.floating]:
    """Read one number a stimulus: NaN there says that nothing was computed."""
    column = read(array, slice(None), *[0] * (array.ndim - 2))
    return column.reshape(len(column), -1)[:, 0]


def seal(about: Mapping[str, Any]) -> dict[str, Any]:
    """Add its checksum to what a store says of itself, which JSON has none for.

    Examples
    --------
    >>> seal({"format": 2})["sha256"][:8]
    '3da2733d'
    """
    bare = {name: value for name, value in about.items() if name != "sha256"}
    return {**bare, "sha256": hashlib.sha256(json.dumps(bare, sort_keys=True).encode()).hexdigest()}


def description(group: zarr.Group, where: str, *, sealed: bool = True) -> dict[str, Any]:
    """Give what a store says of itself; nothing if it was only just begun.

    Raises
    ------
    BadInputError
        If it has another format, has arrays and does not say what they are, or (where it is to be `sealed`) is not
        what was written.

    Examples
    --------
    >>> description(zarr.group(store=zarr.storage.MemoryStore()), "memory")
    {}
    """
    about: Any = group.attrs.get("ldm_kit")
    if about is None and not any(True for _ in group):
        return {}
    if about is not None and about.get("format") != FORMAT:
        raise BadInputError(
            f"The store {where!r} has format {about.get('format')!r}; this version reads format {FORMAT}. "
            "Extract again into another folder."
        )
    if (
        about is None
        or not {"request", "versions", "stimuli", "prompts"} <= set(about)
        or not {"model", "dataset", "seed"} <= set(about["request"])
    ):
        raise damaged(
            file_of(group, "zarr.json"),
            "what it says of the arrays below was lost",
            "Extract again into another folder, or put the file back from a copy.",
        )
    if sealed and about != seal(about):
        raise damaged(
            file_of(group, "zarr.json"),
            "its checksum does not match",
            "Extract again into another folder, or put the file back from a copy.",
        )
    return dict(about)


def _no_store(path: str | os.PathLike[str]) -> BadInputError:
    if any((Path(path) / name).exists() for name in (".zgroup", ".zarray")):
        return BadInputError(
            f"{str(path)!r} is of zarr version 2; feature stores are of version 3. Extract again into another folder."
        )
    return BadInputError(
        f"There is no feature store at {str(path)!r}. Make one with `lk.extract(..., out={str(path)!r})`, "
        "or check the path."
    )
