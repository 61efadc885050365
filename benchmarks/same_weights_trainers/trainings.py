"""The trainings of one trainer that same_weights.py compares with each other."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apart
import torch
from contenders.lockstep import configuration
from contenders.task import Task
from safetensors.torch import load_file

from same_weights_trainers.entries import ENTRIES
from same_weights_trainers.training import PIECES
from trainer.base.kernels import PORTABLE_VARIABLES
from trainer.config import command_line

TASK_KEYS = {field.name for field in dataclasses.fields(Task)}
FEW: dict[str, Any] = {"images": 512, "epochs": 1}
"""of ours on another processor, which is emulated and slow"""
AVX2_VARIABLES = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
}
"""with which torch, MKL and oneDNN choose the kernels of processors without AVX-512"""
EMULATOR, PROCESSOR = "qemu-x86_64-static", "Haswell"


@dataclass(frozen=True)
class Trainings:
    """The trainings of one trainer and net.

    Args:
        name: of the trainer.
        task: what all of them are given.
        folder: for a folder of each.
        packages: where the trainers' folders are.
    """

    name: str
    task: dict[str, Any]
    folder: Path
    packages: Path = Path(sys.prefix)

    def cells(self, uneven: int, *, emulated: bool) -> dict[str, str]:
        """Do them; return their cells of the table, by the keys of HEADS.

        Args:
            uneven: images of an epoch that two processes cannot share evenly.
            emulated: whether another processor is wanted.
        """
        trainings = [
            self.training("one"),
            self.training("again"),
            self.training("two", processes=2),
            self.training("killed", killed=True),
            self.training("resumed", folder=str(self.folder / "killed" / "own")),
            self.training("uneven", processes=2, images=uneven, epochs=1),
        ]
        if self.name != "lockstep":
            trainings.append(self.training("cores", threads=2))
        self.train(trainings)
        views = [*self.seen("killed")[: self.kept()], *self.seen("resumed")]
        found = {name: self.difference("one", name) for name in ("again", "two", "resumed")}
        found |= {"cores": self.on_cores()}
        if emulated:
            found["processor"] = self.on_another_processor()
        return found | {
            "seen": twice_or_never(views, self.task["images"], self.task["epochs"]),
            "uneven": twice_or_never(self.seen("uneven"), uneven, epochs=1),
        }

    def kept(self) -> int:
        """Return how many forward passes the checkpoint had seen with which the killed went on."""
        if ENTRIES[self.name].resumes_epochs:
            return int(self.task["images"] // self.task["batch_size"])
        return int(self.task["save_every"] * (PIECES if self.name == "lockstep" else 1))

    def on_another_processor(self) -> str:
        """Compare a training with one on another processor, or with the kernels for that."""
        if self.name != "lockstep":
            variables = [f"{name}={value}" for name, value in AVX2_VARIABLES.items()]
            self.train([self.training("avx2")], "env", *variables)
            return self.difference("one", "avx2")
        self.train([self.training("here", **FEW)])
        self.train([self.training("emulated", **FEW)], EMULATOR, "-cpu", PROCESSOR)
        return self.difference("here", "emulated")

    def on_cores(self) -> str:
        """Compare a training on one core with one on two."""
        if self.name != "lockstep":
            return self.difference("one", "cores")
        own = {key: value for key, value in self.task.items() if key in TASK_KEYS}
        task = Task(**own, folder=str(self.folder))
        run = configuration(task, microbatches=PIECES, kernels=self.task["kernels"])
        recipe = self.folder / "recipe.yaml"
        recipe.write_text(command_line.to_yaml(run))
        cores = [str(core) for core in sorted(os.sched_getaffinity(0))]
        digests = set()
        for count in (1, 2):
            output = self.folder / f"cores-{count}"
            start = ["taskset", "--cpu-list", ",".join(cores[:count])]
            apart.run([*start, *apart.train_command(recipe, output, processes=None)])
            digests.add(apart.read_results(output)["final_weights_sha256"])
        return "same" if len(digests) == 1 else "other weights"

    def training(self, out: str, **more: Any) -> dict[str, Any]:
        """Return one of them, which writes into the folder `out`.

        Args:
            out: its name.
            more: what differs from the task; `folder` is where the trainer's checkpoints are.
        """
        own = self.folder / out / "own"
        own.mkdir(parents=True)
        usual = {"folder": str(own), "output": str(own.parent), "killed": False, "processes": 1}
        return self.task | usual | more

    def train(self, trainings: Sequence[dict[str, Any]], *words: str) -> None:
        """Do some of them.

        Args:
            words: that start Python otherwise.
        """
        command = [sys.executable, "-m", "same_weights_trainers", self.name, json.dumps(trainings)]
        if self.name == "lockstep" and self.task["kernels"] == "portable":
            variables = [f"{name}={value}" for name, value in PORTABLE_VARIABLES.items()]
            words = ("env", *variables, *words)
        search = ENTRIES[self.name].search_path(self.packages)
        apart.run([*words, *command], search=search)

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
