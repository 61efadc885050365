"""timm's train.py, github.com/huggingface/pytorch-image-models, from its parts: AdamW, a cosine.

As its documentation of training scripts: AdamW, label smoothing of 0.1, a cosine after an epoch of
warm-up, and `--amp --amp-dtype bfloat16 --channels-last`. `--sched-on-updates` moves the rate with
each step: else the first epoch, of few here, would be spent at the rate where warm-up begins. Its
loader is for pictures of ImageNet; here it is torch's.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from contenders.timm_loop import train_one_epoch
from torch import nn

from race import Task, parts

RATE, WEIGHT_DECAY, LABEL_SMOOTHING = 3e-3, 0.05, 0.1
BATCH_SIZE = 128
"""train.py's default"""


def train(task: Task, curve: parts.Curve) -> None:
    """Train the net of the race."""
    from timm.loss import LabelSmoothingCrossEntropy
    from timm.optim import create_optimizer_v2
    from timm.scheduler import create_scheduler_v2
    from timm.task import ClassificationTask

    made = parts.make(task, BATCH_SIZE, augment=True, channels_last=True)
    optimizer = create_optimizer_v2(made.model, opt="adamw", lr=RATE, weight_decay=WEIGHT_DECAY)
    device, loader = torch.device("cpu"), made.loader()
    schedule, _ = create_scheduler_v2(
        optimizer, "cosine", num_epochs=task.length(), warmup_epochs=1, warmup_lr=1e-5, min_lr=1e-5,
        step_on_epochs=False, updates_per_epoch=len(loader),
    )  # fmt: skip
    updates = itertools.count(1)
    optimizer.register_step_post_hook(lambda *_: schedule.step_update(next(updates)))
    loss = LabelSmoothingCrossEntropy(LABEL_SMOOTHING)
    training = InBfloat16(ClassificationTask(made.model, loss, device=device))
    for _ in range(task.length()):
        curve.begin()
        train_one_epoch(training, loader, optimizer, device)
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
