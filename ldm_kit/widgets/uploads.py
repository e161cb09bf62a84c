"""Pictures of your own: what was uploaded becomes a named picture, or is refused by name."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path, PurePosixPath

from PIL import Image

from ldm_kit.datasets.stimuli import open_image
from ldm_kit.errors import UnreadableImageError

# Before a picture's own name, so that it never bears a stimulus's: noise is drawn from the name.
FOLDER = "yours"


def uploaded_picture(name: str, content: bytes) -> tuple[str, Image.Image]:
    """Open an uploaded file as a picture, under the rules that hold for every picture.

    Parameters
    ----------
    name : str
        As the browser gives it; only its last part is used.
    content : bytes

    Returns
    -------
    name : str
        ``yours/HASH/NAME``: another picture under the same file name has another name, and so its own noise.
    picture : PIL.Image

    Raises
    ------
    UnreadableImageError
        If it is no picture, damaged, empty or too large; the file is named.

    Examples
    --------
    >>> uploaded_picture("notes.txt", b"milk, eggs")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    ldm_kit.errors.UnreadableImageError: Cannot read the picture 'notes.txt': it is no picture that can be ...
    """
    last = PurePosixPath(name.replace("\\", "/")).name or "picture"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "upload"  # a name from outside is never a path here
        path.write_bytes(content)
        try:
            picture = open_image(path)
        except UnreadableImageError as error:
            raise UnreadableImageError(str(error).replace(str(path), last)) from error
    return f"{FOLDER}/{hashlib.sha256(content).hexdigest()[:8]}/{last}", picture
