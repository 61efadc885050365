"""Serve a page from this process, and ask it."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trainer.commands.demo import page
from trainer.commands.demo.answering import Answerer
from trainer.commands.demo.server import DemoServer
from trainer.finished import trained_model

Reply = tuple[int, Any, http.client.HTTPMessage]
"""status, the JSON of the body or its text, headers"""


@contextmanager
def serve(
    model: Path, min_confidence: float = 0.0, max_megapixels: int = 89, host: str = "127.0.0.1"
) -> Iterator[DemoServer]:
    stored = trained_model.load(model)
    answerer = Answerer(stored, min_confidence, max_megapixels)
    files = page.files(stored, page.name_of(model))
    with DemoServer(host, 0, files, answerer) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        try:
            yield server
        finally:
            server.shutdown()
            answerer.close()


def ask(
    server: DemoServer,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    method: str | None = None,
) -> Reply:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=60)
    method = method or ("GET" if body is None else "POST")
    connection.request(method, path, body, dict(headers or {}))
    response = connection.getresponse()
    content = response.read()
    is_json = response.headers.get_content_type() == "application/json" and content
    found = json.loads(content) if is_json else content.decode()
    connection.close()
    return response.status, found, response.headers


def form(*files: tuple[str, bytes], field: str = "file") -> tuple[bytes, dict[str, str]]:
    """The body and the headers of a form, as browsers and curl send it."""
    parts = [
        f'--lim\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n'
        "Content-Type: image/png\r\n\r\n".encode()
        + content
        + b"\r\n"
        for name, content in files
    ]
    body = b'--lim\r\nContent-Disposition: form-data; name="note"\r\n\r\nhello\r\n'
    return body + b"".join(parts) + b"--lim--\r\n", {
        "Content-Type": "multipart/form-data; boundary=lim"
    }
