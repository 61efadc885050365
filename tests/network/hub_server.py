"""A server that answers as the Hugging Face hub does when files of a repository are asked for."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = tuple[int, bytes, dict[str, str]]


@dataclass
class Hub:
    """The repositories, and what was asked for.

    Args:
        files: by repository and name.
        gated: repositories that need a permission.
        asked: the files.
    """

    files: dict[str, dict[str, bytes]]
    gated: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    address: str = ""

    def commit(self, repository: str) -> str:
        """A name of 40 digits for what a repository has."""
        content = b"".join(name.encode() + one for name, one in self.files[repository].items())
        return hashlib.sha1(content).hexdigest()

    def answer(self, path: str) -> Answer:
        """Return status, content and headers."""
        parts = path.strip("/").split("/")
        if len(parts) != 5:  # the library asks once for more than files
            return 404, b"", {}
        repository, revision, file = f"{parts[0]}/{parts[1]}", *parts[3:]
        if repository not in self.files:
            return 404, b"", {"X-Error-Code": "RepoNotFound"}
        if repository in self.gated:
            return 403, b"", {"X-Error-Code": "GatedRepo"}
        commit, files = self.commit(repository), self.files[repository]
        if revision not in ("main", commit):
            return 404, b"", {"X-Error-Code": "RevisionNotFound"}
        if file not in files:
            return 404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit}
        tag = f'"{hashlib.sha256(files[file]).hexdigest()}"'
        return 200, files[file], {"ETag": tag, "X-Repo-Commit": commit}


@contextlib.contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    """Answer until the context ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            if "/resolve/" in self.path:
                hub.asked.append(f"{self.command} {self.path}")
            status, content, headers = hub.answer(self.path)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        hub.address = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield hub
        finally:
            server.shutdown()
