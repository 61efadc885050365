"""HF Trainer, huggingface.co/docs/transformers/trainer; for our model: main_classes/trainer.

The model takes `labels` and returns its loss first, as it asks of models that are not from
transformers.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments
from turns import Turns

from contenders.photos import make_parts
from contenders.task import LEARNING_RATE, Task


def train(task: Task, turns: Turns) -> None:
    """Train without clipping and schedule, which the others do not have either.

    Its own optimiser is a fused AdamW, which without weight decay is Adam.
    """
    parts = make_parts(task)
    arguments = TrainingArguments(
        output_dir=task.folder,
        use_cpu=True,
        num_train_epochs=task.epochs,
        per_device_train_batch_size=task.batch_size,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        dataloader_num_workers=task.workers,
        dataloader_persistent_workers=task.workers > 0,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    trainer = Trainer(
        model=Classifier(parts.model),
        args=arguments,
        train_dataset=parts.named("pixel_values", "labels"),
        callbacks=[turns.callback(TrainerCallback, "on_epoch_begin", "on_epoch_end")],
    )
    trainer.train()


class Classifier(nn.Module):
    """The model with its loss."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, pixel_values: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return loss and logits."""
        logits = self.model(pixel_values)
        return F.cross_entropy(logits, labels), logits
