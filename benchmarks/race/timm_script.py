"""timm's train.py, github.com/huggingface/pytorch-image-models, from its parts: AdamW, a cosine.

As its documentation of training scripts: AdamW, label smoothing of 0.1, a cosine that moves with
each epoch after an epoch of warm-up, and `--amp --amp-dtype bfloat16 --channels-last`. Its loader
is for pictures of ImageNet; here it is torch's.
"""

from __future__ import annotations

from typing import Any

import torch
from contenders.timm_loop import train_one_epoch
from torch import nn

from race import Task, parts

RATE, WEIGHT_DECAY, LABEL_SMOOTHING = 3e-3, 0.05, 0.1
BATCH_SIZE = 128
"""train.py's default"""


def train(task: Task, curve: parts.Curve) -> None:
    """Train the lab's net."""
    from timm.loss import LabelSmoothingCrossEntropy
    from timm.optim import create_optimizer_v2
    from timm.scheduler import create_scheduler_v2
    from timm.task import ClassificationTask

    made = parts.make(task, BATCH_SIZE, augment=True, channels_last=True)
    optimizer = create_optimizer_v2(made.model, opt="adamw", lr=RATE, weight_decay=WEIGHT_DECAY)
    schedule, _ = create_scheduler_v2(
        optimizer, "cosine", num_epochs=task.length(), warmup_epochs=1, warmup_lr=1e-5, min_lr=1e-5
    )
    device, loader = torch.device("cpu"), made.loader()
    loss = LabelSmoothingCrossEntropy(LABEL_SMOOTHING)
    training = InBfloat16(ClassificationTask(made.model, loss, device=device))
    for epoch in range(task.length()):
        curve.begin()
        train_one_epoch(training, loader, optimizer, device)
        schedule.step(epoch + 1)
        curve.end(lambda: parts.accuracy(made.model, made))


class InBfloat16(nn.Module):
    """A forward pass with its loss in mixed precision; the backward pass follows outside."""

    def __init__(self, task: nn.Module) -> None:
        super().__init__()
        self.task = task

    def forward(self, images: torch.Tensor, targets: torch.Tensor) -> Any:
        """Return the task's dictionary."""
        with torch.autocast("cpu", torch.bfloat16):
            return self.task(images, targets)
