"""PyTorch Lightning's tutorial for CIFAR-10: lightning.ai/docs/pytorch/stable, cifar10-baseline.

SGD with momentum, a weight decay of 5e-4 and `OneCycleLR` up to 0.1 in batches of 256, on images
that are cropped, of CIFAR-10, and mirrored. Its ResNet-18 is far too large for two cores: this is
the net of the race, in Lightning's mixed precision and PyTorch's channels_last, which more than
halve the time of the lab's.
"""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from contenders.lightning import LitClassifier
from contenders.task import Parts
from torch.optim.lr_scheduler import OneCycleLR

from race import Task, parts

HIGHEST_RATE, BATCH_SIZE = 0.1, 256


def train(task: Task, curve: parts.Curve) -> None:
    """Train by a Trainer without files and bars."""
    made = parts.make(task, BATCH_SIZE, augment=True, channels_last=True)
    module = LitOneCycle(made, task.length())
    callback = curve.callback(
        pl.Callback, "on_train_epoch_start", "on_train_epoch_end",
        lambda: parts.accuracy(module.model, made),
    )  # fmt: skip
    trainer = pl.Trainer(
        accelerator="cpu",
        precision="bf16-mixed",
        max_epochs=task.length(),
        callbacks=[callback],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=task.folder,
    )
    trainer.fit(model=module, train_dataloaders=made.loader())


class LitOneCycle(LitClassifier):
    """The net with its loss, and another optimiser and schedule."""

    def __init__(self, made: Parts, epochs: int) -> None:
        super().__init__(made)
        self.epochs = epochs

    def configure_optimizers(self) -> Any:
        """Return the optimiser, and the schedule that moves with each step."""
        optimizer = torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = OneCycleLR(optimizer, HIGHEST_RATE, total_steps=steps)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }
