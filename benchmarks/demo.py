"""How long the page of `demo` takes to answer for a picture of one megapixel, and for 200 at once.

    python benchmarks/demo.py [--run DIR ...]       2 minutes; nothing else should run

The page is served by a process of its own, and asked over HTTP by this one, on the same cores; each
answer has Grad-CAM. The page is benchmarks/results/demo.md.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import apart
import numpy as np
import page
from PIL import Image

SIZE = (866, 1155)
"""height and width, one megapixel"""
NETWORKS = {"of the recipe for pictures": (), "efficientnet_lite0 at 224 x 224": (
    "--model.name", "efficientnet_lite0", "--model.args", "{}", "--data.image_size", "224",
)}  # fmt: skip


def draw(seed: int, kind: str = "JPEG") -> bytes:
    """Return a picture file: blurred noise, of about the bytes of a photograph."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (SIZE[0] // 8, SIZE[1] // 8, 3), dtype=np.uint8)
    smooth = Image.fromarray(coarse).resize(SIZE[::-1], Image.Resampling.BICUBIC)
    noise = random.normal(0, 6, (*SIZE, 3))
    pixels = np.clip(np.asarray(smooth) + noise, 0, 255).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, quality=90)
    return stream.getvalue()


def train(folder: Path, *words: str) -> Path:
    """Train for two epochs on a few pictures; the time of an answer is that of any weights."""
    for number in range(40):
        path = folder / "pictures" / "train" / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(draw(number))
    quick = ("--train.epochs", "2", "--train.batch_size", "16", *words)
    apart.run(apart.train_command("folder", folder / "run", *quick, root=str(folder / "pictures")))
    return folder / "run"


@contextmanager
def serve(run: Path) -> Iterator[str]:
    """Serve a run's page in a process of its own, and give its host and port."""
    words = [sys.executable, "-m", "trainer", "demo", str(run), "--port", "0", "--json"]
    with subprocess.Popen(words, env=apart.environment(), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        text = b""
        while not text.endswith(b"}\n"):
            line = process.stdout.readline()
            if not line:
                sys.exit(f"the page of {run} is not served")
            text += line
        try:
            yield urlsplit(json.loads(text)["url"]).netloc
        finally:
            process.send_signal(signal.SIGINT)


def ask(place: str, content: bytes) -> tuple[Any, float]:
    """Return the answer, and its milliseconds."""
    start_s = time.perf_counter()
    connection = http.client.HTTPConnection(place, timeout=600)
    connection.request("POST", "/predict", content)
    reply = connection.getresponse()
    found = json.loads(reply.read())
    elapsed_ms = 1000 * (time.perf_counter() - start_s)
    if reply.status != 200:
        sys.exit(f"answered {reply.status}: {found}")
    return found, elapsed_ms


def measure(place: str, requests: int, in_flight: int) -> dict[str, Any]:
    """Return the milliseconds of single requests, and the seconds of many at once."""
    jpegs, png = [draw(seed) for seed in range(min(in_flight, 20))], draw(0, "PNG")
    alone = [ask(place, content)[0] for content in jpegs]  # which also warms up
    single = {
        kind: [ask(place, content)[1] for _ in range(requests)]
        for kind, content in (("JPEG", jpegs[0]), ("PNG", png))
    }
    together = threading.Barrier(in_flight + 1)

    def one(number: int) -> tuple[bool, float]:
        together.wait()
        found, elapsed_ms = ask(place, jpegs[number % len(jpegs)])
        return found == alone[number % len(jpegs)], elapsed_ms

    with ThreadPoolExecutor(in_flight) as pool:
        replies = [pool.submit(one, number) for number in range(in_flight)]
        together.wait()
        start_s = time.perf_counter()
        found = [reply.result() for reply in replies]
        elapsed_s = time.perf_counter() - start_s
    right = sum(is_right for is_right, _ in found)
    return {"single": single, "right": right, "elapsed_s": elapsed_s}


def row(name: str, found: dict[str, Any], in_flight: int) -> list[str]:
    """Return a row of the table."""
    cells = [name]
    for times in found["single"].values():
        cells.append(f"{statistics.median(times):.0f} ms, at most {max(times):.0f}")
    rate = in_flight / found["elapsed_s"]
    seconds = f"{found['elapsed_s']:.1f} s, {rate:.0f} a second"
    cells.append(f"{found['right']} of {in_flight} right in {seconds}")
    return cells


def main() -> None:
    """Measure and write the page."""
    parser = page.parser(__doc__)
    parser.add_argument("--run", type=Path, action="append", help="of a run of your own")
    parser.add_argument("--requests", type=int, default=31)
    parser.add_argument("--in_flight", type=int, default=200)
    page.add_output(parser, "demo.md")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, run in _runs(arguments, Path(folder)):
            with serve(run) as place:
                found = measure(place, arguments.requests, arguments.in_flight)
            rows.append(row(name, found, arguments.in_flight))
    heads = ["network", "JPEG", "PNG", f"{arguments.in_flight} JPEG files at once"]
    lines = [
        f"Medians of {arguments.requests} requests one after the other, of pictures of",
        f"{SIZE[1]} x {SIZE[0]} pixels: decoded, classified, explained by Grad-CAM and drawn.",
        f"Then {arguments.in_flight} connections at once, with twenty pictures in turn: how many",
        "got the answer that their picture had got alone.",
        "",
        *page.table(heads, rows),
    ]
    command = page.command_of("demo.py", arguments, parser.parse_args([]))
    page.write(arguments.output, "The page to try a model", command, lines)


def _runs(arguments: argparse.Namespace, folder: Path) -> Iterator[tuple[str, Path]]:
    """Give the runs and their names."""
    if arguments.run:
        yield from ((run.name, run) for run in arguments.run)
        return
    for number, (name, words) in enumerate(NETWORKS.items()):
        yield name, train(folder / str(number), *words)


if __name__ == "__main__":
    main()
