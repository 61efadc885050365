"""skorch as in its quickstart, skorch.readthedocs.io/en/stable/user/quickstart.html."""

from __future__ import annotations

import torch
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback
from torch import nn
from turns import Turns

from contenders.photos import make_parts
from contenders.task import LEARNING_RATE, Parts, Task


def train(task: Task, turns: Turns) -> None:
    """Fit arrays, or a data set if it has to augment; quiet, and nothing held out."""
    parts = make_parts(task)
    net = NeuralNetClassifier(
        parts.model,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=LEARNING_RATE,
        batch_size=task.batch_size,
        max_epochs=task.epochs,
        iterator_train__shuffle=True,
        iterator_train__num_workers=task.workers,
        iterator_train__persistent_workers=task.workers > 0,
        train_split=None,
        verbose=0,
        callbacks=[turns.callback(Callback, "on_epoch_begin", "on_epoch_end")],
    )
    if not isinstance(parts, Parts) or parts.transform:
        net.fit(parts.dataset(), None)
    else:
        net.fit(parts.images.numpy(), parts.targets.numpy())
