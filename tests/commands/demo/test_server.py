"""The page's server: the answers of `predict`, and whatever a stranger may send."""

from __future__ import annotations

import contextlib
import io
import json
import socket
import struct
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.commands.command import Capture, run_command
from tests.commands.demo.serving import ask, form, serve
from tests.stored import write_model
from trainer.commands.demo import page, uploads
from trainer.commands.demo.server import MOST_WAITING, DemoServer


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("a run") / "model.safetensors", channels=3)


@pytest.fixture(scope="module")
def server(model: Path) -> Iterator[DemoServer]:
    with serve(model) as server:
        yield server


def picture(seed: int = 0, size: tuple[int, int] = (30, 20), kind: str = "PNG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def announced(width: int, height: int) -> bytes:
    """A PNG of few bytes that says it has many pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def archive() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("bomb", bytes(10**6))
    return stream.getvalue()


def exchange(server: DemoServer, *pieces: bytes) -> bytes:
    """Send bytes as they are, and return all that comes back."""
    with socket.create_connection(server.server_address[:2], timeout=60) as connection:
        for piece in pieces:
            connection.sendall(piece)
        return b"".join(iter(lambda: connection.recv(2**16), b""))


def test_the_answer_is_that_of_predict(
    server: DemoServer, model: Path, tmp_path: Path, capsys: Capture
) -> None:
    kinds = ("PNG", "JPEG", "WEBP", "GIF")
    for number, kind in enumerate(kinds):
        (tmp_path / f"{number}.{kind.lower()}").write_bytes(picture(number, kind=kind))
    Image.new("LA", (9, 40), (90, 20)).save(tmp_path / "4.png")
    code, output, errors = run_command(capsys, "predict", model, tmp_path, "--json")
    assert code == 0, errors
    rows = [json.loads(line) for line in output.splitlines()]
    assert len(rows) == 5
    for row in rows:
        content = Path(row.pop("file")).read_bytes()
        for body, headers in ((content, {}), form(("../../x.png", content))):
            status, found, _ = ask(server, "/predict", body, headers)
            assert status == 200
            assert {key: found[key] for key in row} == row
            assert found["explained"] == row["class"]
            assert found["image"].startswith("data:image/png;base64,")
            assert found["map"].startswith("data:image/png;base64,")
            assert found["map"] != found["image"]


def test_a_class_can_be_explained_and_a_picture_inverted(server: DemoServer) -> None:
    plain, other, inverted = (
        ask(server, f"/predict{query}", picture())[1]
        for query in ("", "?class=bee%2C%20or%20wasp", "?invert=")
    )
    assert other["probabilities"] == plain["probabilities"] != inverted["probabilities"]
    assert other["explained"] == "bee, or wasp"
    rest = [name for name in plain["probabilities"] if name != plain["explained"]]
    assert (
        ask(server, f"/predict?class={rest[0]}".replace(" ", "+"), picture())[1]["map"]
        != plain["map"]
    )


def test_two_hundred_at_once_get_their_own_answers(server: DemoServer) -> None:
    count = 200
    alone = [ask(server, "/predict", picture(seed))[1] for seed in range(20)]
    together = threading.Barrier(count)

    def one(number: int) -> Any:
        body = picture(number % 20)
        together.wait()
        return ask(server, "/predict", body)

    with ThreadPoolExecutor(count) as pool:
        replies = list(pool.map(one, range(count)))
    assert [status for status, _, _ in replies] == [200] * count
    assert [found for _, found, _ in replies] == [alone[number % 20] for number in range(count)]


@pytest.mark.parametrize(
    ("body", "headers", "status", "words"),
    [
        (b"no picture at all", {}, 415, "is not a picture that can be read"),
        (archive(), {}, 415, "is not a picture that can be read"),
        (archive(), {"Content-Type": "application/zip"}, 415, "found application/zip"),
        (b"<svg onload='alert(1)'/>", {"Content-Type": "image/svg+xml"}, 415, "none of the"),
        (picture()[:200], {}, 400, "is not a picture that can be read"),
        (announced(20_000, 10_000), {}, 413, "has 200.0 megapixels"),
        (announced(60_000, 60_000), {}, 413, "has 3,600.0 megapixels"),
        (b"", {}, 400, "no picture in its body"),
        (*form(), 400, "the form has no file"),
        (*form(("a", picture()), ("b", picture())), 400, "several files"),
        (form(("a", picture()))[0][:-40], form()[1], 400, "cut short"),
        (picture(), {"Content-Type": "multipart/form-data"}, 400, "no boundary"),
        (picture(), {"Transfer-Encoding": "chunked"}, 411, "Content-Length"),
        (picture(), {"Content-Length": "-1"}, 400, "whole number"),
        (picture(), {"Content-Length": "1" * 5000}, 413, "32 MiB"),
        (picture(), {"Host": "rebound.example"}, 421, "another name"),
        (picture(), {"Host": "192.0.2.1"}, 421, "another name"),
        (picture(), {"Origin": "https://elsewhere.example"}, 403, "another page"),
        (picture(), {"Origin": "null"}, 403, "another page"),
    ],
)  # fmt: skip
def test_what_is_refused(
    server: DemoServer, body: bytes, headers: dict[str, str], status: int, words: str
) -> None:
    found = ask(server, "/predict", body, headers)
    assert found[0] == status
    assert words in found[1]["error"]


@pytest.mark.parametrize(
    ("path", "words"), [("/predict?class=nobody", "no class 'nobody'"), ("/predict?x=1", "'x'")]
)
def test_a_question_that_means_nothing(server: DemoServer, path: str, words: str) -> None:
    status, found, _ = ask(server, path, picture())
    assert status == 400
    assert words in found["error"]


@pytest.mark.parametrize(
    "path",
    ["/../../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd", "/..%2f..%2fetc/passwd",
     "/etc/passwd", "/demo.css/../demo.html", "/demo.html", "/\\..\\..\\x", "file:///etc/passwd",
     "/.", "/demo.css%00", "*"],
)  # fmt: skip
def test_no_file_of_the_machine_can_be_read(server: DemoServer, path: str) -> None:
    reply = exchange(server, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    assert reply.startswith(b"HTTP/1.1 404 ")
    assert reply.endswith(b'\r\n\r\n{"error": "there is no such address"}\n')


def test_a_large_request_is_refused_before_it_comes(server: DemoServer) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1073741824\r\n"
    for more in (b"\r\n", b"Expect: 100-continue\r\n\r\n"):
        with socket.create_connection(server.server_address[:2], timeout=60) as connection:
            connection.sendall(head + more)
            assert connection.recv(2**16).startswith(b"HTTP/1.1 413 ")
    status, found, _ = ask(server, "/predict", bytes(uploads.MOST_BYTES + 1))
    assert (status, "32 MiB" in found["error"]) == (413, True)


def test_a_client_may_ask_before_it_sends(server: DemoServer) -> None:
    body = picture()
    head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    with socket.create_connection(server.server_address[:2], timeout=60) as connection:
        connection.sendall(head.encode() + b"Expect: 100-continue\r\n\r\n")
        assert connection.recv(2**16) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert connection.recv(2**16).startswith(b"HTTP/1.1 200 OK\r\n")


def test_slow_clients_are_not_waited_for(
    server: DemoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "HEAD_S", 0.2)
    monkeypatch.setattr(uploads, "BODY_S", 0.2)
    monkeypatch.setattr(uploads, "LINGER_S", 0.2)
    assert exchange(server, b"POST /predict HTTP/1.1\r\nHost: loc") == b""
    monkeypatch.setattr(uploads, "HEAD_S", 60.0)
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nhalf"
    assert exchange(server, head).startswith(b"HTTP/1.1 408 ")


def test_a_short_body_is_refused(server: DemoServer) -> None:
    with socket.create_connection(server.server_address[:2], timeout=60) as connection:
        connection.sendall(
            b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nx"
        )
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(2**16).startswith(b"HTTP/1.1 400 ")


def test_too_many_are_asked_to_come_again(
    server: DemoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(MOST_WAITING):
        assert server.waiting.acquire(timeout=60)
    status, found, headers = ask(server, "/predict", picture())
    server.waiting.release(MOST_WAITING)
    assert (status, headers["Retry-After"]) == (503, "5")
    assert "later" in found["error"]
    monkeypatch.setattr(uploads, "WAIT_S", 0.1)
    with server.room.reserve(uploads.MOST_HELD_BYTES):
        assert ask(server, "/predict", picture())[0] == 503
    assert ask(server, "/predict", picture())[0] == 200


def test_every_answer_has_the_headers_that_protect_it(server: DemoServer) -> None:
    for path, status in (("/", 200), ("/demo.js", 200), ("/healthz", 200), ("/no", 404)):
        found, _, headers = ask(server, path)
        assert found == status
        assert headers["Content-Security-Policy"].startswith("default-src 'none'; ")
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Server"] == "Lockstep "


def test_a_page_for_the_network_has_all_addresses_of_the_machine(model: Path) -> None:
    with serve(model, host="0.0.0.0") as server:
        port = server.server_address[1]
        assert server.urls[0] == f"http://127.0.0.1:{port}/"
        for host in ("192.0.2.1", f"localhost:{port}", socket.gethostname()):
            assert ask(server, "/healthz", headers={"Host": host})[0] == 200
        assert ask(server, "/healthz", headers={"Host": "rebound.example"})[0] == 421


def test_it_ends_while_all_connections_are_taken(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.commands.demo.server.MOST_CONNECTIONS", 1)
    monkeypatch.setattr(uploads, "HEAD_S", 600.0)
    with serve(model) as server, contextlib.ExitStack() as clients:
        for _ in range(2):
            connection = socket.create_connection(server.server_address[:2], timeout=60)
            clients.enter_context(connection).sendall(b"GET ")
        ending = threading.Thread(target=server.shutdown)
        ending.start()
        ending.join(60)
        assert not ending.is_alive()


def test_a_name_that_is_no_utf_8(tmp_path: Path) -> None:
    assert page.name_of(tmp_path / "caf\udce9" / "model.safetensors") == "caf?"


def test_methods(server: DemoServer) -> None:
    status, found, headers = ask(server, "/", method="HEAD")
    assert (status, found) == (200, "")
    assert int(headers["Content-Length"]) > 500
    for method, path, allowed in (
        ("GET", "/predict", "POST"), ("POST", "/", "GET, HEAD"), ("DELETE", "/healthz", "GET, HEAD")
    ):  # fmt: skip
        status, _, headers = ask(server, path, method=method)
        assert (status, headers["Allow"]) == (405, allowed)
    assert ask(server, "/healthz")[1]["status"] == "ok"
    assert exchange(server, b"NONSENSE\r\n\r\n").startswith(b"HTTP/1.1 400 ")


def several(metadata: dict[str, Any]) -> None:
    metadata["thresholds"] = [0.0, 1.0, 0.0]


def test_answers_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    model = write_model(
        tmp_path / "model.safetensors",
        change=lambda metadata: metadata.update(deviation=[[[1e-30]]], mean=[[[-1e38]]]),
    )
    with serve(model) as server:
        status, found, _ = ask(server, "/predict", picture())
    assert (status, "not finite" in found["error"]) == (400, True)


def test_who_asks_while_it_closes_is_told(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    with serve(model) as server:
        server.answerer.close()
        status, found, _ = ask(server, "/predict", picture())
    assert (status, found["error"]) == (503, "the server is closing")
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("change", "confidence", "check"),
    [
        (several, 0.0, lambda found: found["class"] == ["ant", "Käfer"]),
        (lambda _: None, 0.999, lambda found: found["class"] is None),
        (
            lambda metadata: metadata.update(class_names=["<script>", '"&', "{{ 7 * 7 }}"]),
            0.0,
            lambda found: set(found["probabilities"]) == {"<script>", '"&', "{{ 7 * 7 }}"},
        ),
    ],
)
def test_other_models(
    tmp_path: Path, change: Callable[[Any], None], confidence: float, check: Callable[[Any], bool]
) -> None:
    (tmp_path / "<b>").mkdir()
    model = write_model(tmp_path / "<b>" / "model.safetensors", change=change)
    with serve(model, confidence) as server:
        status, found, _ = ask(server, "/predict", picture())
        assert status == 200
        assert check(found)
        html = ask(server, "/")[1]
    assert "<b>" not in html
    assert html.count("<script") == 1
    assert 'id="invert"' in html
