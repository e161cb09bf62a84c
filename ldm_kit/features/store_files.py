"""A store's files: begun and grown under a lock, sealed, read back checked, and mended.

What is missing is known from the arrays themselves; a file that is damaged or lost is an error that names it.
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import zarr
from filelock import FileLock, Timeout
from zarr.codecs import Crc32cCodec, ZstdCodec

from ldm_kit.errors import BadInputError, LdmKitError, MismatchError
from ldm_kit.features.request import CHUNK, Request, package_versions, warn_of_other_versions
from ldm_kit.files import CANNOT_WRITE, cannot_write
from ldm_kit.models.blocks import pooled_shape

logger = logging.getLogger(__name__)

FORMAT = 2  # 1 had no checksums
LABELS = ("block", "depth", "noise_level", "timestep", "sigma", "conditioning", "pooling")
DEPTH = 4  # of the hierarchy: block, noise level, conditioning and, where they are kept apart, noise sample
SAME_LEVEL = 1e-6  # noise levels closer than this are one: a path names six digits
NOT_FINITE = (
    np.inf
)  # fills the row of a stimulus whose activations were not finite; NaN says: not computed yet

# What zarr and its codecs raise for chunks, and for descriptions, that are not what was written.
UNSOUND = (ValueError, RuntimeError)
METADATA_ERRORS = (ValueError, LookupError, TypeError, AttributeError)
MEND = (
    "Run the same `lk.extract` again with `repair=True`, which makes it anew, or put the file back from a copy; "
    "`store.verify()` lists all damaged chunks."
)
MEND_ROOT = "Extract again into another folder, or put the file back from a copy."

Array = zarr.Array[Any]
Node = TypeVar("Node", zarr.Group, zarr.Array[Any])


class CellKey(NamedTuple):
    """What names one array of a store; `draw` is the noise sample's number, from 0, where they are kept apart."""

    block: str
    noise_level: float
    conditioning: str
    draw: int | None = None

    @property
    def path(self) -> str:
        """The array's path in the zarr hierarchy, e.g. ``up_blocks.1/0.3/label`` or ``up_blocks.1/0.3/label/0``."""
        cell = f"{self.block}/{self.noise_level:.6g}/{self.conditioning}"
        return cell if self.draw is None else f"{cell}/{self.draw}"

    @classmethod
    def of(cls, labels: Mapping[str, Any]) -> CellKey:
        """Return the key of the array with these attributes."""
        return cls(labels["block"], labels["noise_level"], labels["conditioning"], labels.get("draw"))


# Begun and grown --------------------------------------------------------------------------------------


@contextmanager
def opened_for_writing(request: Request) -> Iterator[tuple[zarr.Group, str]]:
    """Open (or begin) the store of a request under a lock, and sweep what a killed write left behind.

    Where no lock can be made (a read-only disk), a store that is there is opened for reading.
    """
    if request.out is None:
        yield zarr.group(store=zarr.storage.MemoryStore(), zarr_format=3), "memory"
        return
    path = Path(request.out)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_dir():
            raise BadInputError(f"{str(path)!r} is a file. Choose a folder as `out`; nothing was changed.")
        # What a killed write left behind is swept below, and does not make the folder another's.
        others = path.is_dir() and any(entry.suffix != ".partial" for entry in path.iterdir())
        if others and not (path / "zarr.json").exists():
            raise BadInputError(
                f"The folder {str(path)!r} holds other things than a feature store (of zarr version 3). Choose a new or "
                "empty folder as `out`; nothing was changed."
            )
        with _locked(path) as locked:
            if locked:
                _sweep(path)
            if not request.repair:
                check_metadata(path)
            group = zarr.open_group(str(path), mode="a" if locked else "r", zarr_format=3)
            about = description(group, str(path))
            if about:
                request.check_same(about["request"], str(path))
                warn_of_other_versions(about["versions"], str(path))
            if request.repair:
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


@contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Wait for other processes that write to the store; yield whether it may be written to."""
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


def _sweep(path: Path) -> None:
    """Delete what a killed write left behind: half-written files, and folders that hold nothing yet."""
    for orphan in path.rglob("*.partial"):
        orphan.unlink(missing_ok=True)
    for depth in ("*/*/*/*", "*/*/*", "*/*", "*"):
        for folder in path.glob(depth):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()


def _writable(node: Node) -> Node:
    """Return a group or array that may be written to; raise if no lock could be made beside its store."""
    if node.read_only:
        raise BadInputError(
            f"Cannot write {file_of(node, '').rstrip('/')!r}: the disk or the folder is read-only, and not all that was "
            "requested is in the store. Request what it has, or choose an `out` folder that you may write to."
        )
    return node


def prepare(group: zarr.Group, where: str, request: Request) -> tuple[list[str], dict[CellKey, Array]]:
    """Begin a store, if it is new; add stimuli, prompts and arrays that are new.

    Returns the names of all its stimuli, in the order of its rows, and the arrays of the request. Raises
    `MismatchError` if an image or a prompt has changed since.
    """
    _check_timesteps(group, request)
    # A copy, all the way down: it is compared with what is stored to see whether anything changed.
    about: Any = copy.deepcopy(description(group, where))
    if not about:
        about = {
            "format": FORMAT,
            "request": request.as_dict(),
            "versions": package_versions(),
            "stimuli": {"names": [], "concepts": [], "fingerprints": []},
            "prompts": {},
        }
    rows = _add_stimuli(about["stimuli"], group, where, request)
    _add_prompts(about["prompts"], rows, where, request)
    _write_description(group, about)
    return list(rows), _arrays(group, request, len(rows))


def _check_timesteps(group: zarr.Group, request: Request) -> None:
    """Raise if the store holds one of the timesteps under another noise level."""
    members: Any = group.members(max_depth=None)
    held = {
        float(array.attrs["timestep"]): float(array.attrs["noise_level"])
        for _, array in members
        if "timestep" in array.attrs
    }
    for level in request.noise_levels:
        there = held.get(float(level.timestep), level.level)
        if abs(there - level.level) >= SAME_LEVEL:
            raise BadInputError(
                f"Noise level {level.level:g} falls on timestep {level.timestep:g}, which the store holds as "
                f"{there:g}. Request {there:g}."
            )


def _add_stimuli(known: Any, group: zarr.Group, where: str, request: Request) -> dict[str, int]:
    """Add the request's stimuli to those that a store knows; return the row of each of the store's."""
    rows = {name: row for row, name in enumerate(known["names"])}
    for name, concept in zip(request.stimuli.names, request.stimuli.concepts, strict=True):
        fingerprint = request.fingerprints[name]
        if name not in rows:
            rows[name] = len(rows)
            known["names"].append(name)
            known["concepts"].append(concept)
            known["fingerprints"].append(fingerprint)
        elif known["fingerprints"][rows[name]] != fingerprint:
            if _is_computed(group, rows[name]):
                raise MismatchError(
                    f"The image {name!r} has changed since its features were stored in {where!r}. "
                    "Choose another `out`; nothing was changed."
                )
            known["fingerprints"][rows[name]] = fingerprint  # it was broken, and was replaced
    return rows


def _add_prompts(stored: Any, rows: Mapping[str, int], where: str, request: Request) -> None:
    """Add the request's prompts to those that a store knows."""
    for conditioning in request.conditionings:
        known = stored.setdefault(conditioning.name, [])
        known.extend([None] * (len(rows) - len(known)))
        for name, prompt in zip(request.stimuli.names, conditioning.prompts, strict=True):
            if known[rows[name]] not in (None, prompt):
                raise MismatchError(
                    f"The prompt of {name!r} for {conditioning.name!r} is {known[rows[name]]!r} in the store {where!r} "
                    f"and {prompt!r} here. Choose another `out`; nothing was changed."
                )
            known[rows[name]] = prompt


def _arrays(group: zarr.Group, request: Request, n: int) -> dict[CellKey, Array]:
    """Open, make or lengthen to `n` stimuli the array of every cell of a request."""
    table: Any = request.model.blocks().set_index("block")
    cells = [
        (CellKey(block, level.level, conditioning.name, draw), level)
        for block in request.blocks
        for level in request.noise_levels
        for conditioning in request.conditionings
        for draw in request.kept_draws
    ]
    _make_groups(group, [key for key, _ in cells])
    arrays = {}
    for key, level in cells:
        labels = {
            "block": key.block,
            "depth": int(table.loc[key.block, "depth"]),
            "noise_level": key.noise_level,
            "timestep": level.timestep,
            "sigma": level.sigma,
            "signal_share": level.signal_share,
            "conditioning": key.conditioning,
            "pooling": request.pooling,
            **({} if key.draw is None else {"draw": key.draw}),
        }
        shape = pooled_shape(table.loc[key.block, "shape"], request.pooling)
        array = _opened_array(group, key, (n, *shape), request)
        if array is None:
            array = _new_array(group, key, (n, *shape), request.store_dtype, labels)
        arrays[key] = array
    for array in arrays.values() if request.repair else ():
        _drop_bad_chunks(array)
    return arrays


def _make_groups(group: zarr.Group, keys: Iterable[CellKey]) -> None:
    """Make the groups that arrays will lie in, or open them; zarr sees no array whose group is missing.

    All are there before the first array is made: a run that is killed leaves groups without arrays, never the reverse.
    """
    made: dict[str, Any] = {"": group}
    for key in keys:
        names = key.path.split("/")[:-1]
        for depth, name in enumerate(names):
            parent, path = "/".join(names[:depth]), "/".join(names[: depth + 1])
            if path in made:
                continue
            try:
                made[path] = made[parent][name]
            except KeyError:
                made[path] = _writable(made[parent]).create_group(name)


def _opened_array(group: zarr.Group, key: CellKey, shape: tuple[int, ...], request: Request) -> Array | None:
    """Open the array of a cell if there is one, and lengthen it; with `repair` one that is described wrongly is deleted."""
    if key.path not in group:
        return None
    array = group[key.path]
    assert isinstance(array, zarr.Array)
    file, problem = file_of(array, "zarr.json"), label_problem(array)
    if not problem and (array.shape[1:], array.dtype) != (shape[1:], np.dtype(request.store_dtype)):
        problem = (
            f"it says {array.shape[1:]} {array.dtype} a stimulus, which are {shape[1:]} {request.store_dtype}"
        )
    if problem and not request.repair:
        raise damaged(file, problem)
    if problem:
        _writable(array)
        # Whose chunks they are is not known. They go first, so that a kill leaves none behind for the next array.
        shutil.rmtree(Path(file).with_name("c"), ignore_errors=True)
        Path(file).unlink()
        return None
    if array.shape[0] < shape[0]:
        _writable(array).resize(shape)
    return array


def _new_array(
    group: zarr.Group, key: CellKey, shape: tuple[int, ...], dtype: str, labels: Mapping[str, Any]
) -> Array:
    """Make the array of a cell."""
    # Named per block: other blocks have other channels, and a reader such as xarray gives each name one size.
    channels = f"{key.block} channel"
    dimensions = {
        2: [channels],
        3: [f"{key.block} token", channels],
        4: [channels, f"{key.block} y", f"{key.block} x"],
    }[len(shape)]
    return _writable(group).create_array(
        key.path,
        shape=shape,
        chunks=(CHUNK, *shape[1:]),
        dtype=dtype,
        compressors=[ZstdCodec(), Crc32cCodec()],
        fill_value=float("nan"),
        dimension_names=["stimulus", *dimensions],
        attributes=dict(labels),
        # A chunk of NaN must exist too, or a resumed run could not tell it from one never written.
        config={"write_empty_chunks": True},
    )


