"""PyTorch Lightning as in "Lightning in 15 minutes", lightning.ai/docs/pytorch/stable/starter."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F  # noqa: N812
from turns import Turns

from contenders.task import Parts, Task


def train(task: Task, turns: Turns) -> None:
    """A LightningModule that logs its loss, and a Trainer without files and bars."""
    parts = Parts(task)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=task.epochs,
        callbacks=[InTurns(turns)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        default_root_dir=task.folder,
    )
    trainer.fit(model=LitClassifier(parts), train_dataloaders=parts.loader())


class LitClassifier(pl.LightningModule):  # type: ignore[misc]
    """The model with its loss and its optimiser."""

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.model = parts.model
        self.parts = parts

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        """The loss of a batch."""
        images, targets = batch
        loss = F.cross_entropy(self.model(images), targets)
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return self.parts.adam()


class InTurns(pl.Callback):  # type: ignore[misc]
    """An epoch a turn."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns

    def on_train_epoch_start(self, *trainer_and_module: Any) -> None:
        """Wait."""
        self.turns.wait()

    def on_train_epoch_end(self, *trainer_and_module: Any) -> None:
        """Report."""
        self.turns.report()
