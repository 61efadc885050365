"""`predict` on many small files: its speed beside that of the loader of a training.

    python benchmarks/predict.py [--count N] [--size PIXELS] [--rounds N]

Makes JPEG files with photo_files.py and trains a small net on a few of them, in a temporary folder.
The loader is that of `photos.py loaders`, from the original files. The figures go into
benchmarks/results/predict.json; predict.md is written from them.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import apart
import page
import paired
import photo_files
from photo_loaders import ORIGINALS, Task
from turns import LAST_EPOCHS, Process

from trainer.ranks import processes

CLASSES = 10
WARM_UP_EPOCHS = 1
THREADS = 1
TRAINED_ON, TESTED_ON = 200, 100

NETS = {
    "lenet5": ["--model.name", "lenet5", "--model.args", "{}"],
    "quicknet": ["--model.name", "quicknet", "--model.args", "{widths: [16, 32, 32]}"],
}
"""how to train them"""


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure epochs of the loader, and whole commands with all pictures and with one."""
    with tempfile.TemporaryDirectory(prefix="predict-") as name:
        folder = Path(name)
        pictures = folder / "pictures"
        photo_files.write_files(pictures, arguments.count, CLASSES, arguments.size)
        photo_files.write_files(folder / "others", TESTED_ON, CLASSES, arguments.size)
        (folder / "others" / "train").rename(pictures / "test")
        for net, words in NETS.items():
            train(pictures, folder / net, arguments.size, words)
        first = min((pictures / "train").glob("*/*"))
        task = Task(
            root=str(pictures),
            image_size=arguments.size,
            batch_size=64,
            workers=processes.usable_cores(),
            epochs=WARM_UP_EPOCHS + arguments.rounds + LAST_EPOCHS,
            seed=0,
            folder=str(folder / "cache"),
            cache="none",
        )
        words = ["-m", "photo_loaders", ORIGINALS, json.dumps(asdict(task))]
        with Process(words, [Path(__file__).parent], folder / "log", THREADS) as loader:
            loader.wait_until_ready()
            contenders = {"loader": loader.epoch}
            for net in NETS:
                contenders[net] = functools.partial(predict, folder / net, pictures / "train")
                contenders[f"{net}, one"] = functools.partial(predict, folder / net, first)
            seconds = paired.take_turns(contenders, arguments.rounds, WARM_UP_EPOCHS)
            loader.finish()
    return {"count": arguments.count, "size": arguments.size, "seconds": seconds}


def train(pictures: Path, run: Path, size: int, words: list[str]) -> None:
    """Train a net on a few of the pictures; what it learns does not matter."""
    few = ["--data.train_size", str(TRAINED_ON), "--data.validation_size", "50"]
    few += ["--data.image_size", str(size), "--train.batch_size", "50", "--threads", "1"]
    few += ["--train.epochs", "1", "--schedule.warmup_epochs", "0"]
    apart.run(apart.train_command("folder", run, *few, *words, root=str(pictures)))


def predict(run: Path, pictures: Path) -> float:
    """Return the seconds of a whole command."""
    words = ["-m", "trainer", "predict", str(run), str(pictures)]
    return apart.run([apart.python_command("")[0], *words])[1]


def build_page(figures: page.Figures) -> list[str]:
    """Return the page."""
    found = figures["predict"]
    seconds, count = found["seconds"], found["count"]
    loader = [count / one for one in seconds["loader"]]
    rows = [["loader of a training", f"{statistics.median(loader):,.0f}", "", ""]]
    for net in NETS:
        pairs = zip(seconds[net], seconds[f"{net}, one"], strict=True)
        after_start = [(count - 1) / (all_s - one_s) for all_s, one_s in pairs]
        whole = [count / one for one in seconds[net]]
        rows.append(
            [
                f"`predict`, {net}",
                f"{statistics.median(after_start):,.0f}",
                paired.spread(paired.ratios(after_start, loader)),
                f"{statistics.median(whole):,.0f}",
            ]
        )
    heads = ["what", "images/s after its start", "over the loader", "images/s of the whole command"]
    text = (
        f"{count:,} JPEG files of {found['size']} x {found['size']} pixels. `predict` prints CSV; "
        "its start is the same command with one picture. The loader crops at random, mirrors and "
        "scales, in batches of 64. They take turns; ratios are formed within a round: their "
        "median, and the quartiles in brackets."
    )
    lines = [text, "", *page.table(heads, rows)]
    return ["# Many small files", "", *page.section("`predict` and the loader", found, lines)]


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = page.parser(__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3, help="at least 2, as there are quartiles")
    page.add_output(parser, "predict.json")
    return parser


def main() -> None:
    """Measure, and write the page."""
    arguments = parser().parse_args()
    command = page.command_of("predict.py", arguments, parser().parse_args([]))
    figures = {"predict": page.measure(command, functools.partial(measure, arguments))}
    page.write_figures(arguments.output, figures, build_page(figures))


if __name__ == "__main__":
    main()
