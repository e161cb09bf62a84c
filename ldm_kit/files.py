"""Files: written aside and moved into place, so that none is ever seen half-written; YAML; the notebooks' folder."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

import ldm_kit
from ldm_kit.errors import BadInputError

FAILED = {errno.EIO, errno.ESTALE}  # the disk or the network share itself has failed
# What the system answers when a place cannot be written to, as opposed to a mistake in the writer.
CANNOT_WRITE = FAILED | {
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR, errno.EEXIST
}  # fmt: skip


@contextmanager
def written_aside(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; move it onto `path` when the block ends well.

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
        If the folder cannot be made or written to. An old file at `path` is unchanged.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with written_aside(folder / "note.txt") as aside:
    ...     _ = aside.write_text("done")
    >>> [path.name for path in folder.iterdir()]
    ['note.txt']
    """
    path = Path(path)
    aside = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}.partial{path.suffix}")
    try:
        with writable(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield aside
            aside.replace(path)
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)


@contextmanager
def writable(path: str | os.PathLike[str]) -> Iterator[None]:
    """Raise `BadInputError` where the system refuses to write, or the disk has failed; other errors pass.

    Examples
    --------
    >>> with writable("/out/a.csv"):
    ...     raise PermissionError(13, "Permission denied")
    Traceback (most recent call last):
    ldm_kit.errors.BadInputError: Cannot write '/out/a.csv': Permission denied. ...
    """
    try:
        yield
    except OSError as error:
        if error.errno not in CANNOT_WRITE:
            raise
        raise cannot_write(path, error) from error


def cannot_write(path: str | os.PathLike[str], error: OSError) -> BadInputError:
    """Build the error for a place that cannot be written to.

    Examples
    --------
    >>> str(cannot_write("/out/a.csv", PermissionError(13, "Permission denied")))[:27]
    "Cannot write '/out/a.csv': "
    """
    advice = "Free some space there, or choose an `out` folder that you may write to, and run again."
    if error.errno in FAILED:
        advice = (
            "The disk or network share has failed: check that it is connected and sound, or choose an `out` folder on "
            "another one, and run again."
        )
    return BadInputError(
        f"Cannot write {str(path)!r}: {error.strerror or error}. What was there before is unchanged. {advice}"
    )


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Write `text` (UTF-8) to `path` atomically and return the path.

    Examples
    --------
    >>> import tempfile
    >>> write_text(Path(tempfile.mkdtemp()) / "run" / "note.txt", "done").read_text()
    'done'
    """
    with written_aside(path) as aside:
        aside.write_text(text, encoding="utf-8")
    return Path(path)


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


def find_notebook(name: str, advice: str) -> Path:
    """Find a file of ``notebooks/``, in the working folder or in the checkout that the package lies in.

    Parameters
    ----------
    name : str
    advice : str
        What to do where there is none; the error's last sentence.

    Raises
    ------
    BadInputError
        If neither has it.

    Examples
    --------
    >>> find_notebook("demo.yaml", "Run the demo from a clone.").name
    'demo.yaml'
    """
    places = [Path("notebooks"), Path(ldm_kit.__path__[0]).parent / "notebooks"]
    for place in places:
        if (place / name).is_file():
            return place / name
    raise BadInputError(
        f"No {name} in {' or '.join(map(str, places))}. The notebooks are part of the repository, not of the "
        f"installed package. {advice}"
    )


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which by itself lets the last of two equal keys win."""

    def compose_mapping_node(self, anchor: Any) -> Any:
        node: Any = super().compose_mapping_node(anchor)
        seen: dict[tuple[str, str], yaml.Mark] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if first := seen.get((key.tag, key.value)):
                problem = f"the key {key.value!r} stands twice, in line {first.line + 1} and here"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            seen[key.tag, key.value] = key.start_mark
        return node


def load_yaml(text: str) -> Any:
    """Read a YAML document into plain data.

    Parameters
    ----------
    text : str

    Raises
    ------
    yaml.YAMLError
        If it is no YAML, or a key stands twice in one mapping; the message names the key and the line.

    Examples
    --------
    >>> load_yaml("{seed: 1, blocks: [mid_block]}")
    {'seed': 1, 'blocks': ['mid_block']}
    """
    return yaml.load(text, Loader=_Loader)  # safe: a subclass of SafeLoader
