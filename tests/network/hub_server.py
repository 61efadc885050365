"""A server that answers as the Hugging Face hub does when files are asked for, or are sent."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
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
    unreliable: set[str] = field(default_factory=set)
    """repositories at whose names the connection breaks off"""
    asked: list[str] = field(default_factory=list)
    sent: dict[str, bytes] = field(default_factory=dict)
    """large files, by their SHA-256, of which no commit may be"""
    private: set[str] = field(default_factory=set)
    address: str = ""
    refuses_large: bool = False
    """whether large files find no place"""

    def commit(self, repository: str) -> str:
        """A name of 40 digits for what a repository has."""
        content = b"".join(name.encode() + one for name, one in self.files[repository].items())
        return hashlib.sha1(content).hexdigest()

    def answer(self, path: str) -> Answer:
        """Return status, content and headers."""
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"] and len(parts) == 4:
            repository = "/".join(parts[2:])
            found = {"id": repository, "private": repository in self.private}
            return 200, json.dumps(found).encode(), {"Content-Type": "application/json"}
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

    def take(self, path: str, content: bytes, token: str) -> Answer:
        """Return the answer to content that is sent; WRITER may write."""
        parts = path.partition("?")[0].strip("/").split("/")
        if parts[0] == "large":  # its address is the permission
            if self.refuses_large:
                return HTTPStatus.FORBIDDEN, b"", {}
            assert hashlib.sha256(content).hexdigest() == parts[1]
            self.sent[parts[1]] = content
            return HTTPStatus.OK, b"", {}
        if token != WRITER:
            status = HTTPStatus.FORBIDDEN if token == READER else HTTPStatus.UNAUTHORIZED
            return status, json.dumps({"error": "refused"}).encode(), {}
        match parts:
            case ["api", "validate-yaml"]:
                found: object = {"errors": [], "warnings": []}
            case ["api", "repos", "create"]:
                found = self._create(json.loads(content))
            case ["api", "models", _, _, "preupload", "main"]:
                found = {"files": [_mode(one["path"]) for one in json.loads(content)["files"]]}
            case [_, _, "info", "lfs", "objects", "batch"]:
                places = [self._place(one) for one in json.loads(content)["objects"]]
                found = {"transfer": "basic", "objects": places}
            case ["api", "models", owner, name, "commit", "main"]:
                found = self._commit(f"{owner}/{name}", content)
            case _:
                return HTTPStatus.NOT_FOUND, b"{}", {}
        return HTTPStatus.OK, json.dumps(found).encode(), {"Content-Type": "application/json"}

    def _create(self, asked: dict[str, str]) -> dict[str, str]:
        repository = f"{asked['organization']}/{asked['name']}"
        is_new = repository not in self.files
        self.files.setdefault(repository, {})
        if is_new and asked.get("visibility") == "private":
            self.private.add(repository)
        return {"url": f"{self.address}/{repository}"}

    def _place(self, one: dict[str, str]) -> dict[str, object]:
        upload = {"href": f"{self.address}/large/{one['oid']}"}
        return {"oid": one["oid"], "size": one["size"], "actions": {"upload": upload}}

    def _commit(self, repository: str, content: bytes) -> dict[str, str]:
        for line in map(json.loads, content.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                self.files[repository][value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.files[repository][value["path"]] = self.sent[value["oid"]]
        commit = self.commit(repository)
        address = f"{self.address}/{repository}/commit/{commit}"
        return {"commitOid": commit, "commitUrl": address}


WRITER, READER = "hf_writer", "hf_reader"


def _mode(path: str) -> dict[str, object]:
    mode = "lfs" if path.endswith(".safetensors") else "regular"
    return {"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": None}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        if any(f"/{name}/" in self.path for name in self.hub.unreliable):
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        if "/resolve/" in self.path:
            self.hub.asked.append(f"{self.command} {self.path}")
        self._answer(*self.hub.answer(self.path))

    def do_PUT(self) -> None:
        self.do_POST()

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        self._answer(*self.hub.take(self.path, content, token))

    def _answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@contextlib.contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    """Answer until the context ends."""
    handler = type("Handler", (_Handler,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        hub.address = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield hub
        finally:
            server.shutdown()
