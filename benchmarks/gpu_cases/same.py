"""Whether weights have the same bits: twice, on processes of one GPU, killed and resumed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from apart import REPOSITORY

from gpu_cases import Save, Task

RECIPE = REPOSITORY / "tests" / "recipes" / "digits.yaml"
FEATURES = {
    "data.mixup": 0.2,
    "train.clip_norm": 1.0,
    "train.ema_decay": 0.9,
    "train.label_smoothing": 0.1,
    "checkpoint.every_steps": 10,
}
"""beside batch norm, augmentation and AdamW of the recipe"""
WAYS = ("once", "again", "2 processes", "4 processes", "killed and resumed")
LIMIT_S = 90.0
"""for the processes of a run"""


def run(task: Task, save: Save) -> None:
    """Train the digits in each way, some runs at once, and keep the digests of the weights."""
    ways = task.options["ways"]
    found: dict[str, dict[str, str]] = {}
    jobs = [(precision, way) for precision in task.options["precisions"] for way in ways]
    one_at_a_time = threading.Lock()

    def do(job: tuple[str, str]) -> None:
        precision, way = job
        outcome = train(task, precision, way)
        with one_at_a_time:
            found.setdefault(precision, {})[way] = outcome
            save({"digests": found})

    with ThreadPoolExecutor(1 if task.small else min(5, task.workers)) as pool:
        list(pool.map(do, jobs))


def train(task: Task, precision: str, way: str) -> str:
    """Return the digest of a run's weights, or what went wrong."""
    folder = Path(task.work_dir) / "same" / f"{precision} {way}".replace(" ", "_")
    folder.mkdir(parents=True)
    epochs = 1 if task.small else 20
    keys = {**FEATURES, "train.precision": precision, "train.epochs": epochs}
    words = ["--config", str(RECIPE), "--output_dir", str(folder), "--tracking.wandb", "disabled"]
    for key, value in keys.items():
        words += [f"--{key}", str(value)]
    processes = int(way.split(maxsplit=1)[0]) if way.endswith("processes") else 1
    if way == "killed and resumed" and (problem := kill_after_checkpoint(words, folder)):
        return problem
    log = folder / "log"
    with log.open("wb") as output:
        ranks = [
            subprocess.Popen(
                command(words),
                env=os.environ | variables,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            for variables in rank_variables(processes)
        ]
        try:
            codes = [rank.wait(LIMIT_S) for rank in ranks]
        except subprocess.TimeoutExpired:
            return f"not finished in {LIMIT_S:.0f} s"
        finally:
            for rank in ranks:
                rank.kill()
                rank.wait()
    if any(codes):
        return f"exit codes {codes}: {log.read_text(errors='replace')[-500:]}"
    digest: str = json.loads((folder / "results.json").read_text())["final_weights_sha256"]
    return digest


def command(words: list[str]) -> list[str]:
    """Return the command of a run that leaves out its report."""
    return [sys.executable, str(REPOSITORY / "tests" / "train_without_report.py"), *words]


def kill_after_checkpoint(words: list[str], folder: Path) -> str | None:
    """Kill a run when it has a checkpoint; return what went wrong, if anything did."""
    with (folder / "killed.log").open("wb") as output:
        process = subprocess.Popen(command(words), stdout=output, stderr=subprocess.STDOUT)
        try:
            end_s = time.monotonic() + LIMIT_S
            while not any((folder / "checkpoints").glob("step-*")):
                if process.poll() is not None or time.monotonic() > end_s:
                    return "no checkpoint before the end"
                time.sleep(0.005)
            process.send_signal(signal.SIGKILL)
        finally:
            process.kill()
            process.wait()
    finished = (folder / "results.json").exists()
    return "finished before it could be killed" if finished else None


def rank_variables(processes: int) -> list[dict[str, str]]:
    """Return what a launcher would set for each process: on this machine, at a free port."""
    if processes == 1:
        return [{}]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    return [
        {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(processes),
            "LOCAL_WORLD_SIZE": str(processes),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
        for rank in range(processes)
    ]
