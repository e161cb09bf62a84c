"""Download what is free of THINGS with pooch, by a table of addresses that can be edited."""

from __future__ import annotations

import logging
import os
import re
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from ldm_kit.errors import BadInputError, LdmKitError, one_of
from ldm_kit.files import CANNOT_WRITE, cannot_write, load_yaml, written_aside
from ldm_kit.offline import is_offline

DEFAULT = ("names-2020", "choices-2020")  # the two whose hashes are known
_ENVIRONMENT = "LDM_KIT_THINGS_URLS"
_RETRIES = 2  # after 1 and 2 s
# NAME/NAME_01b.jpg, wherever in the archive: the first image of each concept. Nothing else is written, and
# nothing outside the folder.
_JUDGED = re.compile(r"(?:^|/)(?P<concept>[\w-]+)/(?P=concept)_01b\.jpg$")

_log = logging.getLogger(__name__)


class DownloadError(LdmKitError, OSError):
    """A file that cannot be downloaded; an older copy of it stays as it was."""


@dataclass(frozen=True)
class ThingsFile:
    """A line of the table of addresses; its fields are explained at the head of ``things_urls.yaml``."""

    key: str
    file: str
    url: str
    sha256: str | None
    holds: str
    licence: str
    terms: str
    tried: bool = False
    known_from: str = ""
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
) -> Path:
    """Download parts of THINGS into a cache; what is there already, with the right hash, is not downloaded again.

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
    ``images``         26,107 photographs, 1,854 are unpacked      5 GB
    =================  ==========================================  ========

    Sizes are rough. Addresses marked ``tried: false`` were not reachable when the table was written.

    Parameters
    ----------
    what : str or sequence of str
        Keys of the table.
    folder : path-like, optional
        Where the files go; by default the user's cache (``pooch.os_cache("ldm_kit")/things``).
    accept_licence : bool
        Set it to True after you have read the terms of what needs it (the images).
    password : str, optional
        Of the images' archive; its owners give it to those who accept their terms.
    urls : path-like, optional
        A table of addresses of your own (YAML); by default the environment variable
        ``LDM_KIT_THINGS_URLS``, else the package's ``data/things_urls.yaml``.
    progress : bool
        Show bars, and log one line on each file's licence.

    Returns
    -------
    pathlib.Path
        The folder, which ``load_dataset("things", root=…)`` takes.

    Raises
    ------
    UnknownNameError
        If the table has no such key.
    DownloadError
        If the offline switch is on and a file is not there yet; if a server refuses or falls silent three times; if
        the bytes are not the expected ones.
    BadInputError
        If terms must be accepted or a password is needed, the table is not well formed, or the folder
        cannot be written to.

    Notes
    -----
    A download that breaks off starts again from its beginning: pooch does not resume.

    Examples
    --------
    >>> folder = fetch_things(["names-2020", "choices-2020"])  # doctest: +SKIP
    """
    import pooch

    table = read_urls(urls)
    keys = [what] if isinstance(what, str) else list(what)
    for key in keys:
        one_of("part of THINGS", key, table, "Name one of these, or add it to the table of addresses.")
    wanted = [table[key] for key in keys]
    folder = Path(folder).expanduser() if folder is not None else Path(pooch.os_cache("ldm_kit")) / "things"
    for source in wanted:
        if (source.accept and not accept_licence) or (source.password and not password):
            raise BadInputError(
                f"{source.key!r} ({source.holds}) comes under terms: {source.licence}. Read them at {source.terms}. If you "
                "accept them, call again with `accept_licence=True` and, of an encrypted archive, the `password=` that "
                "its owners give. Nothing was downloaded."
            )
    for source in wanted:
        if progress:  # for all to see, and not an error
            licence = f"Licence: {source.licence}; see {source.terms}"
            _log.warning("%s: %s. %s", source.file, source.holds, licence)
        _download(source, folder, progress)
        if source.password:
            unpack_judged(folder / source.file, folder / "object_images", password or "", progress=progress)
    return folder


