"""The lab's net on small sets of images and large: start, speed and memory of whole runs."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import apart
import numpy as np
import psutil
import yaml

from trainer.ranks.exit_codes import FINISHED, STOPPED_ON_REQUEST

SIDE = 28
CHUNK_IMAGES = 50_000
TEST_IMAGES = 1000
BATCH_SIZE = 100
POLL_S = 0.02


@dataclass(frozen=True)
class Watched:
    """What was seen of a run from outside."""

    images: int
    data: str
    first_step_s: float
    """from the start of the command to the first step's record"""
    images_per_s: float
    """from the first record to the last; a new epoch's order included"""
    peak_bytes: int
    """resident memory of the process"""


def make_set(folder: Path, images: int) -> None:
    """Write four .npy files of images that all differ; the same ones each time."""
    folder.mkdir()
    for part, count in (("train", images), ("test", min(images, TEST_IMAGES))):
        features = np.lib.format.open_memmap(
            folder / f"synthetic_{part}_features.npy", "w+", np.uint8, (count, SIDE, SIDE)
        )
        targets = np.arange(count) % 10
        columns = np.arange(SIDE * SIDE, dtype=np.uint8)
        for begin in range(0, count, CHUNK_IMAGES):
            numbers = np.arange(begin, min(begin + CHUNK_IMAGES, count), dtype=np.uint32)
            # Bands as broad as the class says, moved along by the image's number.
            slopes = (numbers % 10 + 1).astype(np.uint8)
            pixels = columns * slopes[:, None] + (numbers % 251).astype(np.uint8)[:, None]
            pixels[:, :4] = numbers.view(np.uint8).reshape(-1, 4)  # no two alike
            features[begin : begin + len(numbers)] = pixels.reshape(-1, SIDE, SIDE)
        features.flush()
        np.save(folder / f"synthetic_{part}_targets.npy", targets)


def watch(recipe: Mapping[str, Any], images: int, seconds: float, folder: Path) -> Watched:
    """Train by the command that users give, and stop it `seconds` after its first record.

    Raises:
        SystemExit: it failed; says how.
    """
    path, run, log = folder / "recipe.yaml", folder / "run", folder / "log"
    path.write_text(yaml.safe_dump(dict(recipe)))
    start_s = time.perf_counter()
    with log.open("wb") as output:
        process = subprocess.Popen(
            apart.training(path, run), env=apart.environment(), stdout=output, stderr=output
        )
    records, peak_bytes = _follow(process, run / "metrics.jsonl", seconds)
    if process.returncode not in (FINISHED, STOPPED_ON_REQUEST) or len(records) < 2:
        sys.exit(log.read_text(errors="replace"))
    (first_s, first_step), (last_s, last_step) = records[0], records[-1]
    return Watched(
        images=images,
        data=recipe["data"]["name"],
        first_step_s=first_s - start_s,
        images_per_s=(last_step - first_step) * BATCH_SIZE / (last_s - first_s),
        peak_bytes=peak_bytes,
    )


def _follow(
    process: subprocess.Popen[bytes], metrics: Path, seconds: float
) -> tuple[list[tuple[float, int]], int]:
    """When the record of steps grew and to which step, and the most memory that was resident."""
    asked_to_stop = False
    records: list[tuple[float, int]] = []
    seen_bytes = peak_bytes = 0
    resident = psutil.Process(process.pid)
    while process.poll() is None:
        peak_bytes = max(peak_bytes, resident.memory_info().rss)
        if metrics.exists() and metrics.stat().st_size > seen_bytes:
            text = metrics.read_bytes()
            now_s, seen_bytes = time.perf_counter(), len(text)
            steps = [
                record["step"]
                for record in map(json.loads, text[: text.rfind(b"\n") + 1].splitlines())
                if record["event"] == "step"
            ]
            if steps and (not records or steps[-1] > records[-1][1]):
                records.append((now_s, steps[-1]))
        # Two records at least, however slow the machine is.
        if len(records) > 1 and records[-1][0] - records[0][0] >= seconds and not asked_to_stop:
            process.terminate()
            asked_to_stop = True
        time.sleep(POLL_S)
    return records, peak_bytes


def recipe(data: Mapping[str, Any]) -> dict[str, Any]:
    """The lab's net on some images; no evaluation and no checkpoint on the way."""
    return {
        "threads": 1,
        "data": {"validation_size": 0, **data},
        "model": {"name": "lab_cnn"},
        "train": {"epochs": 100_000, "batch_size": BATCH_SIZE},
        "checkpoint": {"every_epochs": None},
    }


def images(arguments: argparse.Namespace) -> dict[str, Any]:
    """Fashion-MNIST in several sizes, then sets of a pattern, one after the other on the disk."""
    found = []
    for size in arguments.sizes:
        data = {"name": "fashion_mnist", "train_size": size, "root": arguments.root}
        with tempfile.TemporaryDirectory(prefix="scaling-") as name:
            found.append(watch(recipe(data), size, arguments.seconds, Path(name)))
        print(found[-1], flush=True)
    for size in arguments.synthetic:
        with tempfile.TemporaryDirectory(prefix="scaling-") as name:
            root = Path(name) / "data"
            make_set(root, size)
            data = {"name": "npy", "root": str(root)}
            found.append(watch(recipe(data), size, arguments.seconds, Path(name)))
        print(found[-1], flush=True)
    return {"seconds": arguments.seconds, "runs": [asdict(watched) for watched in found]}


def images_page(figures: dict[str, Any]) -> list[str]:
    """A row a set."""
    lines = [
        f"The lab's net, batch size {BATCH_SIZE}, one process of one thread: a whole `train.py`,",
        f"stopped after {figures['seconds']:g} seconds of training. The",
        "resident memory is that of the whole process, Python and torch included. The sets called",
        "npy are synthetic; a file of more than `data.memory_limit_mb` stays on the disk. It is",
        "just written then, so the system's file cache has it.",
        "",
        "| images | data | MB of pixels | until the first step | images per second | most memory |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for watched in (Watched(**run) for run in figures["runs"]):
        cells = [
            f"{watched.images:,}",
            watched.data,
            f"{watched.images * SIDE**2 / 1e6:,.1f}",
            f"{watched.first_step_s:.1f} s",
            f"{watched.images_per_s:,.0f}",
            f"{watched.peak_bytes / 1e6:,.0f} MB",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines
