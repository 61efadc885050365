"""The lab's loop: plain PyTorch as a student writes it, on float tensors in memory."""

from __future__ import annotations

import torch
from torch import nn
from turns import Turns

from contenders.task import Parts, Task


def train(task: Task, turns: Turns) -> None:
    """Draw an order, index a batch, add up the loss of each step."""
    parts = Parts(task)
    model, optimizer, transform = parts.model, parts.adam(), parts.transform
    criterion = nn.CrossEntropyLoss()
    for _ in range(task.epochs):
        with turns.epoch():
            model.train()
            order = torch.randperm(task.images)
            total = 0.0
            for start in range(0, task.images, task.batch_size):
                chosen = order[start : start + task.batch_size]
                images = parts.images[chosen]
                if transform:
                    images = torch.stack([transform(image) for image in images])
                optimizer.zero_grad()
                loss = criterion(model(images), parts.targets[chosen])
                loss.backward()
                optimizer.step()
                total += loss.item() * len(chosen)
            print(total / task.images)
