"""PyTorch Lightning as in "Lightning in 15 minutes", lightning.ai/docs/pytorch/stable/starter."""

from __future__ import annotations

import pytorch_lightning as pl
import torch
import torch.nn.functional as F  # noqa: N812
from turns import Turns

from contenders.photos import Photos, make_parts
from contenders.task import Parts, Task


def train(task: Task, turns: Turns) -> None:
    """Train a LightningModule that logs its loss, by a Trainer without files and bars."""
    parts = make_parts(task)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=task.epochs,
        callbacks=[turns.callback(pl.Callback, "on_train_epoch_start", "on_train_epoch_end")],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        default_root_dir=task.folder,
    )
    trainer.fit(model=LitClassifier(parts), train_dataloaders=parts.loader())


class LitClassifier(pl.LightningModule):  # type: ignore[misc]
    """The model with its loss and its optimiser."""

    def __init__(self, parts: Parts | Photos) -> None:
        super().__init__()
        self.model = parts.model
        self.parts = parts

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        """Return the loss of a batch."""
        images, targets = batch
        loss = F.cross_entropy(self.model(images), targets)
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam."""
        return self.parts.adam()
