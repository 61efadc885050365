"""Forward, backward and step on one batch in memory, with the best kernels: what compute costs."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from turns import Turns

from contenders.photos import make_parts
from contenders.task import LEARNING_RATE, Task
from trainer.ranks.caller_settings import keep_freed_memory, use_huge_pages


def train(task: Task, turns: Turns) -> None:
    """Do as many steps an epoch as the others, always on the same batch, and nothing else."""
    train_epoch = prepare(task, task.batch_size)
    for _ in range(task.epochs):
        with turns.epoch():
            train_epoch()


def prepare(task: Task, batch_size: int) -> Callable[[], None]:
    """Return what does the steps of an epoch on one batch of this size."""
    keep_freed_memory()
    use_huge_pages()
    parts = make_parts(task)
    model = parts.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images, targets = parts.first_batch(batch_size)
    images = images.contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=True)
    model.train()

    def train_epoch() -> None:
        for _ in range(task.images // task.batch_size):
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(model(images), targets).backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    return train_epoch
