"""Serve the page and its answers, to a browser on this machine or to a whole class.

Four addresses have files, one is asked about pictures, one says that all is well; there are no
others, and no address is ever made into a path. Each connection has one request and a thread of its
own, which waits for the few threads that compute.
"""

from __future__ import annotations

import contextlib
import errno
import io
import ipaddress
import json
import logging
import socket
import socketserver
import threading
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import psutil

from trainer.base.errors import UserError
from trainer.commands.demo import uploads
from trainer.commands.demo.answering import Answerer, Question
from trainer.commands.demo.uploads import DeadlineReader, Refusal, Room

MOST_CONNECTIONS = 512
"""with a thread each; the system holds as many more until one of them ends"""
MOST_WAITING = 256
"""pictures; more are refused with 503"""

PREDICT, HEALTH = "/predict", "/healthz"

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src data: blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self)",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""of every answer"""

log = logging.getLogger("lockstep")


@dataclass(frozen=True)
class PageFile:
    """A file of the page: what it is, and its bytes."""

    content_type: str
    content: bytes


class DemoServer(ThreadingHTTPServer):
    """The page, bound to an address; `serve_forever` serves it.

    Args:
        host, port: to bind to; 0: any free port.
        files: of the page, by their addresses.
        answerer: is asked about pictures.

    Raises:
        UserError: the host is unknown, or the port is taken or may not be used.
    """

    daemon_threads = True
    request_queue_size = MOST_CONNECTIONS

    def __init__(
        self, host: str, port: int, files: Mapping[str, PageFile], answerer: Answerer
    ) -> None:
        self.files, self.answerer = files, answerer
        self.room, self.waiting = Room(), threading.BoundedSemaphore(MOST_WAITING)
        self._connections = threading.BoundedSemaphore(MOST_CONNECTIONS)
        self._is_ending = threading.Event()
        self._host = host
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        except (OSError, UnicodeError) as error:
            raise UserError(f"--host: {host!r} is no address of this machine") from error
        self.address_family = found[0][0]
        try:
            super().__init__((host, port), Handler)
        except OSError as error:
            raise UserError(_explain(error, host, port)) from error

    def server_bind(self) -> None:
        """Bind, without the question to the network what this machine is called."""
        socketserver.TCPServer.server_bind(self)

    @property
    def urls(self) -> list[str]:
        """Where the page is; if it is at all addresses of this machine, its own comes first."""
        host, port = str(self.server_address[0]), self.server_address[1]
        hosts = [host]
        if ipaddress.ip_address(host).is_unspecified:
            found = [one for some in psutil.net_if_addrs().values() for one in some]
            outside = [one.address for one in found if one.family == socket.AF_INET]
            hosts = ["127.0.0.1", *(one for one in outside if not one.startswith("127."))]
        return [f"http://{f'[{one}]' if ':' in one else one}:{port}/" for one in hosts]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread, as soon as there are not too many."""
        while not self._connections.acquire(timeout=0.5):
            if self._is_ending.is_set():
                self.shutdown_request(request)
                return
        super().process_request(request, client_address)

    def shutdown(self) -> None:
        """End `serve_forever`, also where all connections are taken."""
        self._is_ending.set()
        super().shutdown()

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection in this thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._connections.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say what failed, in the log and not on standard error."""
        log.error("a request from %s failed: %s", client_address, traceback.format_exc())

    def serves(self, host_header: str) -> bool:
        """Tell whether a request names this machine.

        A page from elsewhere may have its own name point to this machine (DNS rebinding), but its
        requests then carry that name, which is neither a number nor one of ours.
        """
        name = ""
        try:
            name = urlsplit(f"//{host_header}").hostname or ""
            address = ipaddress.ip_address(name)
        except ValueError:
            return name in {"localhost", self._host.lower(), socket.gethostname().lower()}
        bound = ipaddress.ip_address(str(self.server_address[0]))
        return address.is_loopback or not bound.is_loopback


