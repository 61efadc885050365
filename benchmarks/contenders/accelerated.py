"""pytorch-accelerated as in its quickstart, pytorch-accelerated.readthedocs.io, train_mnist.py."""

from __future__ import annotations

from typing import Any

from pytorch_accelerated import Trainer
from pytorch_accelerated.callbacks import TrainerCallback, get_default_callbacks
from torch import nn
from turns import Turns

from contenders.task import Parts, Task


def train(task: Task, turns: Turns) -> None:
    """The default callbacks but for the bar; no workers, which would share the cores with us."""
    parts = Parts(task)
    trainer = Trainer(
        parts.model,
        loss_func=nn.CrossEntropyLoss(),
        optimizer=parts.adam(),
        callbacks=[*get_default_callbacks(progress_bar=False), InTurns(turns)],
    )
    trainer.train(
        train_dataset=parts.dataset(),
        num_epochs=task.epochs,
        per_device_batch_size=task.batch_size,
        train_dataloader_kwargs={"num_workers": 0},
    )


class InTurns(TrainerCallback):  # type: ignore[misc]
    """An epoch a turn."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns

    def on_train_epoch_start(self, trainer: Trainer, **more: Any) -> None:
        """Wait."""
        self.turns.wait()

    def on_train_epoch_end(self, trainer: Trainer, **more: Any) -> None:
        """Report."""
        self.turns.report()
