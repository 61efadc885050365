"""Do others end with the same weights on two processes, other cores and processors, after a kill?

    python benchmarks/same_weights.py [--packages DIR] [--timm FILE]      20 minutes

The other trainers come with `pip install -c constraints.txt -e '.[benchmarks]'`, or lie in folders
of --packages, as benchmarks/README.md shows; timm needs train.py of its repository, too. Those that
are not installed are left out, and the page says so. Each training has new processes
(same_weights_trainers/). The other processor is qemu's (Debian's qemu-user-static). The page is
benchmarks/results/same_weights.md.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import page
from same_weights_trainers.entries import ENTRIES
from same_weights_trainers.training import PIECES
from same_weights_trainers.trainings import AVX2_VARIABLES, EMULATOR, FEW, PROCESSOR, Trainings

TASK: dict[str, Any] = {
    "data": "digits", "images": 1024, "batch_size": 64, "epochs": 4, "save_every": 24, "threads": 1,
    "kernels": "portable",
}  # fmt: skip
UNEVEN = 1007
"""images of an epoch that ends with 47, which two processes cannot halve"""

TITLE = "The same weights, compared with other trainers"
VARIABLES = " ".join(f"`{name}={value}`" for name, value in AVX2_VARIABLES.items())
INTRODUCTION = f"""
Each trainer trains one net several times, every time in new processes of one thread, forked when
its packages are imported: twice on one process; on two (gloo) with half of each batch; and on one
that is killed in the middle of the second epoch, a step after step {TASK["save_every"]}, when those
that save within epochs have done so, and started again. Then on one core and on two, as it uses
them by itself: ours by processes, the others by threads. Last, on another processor: ours
with {FEW["images"]} images, here and on the {PROCESSOR} that qemu emulates, which has AVX2 and no
AVX-512. To import the others there takes minutes, so they run here with the kernels for such a
processor, chosen by {VARIABLES}.

What is compared is the last weights and batch-norm statistics, each trainer's with its own. *Same*
is the same bits; otherwise the page gives the largest difference of a weight, and the share of the
test images that are classified differently. Images are recognised as they enter the
net. One column counts those that it sees more or less often than once an epoch, in the steps that
the last weights of the interrupted training are made of; the last column does so for an epoch of
{UNEVEN:,} images on two processes.

All have the same first weights, the first {TASK["images"]:,} of scikit-learn's digits, a global
batch of {TASK["batch_size"]}, Adam at a constant 1e-3, float32, {TASK["epochs"]} epochs, no
augmentation, and deterministic kernels where they have a switch for it. The others run as their
documentation shows, with their options that bring the results nearer to each other. Batch
norm over both processes' samples (SyncBatchNorm) is not among them, as it does not run on CPUs.
Ours has `train.microbatches: {PIECES}` on any number of processes, so that its batch norm takes
{TASK["batch_size"] // PIECES} samples at a time on one process too.
""".strip()

HEADS = {
    "again": "one process again",
    "two": "two processes",
    "resumed": "killed and restarted",
    "cores": "two cores against one",
    "processor": "another processor",
    "seen": "images twice or never, after the restart",
    "uneven": "in an uneven epoch, on two processes",
}
NETS: dict[str, dict[str, Any]] = {
    "Batch norm, no dropout": {"model": "quicknet", "model_args": {"widths": [12, 24, 24]}},
    "Batch norm and dropout": {
        "model": "quicknet",
        "model_args": {"widths": [12, 24, 24], "dropout": 0.3},
    },
    "Neither": {"model": "lab_cnn", "model_args": {}},
}


def build_page(figures: page.Figures) -> list[str]:
    """Return the page of the figures so far, which are in the order of NETS and ENTRIES."""
    lines = [f"# {TITLE}", "", "    python benchmarks/same_weights.py", "", INTRODUCTION]
    for net in NETS:
        own = [one for one in figures.values() if one["net"] == net]
        if not own:
            continue
        keys = [key for key in HEADS if any(key in one["cells"] for one in own)]
        rows = [
            [ENTRIES[one["trainer"]].title, one["version"]]
            + [one["cells"].get(key, "–") for key in keys]
            for one in own
        ]
        lines += ["", f"## {net}", ""]
        lines += page.table(["trainer", "version", *(HEADS[key] for key in keys)], rows)
    lines += ["", "## How each was driven", ""]
    driven = {one["trainer"] for one in figures.values()}
    lines += [f"- {one.title}: {one.driven}." for name, one in ENTRIES.items() if name in driven]
    return [*lines, "", f"On {'; '.join(sorted({one['machine'] for one in figures.values()}))}."]


def compare(
    net: str, name: str, version: str, packages: Path, data: dict[str, Any], uneven: int = UNEVEN
) -> dict[str, Any]:
    """Do the trainings of one trainer and net; return its row.

    Args:
        net: one of NETS.
        name: of the trainer.
        version: of its package.
        packages: where the trainers' folders are.
        data: what differs from TASK.
        uneven: images of an epoch that two processes cannot share evenly.
    """
    emulated = net == next(iter(NETS)) and shutil.which(EMULATOR) is not None  # as it is slow
    with tempfile.TemporaryDirectory(prefix="same-weights-") as folder:
        trainings = Trainings(name, TASK | NETS[net] | data, Path(folder), packages)
        cells = trainings.cells(uneven, emulated=emulated)
    package = "torch " if name == "lockstep" else ""
    return {"net": net, "trainer": name, "version": package + version, "cells": cells}


def main() -> None:
    """Do what was asked for, and write the page after each row."""
    parser = page.parser(__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(ENTRIES))
    parser.add_argument("--net", choices=NETS, help="only this one")
    parser.add_argument(
        "--packages", type=Path, default=Path(sys.prefix), metavar="DIR",
        help="holds folders of packages: lightning, transformers, fastai, timm",
    )  # fmt: skip
    parser.add_argument("--timm", metavar="FILE", help="timm's train.py")
    page.add_output(parser, "same_weights.json")
    arguments = parser.parse_args()
    data = {"timm": arguments.timm}
    figures, lock = page.read_figures(arguments.output), threading.Lock()

    def add(net: str, name: str) -> None:
        version = ENTRIES[name].version(arguments.packages)
        if version is None or (name == "timm" and arguments.timm is None):
            print(f"{name}: left out, as it is not installed")
            return
        row = partial(compare, net, name, version, arguments.packages, data)
        found = page.measure("python benchmarks/same_weights.py", row)
        with lock:
            figures[f"{net}: {name}"] = found
            keys = [f"{one}: {other}" for one in NETS for other in ENTRIES]
            ordered = {key: figures[key] for key in keys if key in figures}
            page.write_figures(arguments.output, ordered, build_page(ordered))

    nets = [arguments.net] if arguments.net else list(NETS)
    with ThreadPoolExecutor(7) as pool:
        rows = [(net, name) for net in nets for name in arguments.names or ENTRIES]
        list(pool.map(lambda row: add(*row), rows))


if __name__ == "__main__":
    main()
