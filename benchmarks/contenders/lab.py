"""The lab's loop: plain PyTorch as a student writes it, on float tensors in memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import CrossEntropyLoss
from torch.utils.data import DataLoader
from turns import Turns

from contenders.photos import make_parts
from contenders.task import Parts, Task


def train(task: Task, turns: Turns) -> None:
    """Train an epoch each turn."""
    parts = make_parts(task)
    optimizer = parts.adam()
    loader = parts.loader()
    for _ in range(task.epochs):
        with turns.epoch():
            if isinstance(parts, Parts):
                print(train_epoch(parts, optimizer))
            else:
                print(train_on_photos(parts.model, loader, optimizer))


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


def train_on_photos(
    model: nn.Module, loader: DataLoader[Any], optimizer: torch.optim.Optimizer
) -> float:
    """Take batches from a loader, add up the loss of each step; return its mean."""
    criterion = CrossEntropyLoss()
    model.train()
    total, count = 0.0, 0
    for images, targets in loader:
        optimizer.zero_grad()
        loss = criterion(model(images), targets)
        loss.backward()
        optimizer.step()
        total += loss.item() * len(targets)
        count += len(targets)
    return total / count
