"""Do other trainers end with the same weights on two processes, and after an interruption?

    python benchmarks/same_weights.py [--root DIR]      20 minutes

The other trainers come with `pip install -c constraints.txt -e '.[benchmarks]'`; those
that are not installed are left out, and the page says so. Each training has new processes of one
thread (same_weights_trainers.py). The page is benchmarks/results/same_weights.md.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import signal
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apart
import page
import torch
from safetensors.torch import load_file
from same_weights_trainers import PIECES

TRAINERS = "benchmarks/same_weights_trainers.py"
TASK = {"images": 2048, "batch_size": 64, "epochs": 4, "save_every": 48, "threads": 1}
UNEVEN = 2031
"""images of an epoch that ends with 47, which two processes cannot halve"""

TITLE = "The same weights, compared with other trainers"
INTRODUCTION = f"""
Each trainer trains one net several times, every time in new processes of one thread: twice on one
process; on two (gloo) with half of each batch; and on one that is killed in the middle of the
second epoch, a step after its own checkpoint of step {TASK["save_every"]}, and started again. What
is compared is the last weights and batch-norm statistics, each trainer's with its own. *Same* is
the same bits; otherwise the page gives the largest difference of a weight, and the share of the
test images that are classified differently. Images are recognised as they enter the net: *twice or
never* counts those beyond, or short of, one an epoch among the steps that the last weights of the
interrupted training are made of; the last column does so for an epoch of {UNEVEN:,} images on two
processes.

