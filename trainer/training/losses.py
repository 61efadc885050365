"""The losses that a run may be trained with: what each sample's answer costs.

A loss takes logits, float32 (n, classes), and targets: the classes, int64 (n,), or shares of the
classes, float32 (n, classes), as of mixed images, or of images with several labels, each 0 or 1.
It returns the loss of each sample, float32 (n,). How these are weighed and added up to the loss of
a step is in `loss`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F  # noqa: N812

from trainer.base import kernels
from trainer.config.schema import TrainConfig
from trainer.training.own_loss import OwnLoss

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

_SMALLEST_BASE = 1e-6
"""of a power: at 0 the slope of one with an exponent below 1 is infinite"""


def build_for_labels(config: TrainConfig, positive_weights: torch.Tensor | None) -> Loss:
    """Return the loss of images that may have several labels; arguments and errors as of `build`.

    Label smoothing spreads its share over the two answers to each label, yes and no.
    """
    smoothing = config.label_smoothing
    loss = build(replace(config, label_smoothing=0.0), positive_weights)
    if not smoothing or isinstance(loss, OwnLoss):
        return loss
    return lambda logits, targets: loss(logits, targets * (1.0 - smoothing) + smoothing / 2)


def build(config: TrainConfig, positive_weights: torch.Tensor | None = None) -> Loss:
    """Return the loss that `train.loss` stands for, with its arguments and label smoothing.

    Args:
        positive_weights: of bce and asymmetric: what the answers for the labels that an image has
            count, float32 (classes,); None: as much as those for the others.

    Raises:
        UserError: it is the user's own, and there is no such function or it is not a loss.
    """
    smoothing = config.label_smoothing
    match config.loss:
        case "cross_entropy":
            return partial(F.cross_entropy, reduction="none", label_smoothing=smoothing)
        case "focal":
            return partial(focal, smoothing=smoothing, **config.loss_args)
        case "bce":
            return partial(
                binary_cross_entropy, smoothing=smoothing, positive_weights=positive_weights
            )
        case "asymmetric":
            return partial(
                asymmetric,
                smoothing=smoothing,
                positive_weights=positive_weights,
                **config.loss_args,
            )
        case name:
            return OwnLoss(name, config.loss_args)


def focal(
    logits: torch.Tensor, targets: torch.Tensor, *, gamma: float = 2.0, smoothing: float = 0.0
) -> torch.Tensor:
    """Return the focal loss: cross entropy, times (1 - p)^gamma, where p is the probability.

    Lin, Goyal, Girshick, He, Dollar: Focal Loss for Dense Object Detection, 2017, equation 4; its
    alpha is `train.class_weights` here. With gamma 0 it is the cross entropy.
    """
    log_probabilities = logits.log_softmax(1)
    others = _power(-log_probabilities.expm1(), gamma)
    shares = share_targets(targets, logits.shape[1], smoothing)
    return -(shares * others * log_probabilities).sum(1)


def binary_cross_entropy(
    logits: torch.Tensor,
    targets: torch.Tensor,
    *,
    smoothing: float = 0.0,
    positive_weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the mean over the classes of each one's binary cross entropy, against all others.

    As torch's BCEWithLogitsLoss; for one class to an image as in Wightman, Touvron, Jegou: ResNet
    strikes back, 2021, section 2.
    """
    shares = share_targets(targets, logits.shape[1], smoothing)
    return F.binary_cross_entropy_with_logits(
        logits, shares, reduction="none", pos_weight=positive_weights
    ).mean(1)


def asymmetric(
    logits: torch.Tensor,
    targets: torch.Tensor,
    *,
    gamma_positive: float = 0.0,
    gamma_negative: float = 4.0,
    margin: float = 0.05,
    smoothing: float = 0.0,
    positive_weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the mean over the classes of the asymmetric loss, which lets go of easy negatives.

    With p = sigmoid(logit) and q = max(p - margin, 0) it is, for a class that the image has,
    -(1 - p)^gamma_positive log p, and for one that it has not, -q^gamma_negative log(1 - q).
    Ridnik, Ben-Baruch, Zamir, Noy, Friedman, Protter, Zelnik-Manor: Asymmetric Loss For Multi-Label
    Classification, ICCV 2021, equations 4 to 7, whose defaults these are; there it is their sum.
    """
    shares = share_targets(targets, logits.shape[1], smoothing)
    absent = torch.sigmoid(-logits)  # 1 - p, without rounding to 0
    log_absent = F.logsigmoid(-logits) if margin == 0 else (absent + margin).clamp(max=1.0).log()
    shifted = (torch.sigmoid(logits) - margin).clamp(min=0.0)
    positive = _power(absent, gamma_positive) * F.logsigmoid(logits)
    if positive_weights is not None:
        positive = positive * positive_weights
    negative = _power(shifted, gamma_negative) * log_absent
    return -(shares * positive + (1.0 - shares) * negative).mean(1)


def share_targets(targets: torch.Tensor, classes: int, smoothing: float = 0.0) -> torch.Tensor:
    """Return targets as shares of the classes: float32 (n, classes), smoothed where asked for."""
    shares = F.one_hot(targets, classes).float() if targets.ndim == 1 else targets
    return shares * (1.0 - smoothing) + smoothing / classes if smoothing else shares


def _power(base: torch.Tensor, exponent: float) -> torch.Tensor:
    """Return numbers from 0 to 1 to the power of an exponent of at least 0."""
    if exponent == 0:
        return torch.ones_like(base)
    base = base.clamp(min=_SMALLEST_BASE)
    if float(exponent).is_integer() or not kernels.are_portable():
        return base.pow(exponent)
    # As a tensor: of the number 0.5 torch makes a square root, in the backward pass of 1.5 too, and
    # processors round that of MKL differently.
    return base.pow(torch.full_like(base, exponent))
