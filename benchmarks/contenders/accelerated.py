"""pytorch-accelerated as in its quickstart, pytorch-accelerated.readthedocs.io, train_mnist.py."""

from __future__ import annotations

from pytorch_accelerated import Trainer
from pytorch_accelerated.callbacks import TrainerCallback, get_default_callbacks
from torch import nn
from turns import Turns

from contenders.photos import make_parts
from contenders.task import Task


def train(task: Task, turns: Turns) -> None:
    """Train with the default callbacks without the bar.

    Workers for images in memory would take the cores.
    """
    parts = make_parts(task)
    trainer = Trainer(
        parts.model,
        loss_func=nn.CrossEntropyLoss(),
        optimizer=parts.adam(),
        callbacks=[
            *get_default_callbacks(progress_bar=False),
            turns.callback(TrainerCallback, "on_train_epoch_start", "on_train_epoch_end"),
        ],
    )
    trainer.train(
        train_dataset=parts.dataset(),
        num_epochs=task.epochs,
        per_device_batch_size=task.batch_size,
        train_dataloader_kwargs={
            "num_workers": task.workers,
            "persistent_workers": task.workers > 0,
        },
    )
