"""train_one_epoch of timm's train.py, github.com/huggingface/pytorch-image-models, from its parts.

train.py is not in the package. Its loader resizes PIL images: for arrays in memory torch's is used.
"""

from __future__ import annotations

import logging
import time

import torch
from torch import nn
from torchvision_operators import define_missing_operators
from turns import Turns

from contenders.photos import make_parts
from contenders.task import LEARNING_RATE, Parts, Task

LOG_INTERVAL = 50
"""steps, the default of train.py"""

log = logging.getLogger("train")


def train(task: Task, turns: Turns) -> None:
    """Train on one device in full precision, without accumulation and moving average."""
    library = define_missing_operators()
    from timm.optim import create_optimizer_v2
    from timm.task import ClassificationTask

    parts = make_parts(task)
    loader = parts.loader() if isinstance(parts, Parts) else parts.timm_loader()
    optimizer = create_optimizer_v2(parts.model, opt="adam", lr=LEARNING_RATE)
    device = torch.device("cpu")
    training = ClassificationTask(parts.model, nn.CrossEntropyLoss(), device=device)
    for _ in range(task.epochs):
        with turns.epoch():
            train_one_epoch(training, loader, optimizer, device)
    del library  # it would have taken the operators with it


def train_one_epoch(
    task: nn.Module,
    loader: torch.utils.data.DataLoader[list[torch.Tensor]],
    optimizer: torch.optim.Optimizer,
    device: torch.device,
) -> float:
    """Train an epoch; return the mean loss."""
    from timm import utils

    step_time, data_time, losses = utils.AverageMeter(), utils.AverageMeter(), utils.AverageMeter()
    task.train()
    optimizer.zero_grad()
    data_start_s = step_start_s = time.time()
    for step, (images, targets) in enumerate(loader):
        images, targets = images.to(device), targets.to(device)
        data_time.update(time.time() - data_start_s)
        loss = task(images, targets)["loss"]
        loss.backward()
        optimizer.step()
        losses.update(loss.item(), len(images))
        optimizer.zero_grad()
        now_s = time.time()
        step_time.update(now_s - step_start_s)
        step_start_s = now_s
        if step % LOG_INTERVAL == 0:
            log.info(
                "%d/%d loss %.3g (%.3g) time %.3f (%.3f) data %.3f (%.3f)",
                step, len(loader), losses.val, losses.avg, step_time.val, step_time.avg,
                data_time.val, data_time.avg,
            )  # fmt: skip
        data_start_s = time.time()
    return float(losses.avg)
