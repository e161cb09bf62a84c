"""Making and growing a store: what is missing is known from the arrays themselves."""

from __future__ import annotations

import copy
import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import zarr
from filelock import FileLock, Timeout
from zarr.codecs import Crc32cCodec, ZstdCodec

from ldm_kit.datasets.stimuli import Stimuli
from ldm_kit.errors import BadInputError, LdmKitError, MismatchError
from ldm_kit.features.damage import METADATA_ERRORS, UNSOUND, bad_chunks, check_metadata, damaged, file_of
from ldm_kit.features.request import check_same_request, package_versions, warn_of_other_versions
from ldm_kit.features.store import FORMAT, CellKey, _first_column, description, label_problem, seal
from ldm_kit.files import CANNOT_WRITE, cannot_write

logger = logging.getLogger(__name__)

# Fills the row of a stimulus whose activations were NaN or infinite (NaN itself says: not computed yet).
NOT_FINITE = np.inf

Node = TypeVar("Node", zarr.Group, zarr.Array[Any])


@contextmanager
def opened_for_writing(
    out: str | os.PathLike[str] | None, request: Mapping[str, Any], repair: bool = False
) -> Iterator[tuple[zarr.Group, str]]:
    """Open (or begin) a store of a request under a lock, and sweep what a killed write left behind.

    Where no lock can be made (a read-only disk), a store that is there is opened for reading.

    Parameters
    ----------
    out : path-like, optional
        None keeps the store in memory.
    request : mapping
        The identity that the store has, or gets.
    repair : bool
        Whether to delete damaged ``zarr.json`` files, which are then made anew.

    Yields
    ------
    group : zarr.Group
    where : str

    Raises
    ------
    BadInputError
        If the folder cannot be written to, or holds something else or a store that is damaged.
    MismatchError
        If the store was made by another request.
    """
    if out is None:
        yield zarr.group(store=zarr.storage.MemoryStore(), zarr_format=3), "memory"
        return
    path = Path(out)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_dir():
            raise BadInputError(f"{str(path)!r} is a file. Choose a folder as `out`; nothing was changed.")
        # What a write that was killed left behind is swept below, and does not make the folder another's.
        others = path.is_dir() and any(entry.suffix != ".partial" for entry in path.iterdir())
        if others and not (path / "zarr.json").exists():
            raise BadInputError(
                f"The folder {str(path)!r} holds other things than a feature store (of zarr version 3). Choose a new or "
                "empty folder as `out`; nothing was changed."
            )
        with _locked(path) as locked:
            if locked:
                _sweep(path)
            if not repair:
                check_metadata(path)
            group = zarr.open_group(str(path), mode="a" if locked else "r", zarr_format=3)
            about = description(group, str(path))
            if about:
                check_same_request(about["request"], dict(request), str(path))
                warn_of_other_versions(about["versions"], str(path))
            if repair:
                check_metadata(path, thorough=True, sweep=True)
            yield group, str(path)
    except OSError as error:
        if error.errno not in CANNOT_WRITE:
            raise
        raise cannot_write(path, error) from error
    except METADATA_ERRORS as error:
        if not isinstance(error, LdmKitError):
            check_metadata(path, thorough=True)
        raise


def _sweep(path: Path) -> None:
    """Delete what a write that was killed left behind: half-written files, and folders that hold nothing yet."""
    for orphan in path.rglob("*.partial"):
        orphan.unlink(missing_ok=True)
    for depth in ("*/*/*", "*/*", "*"):
        for folder in path.glob(depth):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()


