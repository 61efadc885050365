"""Lockstep by the command that a user gives: as many processes as there are cores, a thread each.

Fixed settings of the recipe hold nothing out, so that the run classifies no image before its end.
Its checkpoints are what the curve is made of, afterwards: their weights as they stood in the
training, and at the end the weights that the run has chosen, with its own test accuracy.
"""

from __future__ import annotations

import json
from pathlib import Path

import apart
import torch

from race import RACES, Task
from race.parts import Curve, share_right
from trainer.base import tensor_files
from trainer.config import stored_config
from trainer.config.schema import RunConfig
from trainer.data import loading
from trainer.data.dataset import Dataset
from trainer.finished import trained_model
from trainer.finished.trained_model import TrainedModel

MOST_POINTS = 1000


def train(task: Task, curve: Curve) -> None:
    """Train the recipe of the race and test its checkpoints."""
    race, folder = RACES[task.race], Path(task.folder) / "run"
    words = ["--seed", str(task.seed), "--data.name", task.data]
    words += ["--data.train_size", str(task.images)]
    words += ["--train.epochs", str(task.epochs)] if task.epochs else []
    words += ["--checkpoint.every_epochs", "1", "--checkpoint.keep", str(MOST_POINTS)]
    words += ["--checkpoint.every_steps", str(race.every_steps)] if race.every_steps else []
    apart.run(apart.train_command(race.recipe, folder, *words, root=task.root, processes=None))
    curve.points, curve.within = points(folder)


def points(run: Path) -> tuple[list[list[float]], list[list[float]]]:
    """Return seconds and test accuracy at the ends of a finished run's epochs, and within them."""
    config, model = stored_config.read_folder(run), trained_model.load(run)
    dataset = loading.load(config.data, config.seed)
    ends: list[list[float]] = []
    within: list[list[float]] = []
    for checkpoint in sorted((run / "checkpoints").glob("step-*"))[:-1]:
        state = json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))["run"]
        weights = tensor_files.read_tensors(checkpoint / "model.safetensors")
        model.module.load_state_dict(weights, strict=False)
        train_s = state["train_seconds"] + state["epoch_seconds"]
        is_end = state["epoch_seconds"] == 0  # those of an epoch that is done are added up
        (ends if is_end else within).append([train_s, accuracy(model, dataset, config)])
    results = apart.read_results(run)
    ends.append([results["train"]["seconds"], results["test"]["accuracy"]])
    return ends, within


def accuracy(model: TrainedModel, dataset: Dataset, config: RunConfig) -> float:
    """Return the share of test images that a model classifies correctly, as its run does it."""
    with torch.autocast("cpu", torch.bfloat16, enabled=config.train.precision == "bf16"):
        return share_right(model.probabilities, dataset.test)
