"""Download what is free of THINGS, by a table of addresses that can be edited."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from ldm_kit.datasets.archives import unpack_judged
from ldm_kit.datasets.download import DownloadError, ResumingDownloader
from ldm_kit.errors import BadInputError, unknown_name
from ldm_kit.files import CANNOT_WRITE, cannot_write, load_yaml
from ldm_kit.offline import is_offline

DEFAULT = ("names-2020", "choices-2020")  # the two whose hashes are known
ENVIRONMENT = "LDM_KIT_THINGS_URLS"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """A line of the table of addresses; its fields are explained at the head of ``things_urls.yaml``."""

    key: str
    file: str
    url: str
    sha256: str | None
    holds: str
    licence: str
    terms: str
    tried: bool = False
    accept: bool = False
    password: bool = False


def fetch_things(
    what: str | Sequence[str] = DEFAULT,
    folder: str | os.PathLike[str] | None = None,
    *,
    accept_licence: bool = False,
    password: str | None = None,
    urls: str | os.PathLike[str] | None = None,
    progress: bool = True,
    attempts: int = 5,
    wait: float = 1.0,
) -> Path:
    """Download parts of THINGS into a cache, resuming what was interrupted.

    =================  ==========================================  ========
    `what`             holds                                       size
    =================  ==========================================  ========
    ``names-2020``     1,854 concepts in canonical order           small
    ``choices-2020``   146,012 choices                             2 MB
    ``concepts``       the concepts, names only                    15 kB
    ``choices``        4.7 million choices with subjects           0.5 GB
    ``spose``          SPoSE, 66 dimensions                        3 MB
    ``spose-labels``   their names                                 1 kB
    ``categories``     membership in 53 categories                 0.2 MB
    ``pictures``       26,107 photographs, 1,854 are unpacked      5 GB
    =================  ==========================================  ========

    Sizes are rough. Addresses whose table says ``tried: false`` were not reachable when it was written.

    Parameters
    ----------
    what : str or sequence of str
        Keys of the table.
    folder : path-like, optional
        Where the files go; by default the user's cache (``pooch.os_cache("ldm_kit")/things``).
    accept_licence : bool
        Say True after you have read the terms of what needs it (the pictures).
    password : str, optional
        Of the pictures' archive; its owners give it to those who accept their terms.
    urls : path-like, optional
        A table of addresses of your own (YAML); by default the environment variable
        ``LDM_KIT_THINGS_URLS``, else the package's ``data/things_urls.yaml``.
    progress : bool
        Show bars, and log one line on each file's licence.
    attempts, wait : int, float
        See `ResumingDownloader`.

    Returns
    -------
    pathlib.Path
        The folder, which ``load_dataset("things", root=…)`` takes.

    Raises
    ------
    UnknownNameError
        If the table has no such key.
    DownloadError
        If the offline switch is on and a file is not there yet; if a server says no or falls silent (what
        arrived is kept); if the bytes are not the expected ones.
    BadInputError
        If terms must be accepted or a password is wanted, the table is not well formed, or the folder
        cannot be written to.

    Examples
    --------
    >>> folder = fetch_things(["names-2020", "choices-2020"])  # doctest: +SKIP
    """
    import pooch

    table = read_urls(urls)
    keys = [what] if isinstance(what, str) else list(what)
    for key in keys:
        if key not in table:
            raise unknown_name(
                "part of THINGS", key, table, "Name one of these, or add it to the table of addresses."
            )
    folder = Path(folder).expanduser() if folder is not None else Path(pooch.os_cache("ldm_kit")) / "things"
    for source in (table[key] for key in keys):
        _agreed(source, accept_licence, password)
    for source in (table[key] for key in keys):
        if progress:
            said = f"{source.file}: {source.holds}. Licence: {source.licence}; see {source.terms}"
            logger.warning(said)  # for all to see, and not an error
        try:
            file = _fetch(source, folder, attempts=attempts, wait=wait, progress=progress)
        except OSError as error:
            if error.errno in CANNOT_WRITE:
                raise cannot_write(folder / source.file, error) from error
            raise
        if source.password:
            unpack_judged(file, folder / "object_images", password or "", progress=progress)
    return folder


def read_urls(path: str | os.PathLike[str] | None = None) -> dict[str, Source]:
    """Read the table of addresses.

    Parameters
    ----------
    path : path-like, optional
        By default the environment variable ``LDM_KIT_THINGS_URLS``, else the package's own table.

    Returns
    -------
    dict of str to Source

    Raises
    ------
    BadInputError
        If a line lacks a field, or names a file in another folder.

    Examples
    --------
    >>> read_urls()["choices-2020"].sha256[:8]
    '789fb927'
    """
    import yaml

    given = path or os.environ.get(ENVIRONMENT)
    file = Path(given) if given else Path(str(resources.files("ldm_kit") / "data" / "things_urls.yaml"))
    if not file.is_file():
        raise BadInputError(f"There is no table of addresses at {str(file)!r}. Leave `urls` out for our own.")
    try:
        loaded: Any = load_yaml(file.read_text(encoding="utf-8"))
        fields = Source.__dataclass_fields__
        table = {
            key: Source(
                key, **{name: value for name, value in line.items() if name in fields and name != "key"}
            )
            for key, line in loaded.items()
        }
    except (yaml.YAMLError, TypeError, AttributeError) as error:
        raise BadInputError(
            f"{str(file)!r} is no table of addresses ({error}). Each key needs file, url, sha256, holds, "
            "licence and terms, as in the package's data/things_urls.yaml."
        ) from error
    for source in table.values():
        if Path(source.file).name != source.file or source.file == "..":
            raise BadInputError(
                f"{str(file)!r}: the file of {source.key!r} is {source.file!r}. Give a name without folders; it "
                "goes into the folder that `fetch_things` is given."
            )
    return table


def _agreed(source: Source, accept_licence: bool, password: str | None) -> None:
    if source.accept and not accept_licence:
        raise BadInputError(
            f"{source.key!r} ({source.holds}) comes under terms: {source.licence}. Read them at {source.terms}. "
            "If you accept them, call again with `accept_licence=True`. Nothing was downloaded."
        )
    if source.password and not password:
        raise BadInputError(
            f"{source.key!r} is an encrypted archive. Its owners give the password to those who accept the terms: "
            f"{source.terms}. Call again with `password=…`. Nothing was downloaded."
        )


def _fetch(source: Source, folder: Path, *, attempts: int, wait: float, progress: bool) -> Path:
    """Have pooch bring one file; a wrong hash after resuming is tried once more from the beginning."""
    import pooch

    target = folder / source.file
    if is_offline() and not _have(target, source.sha256):
        raise DownloadError(
            f"{source.file!r} is not in {str(folder)!r}, and the offline switch is on (LDM_KIT_OFFLINE or "
            f"HF_HUB_OFFLINE): nothing is downloaded. Unset it, or put the file there yourself from {source.url}."
        )
    downloader = ResumingDownloader(
        folder / f".{source.file}.partial", attempts=attempts, wait=wait, progress=progress
    )
    if source.sha256 is None and not downloader.etag.exists():
        downloader.forget()  # nothing would tell whether it belongs to the file of today
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel("WARNING")  # its own lines would repeat ours
    try:
        for again in (True, False):
            try:
                pooch.retrieve(
                    source.url,
                    known_hash=source.sha256,
                    fname=source.file,
                    path=folder,
                    downloader=downloader,
                )
                break
            except ValueError as error:
                if downloader.resumed and again:
                    continue
                raise DownloadError(
                    f"{source.url!r} sent a file whose SHA-256 is not the expected {source.sha256}. It was thrown "
                    "away. Has the file been replaced at its source? If you trust the new one, put its hash into "
                    "the table of addresses."
                ) from error
    finally:
        logger.setLevel(level)
    return target


def _have(target: Path, sha256: str | None) -> bool:
    import pooch

    return target.is_file() and (sha256 is None or pooch.file_hash(str(target)) == sha256)
