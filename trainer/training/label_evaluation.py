"""Ask a network for all labels of each image: the same bits on any number of processes."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from accelerate import Accelerator
from torch import nn

from trainer.base import seeding
from trainer.data.dataset import ImageSet
from trainer.data.scaling import Scaling
from trainer.network.buffers_in_passes import preserve_state
from trainer.training import evaluation
from trainer.training.label_metrics import USUAL_THRESHOLD, Floats, LabelPredictions


def log_probabilities(
    model: nn.Module, inputs: torch.Tensor, mirrored: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the log-probability of having each label, and of not having it: float32 (n, classes).

    Args:
        model: in evaluation mode; it may change its input.
        inputs: scaled images, (n, channels, height, width).
        mirrored: take the mean of the probabilities of each image and its mirror image.
    """
    mirror = inputs.flip(3) if mirrored else None  # before the model can change its input
    logits: torch.Tensor = model(inputs).float()
    found = F.logsigmoid(logits), F.logsigmoid(-logits)
    if mirror is None:
        return found
    logits = model(mirror).float()
    others = F.logsigmoid(logits), F.logsigmoid(-logits)
    yes, no = (
        torch.logaddexp(one, two) - math.log(2.0) for one, two in zip(found, others, strict=True)
    )
    return yes, no


@torch.no_grad()  # the next step could not use tensors that a model keeps from inference mode
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
    """Ask for all labels of every image once; a collective, all ranks return the same.

    The loss of an image is the mean over the classes of the binary cross entropy, without weights.

    Args:
        images: with labels uint8 (n, classes).
        thresholds: of the classes, float64 (classes,); None: 0.5.
        accelerator, model, scaling, between_blocks, mirrored, block_samples, seed, prefetch: as of
            `evaluation.predict`.

    Raises:
        RankError: they do not fit into the memory.
    """
    (count, classes), device = images.targets.shape, accelerator.device
    blocks = torch.split(torch.arange(count, device=device), block_samples)
    targets = images.targets.to(device).float()
    size = evaluation.turns_per_rank(accelerator, len(blocks)) * block_samples
    kept = evaluation.kept_probabilities(classes)[1]
    index = torch.full((size,), -1, dtype=torch.int64, device=device)
    losses = torch.zeros(size, device=device)
    whole = torch.zeros(size, classes, dtype=kept, device=device)
    largest = min(block_samples, count)
    explained = evaluation.explain_memory(largest, device)
    with preserve_state(model), seeding.preserve_generators(), explained:
        model.eval()
        for turn, samples, inputs in evaluation.iter_rank_blocks(
            accelerator, images, scaling, blocks, between_blocks, model, seed, prefetch
        ):
            yes, no = log_probabilities(model, inputs, mirrored)
            place = slice(turn * block_samples, turn * block_samples + len(samples))
            wanted = targets[samples]
            index[place] = samples
            losses[place] = -(wanted * yes + (1.0 - wanted) * no).mean(1)
            whole[place] = yes.exp().to(kept)
    index, losses, whole = accelerator.gather((index, losses, whole))
    order = torch.argsort(index)[len(index) - count :]
    return LabelPredictions(
        target=images.targets.cpu().numpy(),
        probabilities=whole[order].cpu().numpy(),
        loss=losses[order].cpu().numpy(),
        thresholds=np.full(classes, USUAL_THRESHOLD) if thresholds is None else thresholds,
    )
