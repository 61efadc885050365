"""Train in turns for finetune_steps.py: python -m finetune_loops.steps NAME TASK DESCRIPTOR.

TASK is a JSON object, DESCRIPTOR the number of an open socket to finetune_steps.py.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import apart
import contenders.lockstep
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from turns import Turns

import models
from finetune_loops import parts
from finetune_loops.others import BODY_FACTOR, RATE, WEIGHT_DECAY
from finetune_loops.steps_task import MORE, StepsTask
from trainer.config import command_line
from trainer.network import memory_layout
from trainer.ranks import local_processes, processes
from trainer.training.observer import Record

NET = "efficientnet_lite0"


def plain(task: StepsTask, turns: Turns) -> None:
    """Train by a loop of a dozen lines around Lockstep's own net."""
    pixels, targets = (
        torch.from_numpy(np.load(Path(task.root) / f"random_train_{what}.npy"))
        for what in ("features", "targets")
    )
    pixels = pixels.permute(0, 3, 1, 2).contiguous()
    side = pixels.shape[-1]
    net = models.create(NET, {}, num_classes=task.classes, in_channels=3, image_size=(side, side))
    parts.load_body(net)
    memory_layout.set_layout(net, torch.channels_last)
    head = [one for name, one in net.named_parameters() if name.startswith(parts.HEAD)]
    body = [one for name, one in net.named_parameters() if not name.startswith(parts.HEAD)]
    groups = [{"params": body, "lr": RATE * BODY_FACTOR}, {"params": head, "lr": RATE}]
    optimizer = torch.optim.AdamW(groups, weight_decay=WEIGHT_DECAY, fused=True)
    mean, deviation = (
        torch.tensor(values).view(3, 1, 1) * 255 for values in (parts.MEAN, parts.DEVIATION)
    )
    for _ in range(task.epochs):
        with turns.epoch():
            for batch in torch.split(torch.randperm(len(pixels)), task.batch_size):
                images = (pixels[batch].float() - mean) / deviation
                images = images.contiguous(memory_format=torch.channels_last)
                with parts.autocast():
                    logits = net(images)
                loss = F.cross_entropy(
                    logits.float(), targets[batch], label_smoothing=parts.LABEL_SMOOTHING
                )
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()


def lockstep(task: StepsTask, turns: Turns, more: Sequence[str]) -> None:
    """Train by the recipe on arrays instead of photographs, as `train.py` does."""
    config = command_line.parse(
        [
            *("--config", str(apart.REPOSITORY / "configs" / "finetune.yaml")),
            *("--output_dir", task.folder, "--tracking.wandb", "disabled"),
            *("--data.name", "npy", "--data.root", task.root, "--data.validation_size", "0"),
            *("--data.image_size", "null", "--data.image_size_schedule", "null"),
            *("--data.augment", "none", "--train.epochs", str(task.epochs)),
            *("--train.batch_size", str(task.batch_size), "--checkpoint.every_epochs", "null"),
            *more,
        ]
    )
    processes.check_launch(config)
    local_processes.run(
        config, lambda: contenders.lockstep.fit(config, lambda engine: InTurns(engine, turns))
    )


class InTurns(contenders.lockstep.InTurns):
    """Reports the seconds of the training, without what follows it."""

    def epoch_done(self, record: Record) -> None:
        """Report last."""
        if self.inner:
            self.inner.epoch_done(record)
            self.turns.report(record["seconds"])


def main() -> None:
    """Train, an epoch each turn."""
    name, text, descriptor = sys.argv[1:]
    task = StepsTask(**json.loads(text))
    turns = Turns(int(descriptor), torch.__version__)
    if name == "plain":
        plain(task, turns)
    else:
        lockstep(task, turns, MORE[name])


if __name__ == "__main__":
    main()
