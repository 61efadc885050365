"""Measure the start, speed and memory of whole runs on small sets of images and large."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import apart
import numpy as np
import page
import psutil
import yaml

from trainer.ranks.exit_codes import FINISHED, STOPPED_ON_REQUEST

SIDE = 28
CHUNK_IMAGES = 50_000
TEST_IMAGES = 1000
BATCH_SIZE = 100
POLL_S = 0.02


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


def watch(data: Mapping[str, Any], images: int, seconds: float, folder: Path) -> dict[str, Any]:
    """Train by the command that users give, and stop it `seconds` after its first record.

    Returns:
        `first_step_s`, from the start of the command to the first step's record; `images_per_s`,
        from the first record to the last, a new epoch's order included; `peak_bytes`, resident
        memory of the process.

    Raises:
        SystemExit: it failed; has what it printed.
    """
    path, run, log = folder / "recipe.yaml", folder / "run", folder / "log"
    path.write_text(yaml.safe_dump(recipe(data)))
    start_s = time.perf_counter()
    with log.open("wb") as output:
        process = subprocess.Popen(
            apart.train_command(path, run), env=apart.environment(), stdout=output, stderr=output
        )
    records, peak_bytes = _follow(process, run / "metrics.jsonl", seconds)
    if process.returncode not in (FINISHED, STOPPED_ON_REQUEST) or len(records) < 2:
        sys.exit(log.read_text(errors="replace"))
    (first_s, first_step), (last_s, last_step) = records[0], records[-1]
    found = {
        "images": images,
        "data": data["name"],
        "first_step_s": first_s - start_s,
        "images_per_s": (last_step - first_step) * BATCH_SIZE / (last_s - first_s),
        "peak_bytes": peak_bytes,
    }
    print(found, flush=True)
    return found


def _follow(
    process: subprocess.Popen[bytes], metrics: Path, seconds: float
) -> tuple[list[tuple[float, int]], int]:
    """Return when the record of steps grew, to which step, and the most resident memory."""
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
    """Return a recipe: the lab's net on some images, without evaluations and checkpoints."""
    return {
        "threads": 1,
        "data": {"validation_size": 0, **data},
        "model": {"name": "lab_cnn"},
        "train": {"epochs": 100_000, "batch_size": BATCH_SIZE},
        "checkpoint": {"every_epochs": None},
    }


def images(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure on Fashion-MNIST in several sizes, then on synthetic sets, one after the other."""
    runs = []
    for size in arguments.sizes:
        data = {"name": "fashion_mnist", "train_size": size, "root": arguments.root}
        with tempfile.TemporaryDirectory(prefix="scaling-") as name:
            runs.append(watch(data, size, arguments.seconds, Path(name)))
    for size in arguments.synthetic:
        with tempfile.TemporaryDirectory(prefix="scaling-") as name:
            root = Path(name) / "data"
            make_set(root, size)
            data = {"name": "npy", "root": str(root)}
            runs.append(watch(data, size, arguments.seconds, Path(name)))
    return {"seconds": arguments.seconds, "runs": runs}


def images_page(figures: dict[str, Any]) -> list[str]:
    """Write a row for each set."""
    rows = [
        [
            f"{run['images']:,}",
            run["data"],
            f"{run['images'] * SIDE**2 / 1e6:,.1f}",
            f"{run['first_step_s']:.1f} s",
            f"{run['images_per_s']:,.0f}",
            f"{run['peak_bytes'] / 1e6:,.0f} MB",
        ]
        for run in figures["runs"]
    ]
    heads = ["images", "data", "MB of pixels"]
    heads += ["until the first step", "images per second", "most memory"]
    return [
        f"The lab's net, batch size {BATCH_SIZE}, one process of one thread: a whole `train.py`,",
        f"stopped after {figures['seconds']:g} seconds of training. The",
        "resident memory is that of the whole process, Python and torch included. The sets called",
        "npy are synthetic; a file of more than `data.memory_limit_mb` stays on the disk. It is",
        "just written then, so the system's file cache has it.",
        "",
        *page.table(heads, rows),
    ]
