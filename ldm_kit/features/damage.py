"""What is read is what was written: a store's file that is damaged or lost is an error that names it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from ldm_kit.errors import BadInputError

# What zarr and its codecs raise for chunks, and for descriptions, that are not what was written.
UNSOUND = (ValueError, RuntimeError)
METADATA_ERRORS = (ValueError, LookupError, TypeError, AttributeError)


def read(array: zarr.Array[Any], *selection: Any) -> npt.NDArray[np.floating]:
    """Read an array, or some of it; a chunk that is not what was written is an error that names its file.

    Examples
    --------
    >>> read(zarr.array([1.0, 2.0]))
    array([1., 2.])
    """
    try:
        return np.asarray(array[selection or slice(None)])
    except (*UNSOUND, OSError) as error:
        for file, problem in bad_chunks(array):
            if isinstance(problem, OSError):
                raise unreadable_file(file, problem) from error
            raise damaged(file, told(problem)) from error
        raise


def bad_chunks(array: zarr.Array[Any]) -> Iterator[tuple[str, Exception]]:
    """Read every chunk of an array; give the file of each that cannot be read or is not what was written, and why.

    Examples
    --------
    >>> list(bad_chunks(zarr.array([1.0, 2.0])))
    []
    """
    for start in range(0, array.shape[0], array.chunks[0]):
        try:
            array[start : start + array.chunks[0]]
        except (*UNSOUND, OSError) as error:
            chunk = (start // array.chunks[0], *[0] * (array.ndim - 1))
            yield file_of(array, array.metadata.encode_chunk_key(chunk)), error


def told(problem: Exception) -> str:
    """Say what is wrong with a chunk.

    Examples
    --------
    >>> told(ValueError("Stored and computed checksum do not match. Stored: …"))
    'its checksum does not match'
    """
    if isinstance(problem, OSError):
        return f"it cannot be read ({problem.strerror or problem})"
    return "its checksum does not match" if "checksum" in str(problem) else str(problem)


def file_of(node: zarr.Array[Any] | zarr.Group, name: str) -> str:
    """Name a file of an array or group.

    Examples
    --------
    >>> file_of(zarr.open_group("outputs/run/features")["mid_block"], "zarr.json")  # doctest: +SKIP
    'outputs/run/features/mid_block/zarr.json'
    """
    return f"{node.store_path}/{name}".removeprefix("file://")


def damaged(file: str | Path, problem: str, mend: str = "") -> BadInputError:
    """Build the error for a file of a store that is not what was written.

    Examples
    --------
    >>> str(damaged("out/a/0.1/none/c/0/0", "its checksum does not match"))[:75]
    "The store's file 'out/a/0.1/none/c/0/0' is damaged: its checksum does not m"
    """
    mend = mend or (
        "Run the same `lk.extract` again with `repair=True`, which makes it anew, or put the file back from a copy; "
        "`store.verify()` lists all damaged chunks."
    )
    return BadInputError(f"The store's file {str(file)!r} is damaged: {problem}. {mend}")


def unreadable_file(file: str | Path, error: OSError) -> BadInputError:
    """Build the error for a file of a store that the system does not give; it may be sound.

    Examples
    --------
    >>> str(unreadable_file("out/a/zarr.json", PermissionError(13, "Permission denied")))[:72]
    "Cannot read the store's file 'out/a/zarr.json': Permission denied. Check"
    """
    return BadInputError(
        f"Cannot read the store's file {str(file)!r}: {error.strerror or error}. Check the disk or network share and "
        "your permission to read it, and run again."
    )


def check_metadata(path: Path, *, thorough: bool = False, sweep: bool = False) -> int:
    """Raise if a ``zarr.json`` of the store at `path` is damaged or missing; or delete damaged ones, except the root's.

    Zarr's own errors do not name the file; `thorough` finds, more slowly, all that zarr would stumble over.

    Returns
    -------
    int
        How many arrays there are.

    Examples
    --------
    >>> check_metadata(Path("outputs/nothing/here"))
    0
    """
    arrays = 0
    for folder in (path, *(entry for depth in ("*", "*/*", "*/*/*") for entry in path.glob(depth))):
        file = folder / "zarr.json"
        if not file.exists():
            # Groups are made before what they hold, so this was lost, and zarr would not see what lies below.
            # A folder of somebody else's, in which nothing of a store lies, is left alone.
            if folder != path and not sweep and ((folder / "c").is_dir() or any(folder.rglob("zarr.json"))):
                raise damaged(file, "it is missing")
            continue
        try:
            content = file.read_bytes()
        except OSError as error:
            raise unreadable_file(file, error) from error
        problem = ""
        try:
            kind = json.loads(content)["node_type"]
            arrays += kind == "array"
            if kind not in ("group", "array"):
                problem = "it is of no kind that zarr version 3 knows"
            if thorough:
                zarr.open(str(folder), mode="r", zarr_format=3)
        except (*METADATA_ERRORS, FileNotFoundError) as error:
            problem = f"it is no whole description of an array or group ({error})"
        if problem and folder == path:
            raise damaged(
                file, problem, "Extract again into another folder, or put the file back from a copy."
            )
        if problem and not sweep:
            raise damaged(file, problem)
        if problem:
            file.unlink()
    return arrays
