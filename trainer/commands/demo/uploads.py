"""Take pictures from a connection: of a limited size, in limited time and memory.

Nothing of a body is read before its length is known and there is room for it, and nothing in it is
a path: the name of a file is left where it is.
"""

from __future__ import annotations

import contextlib
import io
import re
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from email.message import Message
from http import HTTPStatus
from typing import Any

from trainer.base.errors import UserError
from trainer.data.pictures.opening import TooManyPixelsError, UnknownFormatError

MOST_BYTES = 32 * 2**20
"""of a request's body"""
MOST_HELD_BYTES = 16 * MOST_BYTES
"""of all bodies in memory; the others wait in their connections"""
HEAD_S, BODY_S = 10.0, 30.0
"""in which the head of a request, and then its body, must have arrived"""
WAIT_S = 120.0
"""at most for room"""
LINGER_S = 5.0
"""in which what a refused client still sends is thrown away, so that it reads the answer"""


_FILE = re.compile(rb";\s*filename\*?=", re.IGNORECASE)
"""in the head of a part that is a file"""


class Refusal(Exception):  # noqa: N818 - an answer like others
    """What a request is answered with in place of a prediction.

    Args:
        status: 4xx or 5xx.
        message: what was wrong, and what would be right.
        headers: more of the answer's.
    """

    def __init__(
        self, status: HTTPStatus, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.headers = status, message, dict(headers or {})


class DeadlineReader(io.RawIOBase):
    """Read from a connection until a deadline, however slowly its bytes come.

    Args:
        connection: to read from.
        seconds: until reads raise `TimeoutError`.
    """

    def __init__(self, connection: socket.socket, seconds: float) -> None:
        self._connection = connection
        self.give(seconds)

    def give(self, seconds: float) -> None:
        """Set the deadline, from now."""
        self._deadline_s = time.monotonic() + seconds

    def readable(self) -> bool:
        """Say yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read what there is."""
        left_s = self._deadline_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("the request did not arrive in time")
        self._connection.settimeout(left_s)
        return self._connection.recv_into(buffer)


class Room:
    """The memory for the bodies of requests.

    Args:
        size_bytes: of all of them.
    """

    def __init__(self, size_bytes: int = MOST_HELD_BYTES) -> None:
        self._free_bytes = size_bytes
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def reserve(self, size_bytes: int) -> Iterator[None]:
        """Hold room for a body; wait until there is some.

        Raises:
            Refusal: 503, there was none for WAIT_S.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._free_bytes >= size_bytes, WAIT_S):
                raise busy()
            self._free_bytes -= size_bytes
        try:
            yield
        finally:
            with self._changed:
                self._free_bytes += size_bytes
                self._changed.notify_all()


def busy() -> Refusal:
    """Return the answer where too many ask at once."""
    return Refusal(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "too many pictures are waiting; ask again later",
        {"Retry-After": "5"},
    )


def refusal_of(error: UserError) -> Refusal:
    """Return the answer where something is wrong with a picture, or with what is asked."""
    match error:
        case TooManyPixelsError():
            status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        case UnknownFormatError():
            status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
        case _:
            status = HTTPStatus.BAD_REQUEST
    return Refusal(status, str(error))


def body_bytes(headers: Message) -> int:
    """Return how long a request's body is, before any of it is read.

    Raises:
        Refusal: 411 without a length, 400 for a wrong one, 413 for too long a body.
    """
    lengths = headers.get_all("Content-Length", [])
    if "Transfer-Encoding" in headers or not lengths:
        raise Refusal(
            HTTPStatus.LENGTH_REQUIRED, "the request must say its body's length: Content-Length"
        )
    (length, *others) = lengths
    if others or not (length.isascii() and length.isdecimal()):
        raise Refusal(HTTPStatus.BAD_REQUEST, "Content-Length must be one whole number")
    # Of more than some thousand digits Python makes no number.
    if len(length) > len(str(MOST_BYTES)) + 20 or int(length) > MOST_BYTES:
        raise Refusal(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"a request may have {MOST_BYTES // 2**20} MiB at the most; send a smaller picture",
        )
    if int(length) == 0:
        raise Refusal(HTTPStatus.BAD_REQUEST, "the request has no picture in its body")
    return int(length)


def picture_in(headers: Message, body: bytes) -> bytes:
    """Return the bytes of the one picture in a body: all of it, or the file in a form.

    Raises:
        Refusal: 415 for text or an archive, 400 for a form without a file or with several.
    """
    kind = headers.get_content_type() if "Content-Type" in headers else "application/octet-stream"
    if kind == "multipart/form-data":
        boundary = headers.get_param("boundary")
        if not isinstance(boundary, str) or not 1 <= len(boundary) <= 70:
            raise Refusal(HTTPStatus.BAD_REQUEST, "the form has no boundary")
        return _file_in_form(body, b"--" + boundary.encode("latin-1", "replace"))
    # curl --data-binary calls anything a form of the older kind.
    others = ("application/octet-stream", "application/x-www-form-urlencoded")
    if not kind.startswith("image/") and kind not in others:
        raise Refusal(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"a picture is expected, as image/jpeg or the like, or in multipart/form-data; "
            f"found {kind}",
        )
    return body


def _file_in_form(body: bytes, delimiter: bytes) -> bytes:
    """Return the content of the only part that is a file (RFC 7578)."""
    files = []
    start = body.find(delimiter)
    while start >= 0:
        start += len(delimiter)
        if body.startswith(b"--", start):
            break
        end = body.find(b"\r\n" + delimiter, start)
        head_end = body.find(b"\r\n\r\n", start, end if end >= 0 else None)
        if end < 0 or head_end < 0:
            raise Refusal(HTTPStatus.BAD_REQUEST, "the form is cut short")
        if _FILE.search(body, start, head_end):
            files.append((head_end + 4, end))
        if len(files) > 1:
            raise Refusal(HTTPStatus.BAD_REQUEST, "the form has several files; send one a request")
        start = end + 2
    if not files:
        raise Refusal(HTTPStatus.BAD_REQUEST, "the form has no file")
    begin, end = files[0]
    return body[begin:end]


def discard(connection: socket.socket) -> None:
    """Throw away what a client still sends, for a while.

    Otherwise the system would reset the connection, and the client might never read its answer.
    """
    buffer = bytearray(2**18)
    deadline_s = time.monotonic() + LINGER_S
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_WR)
        while (left_s := deadline_s - time.monotonic()) > 0:
            connection.settimeout(left_s)
            if not connection.recv_into(buffer):
                return
