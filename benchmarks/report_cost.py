"""What the report of a run with very many classes costs: seconds and memory.

    python benchmarks/report_cost.py        2 minutes; nothing else should run

A run of an epoch on random images of 8 x 8 pixels is given made-up answers to its test images, of
which a half is right and the rest one of five neighbours. Then `python -m trainer report` writes
its report, in a process of its own, without the nearest training images, for which it looks three
seconds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import apart
import numpy as np
import page
import torch

from trainer.base.files import write_json
from trainer.data.dataset import ImageSet
from trainer.data.measurements import fingerprint_of
from trainer.training.metrics import LabelledPredictions, per_class_results

CLASSES, TEST_IMAGES, SIDE = 10_000, 100_000, 8
FEW_TEST_IMAGES = 100
"""of the training, whose evaluation keeps the probabilities of all classes"""


def write_images(folder: Path, classes: int, images: int) -> tuple[np.ndarray, np.ndarray]:
    """Write random images as arrays, one of each class to train on; return those of the test."""
    random = np.random.default_rng(0)
    for part, count in (("train", classes), ("test", images)):
        labels = np.arange(count) % classes
        pixels = random.integers(0, 256, (count, SIDE, SIDE), dtype=np.uint8)
        np.save(folder / f"random_{part}_features.npy", pixels)
        np.save(folder / f"random_{part}_targets.npy", labels)
    return pixels, labels


def train(folder: Path, root: Path) -> None:
    """Train for an epoch, tested on a few images."""
    words = ["--data.name", "npy", "--data.validation_size", "0", "--train.epochs", "1"]
    words += ["--data.test_size", str(FEW_TEST_IMAGES), "--train.kernels", "native"]
    apart.run(apart.train_command("digits", folder, *words, root=str(root)))


def make_up(folder: Path, pixels: np.ndarray, target: np.ndarray, classes: int) -> None:
    """Give the run answers to all test images, and results that follow from them."""
    random = np.random.default_rng(1)
    wrong = random.random(len(target)) < 0.5
    predicted = (target + wrong * random.integers(1, 6, len(target))) % classes
    probability = random.random(len(target), dtype=np.float32)
    columns = {"target": target, "predicted": predicted, "probability": probability}
    everything: dict[str, Any] = {"index": np.arange(len(target)), **columns}
    np.savez(folder / "predictions.npz", **everything)
    config = folder / "config.yaml"
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace(f"test_size: {FEW_TEST_IMAGES}", "test_size: null"), "utf-8")
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    names = [row["name"] for row in results["test"]["per_class"]]
    answers = LabelledPredictions(**columns)
    results["test"] = {"accuracy": answers.accuracy, "loss": 1.0, "samples": len(target)}
    results["test"] |= per_class_results(answers, names)
    images = ImageSet(torch.from_numpy(pixels)[:, None], torch.from_numpy(target))
    results["data"] |= {"test": len(target), "test_fingerprint": fingerprint_of(images)}
    write_json(folder / "results.json", results)


def measure(folder: Path) -> tuple[float, float]:
    """Write the report in a process of its own; return its seconds and its largest MB."""
    start_s = time.perf_counter()
    command = [sys.executable, "-m", "trainer", "report", str(folder)]
    process = subprocess.Popen(command, env=apart.environment(), cwd=apart.REPOSITORY)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"{command} failed")
    return time.perf_counter() - start_s, usage.ru_maxrss * 1024 / 1e6


def main() -> None:
    """Measure and write the page."""
    parser = page.parser(__doc__)
    parser.add_argument("--classes", type=int, default=CLASSES)
    parser.add_argument("--images", type=int, default=TEST_IMAGES)
    page.add_output(parser, "report_cost.md")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root, folder = Path(name), Path(name) / "run"
        pixels, target = write_images(root, arguments.classes, arguments.images)
        train(folder, root)
        make_up(folder, pixels, target, arguments.classes)
        seconds, size_mb = measure(folder)
        page_mb = (folder / "report.html").stat().st_size / 1e6
    cells = [arguments.classes, arguments.images]
    lines = [
        " ".join(line.strip() for line in (__doc__ or "").splitlines()[4:]).strip(),
        "",
        *page.table(
            ["classes", "test images", "seconds", "MB, the whole process", "MB of report.html"],
            [
                [
                    *(f"{cell:,}" for cell in cells),
                    f"{seconds:.1f}",
                    f"{size_mb:,.0f}",
                    f"{page_mb:.1f}",
                ]
            ],
        ),
    ]
    command = page.command_of("report_cost.py", arguments, parser.parse_args([]))
    page.write(arguments.output, "What a report of very many classes costs", command, lines)


if __name__ == "__main__":
    main()
