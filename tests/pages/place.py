"""A folder in which the commands of a page find what the page says that its reader has."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.conftest import REPOSITORY
from tests.pages import things
from tests.pages.shown import Command
from trainer.base.errors import UserError
from trainer.config import command_line

LIMIT_S = 600
"""for a command with all its processes; one that waits for something would wait for ever"""
LINKED = ("benchmarks", "configs", "constraints.txt", "examples", "launch", "train.py", "trainer")
RUNS = {
    "digits": "--config configs/digits.yaml",
    "seed-1": "--config configs/digits.yaml --seed 1",
    "seed-2": "--config configs/digits.yaml --seed 2",
    "folder": "--config configs/folder.yaml --data.root my_pictures",
    "fashion_mnist": "--config configs/fashion_mnist.yaml",
    "own_model": "--config configs/digits.yaml --model.name examples/own_model.py:OwnModel"
    " --model.args {}",
    "of_table": "--config configs/folder.yaml --data.name table --data.root my_pictures/labels.csv"
    " --data.slice_columns '[camera]'",
}
"""runs that pages speak of, by their folders in runs/, with the arguments that train them"""
SAME_AS = {
    "digits": "one two three first lenet5 large seed-0 one-0 two-0",
    "seed-1": "one-1 two-1",
    "seed-2": "one-2 two-2",
    "folder": "photos finetune clothes",
}
"""other names of them"""


class Place:
    """A folder with pictures, runs and the repository's files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._trained: set[str] = set()

    @classmethod
    def prepare(cls, folder: Path) -> Place:
        """Draw the pictures and train the runs."""
        place = cls(folder)
        folder.mkdir(parents=True)
        for name in LINKED:
            (folder / name).symlink_to(REPOSITORY / name)
        things.write_all(folder)
        if (images := REPOSITORY.parent / "shared" / "data" / "fashion-mnist").exists():
            (folder / "data").mkdir()
            (folder / "data" / "fashion_mnist").symlink_to(images)
        for name, words in RUNS.items():
            place.run(f"python train.py {words} --output_dir runs/{name}")
        place.run("python -m trainer crossval --config digits --folds 5 --output_dir runs/folds")
        for original, names in SAME_AS.items():
            for name in names.split():
                shutil.copytree(folder / "runs" / original, folder / "runs" / name)
        shutil.copytree(folder / "runs/folds", folder / "runs/other-folds")
        shutil.copy(folder / "runs/digits/receipt.json", folder)
        (folder / "RUN").symlink_to("runs/of_table")
        return place

    def copy(self, folder: Path) -> Place:
        """The same in another folder."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return Place(folder)

    def run(self, text: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command, in small: our Python first, and nothing to the outside."""
        command = Command(self.folder, text)
        self._make_room(command)
        own = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(REPOSITORY),
            "WANDB_MODE": "disabled",
            "LOCKSTEP_PROCESSES": "",  # not as the tests have it
        }
        if (data := self.folder / "data").exists():
            own["LOCKSTEP_DATA"] = str(data)
        return subprocess.run(
            ["timeout", "--kill-after=5", str(LIMIT_S), "bash", "-c", in_small(command)],
            cwd=self.folder,
            env={name: value for name, value in {**os.environ, **own}.items() if value},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=check,
        )

    def _make_room(self, command: Command) -> None:
        """Remove the prepared run in whose place the command trains one for the first time."""
        words = training_arguments(command)
        if words is None or "--help" in words:
            return
        try:
            name = str(command_line.parse(words).output_dir)
        except UserError:  # which the command will say itself
            return
        if name not in self._trained:
            shutil.rmtree(self.folder / name, ignore_errors=True)
        self._trained.add(name)


def in_small(command: Command) -> str:
    """The command with few images and epochs, where it reads the data of a recipe."""
    text = command.text.replace("FILE...", "new.jpg").replace("FILE.npz", "file.npz")
    text = text.replace("--class shirt", "--class coat")
    text = text.replace("--trials 20", "--trials 3").replace("--step 270", "--step 9")
    words = training_arguments(command)
    if "trainer doctor" in text and "--output_dir" not in text:
        return f"{text} --output_dir runs/another"  # the prepared run is shorter than the recipe's
    if not (words is not None or "--config" in text) or "--help" in text.split():
        return text
    small = ""
    if "fashion_mnist" in text or words == []:
        small += " --data.train_size 600 --data.test_size 100"
    if words is not None and "digits" not in text:
        small += " --train.epochs 3"
    for recipe, pixels in (("finetune", 64), ("photos", 32)):
        if f"{recipe}.yaml" in text:
            small += f" --data.image_size {pixels} --data.image_size_schedule null"
    return text + small


def training_arguments(command: Command) -> list[str] | None:
    """The arguments of a command that trains, or None."""
    words = command.words
    for start in (["train.py"], ["lockstep", "train"], ["trainer", "train"]):
        for place in range(len(words)):
            if words[place : place + len(start)] == start:
                return words[place + len(start) :]
    return None
