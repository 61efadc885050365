"""The loss of a step: what the labels say and, where there is a teacher, what it answers.

A step's loss is a mean over the samples of all processes. Where classes have weights it is the
weighted mean: each sample's loss times its weight, over the sum of the weights of the whole step.
"""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F  # noqa: N812

from trainer.config import plugins
from trainer.config.schema import RunConfig, TrainConfig
from trainer.data import class_balance
from trainer.data.dataset import Dataset
from trainer.training import losses
from trainer.training.own_loss import OwnLoss


def build_loss(config: RunConfig, dataset: Dataset, device: torch.device) -> TrainingLoss:
    """Return the loss of a run; a loss of the user's own is tried first.

    Raises:
        UserError: names train.loss and what is wrong with it.
    """
    added = class_balance.logit_adjustment(config, dataset)
    adjustment = None if added is None else torch.tensor(added, device=device)
    weights = class_balance.positive_weights(config, dataset)
    loss = TrainingLoss(
        config.train,
        adjustment,
        several=config.data.multi_label,
        positive_weights=None if weights is None else torch.tensor(weights, device=device),
    )
    if isinstance(loss.of_labels, OwnLoss):
        loss.of_labels.check(
            len(dataset.class_names),
            shares=bool(config.data.mixup or config.data.cutmix or config.data.multi_label),
            portable=config.train.kernels == "portable",
        )
    return loss


class TrainingLoss:
    """The loss that a run is trained with.

    Args:
        config: for `train.loss` and its arguments, label smoothing, and the teacher's share.
        adjustment: added to the logits before the loss of the labels, float32 (classes,), on the
            device; None: nothing.
        several: whether an image may have several labels.
        positive_weights: as of `losses.build`, on the device.

    Label smoothing is about the answers that the network gives later, so its share of the loss is
    that of the logits without the adjustment; with it, it would outweigh the frequent classes.

    Raises:
        UserError: as `losses.build`.
    """

    def __init__(
        self,
        config: TrainConfig,
        adjustment: torch.Tensor | None = None,
        *,
        several: bool = False,
        positive_weights: torch.Tensor | None = None,
    ) -> None:
        self.config = config
        self.adjustment = adjustment
        self.several = several
        self.smoothing = 0.0
        if adjustment is not None and plugins.is_built_in("loss", config.loss):
            self.smoothing = config.label_smoothing
            config = dataclasses.replace(config, label_smoothing=0.0)
        build = losses.build_for_labels if several else losses.build
        self.of_labels = build(config, positive_weights)

    def of_samples(
        self, logits: torch.Tensor, targets: torch.Tensor, taught: torch.Tensor | None
    ) -> torch.Tensor:
        """Return the loss of each sample: float32 (n,).

        Args:
            logits: float32, (n, classes).
            targets: as of `losses`.
            taught: a teacher's logits, float32, (n, classes); None: there is no teacher.
        """
        found = self._of_adjusted(logits, targets)
        return self._add_teacher(found, logits, taught, total=False)

    def sum(
        self, logits: torch.Tensor, targets: torch.Tensor, taught: torch.Tensor | None
    ) -> torch.Tensor:
        """Return the sum of the losses of some samples; arguments as of `of_samples`."""
        if self.config.loss == "cross_entropy" and self.adjustment is None:
            # Torch's own sum, whose last bit is another.
            found = F.cross_entropy(
                logits, targets, reduction="sum", label_smoothing=self.config.label_smoothing
            )
        else:
            found = self._of_adjusted(logits, targets).sum()
        return self._add_teacher(found, logits, taught, total=True)

    def count_hits(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return how many samples are answered rightly, a scalar on the device.

        Of several labels all have to be right, each answered by whether it is the more probable.
        Of a mixed sample the class with the larger share counts.
        """
        if self.several:
            return ((logits > 0) == (targets > 0.5)).all(1).sum()
        classes = targets if targets.ndim == 1 else targets.argmax(1)
        return (logits.argmax(1) == classes).sum()

    def try_mean(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the mean loss of some samples, without a teacher, before the first step.

        Raises:
            UserError: it is the user's own, and not finite where the logits are.
        """
        found = self.of_samples(logits, targets, None)
        if isinstance(self.of_labels, OwnLoss):
            self.of_labels.check_values(found.detach(), logits.detach())
        return found.mean()

    def _of_adjusted(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return what the labels say of each sample: float32 (n,)."""
        if self.adjustment is None:
            return self.of_labels(logits, targets)
        found = self.of_labels(logits + self.adjustment, targets)
        if not self.smoothing:
            return found
        evenly = torch.full_like(logits, 1.0 / logits.shape[1])
        return (1.0 - self.smoothing) * found + self.smoothing * self.of_labels(logits, evenly)

    def _add_teacher(
        self, found: torch.Tensor, logits: torch.Tensor, taught: torch.Tensor | None, *, total: bool
    ) -> torch.Tensor:
        """Return the mean of the labels' loss and the teacher's, by their shares.

        A teacher is compared with what the network answers, without an adjustment.
        """
        if taught is None:
            return found
        distilled = distillation_loss(logits, taught, self.config.temperature)
        share = self.config.teacher_weight
        return (1.0 - share) * found + share * (distilled.sum() if total else distilled)


def distillation_loss(
    logits: torch.Tensor, teacher_logits: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Return how far each answer is from a teacher's: float32 (n,).

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
    return divergence * temperature**2
