"""The loss of a step: what the labels say and, where there is a teacher, what it answers."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812

from trainer.config.schema import TrainConfig

Reduction = Literal["sum", "none"]


def training_loss(
    config: TrainConfig,
    logits: torch.Tensor,
    targets: torch.Tensor,
    teacher_logits: torch.Tensor | None,
    reduction: Reduction = "sum",
) -> torch.Tensor:
    """Return the loss of some samples: its sum, or with "none" each sample's, (n,).

    Args:
        logits: float32, (n, classes).
        targets: their classes, int64, (n,); or shares of the classes, float32, (n, classes).
        teacher_logits: float32, (n, classes); None: there is no teacher.
    """
    smoothing = config.label_smoothing
    loss = F.cross_entropy(logits, targets, reduction=reduction, label_smoothing=smoothing)
    if teacher_logits is None:
        return loss
    distilled = distillation_loss(logits, teacher_logits, config.temperature, reduction)
    return (1.0 - config.teacher_weight) * loss + config.teacher_weight * distilled


def distillation_loss(
    logits: torch.Tensor, teacher_logits: torch.Tensor, temperature: float, reduction: Reduction
) -> torch.Tensor:
    """Return how far the answers are from a teacher's, with the shapes of `training_loss`.

    It is the Kullback-Leibler divergence of the softened answers, times the temperature's square,
    so that gradients keep their size: Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural
    Network, 2015, section 2.

    Args:
        temperature: by which logits are divided before the softmax.
    """
    log_probabilities = (logits / temperature).log_softmax(1)
    teacher_log_probabilities = (teacher_logits / temperature).log_softmax(1)
    divergence = F.kl_div(
        log_probabilities, teacher_log_probabilities, reduction="none", log_target=True
    ).sum(1)
    scaled = divergence * temperature**2
    return scaled.sum() if reduction == "sum" else scaled
