"""The lab's loop on float tensors in memory: Adam at 0.001, batches of 100, no schedule."""

from __future__ import annotations

from contenders import lab

from race import Task, parts


def train(task: Task, curve: parts.Curve) -> None:
    """Train the lab's net."""
    made = parts.make(task, batch_size=100, lab_net=True)
    optimizer = made.adam()
    for _ in range(task.length()):
        curve.begin()
        lab.train_epoch(made, optimizer)
        curve.end(lambda: parts.accuracy(made.model, made))
