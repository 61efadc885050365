"""The loop of Accelerate's examples/complete_cv_example.py, github.com/huggingface/accelerate."""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812
from accelerate import Accelerator
from turns import Turns

from contenders.photos import make_parts
from contenders.task import Task


def train(task: Task, turns: Turns) -> None:
    """Train as there without --with_tracking, batches scaled; no learning-rate schedule."""
    parts = make_parts(task)
    accelerator = Accelerator(cpu=True)
    mean = parts.scaling.mean.to(accelerator.device)
    deviation = parts.scaling.deviation.to(accelerator.device)
    dataset = parts.named("image", "label", scaled=False)
    model, optimizer, loader = accelerator.prepare(parts.model, parts.adam(), parts.loader(dataset))
    for _ in range(task.epochs):
        with turns.epoch():
            model.train()
            for batch in loader:
                batch = {key: value.to(accelerator.device) for key, value in batch.items()}
                outputs = model((batch["image"] - mean) / deviation)
                loss = F.cross_entropy(outputs, batch["label"])
                accelerator.backward(loss)
                optimizer.step()
                optimizer.zero_grad()
