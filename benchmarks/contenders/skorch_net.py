"""skorch as in its quickstart, skorch.readthedocs.io/en/stable/user/quickstart.html."""

from __future__ import annotations

from typing import Any

import torch
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback
from torch import nn
from turns import Turns

from contenders.task import LEARNING_RATE, Parts, Task


def train(task: Task, turns: Turns) -> None:
    """Fit arrays, or a data set where it has to augment; quiet, and nothing held out."""
    parts = Parts(task)
    net = NeuralNetClassifier(
        parts.model,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=LEARNING_RATE,
        batch_size=task.batch_size,
        max_epochs=task.epochs,
        iterator_train__shuffle=True,
        train_split=None,
        verbose=0,
        callbacks=[InTurns(turns)],
    )
    if parts.transform:
        net.fit(parts.dataset(), None)
    else:
        net.fit(parts.images.numpy(), parts.targets.numpy())


class InTurns(Callback):  # type: ignore[misc]
    """An epoch a turn."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns

    def on_epoch_begin(self, net: NeuralNetClassifier, **more: Any) -> None:
        """Wait."""
        self.turns.wait()

    def on_epoch_end(self, net: NeuralNetClassifier, **more: Any) -> None:
        """Report."""
        self.turns.report()
