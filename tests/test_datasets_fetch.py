"""Downloads: a loopback server that cuts off, lies, and is out of order; no socket when offline."""

from __future__ import annotations

import hashlib
import socket
import struct
import threading
import zipfile
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from ldm_kit.datasets import DownloadError, fetch_things
from ldm_kit.datasets.archives import unpack_judged
from ldm_kit.datasets.concepts import TABLES
from ldm_kit.datasets.fetch import DEFAULT, read_urls
from ldm_kit.datasets.things_files import CATEGORIES, TRIPLETS
from ldm_kit.errors import BadInputError, UnknownNameError

BODY = np.random.default_rng(0).integers(0, 256, 300_000, dtype=np.uint8).tobytes()
CUT = 131_072  # a whole number of the downloader's chunks: the rest of a chunk is lost with the connection
SHA256 = hashlib.sha256(BODY).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `body` with ranges; `plan` says how to misbehave at each request, in turn."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.body = BODY
        self.etag: str | None = '"v1"'
        self.ranges = True
        self.plan: list[str | int] = []
        self.seen: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/file"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        server, asked = self.server, self.headers.get("Range")
        server.seen.append(asked)
        step = server.plan.pop(0) if server.plan else "well"
        if isinstance(step, int):
            self.send_response(step)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = 0
        current = self.headers.get("If-Range") in (None, server.etag)
        if asked and server.ranges and current:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(server.body):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(server.body)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(server.body) - 1}/{len(server.body)}")
        else:
            self.send_response(200)
        if server.etag:
            self.send_header("ETag", server.etag)
        data = server.body[start:]
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if step == "cut":
            data = data[:CUT]
        elif step == "silent":
            data = b""
        self.wfile.write(data)
        self.wfile.flush()
        self.close_connection = True


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("LDM_KIT_OFFLINE", "HF_HUB_OFFLINE", "LDM_KIT_THINGS_URLS"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield running
        running.shutdown()


@pytest.fixture
def fetch(server: Server, tmp_path: Path) -> Any:
    """Fetch the one file of a table that points at the server."""

    def call(sha256: str | None = SHA256, **options: Any) -> Path:
        fields = {
            "file": "data.bin",
            "url": server.url,
            "sha256": sha256,
            "holds": "bytes",
            "licence": "CC0",
            "terms": "here",
        }
        table = tmp_path / "urls.yaml"
        table.write_text(yaml.safe_dump({"data": fields | options.pop("fields", {})}), encoding="utf-8")
        defaults = {"urls": table, "attempts": 3, "wait": 0.01, "progress": False}
        return fetch_things("data", tmp_path / "cache", **{**defaults, **options}) / "data.bin"

    return call


def leftovers(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "cache").iterdir() if path.name != "data.bin")


def test_downloads_once(fetch: Any, server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert fetch(progress=True).read_bytes() == BODY
    assert "Licence: CC0; see here" in caplog.text
    assert fetch().read_bytes() == BODY
    assert server.seen == [None] and leftovers(tmp_path) == []


def test_cut_off_then_resumed_within_a_call(fetch: Any, server: Server, tmp_path: Path) -> None:
    server.plan = ["cut", "cut"]
    assert fetch().read_bytes() == BODY
    assert server.seen == [None, f"bytes={CUT}-", f"bytes={2 * CUT}-"] and leftovers(tmp_path) == []


@pytest.mark.parametrize("sha256", [SHA256, None])
def test_given_up_then_resumed_by_the_next_call(
    fetch: Any, server: Server, tmp_path: Path, sha256: str | None
) -> None:
    server.plan = ["cut", 503, 503, 503]
    with pytest.raises(DownloadError, match=r"503.*3 times in a row.*131,072 bytes that arrived are kept"):
        fetch(sha256)
    assert not (tmp_path / "cache" / "data.bin").exists()
    assert leftovers(tmp_path) == [".data.bin.partial", ".data.bin.partial.etag"]
    assert fetch(sha256).read_bytes() == BODY
    assert server.seen[-1] == f"bytes={CUT}-" and leftovers(tmp_path) == []


def test_503_then_success(fetch: Any, server: Server) -> None:
    server.plan = [503, 429]
    assert fetch().read_bytes() == BODY and len(server.seen) == 3


def test_503_always(fetch: Any, server: Server, tmp_path: Path) -> None:
    server.plan = [503] * 100
    with pytest.raises(DownloadError, match=r"503 Service Unavailable, 3 times in a row.*call again later"):
        fetch()
    assert len(server.seen) == 3 and leftovers(tmp_path) == []


def test_a_server_that_falls_silent(fetch: Any, server: Server) -> None:
    server.plan = ["silent"] * 100
    with pytest.raises(DownloadError, match="connection broke"):
        fetch()
    assert len(server.seen) == 3


def test_nobody_listens(fetch: Any, server: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(DownloadError, match=r"connection broke \(ConnectionError\)"):
        fetch(fields={"url": f"http://127.0.0.1:{port}/"})


@pytest.mark.parametrize(
    ("status", "advice"), [(404, "edit the table"), (403, "in a browser"), (401, "in a browser")]
)
def test_no_is_no(fetch: Any, server: Server, status: int, advice: str) -> None:
    server.plan = [status] * 9
    with pytest.raises(DownloadError, match=f"{status}.*{advice}"):
        fetch()
    assert len(server.seen) == 1


def test_wrong_hash(fetch: Any, server: Server, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"SHA-256 is not the expected 0000.*thrown\s+away"):
        fetch("0" * 64)
    assert (
        len(server.seen) == 1 and leftovers(tmp_path) == [] and not (tmp_path / "cache" / "data.bin").exists()
    )


def test_an_old_file_is_kept_if_its_successor_does_not_arrive(fetch: Any, server: Server) -> None:
    target = fetch(None)
    server.plan = [503] * 100
    with pytest.raises(DownloadError):
        fetch("0" * 64)
    assert target.read_bytes() == BODY


def test_a_partial_file_of_something_else_is_not_mixed_in(fetch: Any, server: Server, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / ".data.bin.partial").write_bytes(b"x" * 1000)
    assert fetch().read_bytes() == BODY  # the hash tells; once more from the beginning
    assert server.seen == ["bytes=1000-", None]
    (cache / "data.bin").unlink()
    (cache / ".data.bin.partial").write_bytes(b"x" * 1000)
    assert fetch(None).read_bytes() == BODY  # nothing could tell, so it is not built on
    (cache / "data.bin").unlink()
    (cache / ".data.bin.partial").write_bytes(b"x" * 1000)
    (cache / ".data.bin.partial.etag").write_text('"v0"')
    assert fetch(None).read_bytes() == BODY  # the server tells that it is of another version


def test_a_complete_partial_and_one_that_is_too_long(fetch: Any, server: Server, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    for content in (BODY, BODY + b"more"):
        (cache / ".data.bin.partial").write_bytes(content)
        assert fetch().read_bytes() == BODY
        (cache / "data.bin").unlink()


def test_servers_without_ranges_or_etags(fetch: Any, server: Server) -> None:
    server.ranges, server.etag, server.plan = False, None, ["cut"]
    assert fetch().read_bytes() == BODY and server.seen == [None, f"bytes={CUT}-"]


@pytest.mark.parametrize("switch", ["LDM_KIT_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_opens_no_socket(
    fetch: Any, server: Server, monkeypatch: pytest.MonkeyPatch, switch: str
) -> None:
    there = fetch()
    monkeypatch.setenv(switch, "1")

    def blocked(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", blocked)
    monkeypatch.setattr(socket, "create_connection", blocked)
    monkeypatch.setattr(socket, "getaddrinfo", blocked)
    assert fetch() == there
    there.unlink()
    with pytest.raises(
        DownloadError, match=r"data\.bin.*offline switch is on.*Unset it, or put the file there"
    ):
        fetch()


def test_a_folder_that_cannot_be_written_to(fetch: Any, server: Server, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file is in the way")
    with pytest.raises(BadInputError, match=r"Cannot write .*data\.bin"):
        fetch()
    assert (tmp_path / "cache").read_text() == "a file is in the way"


def test_terms_and_password_come_first(fetch: Any, server: Server) -> None:
    fields = {"accept": True, "password": True, "licence": "research only"}
    with pytest.raises(BadInputError, match=r"research only.*`accept_licence=True`. Nothing was downloaded"):
        fetch(fields=fields)
    with pytest.raises(BadInputError, match=r"`password=…`. Nothing was downloaded"):
        fetch(fields=fields, accept_licence=True)
    assert server.seen == []


def test_our_own_table() -> None:
    table = read_urls()
    assert set(DEFAULT) <= set(table) and all(table[key].sha256 for key in DEFAULT)
    assert all(
        source.url.startswith("https://osf.io/download/") and not source.tried for source in table.values()
    )
    # What is fetched is found again by load_dataset("things").
    assert table["names-2020"].file in TABLES and table["categories"].file in CATEGORIES
    assert {table["choices"].file, table["choices-2020"].file} <= set(TRIPLETS)
    assert table["pictures"].accept and table["pictures"].password
    assert all(f"``{key}``" in (fetch_things.__doc__ or "") for key in table)


def test_unknown_parts_and_broken_tables(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'choices'"):
        fetch_things("choises", tmp_path)
    (tmp_path / "urls.yaml").write_text("data: {file: a}\n", encoding="utf-8")
    with pytest.raises(BadInputError, match=r"urls\.yaml.*no table of addresses"):
        fetch_things("data", tmp_path, urls=tmp_path / "urls.yaml")
    for outside in ("../a", "/a", "b/a", ".."):
        line = f"data: {{file: {outside}, url: u, sha256: null, holds: h, licence: l, terms: t}}\n"
        (tmp_path / "urls.yaml").write_text(line, encoding="utf-8")
        with pytest.raises(BadInputError, match="a name without folders"):
            read_urls(tmp_path / "urls.yaml")
    with pytest.raises(BadInputError, match="There is no table"):
        read_urls(tmp_path / "absent.yaml")


# --- the encrypted archive ---------------------------------------------------------------------------------------


def encrypted(path: Path, files: dict[str, bytes], password: bytes) -> None:
    """Write a zip with PKWARE's old encryption, which `zipfile` reads but does not write."""
    table = [_step(i) for i in range(256)]
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            crc = zlib.crc32(data)
            info = zipfile.ZipInfo(name)
            secret = _encrypt(bytes(11) + struct.pack(">I", crc)[:1] + data, password, table)
            archive.writestr(info, secret)
    # Now say in both headers that the entries are encrypted, with the size and checksum of what is inside.
    raw = bytearray(path.read_bytes())
    for signature, flags, sums in ((b"PK\x03\x04", 6, 14), (b"PK\x01\x02", 8, 16)):
        at = -1
        for data in files.values():
            at = raw.index(signature, at + 1)
            raw[at + flags] |= 1
            raw[at + sums : at + sums + 4] = struct.pack("<I", zlib.crc32(data))
            raw[at + sums + 8 : at + sums + 12] = struct.pack("<I", len(data))
    path.write_bytes(raw)


def _step(value: int) -> int:
    for _ in range(8):
        value = (value >> 1) ^ (0xEDB88320 if value & 1 else 0)
    return value


def _encrypt(data: bytes, password: bytes, table: list[int]) -> bytes:
    keys = [0x12345678, 0x23456789, 0x34567890]

    def update(byte: int) -> None:
        keys[0] = (keys[0] >> 8) ^ table[(keys[0] ^ byte) & 255]
        keys[1] = ((keys[1] + (keys[0] & 255)) * 134775813 + 1) & 0xFFFFFFFF
        keys[2] = (keys[2] >> 8) ^ table[(keys[2] ^ (keys[1] >> 24)) & 255]

    for byte in password:
        update(byte)
    out = bytearray()
    for byte in data:
        k = keys[2] | 2
        out.append(byte ^ (((k * (k ^ 1)) >> 8) & 255))
        update(byte)
    return bytes(out)


FILES = {
    "object_images/apple/apple_01b.jpg": b"an apple",
    "object_images/apple/apple_02s.jpg": b"another apple",
    "object_images/t-shirt/t-shirt_01b.jpg": b"a t-shirt",
    "../evil/evil_01b.jpg": b"outside",
    "object_images/apple/pear_01b.jpg": b"misfiled",
}


def test_judged_pictures_are_unpacked_and_nothing_else(tmp_path: Path) -> None:
    encrypted(tmp_path / "a.zip", FILES, b"sesame")
    folder = tmp_path / "deep" / "object_images"
    for _ in range(2):
        assert unpack_judged(tmp_path / "a.zip", folder, "sesame", progress=False) == 3
    written = {path.relative_to(tmp_path / "deep").as_posix() for path in (tmp_path / "deep").rglob("*.jpg")}
    assert written == {f"object_images/{c}/{c}_01b.jpg" for c in ("apple", "t-shirt", "evil")}
    assert (folder / "t-shirt" / "t-shirt_01b.jpg").read_bytes() == b"a t-shirt"


def test_archives_that_will_not_open(tmp_path: Path) -> None:
    encrypted(tmp_path / "a.zip", FILES, b"sesame")
    (tmp_path / "no.zip").write_bytes(b"not a zip")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme.txt", "nothing here")
    for name, message in [("a.zip", "password"), ("no.zip", "damaged"), ("other.zip", "NAME_01b")]:
        with pytest.raises(BadInputError, match=message) as caught:
            unpack_judged(tmp_path / name, tmp_path / "out", "wrong", progress=False)
        assert name in str(caught.value)


def test_pictures_end_to_end(fetch: Any, server: Server, tmp_path: Path) -> None:
    encrypted(tmp_path / "a.zip", FILES, b"sesame")
    server.body = (tmp_path / "a.zip").read_bytes()
    archive = fetch(None, fields={"accept": True, "password": True}, accept_licence=True, password="sesame")
    assert (archive.parent / "object_images" / "apple" / "apple_01b.jpg").read_bytes() == b"an apple"