def _explain(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"--port: {port} is taken by another program; name another, or 0 for any free one"
    if error.errno == errno.EACCES:
        return f"--port: {port} may not be used by you; name one from 1024"
    return f"--host: {host} cannot be listened on ({error.strerror}); is it this machine's address?"


class Handler(BaseHTTPRequestHandler):
    """Answer the one request of a connection."""

    protocol_version, default_request_version = "HTTP/1.1", "HTTP/1.0"
    server_version, sys_version = "Lockstep", ""
    _sent = False
    _has_unread_body = True

    def setup(self) -> None:
        """Read with a deadline."""
        super().setup()
        self._reader = DeadlineReader(self.connection, uploads.HEAD_S)
        self.rfile = io.BufferedReader(self._reader, 2**16)

    def handle(self) -> None:
        """Answer, whatever happens."""
        with contextlib.suppress(ConnectionError):
            self.handle_one_request()
            if self._sent and self._has_unread_body:
                uploads.discard(self.connection)

    def do_GET(self) -> None:
        """Send a file of the page."""
        self._answer(
            {**dict.fromkeys(self._server.files, self._get_file), HEALTH: self._get_health}
        )

    do_HEAD = do_GET  # noqa: N815

    def do_POST(self) -> None:
        """Send a prediction."""
        self._answer({PREDICT: self._predict})

    def _refuse_method(self) -> None:
        self._answer({})

    do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_TRACE = do_CONNECT = _refuse_method  # noqa: N815

    @property
    def _server(self) -> DemoServer:
        return cast("DemoServer", self.server)

    def _answer(self, routes: Mapping[str, Callable[[], None]]) -> None:
        """Answer by a route of the method; refuse what none of them is for."""
        self._has_unread_body = any(
            name in self.headers for name in ("Content-Length", "Transfer-Encoding")
        )
        address = urlsplit(self.path).path if self.path.startswith("/") else self.path
        try:
            self._check_origin()
            if address not in routes:
                raise self._unknown(address)
            routes[address]()
        except Refusal as refusal:
            self._send_error(refusal)
        except UserError as error:
            self._send_error(uploads.refusal_of(error))
        except CancelledError:
            self._send_error(Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "the server is closing"))
        except TimeoutError:
            self._send_error(Refusal(HTTPStatus.REQUEST_TIMEOUT, "the picture came too slowly"))
        except ConnectionError:
            raise
        except Exception:
            log.exception("a picture could not be answered for")
            self._send_error(Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "the server has failed"))

    def _check_origin(self) -> None:
        """Refuse requests under another name, and those that another page has sent.

        Raises:
            Refusal: it is one of these.
        """
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1:
            raise Refusal(HTTPStatus.BAD_REQUEST, "the request must have one Host")
        if not self._server.serves(hosts[0]):
            raise Refusal(HTTPStatus.MISDIRECTED_REQUEST, "this server has another name")
        origin = self.headers.get("Origin", f"http://{hosts[0]}")
        if origin.lower() != f"http://{hosts[0]}".lower():
            raise Refusal(HTTPStatus.FORBIDDEN, "the request comes from another page")

    def _unknown(self, address: str) -> Refusal:
        allowed = {**dict.fromkeys([*self._server.files, HEALTH], "GET, HEAD"), PREDICT: "POST"}
        if address in allowed:
            return Refusal(
                HTTPStatus.METHOD_NOT_ALLOWED,
                f"{address} takes {allowed[address]}",
                {"Allow": allowed[address]},
            )
        return Refusal(HTTPStatus.NOT_FOUND, "there is no such address")

    def _get_file(self) -> None:
        file = self._server.files[urlsplit(self.path).path]
        self._send(HTTPStatus.OK, file.content_type, file.content)

    def _get_health(self) -> None:
        stored = self._server.answerer.stored
        self._send_json({"status": "ok", "model": stored.name, "sha256": stored.weights_sha256})

    def _predict(self) -> None:
        asked = parse_qs(urlsplit(self.path).query, keep_blank_values=True)
        if unknown := asked.keys() - {"class", "invert"}:
            raise Refusal(HTTPStatus.BAD_REQUEST, f"{min(unknown)!r} means nothing here")
        length = uploads.body_bytes(self.headers)
        if not self._server.waiting.acquire(blocking=False):
            raise uploads.busy()
        try:
            with self._server.room.reserve(length):
                content = uploads.picture_in(self.headers, self._read_body(length))
                question = Question(content, asked.get("class", [None])[0], "invert" in asked)
                found = self._server.answerer.answer(question)
        finally:
            self._server.waiting.release()
        self._send_json(found)

    def _read_body(self, length: int) -> bytes:
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.send_response_only(HTTPStatus.CONTINUE)
            self.end_headers()
        self._reader.give(uploads.BODY_S)
        body = self.rfile.read(length)
        if len(body) < length:
            raise Refusal(HTTPStatus.BAD_REQUEST, "the body is shorter than Content-Length")
        self._has_unread_body = False
        return body

    def handle_expect_100(self) -> bool:
        """Ask for the body only once it is wanted."""
        return True

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer what http.server itself finds wrong with a request's head."""
        status = HTTPStatus(code)
        self._send_error(Refusal(status, message or explain or status.phrase))

    def _send_error(self, refusal: Refusal) -> None:
        self._send_json({"error": refusal.message}, refusal.status, refusal.headers)

    def _send_json(
        self,
        value: Any,
        status: HTTPStatus = HTTPStatus.OK,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        content = json.dumps(value, allow_nan=False).encode() + b"\n"
        self._send(status, "application/json", content, headers)

    def _send(
        self,
        status: HTTPStatus,
        content_type: str,
        content: bytes,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Send the answer; the connection ends with it."""
        self.close_connection = True
        if self._sent:
            return
        self._sent = True
        self.send_response(status)
        own = {"Content-Type": content_type, "Content-Length": str(len(content))}
        for name, value in {**HEADERS, **own, **(headers or {}), "Connection": "close"}.items():
            self.send_header(name, value)
        self.connection.settimeout(uploads.BODY_S)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
        """Write no line for each request."""
