"""Unpack from THINGS' archive the photographs that people judged."""

from __future__ import annotations

import re
import zipfile
import zlib
from pathlib import Path

from ldm_kit.errors import BadInputError
from ldm_kit.files import written_aside

# NAME/NAME_01b.jpg, wherever in the archive: the first picture of each concept. Nothing else is written, and
# nothing outside the folder.
JUDGED = re.compile(r"(?:^|/)(?P<concept>[\w-]+)/(?P=concept)_01b\.jpg$")


def unpack_judged(archive: Path, folder: Path, password: str, *, progress: bool = True) -> int:
    """Write ``NAME/NAME_01b.jpg`` of every concept into `folder`; those that are there stay.

    Parameters
    ----------
    archive : pathlib.Path
        THINGS' ``images_THINGS.zip``.
    folder : pathlib.Path
        Where the concepts' folders go.
    password : str
    progress : bool
        Show a bar: Python decrypts a few pictures a second.

    Returns
    -------
    int
        How many concepts have a picture now.

    Raises
    ------
    BadInputError
        If the password is wrong, the archive is damaged, encrypted otherwise, or holds no such picture.

    Examples
    --------
    >>> unpack_judged(Path("images_THINGS.zip"), Path("object_images"), password)  # doctest: +SKIP
    1854
    """
    from tqdm.auto import tqdm

    advice = f"Unpack it by hand (7-Zip or unzip) so that {str(folder)!r} holds NAME/NAME_01b.jpg."
    try:
        with zipfile.ZipFile(archive) as opened:
            members = {
                found["concept"]: member
                for member in opened.infolist()
                if (found := JUDGED.search(member.filename)) is not None
            }
            if not members:
                raise BadInputError(f"{str(archive)!r} holds no file like NAME/NAME_01b.jpg. {advice}")
            for concept, member in tqdm(sorted(members.items()), desc="unpacking", disable=not progress):
                target = folder / concept / f"{concept}_01b.jpg"
                if target.is_file() and target.stat().st_size == member.file_size:
                    continue
                with written_aside(target) as aside:
                    aside.write_bytes(opened.read(member, pwd=password.encode()))
    except NotImplementedError as error:
        raise BadInputError(
            f"{str(archive)!r} is packed in a way that Python cannot read ({error}). {advice}"
        ) from error
    except (RuntimeError, zlib.error) as error:
        raise BadInputError(
            f"{str(archive)!r} does not open with this password ({error}). Check it on the page of its owners."
        ) from error
    except zipfile.BadZipFile as error:
        raise BadInputError(
            f"{str(archive)!r} is damaged, or the password is wrong ({error}). Check the password; if it is right, "
            "remove the archive and fetch it again."
        ) from error
    return len(members)
