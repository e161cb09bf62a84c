"""Files are written aside and moved into place, so that none is ever seen half-written."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ldm_kit.errors import BadInputError

# What the system answers when a place cannot be written to, as opposed to a mistake in the writer.
CANNOT_WRITE = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.ENOTDIR,
    errno.EEXIST,
    errno.EIO,
    errno.ESTALE,
}
FAILED = {errno.EIO, errno.ESTALE}  # of these: the disk or the network share itself has failed


@contextmanager
def written_aside(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside `path`; move it onto `path` when the block ends well.

    Parameters
    ----------
    path : path-like
        Where the finished file shall lie. Missing folders are made.

    Yields
    ------
    pathlib.Path
        The path to write to, on the same file system, with the same suffix.

    Raises
    ------
    BadInputError
        If the folder cannot be made or written to. An old file at `path` is left as it was.

    Examples
    --------
    >>> with written_aside("outputs/run/table.csv") as aside:  # doctest: +SKIP
    ...     table.to_csv(aside)
    """
    path = Path(path)
    aside = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}.partial{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield aside
        aside.replace(path)
    except OSError as error:
        if error.errno not in CANNOT_WRITE:
            raise
        raise cannot_write(path, error) from error
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)


def with_ending(path: str | os.PathLike[str], ending: str) -> Path:
    """Append a file's ending, unless the name has it already; dots elsewhere in the name are left alone.

    `Path.with_suffix` would replace what follows the last dot: ``down_blocks.0`` and ``down_blocks.1`` would become
    one file.

    Examples
    --------
    >>> with_ending("down_blocks.0", ".csv").name, with_ending("down_blocks.csv", ".csv").name
    ('down_blocks.0.csv', 'down_blocks.csv')
    """
    path = Path(path)
    return path if path.suffix == ending else path.with_name(path.name + ending)


def cannot_write(path: str | os.PathLike[str], error: OSError) -> BadInputError:
    """Build the error for a place that cannot be written to.

    Examples
    --------
    >>> str(cannot_write("/out/a.csv", PermissionError(13, "Permission denied")))[:27]
    "Cannot write '/out/a.csv': "
    """
    mend = "Free some space there, or choose an `out` folder that you may write to, and run again."
    if error.errno in FAILED:
        mend = (
            "The disk or network share has failed: check that it is connected and sound, or choose an `out` folder on "
            "another one, and run again."
        )
    return BadInputError(
        f"Cannot write {str(path)!r}: {error.strerror or error}. What was there before is unchanged. {mend}"
    )


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Write `text` (UTF-8) to `path` atomically and return the path.

    Examples
    --------
    >>> write_text("outputs/run/note.txt", "done")  # doctest: +SKIP
    """
    with written_aside(path) as aside:
        aside.write_text(text, encoding="utf-8")
    return Path(path)