All have the same first weights, the first {TASK["images"]:,} images of Fashion-MNIST, a global
batch of {TASK["batch_size"]}, Adam at a constant 1e-3, float32, {TASK["epochs"]} epochs, no
augmentation, and deterministic kernels where they have a switch for it. The others run as their
documentation shows, with their options that bring the results nearer to each other. Batch
norm over both processes' samples (SyncBatchNorm) is not among them, as it does not run on CPUs.
Ours has `train.microbatches: {PIECES}` on any number of processes, so that its batch norm takes
{TASK["batch_size"] // PIECES} samples at a time on one process too.
""".strip()


@dataclass(frozen=True)
class Entry:
    """A trainer as the page names it."""

    title: str
    package: str
    """whose version counts; of ours, which has the page's commit, torch"""
    module: str
    """what has to be importable too"""
    driven: str
    """how, and where that is documented"""


ENTRIES = {
    "lockstep": Entry(
        "**Lockstep**",
        "torch",
        "trainer",
        "the engine as `train.py` builds it, `checkpoint.every_steps`, the same command again",
    ),
    "accelerate": Entry(
        "Accelerate",
        "accelerate",
        "accelerate",
        "the loop of its `examples/complete_cv_example.py` with `save_state`, `load_state` and "
        "`skip_first_batches` (huggingface.co/docs/accelerate/usage_guides/checkpoint), "
        "`set_seed(deterministic=True)`, `DataLoaderConfiguration(split_batches=True, "
        "use_seedable_sampler=True)`, `set_epoch` of its loader before each epoch, without which "
        "it resumed in the order of the first epoch, and a `generator` for the loader "
        "(docs.pytorch.org/docs/stable/notes/randomness.html), without which it resumed with other "
        "dropout",
    ),
    "lightning": Entry(
        "PyTorch Lightning",
        "pytorch-lightning",
        "pytorch_lightning",
        "`seed_everything`, `deterministic=True`, `ModelCheckpoint(every_n_train_steps=...)` and "
        "`fit(ckpt_path=...)` (lightning.ai/docs/pytorch/stable/common/checkpointing_basic.html); "
        '`strategy="ddp"` on one process too, where it otherwise shuffles by another sampler',
    ),
    "lightning_stateful": Entry(
        "PyTorch Lightning, stateful loader",
        "pytorch-lightning",
        "torchdata",
        "as before, with torchdata's `StatefulDataLoader` (docs.pytorch.org/data, "
        "`torchdata.stateful_dataloader`), as Lightning warns of resuming within an epoch with any "
        'that cannot; on one process without `strategy="ddp"`, with which it resumed in the order '
        "of the first epoch",
    ),
    "hf_trainer": Entry(
        "HF Trainer",
        "transformers",
        "transformers",
        "`full_determinism=True`, `save_steps` and `train(resume_from_checkpoint=True)` "
        "(huggingface.co/docs/transformers/main_classes/trainer)",
    ),
}
NETS: dict[str, dict[str, Any]] = {
    "Batch norm, no dropout": {"model": "quicknet", "model_args": {"widths": [12, 24, 24]}},
    "Batch norm and dropout": {
        "model": "quicknet",
        "model_args": {"widths": [12, 24, 24], "dropout": 0.3},
    },
    "Neither": {"model": "lab_cnn", "model_args": {}},
}


def is_installed(name: str) -> bool:
    """Return whether a trainer's packages are installed."""
    entry = ENTRIES[name]
    packages = {found.name for found in importlib.metadata.distributions()}
    return entry.package in packages and importlib.util.find_spec(entry.module) is not None


@dataclass(frozen=True)
class Trainings:
    """The trainings of one trainer and net.

    Args:
        name: of the trainer.
        task: what all of them are given.
        folder: for a folder of each.
    """

    name: str
    task: dict[str, Any]
    folder: Path

    def cells(self, uneven: int) -> list[str]:
        """Do them; return their cells of the table."""
        self.train("one")
        self.train("again")
        self.train("two", processes=2)
        self.train("killed", killed=True)
        self.train("resumed", folder=str(self.folder / "killed" / "own"))
        self.train("uneven", processes=2, images=uneven, epochs=1)
        kept = self.task["save_every"] * (PIECES if self.name == "lockstep" else 1)
        views = [*self.seen("killed")[:kept], *self.seen("resumed")]
        return [
            *(self.difference("one", other) for other in ("again", "two", "resumed")),
            twice_or_never(views, self.task["images"], self.task["epochs"]),
            twice_or_never(self.seen("uneven"), uneven, epochs=1),
        ]

    def train(self, out: str, processes: int = 1, killed: bool = False, **more: Any) -> None:
        """Do one of them, which writes into the folder `out`.

        Args:
            out: its name.
            processes: how many.
            killed: whether it is killed a step after its first checkpoint.
            more: what differs from the task; `folder` is where the trainer's checkpoints are.
        """
        own = self.folder / out / "own"
        own.mkdir(parents=True)
        task = self.task | {"folder": str(own), "output": str(own.parent), "killed": killed} | more
        code = -signal.SIGKILL if killed else 0
        apart.run(
            apart.python_command(TRAINERS, self.name, json.dumps(task), processes=processes), code
        )

    def seen(self, out: str) -> list[list[int]]:
        """Return which images each forward pass had, rank after rank."""
        files = sorted((self.folder / out).glob("seen-*.json"))
        return [images for path in files for images in json.loads(path.read_text())]

    def difference(self, out: str, other: str) -> str:
        """Compare the ends of two trainings."""
        mine, theirs = (load_file(self.folder / name / "end.safetensors") for name in (out, other))
        floats = [name for name in mine if mine[name].is_floating_point()]
        if all(mine[name].equal(theirs[name]) for name in floats):
            return "same"
        weights = [name for name in floats if "running_" not in name]
        largest = max(float((mine[name] - theirs[name]).abs().max()) for name in weights)
        different = (mine["predicted"] != theirs["predicted"]).float().mean()
        return f"{largest:.2g}; {different:.2%}"


def twice_or_never(views: list[list[int]], images: int, epochs: int) -> str:
    """Count how often images were seen beyond, and short of, once an epoch."""
    seen = torch.tensor([index for indices in views for index in indices])
    beyond = torch.bincount(seen, minlength=images) - epochs
    twice, never = int(beyond.clamp(min=0).sum()), int(-beyond.clamp(max=0).sum())
    return f"{twice} twice, {never} never" if twice or never else "none"


def table(net: str, names: list[str], data: dict[str, Any], uneven: int = UNEVEN) -> list[str]:
    """Run all trainers on one net; return the lines of its table.

    Args:
        net: one of NETS.
        names: of the trainers.
        data: what differs from TASK.
        uneven: images of an epoch that two processes cannot share evenly.
    """
    with tempfile.TemporaryDirectory(prefix="same-weights-") as folder:
        trainings = [
            Trainings(name, TASK | NETS[net] | data, Path(folder) / name) for name in names
        ]
        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(lambda each: each.cells(uneven), trainings))
    rows = []
    for name, cells in zip(names, found, strict=True):
        entry = ENTRIES[name]
        version = importlib.metadata.version(entry.package)
        package = "torch " if name == "lockstep" else ""
        rows.append([entry.title, package + version, *cells])
    heads = ["trainer", "version", "one process again", "two processes against one"]
    heads += ["interrupted against uninterrupted", "twice or never", "of an uneven epoch on two"]
    return [f"## {net}", "", *page.table(heads, rows), ""]


def main() -> None:
    """Measure and write the page."""
    parser = page.parser(__doc__)
    parser.add_argument("--root", help="data.root of the images")
    page.add_output(parser, "same_weights.md")
    arguments = parser.parse_args()
    data = {"data": "fashion_mnist", "root": arguments.root}
    names = [name for name in ENTRIES if is_installed(name)]
    lines = [INTRODUCTION, ""]
    if absent := [ENTRIES[name].title for name in ENTRIES if name not in names]:
        lines += [f"Left out, as not installed: {', '.join(absent)}.", ""]
    driven = ["## How each was driven", ""]
    driven += [f"- {ENTRIES[name].title}: {ENTRIES[name].driven}." for name in names]
    command = "python benchmarks/same_weights.py"
    for net in NETS:  # each is written when it is done
        lines += table(net, names, data)
        page.write(arguments.output, TITLE, command, [*lines, *driven])


if __name__ == "__main__":
    main()
