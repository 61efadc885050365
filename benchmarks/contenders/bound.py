"""Forward, backward and step on one batch in memory, with the best kernels: what compute costs."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from turns import Turns

from contenders.task import LEARNING_RATE, Parts, Task
from trainer.ranks.caller_settings import keep_freed_memory


def train(task: Task, turns: Turns) -> None:
    """Do as many steps an epoch as the others, always on the same batch, and nothing else."""
    keep_freed_memory()
    parts = Parts(task)
    model = parts.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = parts.images[: task.batch_size].contiguous(memory_format=torch.channels_last)
    targets = parts.targets[: task.batch_size]
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=True)
    model.train()
    for _ in range(task.epochs):
        with turns.epoch():
            for _ in range(task.images // task.batch_size):
                optimizer.zero_grad(set_to_none=True)
                F.cross_entropy(model(images), targets).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
