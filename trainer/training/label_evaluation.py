"""Ask a network for all labels of each image: the same bits on any number of processes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from accelerate import Accelerator
from torch import nn

from trainer.data.dataset import ImageSet
from trainer.data.scaling import Scaling
from trainer.training import evaluation
from trainer.training.label_metrics import USUAL_THRESHOLD, Floats, LabelPredictions


def log_probabilities(
    model: nn.Module, inputs: torch.Tensor, mirrored: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the log-probability of having each label, and of not having it: float32 (n, classes).

    Args:
        model: in evaluation mode; it may change its input.
        inputs, mirrored: as of `evaluation.average_mirrored`.
    """

    def log_sigmoids(pixels: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = model(pixels).float()
        return torch.stack([F.logsigmoid(logits), F.logsigmoid(-logits)])

    yes, no = evaluation.average_mirrored(log_sigmoids, inputs, mirrored)
    return yes, no


def predict(
    accelerator: Accelerator,
    model: nn.Module,
    images: ImageSet,
    scaling: Scaling,
    between_blocks: Callable[[], object] = lambda: None,
    mirrored: bool = False,
    *,
    thresholds: Floats | None = None,
    block_samples: int = evaluation.BLOCK_SAMPLES,
    seed: int = 0,
    prefetch: int = 0,
) -> LabelPredictions:
    """Ask for all labels of every image, as `evaluation.ask` does; a collective.

    The loss of an image is the mean over the classes of the binary cross entropy, without weights.

    Args:
        images: with labels uint8 (n, classes).
        thresholds: of the classes, float64 (classes,); None: 0.5.
        accelerator, model, scaling, between_blocks, mirrored, block_samples, seed, prefetch: as of
            `evaluation.predict`.

    Raises:
        RankError: they do not fit into the memory.
    """
    classes = images.targets.shape[1]
    targets = images.targets.to(accelerator.device).float()
    kept = evaluation.kept_probabilities(classes)[1]

    def answer(samples: torch.Tensor, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        yes, no = log_probabilities(model, inputs, mirrored)
        wanted = targets[samples]
        return -(wanted * yes + (1.0 - wanted) * no).mean(1), yes.exp().to(kept)

    loss, probabilities = evaluation.ask(
        accelerator, model, images, scaling, between_blocks,
        [((), torch.float32), ((classes,), kept)], answer,
        block_samples=block_samples, seed=seed, prefetch=prefetch,
    )  # fmt: skip
    return LabelPredictions(
        target=images.targets.cpu().numpy(),
        probabilities=probabilities,
        loss=loss,
        thresholds=np.full(classes, USUAL_THRESHOLD) if thresholds is None else thresholds,
    )
