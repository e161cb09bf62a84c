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
from ldm_kit.datasets.embeddings import TABLES
from ldm_kit.datasets.fetch import DEFAULT, read_urls, unpack_judged
from ldm_kit.datasets.things import CATEGORIES, TRIPLETS
from ldm_kit.errors import BadInputError, UnknownNameError

BODY = np.random.default_rng(0).integers(0, 256, 300_000, dtype=np.uint8).tobytes()
SHA256 = hashlib.sha256(BODY).hexdigest()
ATTEMPTS = 3


class Server(ThreadingHTTPServer):
    """Serves `body`; `plan` lists how to misbehave at each request, in turn."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.body = BODY
        self.plan: list[str | int] = []
        self.requests = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/file"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.server.requests += 1
        step = self.server.plan.pop(0) if self.server.plan else "well"
        data = b"" if isinstance(step, int) else self.server.body
        self.send_response(step if isinstance(step, int) else 200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: {"cut": 100_000, "silent": 0}.get(str(step), len(data))])
        self.wfile.flush()
        self.close_connection = True


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("LDM_KIT_OFFLINE", "HF_HUB_OFFLINE", "LDM_KIT_THINGS_URLS"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pooch.core.time.sleep", lambda seconds: None)
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
        options = {"urls": table, "progress": False} | options
        return fetch_things("data", tmp_path / "cache", **options) / "data.bin"

    return call


def leftovers(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "cache").iterdir() if path.name != "data.bin")


def test_downloads_once(fetch: Any, server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert fetch(progress=True).read_bytes() == BODY
    assert "Licence: CC0; see here" in caplog.text
    assert fetch().read_bytes() == BODY
    assert server.requests == 1 and leftovers(tmp_path) == []


@pytest.mark.parametrize("plan", [["cut", "cut"], ["silent"], [503, 429]])
@pytest.mark.parametrize("sha256", [SHA256, None])
def test_a_broken_download_is_tried_again(
    fetch: Any, server: Server, tmp_path: Path, plan: list[str | int], sha256: str | None
) -> None:
    """With a hash or without, half a file is never taken for a whole one."""
    server.plan = list(plan)
    assert fetch(sha256).read_bytes() == BODY
    assert server.requests == len(plan) + 1 and leftovers(tmp_path) == []


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (503, "503 .*Service Unavailable.*Call again later"),
        ("cut", "IncompleteRead"),
        ("silent", "IncompleteRead"),
        (404, "404 .*edit the table"),
        (403, "403 .*in a browser"),
    ],
)
def test_a_server_that_refuses_or_falls_silent(
    fetch: Any, server: Server, tmp_path: Path, step: str | int, message: str
) -> None:
    server.plan = [step] * 100
    with pytest.raises(DownloadError, match=rf"(?s)tried {ATTEMPTS} times.*{message}"):
        fetch()
    assert server.requests == ATTEMPTS and leftovers(tmp_path) == []
    assert not (tmp_path / "cache" / "data.bin").exists()


def test_nobody_listens(fetch: Any, server: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    for url in (f"http://127.0.0.1:{port}/", "no address", "gopher://127.0.0.1/"):
        with pytest.raises(DownloadError, match=f"Cannot download '{url}'"):
            fetch(fields={"url": url})


def test_wrong_hash(fetch: Any, server: Server, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"SHA-256 is not the expected 0000.*thrown\s+away"):
        fetch("0" * 64)
    assert leftovers(tmp_path) == [] and not (tmp_path / "cache" / "data.bin").exists()


def test_an_old_file_is_kept_if_its_successor_does_not_arrive(fetch: Any, server: Server) -> None:
    target = fetch(None)
    for plan in ([503] * 100, []):
        server.plan = plan
        with pytest.raises(DownloadError):
            fetch("0" * 64)
        assert target.read_bytes() == BODY


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
    for options in ({}, {"accept_licence": True}, {"password": "sesame"}):
        with pytest.raises(
            BadInputError,
            match=r"research only.*`accept_licence=True`.*`password=`.*Nothing was downloaded",
        ):
            fetch(fields=fields, **options)
    assert server.requests == 0


def test_our_own_table() -> None:
    table = read_urls()
    assert set(DEFAULT) <= set(table) and all(table[key].sha256 for key in DEFAULT)
    assert all(source.url.startswith("https://osf.io/download/") for source in table.values())
    assert not any(source.tried for source in table.values())
    # What is fetched is found again by load_dataset("things").
    assert table["names-2020"].file in TABLES and table["categories"].file in CATEGORIES
    assert {table["choices"].file, table["choices-2020"].file} <= set(TRIPLETS)
    assert table["images"].accept and table["images"].password
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
    # Now declare in both headers that the entries are encrypted, with the size and checksum of what is inside.
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


def test_judged_photographs_are_unpacked_and_nothing_else(tmp_path: Path) -> None:
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


def test_photographs_end_to_end(fetch: Any, server: Server, tmp_path: Path) -> None:
    encrypted(tmp_path / "a.zip", FILES, b"sesame")
    server.body = (tmp_path / "a.zip").read_bytes()
    archive = fetch(None, fields={"accept": True, "password": True}, accept_licence=True, password="sesame")
    assert (archive.parent / "object_images" / "apple" / "apple_01b.jpg").read_bytes() == b"an apple"
