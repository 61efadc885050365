"""Follow a small run by Weights & Biases in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from PIL import Image

from tests.conftest import REPOSITORY
from tests.distributed.launch import run_forked

STEPS = [
    {
        "event": "step",
        "epoch": 1 + (step - 1) // 3,
        "step": step,
        "loss": 2 / step,
        "lr": 1e-3 * step,
    }
    for step in range(1, 6)
]
EPOCH = {
    "event": "epoch",
    "epoch": 1,
    "train_loss": 1.25,
    "train_accuracy": 0.5,
    "validation_loss": None,
    "validation_accuracy": 0.75,
    "weights_sha256": "9377ad42",
    "seconds": 2.5,
    "samples_per_second": 1000.0,
}

RESULTS: dict[str, Any] = {
    "test": {
        "accuracy": 0.625,
        "lab_accuracy": 0.5,
        "augmented": {"by": "flip", "accuracy": 0.75, "loss": 0.25},
        "loss": 0.75,
        "samples": 8,
        "per_class": [
            {"name": "T-shirt/top", "support": 4, "correct": 3, "accuracy": 0.75,
             "precision": 0.6, "recall": 0.75, "f1": 0.667},
            {"name": "Shirt", "support": 4, "correct": 2, "accuracy": 0.5,
             "precision": 0.667, "recall": 0.5, "f1": 0.571},
        ],
        "worst_class": "Shirt",
        "confusion": [[3, 1], [2, 2]],
    }
}  # fmt: skip

DRIVER = """
import json, logging, os, signal, sys, time
from pathlib import Path
logging.basicConfig(format="%(levelname)s %(message)s", level=logging.INFO)
from trainer.run.tracking import tracker as guard, weights_and_biases
from trainer.run.tracking.weights_and_biases import start
assert "wandb" not in sys.modules
out, mode = Path("run"), sys.argv[1]
inputs = json.loads(Path("inputs.json").read_text())
begin = time.monotonic()
PREPARE
tracker = start({"seed": 7, "train": {"epochs": 2}}, out, mode, PROJECT, "abc123", 0)
print("start_s", time.monotonic() - begin)
if tracker:
    tracker.log(inputs["steps"][:3])
    BETWEEN
    tracker.log([inputs["epoch"]])
    tracker.log(inputs["steps"][3:])
    begin = time.monotonic()
    tracker.finish(inputs["results"] if FINISHED else None, stopped=not FINISHED)
print("finish_s", time.monotonic() - begin)
print("wandb imported", "wandb" in sys.modules)
"""

ACCELERATE = "from accelerate import PartialState; PartialState()"
"""what every run has done; its import takes seconds"""


def run_python(
    code: str, folder: Path, *arguments: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run code in a new interpreter, with all that it does when it ends."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)} | variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )


def track(
    folder: Path,
    mode: str,
    *,
    prepare: str = ACCELERATE,
    between: str = "",
    finished: bool = True,
    project: str | None = "lab",
    to_its_end: bool = False,
    **variables: str,
) -> subprocess.CompletedProcess[str]:
    """A run of five steps and an epoch with pictures, tracked in its own process.

    Args:
        to_its_end: by an interpreter that ends like a user's; else by one that is forked.
    """
    run = folder / "run"
    run.mkdir(exist_ok=True)
    for place, name in enumerate(("curves", "confusion", "mistakes")):
        Image.new("RGB", (20 + place, 10), (place, 0, 0)).save(run / f"{name}.png")
    inputs = {"steps": STEPS, "epoch": EPOCH, "results": RESULTS}
    (folder / "inputs.json").write_text(json.dumps(inputs), encoding="utf-8")
    code = DRIVER.replace("PREPARE", prepare).replace(
        "BETWEEN", between.strip().replace("\n", "\n    ")
    )
    code = code.replace("FINISHED", str(finished)).replace("PROJECT", repr(project))
    if to_its_end:
        return run_python(code, folder, mode, **variables)
    done = run_forked(1, folder, "-c", code, mode, **variables)
    assert done.returncode == 0, done.stderr
    return done


def seconds(done: subprocess.CompletedProcess[str], name: str) -> float:
    return next(float(line.split()[1]) for line in done.stdout.splitlines() if name in line)
