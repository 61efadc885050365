"""Start on very many small pictures, and keep training: the time and the memory of each rank."""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import apart
import page

FORMS = ("files", "shards")
"""folders that photo_files.py makes"""
PROCESSES = 2
BATCH_SIZE = 128
"""of configs/photos.yaml"""
EPOCH_PICTURES = 720_000
"""of a million: the others are for the validation and the test"""

_NET = ["--model.name", "lenet5", "--model.args", "{}", "--optimizer.name", "sgd"]
_NET += ["--optimizer.lr", "0.01", "--train.precision", "fp32", "--train.microbatches", "2"]
_NET += ["--data.image_size", "32", "--data.image_size_schedule", "null", "--data.store_size"]
_NET += ["null", "--data.scaling", "imagenet", "--data.augment", "[random_resized_crop, flip]"]
_LIMIT_MB = 500
_NET += ["--threads", "1", "--data.memory_limit_mb", str(_LIMIT_MB)]
_FIRST_STEP_S = 1e-9
_LOOKED_EVERY_S = 0.1
_MEASURED_EVERY_S = 2.0
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_MB = 2**20


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure each form that there is: a start without an index, and a training with one."""
    root = Path(arguments.root)
    cases = []
    for form in FORMS:
        if not (root / form).is_dir():
            continue
        with tempfile.TemporaryDirectory(prefix="photos-") as name:
            folder = Path(name)
            first = _train(root / form, folder / "first", folder / "cache", _FIRST_STEP_S)
            later = _train(root / form, folder / "later", folder / "cache", arguments.seconds)
        cases.append({"form": form, "without_index_s": first["first_step_s"], **later})
    return {"cases": cases, "seconds": arguments.seconds, "processes": PROCESSES}


def measure_epoch(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure a training on the shards that goes on for some seconds, after a start."""
    shards = Path(arguments.root) / "shards"
    with tempfile.TemporaryDirectory(prefix="photos-") as name:
        folder = Path(name)
        _train(shards, folder / "first", folder / "cache", _FIRST_STEP_S)
        later = _train(shards, folder / "later", folder / "cache", arguments.seconds)
    cases = [{"form": "shards", **later}]
    return {"cases": cases, "seconds": arguments.seconds, "processes": PROCESSES}


def epoch_section(figures: dict[str, Any]) -> list[str]:
    """Return the lines on the memory of a long training."""
    (case,) = figures["cases"]
    private, images = case["private_mb"], case["steps"] * BATCH_SIZE
    text = (
        f"As above, on the shards: {case['steps']:,} steps, {images:,} pictures of an epoch of "
        f"{EPOCH_PICTURES:,}. The largest rank had {max(private):,.0f} MB for itself, and at the "
        f"median {growth_mb(private):+,.0f} MB in the second half against the first."
    )
    return [text]


def section(figures: dict[str, Any]) -> list[str]:
    """Return the lines of the page."""
    rows = [
        [
            case["form"],
            f"{case['without_index_s']:.1f} s",
            f"{case['first_step_s']:.1f} s",
            f"{case['first_step_cpu_s']:.1f} s",
            f"{max(case['pss_mb']):,.0f} MB",
            f"{max(case['private_mb']):,.0f} MB",
            f"{growth_mb(case['private_mb']):+,.0f} MB",
            f"{case['steps']:,}",
        ]
        for case in figures["cases"]
    ]
    heads = ["form", "to the first step, without an index", "with one", "CPU time of that"]
    heads += ["largest rank, PSS", "private", "later less earlier", "steps"]
    text = (
        "Whole processes of `train.py` on the pictures of `photo_files.py`, "
        f"{figures['processes']} ranks of a thread each: a start with an empty cache, and one with "
        f"its index, which goes on for {figures['seconds']:g} s of training. With "
        f"data.memory_limit_mb {_LIMIT_MB} the pictures are kept on the disk. The first step is "
        "seen when metrics.jsonl has it. Memory is what the system says in smaps_rollup, every two "
        "seconds: the proportional share (PSS) and what only this process has; the last column but "
        "one is the median of the second half of these less that of the first."
    )
    return [text, "", *page.table(heads, rows)]


def growth_mb(samples: list[float]) -> float:
    """Return the median of the second half of samples less that of the first."""
    half = len(samples) // 2
    return statistics.median(samples[half:]) - statistics.median(samples[:half] or samples)


def _train(root: Path, run: Path, cache: Path, seconds: float) -> dict[str, Any]:
    """Train for some seconds; return the time of the first step, and the largest rank's memory."""
    words = [*_NET, "--train.max_seconds", str(seconds)]
    command = apart.train_command("photos", run, *words, root=str(root), processes=PROCESSES)
    start_s = time.monotonic()
    first: dict[str, float] = {}
    pss_mb, private_mb, measured_s = [], [], 0.0
    log = run.with_suffix(".log")
    with (
        log.open("w") as errors,
        subprocess.Popen(
            command,
            env=apart.environment() | {"XDG_CACHE_HOME": str(cache)},
            stdout=subprocess.DEVNULL,
            stderr=errors,
        ) as started,
    ):
        while started.poll() is None:
            time.sleep(_LOOKED_EVERY_S)
            if not first and _steps(run):
                family = _family(started.pid)
                first = {
                    "first_step_s": time.monotonic() - start_s,
                    "first_step_cpu_s": sum(map(_cpu_s, family)),
                }
            if first and time.monotonic() - measured_s > _MEASURED_EVERY_S:
                measured_s = time.monotonic()
                memory = [_memory_mb(process) for process in _family(started.pid)]
                pss_mb.append(max(pss for pss, _ in memory))
                private_mb.append(max(private for _, private in memory))
    if started.returncode != 75 or not first:
        sys.exit(f"{command}: {log.read_text()}")
    return {**first, "steps": _steps(run), "pss_mb": pss_mb, "private_mb": private_mb}


def _steps(run: Path) -> int:
    """Return how many steps metrics.jsonl has."""
    try:
        return (run / "metrics.jsonl").read_text(encoding="utf-8").count('"event": "step"')
    except FileNotFoundError:
        return 0


def _family(parent: int) -> list[int]:
    """Return a process and all below it."""
    found = [parent]
    for process in found:
        try:
            found += map(int, Path(f"/proc/{process}/task/{process}/children").read_text().split())
        except FileNotFoundError:  # it has ended
            continue
    return found


def _cpu_s(process: int) -> float:
    try:
        words = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return 0.0
    return (int(words[11]) + int(words[12])) / _TICKS_PER_S


def _memory_mb(process: int) -> tuple[float, float]:
    """Return the proportional and the private memory of a process."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]
    except (FileNotFoundError, ProcessLookupError):
        return 0.0, 0.0
    sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 / _MB for line in lines}
    return sizes.get("Pss", 0.0), sizes.get("Private_Clean", 0.0) + sizes.get("Private_Dirty", 0.0)