def _drop_bad_chunks(array: Array) -> None:
    """Delete the chunks that are not what was written, so that they count as not computed."""
    for file, problem in bad_chunks(array):
        if isinstance(problem, UNSOUND):  # what the system could not read just now may be sound
            _writable(array)
            Path(file).unlink()
            logger.warning("%r was damaged and is computed anew, for the requested stimuli.", file)


def note_refused(group: zarr.Group, names: Iterable[str], refused: Mapping[str, str]) -> None:
    """Note which of the images could not be used, and why; those with features are not among them."""
    about: Any = copy.deepcopy(group.attrs["ldm_kit"])
    rows = {name: row for row, name in enumerate(about["stimuli"]["names"])}
    noted = about.pop("refused", {})
    for name in (*names, *refused):
        noted.pop(name, None)
    for name, reason in refused.items():
        if name not in rows or not _is_computed(group, rows[name]):
            noted[name] = reason
    _write_description(group, {**about, "refused": noted} if noted else about)


def _is_computed(group: zarr.Group, row: int) -> bool:
    """Tell whether any array holds features of the stimulus at `row`."""
    arrays = [array for _, array in group.members(max_depth=None) if isinstance(array, zarr.Array)]
    return any(row < array.shape[0] and not np.isnan(first_column(array)[row]) for array in arrays)


def missing_rows(array: Array, *, again: bool = True) -> npt.NDArray[np.bool_]:
    """Tell which stimuli of an array were never computed; those that were not finite count if `again`."""
    first = first_column(array)
    missing: npt.NDArray[np.bool_] = np.isnan(first) | (np.isinf(first) & again)
    return missing


def check_writable(arrays: Iterable[Array]) -> None:
    """Raise, before anything is computed, if one of the arrays is on a read-only disk."""
    for array in arrays:
        _writable(array)


# What a store says of itself ------------------------------------------------------------------------------


def seal(about: Mapping[str, Any]) -> dict[str, Any]:
    """Add its checksum to what a store says of itself, which JSON has none for."""
    bare = {name: value for name, value in about.items() if name != "sha256"}
    return {**bare, "sha256": hashlib.sha256(json.dumps(bare, sort_keys=True).encode()).hexdigest()}


def _write_description(group: zarr.Group, about: Mapping[str, Any]) -> None:
    """Write what a store says of itself, sealed, if it has changed."""
    if group.attrs.get("ldm_kit") != seal(about):
        _writable(group).attrs["ldm_kit"] = seal(about)


def description(group: zarr.Group, where: str, *, sealed: bool = True) -> dict[str, Any]:
    """Return what a store says of itself (nothing if it was only just begun); raise if that was lost or damaged."""
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
        raise damaged(file_of(group, "zarr.json"), "what it says of the arrays below was lost", MEND_ROOT)
    if sealed and about != seal(about):
        raise damaged(file_of(group, "zarr.json"), "its checksum does not match", MEND_ROOT)
    return dict(about)


def label_problem(array: Array) -> str:
    """Say what is wrong with an array's attributes and shape, which its path and chunks say as well; or nothing."""
    about: Any = dict(array.attrs)
    lacking = [name for name in LABELS if name not in about]
    if lacking:
        return f"its attributes lack {lacking[0]!r}"
    if CellKey.of(about).path != array.path:
        return "its attributes are those of another array"
    if array.shape[1:] != array.chunks[1:]:
        return f"a stimulus has the shape {array.shape[1:]}, and in its chunks {array.chunks[1:]}"
    return ""


# Read back, checked ---------------------------------------------------------------------------------------