def read_urls(path: str | os.PathLike[str] | None = None) -> dict[str, ThingsFile]:
    """Read the table of addresses.

    Parameters
    ----------
    path : path-like, optional
        By default the environment variable ``LDM_KIT_THINGS_URLS``, else the package's own table.

    Returns
    -------
    dict of str to ThingsFile

    Raises
    ------
    BadInputError
        If a line lacks a field, or names a file in another folder.

    Examples
    --------
    >>> read_urls()["choices-2020"].sha256[:8]
    '789fb927'
    """
    own = resources.files("ldm_kit") / "data" / "things_urls.yaml"
    file = Path(path or os.environ.get(_ENVIRONMENT) or str(own))
    if not file.is_file():
        raise BadInputError(f"There is no table of addresses at {str(file)!r}. Leave `urls` out for our own.")
    try:
        loaded: dict[str, dict[str, Any]] = load_yaml(file.read_text(encoding="utf-8"))
        table = {key: ThingsFile(key, **line) for key, line in loaded.items()}
    except (yaml.YAMLError, TypeError, AttributeError) as error:
        raise BadInputError(
            f"{str(file)!r} is no table of addresses ({error}). Its fields are those of data/things_urls.yaml."
        ) from error
    for source in table.values():
        if Path(source.file).name != source.file or source.file == "..":
            fault = f"the file of {source.key!r} is {source.file!r}"
            raise BadInputError(f"{str(file)!r}: {fault}. Write a name without folders.")
    return table


def unpack_judged(archive: Path, folder: Path, password: str, *, progress: bool = True) -> int:
    """Write ``NAME/NAME_01b.jpg``, the photograph that people judged, of every concept of THINGS' archive.

    Ours, since `pooch.Unzip` takes no password, and writes in place whatever the archive names.

    Parameters
    ----------
    archive : pathlib.Path
        THINGS' ``images_THINGS.zip``.
    folder : pathlib.Path
        Where the concepts' folders go; images that are there stay.
    password : str
    progress : bool
        Show a bar: Python decrypts a few images a second.

    Returns
    -------
    int
        How many concepts have an image now.

    Raises
    ------
    BadInputError
        If the password is wrong, the archive is damaged, encrypted otherwise, or holds no such image.

    Examples
    --------
    >>> with zipfile.ZipFile("a.zip", "w") as file:
    ...     file.writestr("object_images/apple/apple_01b.jpg", b"an apple")
    >>> unpack_judged(Path("a.zip"), Path("object_images"), "", progress=False)
    1
    """
    from tqdm.auto import tqdm

    advice = f"Check the password, or unpack it by hand so that {str(folder)!r} holds NAME/NAME_01b.jpg."
    try:
        with zipfile.ZipFile(archive) as opened:
            found = ((_JUDGED.search(member.filename), member) for member in opened.infolist())
            members = {match["concept"]: member for match, member in found if match}
            for concept, member in tqdm(sorted(members.items()), desc="unpacking", disable=not progress):
                target = folder / concept / f"{concept}_01b.jpg"
                if not target.is_file() or target.stat().st_size != member.file_size:
                    with written_aside(target) as aside:
                        aside.write_bytes(opened.read(member, pwd=password.encode()))
    except (RuntimeError, zlib.error, zipfile.BadZipFile) as error:
        # NotImplementedError, of an encryption that Python does not know, is a RuntimeError.
        fault = f"is damaged, or Python cannot open it with this password ({error})"
        raise BadInputError(f"{str(archive)!r} {fault}. {advice}") from error
    if not members:
        raise BadInputError(f"{str(archive)!r} holds no file like NAME/NAME_01b.jpg. {advice}")
    return len(members)


def _download(source: ThingsFile, folder: Path, progress: bool) -> None:
    """Have pooch bring one file, which it writes aside, compares with its hash and moves into place."""
    import pooch

    target, url, sha256 = folder / source.file, source.url, source.sha256
    there = target.is_file() and (sha256 is None or pooch.file_hash(str(target)) == sha256)
    if is_offline() and not there:
        raise DownloadError(
            f"{source.file!r} is not in {str(folder)!r}, and the offline switch is on (LDM_KIT_OFFLINE or "
            f"HF_HUB_OFFLINE). Unset it, or put the file there yourself from {url}."
        )
    known, urls = {source.file: sha256}, {source.file: url}
    files = pooch.Pooch(folder, "", known, urls, retry_if_failed=_RETRIES)
    try:
        files.fetch(source.file, downloader=pooch.HTTPDownloader(progress, chunk_size=1 << 20, timeout=60))
    except OSError as error:
        if error.errno in CANNOT_WRITE:
            raise cannot_write(target, error) from error
        raise DownloadError(
            f"Cannot download {url!r}, tried {_RETRIES + 1} times ({type(error).__name__}: {error}). Call again "
            "later. If it wants a login, download the file in a browser and put it into the folder; if it has moved, edit "
            "the table of addresses (ldm_kit/data/things_urls.yaml, or your own with `urls=`)."
        ) from error
    except ValueError as error:
        raise DownloadError(
            f"{url!r} sent a file whose SHA-256 is not the expected {sha256}. It was thrown away. If you "
            "trust it, put its hash into the table of addresses."
        ) from error
