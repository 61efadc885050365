"""timm's train.py, github.com/huggingface/pytorch-image-models, from its parts: AdamW, a cosine.

As its documentation of training scripts: AdamW, label smoothing of 0.1, a cosine that moves with
each epoch after an epoch of warm-up. Its loader is for pictures of ImageNet; here it is torch's.
"""

from __future__ import annotations

import torch
from contenders.timm_loop import train_one_epoch

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

    made = parts.make(task, BATCH_SIZE, augment=True)
    optimizer = create_optimizer_v2(made.model, opt="adamw", lr=RATE, weight_decay=WEIGHT_DECAY)
    schedule, _ = create_scheduler_v2(
        optimizer, "cosine", num_epochs=task.length(), warmup_epochs=1, warmup_lr=1e-5, min_lr=1e-5
    )
    device, loader = torch.device("cpu"), made.loader()
    loss = LabelSmoothingCrossEntropy(LABEL_SMOOTHING)
    training = ClassificationTask(made.model, loss, device=device)
    for epoch in range(task.length()):
        curve.begin()
        train_one_epoch(training, loader, optimizer, device)
        schedule.step(epoch + 1)
        curve.end(lambda: parts.accuracy(made.model, made))