@contextmanager
def _locked(path: Path) -> Iterator[bool]:
    # The lock lies beside the store, which stays pure zarr. The system frees it when a process dies.
    lock = FileLock(path.with_name(path.name + ".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.warning("Another process is writing to %r; waiting for it.", str(path))
        lock.acquire()
    except OSError as error:
        if error.errno not in CANNOT_WRITE or not (path / "zarr.json").exists():
            raise
    try:
        yield lock.is_locked
    finally:
        lock.release()


def writable(node: Node) -> Node:
    """Return a group or array that may be written to.

    Raises
    ------
    BadInputError
        If the store was opened for reading, because no lock could be made beside it.
    """
    if node.read_only:
        raise BadInputError(
            f"Cannot write {file_of(node, '').rstrip('/')!r}: the disk or the folder is read-only, and not all that was asked for is "
            "in the store. Ask for what is there, or choose an `out` folder that you may write to."
        )
    return node


def prepare(
    group: zarr.Group,
    where: str,
    request: Mapping[str, Any],
    stimuli: Stimuli,
    fingerprints: Mapping[str, str],
    prompts: Mapping[str, Sequence[str]],
) -> list[str]:
    """Begin a store, if it is new; add stimuli and prompts that are new.

    Returns
    -------
    list of str
        All names of the store, in the order of its rows.

    Raises
    ------
    MismatchError
        If an image or prompt has changed since.
    """
    # A copy, all the way down: it is compared with what is stored to see whether anything changed.
    about: Any = copy.deepcopy(description(group, where))
    if not about:
        about = {
            "format": FORMAT,
            "request": dict(request),
            "versions": package_versions(),
            "stimuli": {"names": [], "concepts": [], "fingerprints": []},
            "prompts": {},
        }
    before = {name: row for row, name in enumerate(about["stimuli"]["names"])}
    for i, name in enumerate(stimuli.names):
        fingerprint = fingerprints[name]
        if name in before:
            if about["stimuli"]["fingerprints"][before[name]] == fingerprint:
                continue
            if is_computed(group, before[name]):
                raise MismatchError(
                    f"The picture {name!r} has changed since its features were stored in {where!r}. "
                    "Choose another `out`; nothing was changed."
                )
            about["stimuli"]["fingerprints"][before[name]] = fingerprint  # it was broken, and was mended
            continue
        before[name] = len(before)
        about["stimuli"]["names"].append(name)
        about["stimuli"]["concepts"].append(stimuli.concepts[i])
        about["stimuli"]["fingerprints"].append(fingerprint)
    for conditioning, given in prompts.items():
        known = about["prompts"].setdefault(conditioning, [])
        known.extend([None] * (len(before) - len(known)))
        for name, prompt in zip(stimuli.names, given, strict=True):
            if known[before[name]] not in (None, prompt):
                raise MismatchError(
                    f"The prompt of {name!r} for {conditioning!r} is {known[before[name]]!r} in the store {where!r} and "
                    f"{prompt!r} here. Choose another `out`; nothing was changed."
                )
            known[before[name]] = prompt
    if group.attrs.get("ldm_kit") != seal(about):
        writable(group).attrs["ldm_kit"] = seal(about)
    return list(before)


def make_groups(group: zarr.Group, keys: Iterable[CellKey]) -> None:
    """Make the groups that arrays will lie in, or open them; zarr sees no array whose group is missing.

    All are there before the first array is made: a run that is killed leaves groups without arrays, never the reverse.
    """
    made: dict[str, Any] = {"": group}
    for key in keys:
        level = key.path.rpartition("/")[0]
        for path, parent in ((key.block, ""), (level, key.block)):
            if path in made:
                continue
            name = path.rpartition("/")[2]
            try:
                made[path] = made[parent][name]
            except KeyError:
                made[path] = writable(made[parent]).create_group(name)


def array_for(
    group: zarr.Group,
    key: CellKey,
    n: int,
    shape: Sequence[int],
    chunk: int,
    attributes: Mapping[str, Any],
    dtype: str = "float32",
    repair: bool = False,
) -> zarr.Array[Any]:
    """Open the array of a cell, make it, or lengthen it to `n` stimuli; `repair` makes a damaged description anew."""
    if key.path in group:
        array = group[key.path]
        assert isinstance(array, zarr.Array)
        file, problem = file_of(array, "zarr.json"), label_problem(array)
        if not problem and (array.shape[1:], array.dtype) != (tuple(shape), np.dtype(dtype)):
            problem = f"it says {array.shape[1:]} {array.dtype} a stimulus, which are {tuple(shape)} {dtype}"
        if problem and not repair:
            raise damaged(file, problem)
        if not problem:
            if array.shape[0] < n:
                writable(array).resize((n, *array.shape[1:]))
            return array
        writable(array)
        # Whose chunks they are is not known. They go first, so that a kill leaves none behind for the array that is made.
        shutil.rmtree(Path(file).with_name("c"), ignore_errors=True)
        Path(file).unlink()
    # Named per block: other blocks have other channels, and a reader such as xarray gives each name one size.
    channels = f"{key.block} channel"
    dimensions = {
        1: [channels],
        2: [f"{key.block} token", channels],
        3: [channels, f"{key.block} y", f"{key.block} x"],
    }[len(shape)]
    return writable(group).create_array(
        key.path,
        shape=(n, *shape),
        chunks=(chunk, *shape),
        dtype=dtype,
        compressors=[ZstdCodec(), Crc32cCodec()],
        fill_value=float("nan"),
        dimension_names=["stimulus", *dimensions],
        attributes=dict(attributes),
        # A chunk of NaN must exist too, or a resumed run could not tell it from one never written.
        config={"write_empty_chunks": True},
    )


def note_refused(group: zarr.Group, asked: Iterable[str], refused: Mapping[str, str]) -> None:
    """Note which of the pictures asked for could not be opened, and why; those with features are not among them."""
    about: Any = copy.deepcopy(group.attrs["ldm_kit"])
    rows = {name: row for row, name in enumerate(about["stimuli"]["names"])}
    noted = dict(about.get("refused", {}))
    for name in (*asked, *refused):
        noted.pop(name, None)
    for name, reason in refused.items():
        if name not in rows or not is_computed(group, rows[name]):
            noted[name] = reason
    about["refused"] = noted
    if not noted:
        del about["refused"]
    if group.attrs["ldm_kit"] != seal(about):
        writable(group).attrs["ldm_kit"] = seal(about)


def drop_bad_chunks(array: zarr.Array[Any]) -> None:
    """Delete the chunks that are not what was written, so that they count as not computed."""
    for file, problem in bad_chunks(array):
        if isinstance(problem, UNSOUND):  # what the system could not read just now may be sound
            writable(array)
            Path(file).unlink()
            logger.warning("%r was damaged and is computed anew, for the stimuli asked for.", file)


def is_computed(group: zarr.Group, row: int) -> bool:
    """Tell whether any array holds features of the stimulus at `row`."""
    arrays = [array for _, array in group.members(max_depth=None) if isinstance(array, zarr.Array)]
    return any(row < array.shape[0] and not np.isnan(_first_column(array)[row]) for array in arrays)


def missing_rows(array: zarr.Array[Any], *, again: bool = True) -> npt.NDArray[np.bool_]:
    """Tell which stimuli of an array were never computed; those that were not finite count if `again`."""
    first = _first_column(array)
    missing: npt.NDArray[np.bool_] = np.isnan(first)
    return missing | np.isinf(first) if again else missing