def read(array: Array, *selection: Any) -> npt.NDArray[np.floating]:
    """Read an array, or some of it; a chunk that is not what was written is an error that names its file."""
    try:
        return np.asarray(array[selection or slice(None)])
    except (*UNSOUND, OSError) as error:
        for file, problem in bad_chunks(array):
            if isinstance(problem, OSError):
                raise _unreadable_file(file, problem) from error
            raise damaged(file, problem_of(problem)) from error
        raise


def first_column(array: Array) -> npt.NDArray[np.floating]:
    """Read one number a stimulus: NaN there says that nothing was computed."""
    column = read(array, slice(None), *[0] * (array.ndim - 2))
    return column.reshape(len(column), -1)[:, 0]


def bad_chunks(array: Array) -> Iterator[tuple[str, Exception]]:
    """Read every chunk of an array; yield the file of each that is not what was written or cannot be read, and why."""
    for start in range(0, array.shape[0], array.chunks[0]):
        try:
            array[start : start + array.chunks[0]]
        except (*UNSOUND, OSError) as error:
            chunk = (start // array.chunks[0], *[0] * (array.ndim - 1))
            yield file_of(array, array.metadata.encode_chunk_key(chunk)), error


def problem_of(error: Exception) -> str:
    """Say what is wrong with a chunk."""
    if isinstance(error, OSError):
        return f"it cannot be read ({error.strerror or error})"
    return "its checksum does not match" if "checksum" in str(error) else str(error)


def file_of(node: Array | zarr.Group, name: str) -> str:
    """Return the path of a file of an array or group."""
    return f"{node.store_path}/{name}".removeprefix("file://")


def damaged(file: str | Path, problem: str, mend: str = MEND) -> BadInputError:
    """Build the error for a file of a store that is not what was written."""
    return BadInputError(f"The store's file {str(file)!r} is damaged: {problem}. {mend}")


def _unreadable_file(file: str | Path, error: OSError) -> BadInputError:
    """Build the error for a file of a store that the system cannot read; it may be sound."""
    return BadInputError(
        f"Cannot read the store's file {str(file)!r}: {error.strerror or error}. Check the disk or network share and "
        "your permission to read it, and run again."
    )


def check_metadata(path: Path, *, thorough: bool = False, sweep: bool = False) -> int:
    """Raise if a ``zarr.json`` of the store at `path` is damaged or missing; return how many arrays there are.

    Zarr's own errors do not name the file; `thorough` finds, more slowly, all that zarr would stumble over. With
    `sweep` damaged ones are deleted, except the root's.
    """
    arrays, folders = 0, [path]
    for folder in folders:  # it grows: breadth first, down to the arrays
        file, depth = folder / "zarr.json", len(folder.relative_to(path).parts)
        kind, problem = _kind_of(file, thorough) if file.exists() else ("", "")
        if kind != "array" and depth < DEPTH:
            folders += [entry for entry in folder.glob("*") if entry.is_dir()]
        if not file.exists():
            # Groups are made before what they hold, so this was lost, and zarr would not see what lies below.
            # A folder of somebody else's, in which nothing of a store lies, is left alone.
            if folder != path and not sweep and ((folder / "c").is_dir() or any(folder.rglob("zarr.json"))):
                raise damaged(file, "it is missing")
            continue
        arrays += kind == "array"
        if problem and folder == path:
            raise damaged(file, problem, MEND_ROOT)
        if problem and not sweep:
            raise damaged(file, problem)
        if problem:
            file.unlink()
    return arrays


def _kind_of(file: Path, thorough: bool) -> tuple[str, str]:
    """Return what a ``zarr.json`` describes, an array or a group, and what is wrong with it."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise _unreadable_file(file, error) from error
    kind = ""
    try:
        kind = json.loads(content)["node_type"]
        if thorough:
            zarr.open(str(file.parent), mode="r", zarr_format=3)
    except (*METADATA_ERRORS, FileNotFoundError) as error:
        return kind, f"it is no whole description of an array or group ({error})"
    return kind, "" if kind in ("group", "array") else "it is of no kind that zarr version 3 knows"
