"""A downloader for pooch that goes on where it was interrupted."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ldm_kit.errors import LdmKitError

if TYPE_CHECKING:
    import requests

CHUNK = 1 << 16
# Answers that say "later", as opposed to "no".
LATER = {408, 425, 429, 500, 502, 503, 504}


class DownloadError(LdmKitError, OSError):
    """A file that cannot be downloaded; what arrived of it is kept, to go on from."""


class ResumingDownloader:
    """Download over HTTP into a ``.partial`` file, resuming and retrying; pooch calls it.

    Parameters
    ----------
    partial : path-like
        Where an incomplete download lies until it is complete; on the same file system as the target. Beside
        it ``….etag`` remembers which version of the file it is a part of.
    attempts : int
        Give up after so many in a row that brought nothing new.
    wait : float
        Seconds before the second attempt, doubled at each further one (a server's ``Retry-After`` goes
        first, up to a minute).
    timeout : float
        Seconds without a byte after which an attempt counts as failed.
    progress : bool
        Show a bar with rate and end time.

    Attributes
    ----------
    resumed : bool
        Whether the last download built on what an earlier one had left.

    Examples
    --------
    >>> downloader = ResumingDownloader("cache/.choices.partial")  # doctest: +SKIP
    >>> pooch.retrieve(url, known_hash=sha256, fname="choices.csv", path="cache",
    ...                downloader=downloader)  # doctest: +SKIP
    """

    def __init__(
        self,
        partial: str | os.PathLike[str],
        *,
        attempts: int = 5,
        wait: float = 1.0,
        timeout: float = 60.0,
        progress: bool = True,
    ) -> None:
        self.partial = Path(partial)
        self.etag = Path(f"{self.partial}.etag")
        self.attempts = attempts
        self.wait = wait
        self.timeout = timeout
        self.progress = progress
        self.resumed = False

    def __call__(self, url: str, output_file: str, pooch: Any = None) -> None:
        """Download `url` and move it to `output_file` once it is complete.

        Raises
        ------
        DownloadError
            If the server says no, or nothing arrives any more.
        """
        import requests

        self.resumed = self._size() > 0
        failures = 0
        while True:
            before = self._size()
            later = 0.0
            try:
                with self._request(url, before) as answer:
                    if answer.status_code in LATER:
                        later = _retry_after(answer)
                        reason = f"the server answered {answer.status_code} {answer.reason}"
                    elif self._take(answer, before):
                        break
                    else:
                        reason = "the download did not start where the last one ended"
            except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema) as error:
                raise DownloadError(
                    f"{url!r} is no address to download from ({error}). Correct it."
                ) from error
            except requests.exceptions.RequestException as error:
                reason = f"the connection broke ({type(error).__name__})"
            failures = 0 if self._size() > before else failures + 1
            if failures >= self.attempts:
                raise DownloadError(
                    f"Cannot download {url!r}: {reason}, {failures} times in a row. The {self._size():,} bytes that "
                    "arrived are kept: call again later to go on from there. If the address has moved, edit the "
                    "table of addresses (ldm_kit/data/things_urls.yaml, or your own with `urls=`)."
                )
            time.sleep(min(60.0, max(later, self.wait * 2 ** max(failures - 1, 0))))
        self.partial.replace(output_file)
        self.etag.unlink(missing_ok=True)

    def forget(self) -> None:
        """Remove what an incomplete download left.

        Examples
        --------
        >>> ResumingDownloader("cache/.choices.partial").forget()
        """
        for file in (self.partial, self.etag):
            file.unlink(missing_ok=True)

    def _size(self) -> int:
        return self.partial.stat().st_size if self.partial.exists() else 0

    def _request(self, url: str, start: int) -> requests.Response:
        import requests

        # Compressed answers count other bytes than the file has; ranges would not fit.
        headers = {"Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
            if self.etag.exists():  # a file that has changed since comes whole
                headers["If-Range"] = self.etag.read_text(encoding="utf-8")
        return requests.get(url, headers=headers, stream=True, timeout=self.timeout)

    def _take(self, answer: requests.Response, start: int) -> bool:
        """Write what the server sends; False if it sends the wrong part."""
        if answer.status_code == 416:  # nothing after `start`: all there, or another file by now
            if answer.headers.get("Content-Range") == f"bytes */{start}":
                return True
            self.forget()
            return False
        if answer.status_code not in (200, 206):
            raise DownloadError(
                f"Cannot download {answer.url!r}: the server answered {answer.status_code} {answer.reason}. "
                + _advice(answer.status_code)
            )
        if answer.status_code == 200:  # from the beginning, whatever was asked for
            self.forget()
            self.resumed, start = False, 0
        elif not answer.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            self.forget()
            return False
        version = answer.headers.get("ETag", "")
        if version.startswith('"'):  # a weak one (W/) does not promise the same bytes
            self.etag.write_text(version, encoding="utf-8")
        self._write(answer, start)
        return True

    def _write(self, answer: requests.Response, start: int) -> None:
        from tqdm.auto import tqdm

        length = answer.headers.get("Content-Length")
        total = start + int(length) if length else None
        bar = tqdm(
            total=total,
            initial=start,
            unit="B",
            unit_scale=True,
            desc=self.partial.name,
            disable=not self.progress,
        )
        with bar, self.partial.open("ab") as file:
            for chunk in answer.iter_content(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))


def _retry_after(answer: requests.Response) -> float:
    with suppress(ValueError):
        return float(answer.headers.get("Retry-After", 0))
    return 0.0


def _advice(status: int) -> str:
    if status in (401, 403):
        return "It wants a login or an agreement: download the file in a browser and put it into the folder."
    return "The file has moved or is gone: look for it on its project's page and edit the table of addresses."
