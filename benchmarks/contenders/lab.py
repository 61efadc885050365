"""The lab's loop: plain PyTorch as a student writes it, on float tensors in memory."""

from __future__ import annotations

import torch
from torch.nn import CrossEntropyLoss
from turns import Turns

from contenders.task import Parts, Task


def train(task: Task, turns: Turns) -> None:
    """Train an epoch each turn."""
    parts = Parts(task)
    optimizer = parts.adam()
    for _ in range(task.epochs):
        with turns.epoch():
            print(train_epoch(parts, optimizer))


def train_epoch(parts: Parts, optimizer: torch.optim.Optimizer) -> float:
    """Draw an order, index a batch, add up the loss of each step; return its mean."""
    model, transform, size = parts.model, parts.transform, parts.task.batch_size
    criterion = CrossEntropyLoss()
    model.train()
    order = torch.randperm(len(parts.images))
    total = 0.0
    for start in range(0, len(parts.images), size):
        chosen = order[start : start + size]
        images = parts.images[chosen]
        if transform:
            images = torch.stack([transform(image) for image in images])
        optimizer.zero_grad()
        loss = criterion(model(images), parts.targets[chosen])
        loss.backward()
        optimizer.step()
        total += loss.item() * len(chosen)
    return total / len(parts.images)
