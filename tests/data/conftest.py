"""Files and web servers for the tests of the data sources."""

from __future__ import annotations

import gzip
import hashlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.data.idx_files import idx_bytes, write_idx_folder
from trainer.data.sources import idx
from trainer.data.sources.known_sets.idx_sets import FASHION_MNIST
from trainer.data.sources.known_sets.published import KnownSet, PublishedFile


@dataclass
class Mirror:
    """A web server with files, which can be made to fail."""

    files: dict[str, bytes]
    address: str = ""
    announced_but_cut: bool = False
    hang_half_way: bool = False
    delay_s: float = 0.0
    requests: Counter[str] = field(default_factory=Counter)


@pytest.fixture
def start_mirror() -> Iterator[Callable[..., Mirror]]:
    """Start servers on this machine, and stop them after the test."""
    servers: list[ThreadingHTTPServer] = []
    released = threading.Event()

    def start(files: dict[str, bytes], **behaviour: Any) -> Mirror:
        mirror = Mirror(files, **behaviour)

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = self.path.rpartition("/")[2]
                mirror.requests[name] += 1
                time.sleep(mirror.delay_s)
                if name not in mirror.files:
                    self.send_error(404)
                    return
                content = mirror.files[name]
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                half = mirror.announced_but_cut or mirror.hang_half_way
                self.wfile.write(content[: len(content) // 2] if half else content)
                if mirror.hang_half_way:
                    self.wfile.flush()
                    released.wait(30)

            def log_message(self, *_: Any) -> None:
                """Keep the test's output clean."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        mirror.address = f"http://127.0.0.1:{server.server_port}/"
        return mirror

    yield start
    released.set()
    for server in servers:
        server.shutdown()
        server.server_close()


@dataclass
class Published:
    """A small data set that stands for a published one, with its .gz files."""

    known: KnownSet
    files: dict[str, bytes]

    def at(self, *mirrors: str) -> KnownSet:
        return replace(self.known, mirrors=mirrors)


@pytest.fixture
def published(tmp_path: Path) -> Published:
    arrays = write_idx_folder(tmp_path / "publisher", classes=10)
    content = {name: idx_bytes(arrays[name]) for name in idx.NAMES}
    files = {f"{name}.gz": gzip.compress(content[name]) for name in idx.NAMES}
    checked = tuple(
        PublishedFile(
            f"{name}.gz",
            f"md5:{hashlib.md5(files[f'{name}.gz']).hexdigest()}",
            hashlib.sha256(content[name]).hexdigest(),
        )
        for name in idx.NAMES
    )
    known = replace(FASHION_MNIST, files=checked, package_folder=tmp_path / "package", mirrors=())
    return Published(known, files)


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of the caches, another one than the user's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.delenv("LOCKSTEP_DATA", raising=False)
    return tmp_path / "caches" / "lockstep"


@pytest.fixture
def cache(caches: Path) -> Path:
    """Return the cache of Fashion-MNIST."""
    return caches / "fashion_mnist"
