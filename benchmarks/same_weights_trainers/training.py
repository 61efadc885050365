"""What a training is given, and what it notes of the images that it sees."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from contenders.task import Parts, Task
from torch import nn

from trainer.base.kernels import Kernels

PIECES = 2
"""of a batch of ours: one for each of two processes"""


@dataclass(frozen=True, kw_only=True)
class Training(Task):
    """A training, as JSON; the batch size is that of all processes together."""

    processes: int
    save_every: int
    """steps between checkpoints, of trainers that save within epochs"""
    killed: bool
    """whether the process ends in the second step after `save_every`"""
    output: str
    """the folder for what was seen, and for the last weights"""
    kernels: Kernels
    """of ours"""
    timm: str | None
    """timm's train.py"""

    @property
    def rank(self) -> int:
        """Which of the processes this is."""
        return int(os.environ.get("RANK", "0"))

    @property
    def rank_batch_size(self) -> int:
        """The batch size of one process."""
        return self.batch_size // self.processes


class Seen:
    """Records which images a model has been trained on, by forward pass.

    A hook of the model, as nothing else is common to the trainers: it finds the images themselves.
    """

    def __init__(self, training: Training, parts: Parts, pieces: int = 1) -> None:
        self.training = training
        self.images = parts.images.flatten(1)
        self.last = (training.save_every + 1) * pieces if training.killed else None
        self.forwards: list[list[int]] = []

    def __call__(self, model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        """Record a forward pass before it is done."""
        if not model.training:
            return
        if len(self.forwards) == self.last:
            self.write()
            time.sleep(1)  # a checkpoint may be written in the background
            os.kill(os.getpid(), signal.SIGKILL)
        distances = torch.cdist(inputs[0].flatten(1), self.images)
        self.forwards.append(distances.argmin(1).tolist())

    def write(self) -> None:
        """Write the file of this rank."""
        path = Path(self.training.output) / f"seen-{self.training.rank}.json"
        path.write_text(json.dumps(self.forwards))
