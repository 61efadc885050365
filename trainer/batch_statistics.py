"""The statistics of batch normalisation, taken anew: the same bits at any process count."""

from __future__ import annotations

from collections.abc import Callable

import torch
from accelerate import Accelerator
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from trainer.buffers import left_alone
from trainer.data.scaling import Scaling
from trainer.data.sets import ImageSet
from trainer.evaluation import BLOCK_SAMPLES, own_blocks, rounds
from trainer.microbatch import cut


@torch.no_grad()
def take(
    accelerator: Accelerator,
    model: nn.Module,
    images: ImageSet,
    scaling: Scaling,
    between_blocks: Callable[[], object] = lambda: None,
) -> None:
    """Replace the running statistics of all batch norms by their means over the images.

    As in an evaluation the ranks take blocks of the images in turn, here of nearly equal sizes.
    Each block is normalised by its own statistics; nothing but the norms is in training mode. A
    norm that is frozen, in evaluation mode or with a momentum of 0, keeps what it has. A
    collective.

    Args:
        model: as it trains, prepared for autocast, without DDP's wrapper.
        images: the training images, which are not augmented here.
        between_blocks: as for `own_blocks`.
    """
    norms = [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
        if module.training and module.momentum != 0
    ]
    if not norms:
        return
    count, turns = len(images), rounds(accelerator, images)
    sizes = cut(count, -(-count // BLOCK_SAMPLES))
    width = sum(map(len, _buffers(norms)))
    found = torch.zeros(turns, width, device=accelerator.device)
    blocks = torch.split(torch.arange(count), sizes)
    modes = {module: module.training for module in model.modules()}
    momenta = [norm.momentum for norm in norms]
    try:
        with left_alone(model):
            model.eval()
            for norm in norms:
                norm.train()
                norm.momentum = None  # the mean over the calls since the count was 0
            for turn, _, inputs in own_blocks(accelerator, images, scaling, blocks, between_blocks):
                for norm in norms:
                    norm.num_batches_tracked = torch.zeros((), dtype=torch.int64)
                model(inputs)
                found[turn] = torch.cat(_buffers(norms))
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, training in modes.items():
            module.training = training
    gathered = accelerator.gather(found).view(-1, turns, width).transpose(0, 1).flatten(0, 1)
    weights = torch.tensor(sizes, device=accelerator.device) / count
    _set_statistics(norms, (weights[:, None] * gathered[: len(sizes)]).sum(0))


def _buffers(norms: list[_BatchNorm]) -> list[torch.Tensor]:
    return [norm.get_buffer(name) for norm in norms for name in ("running_mean", "running_var")]


def _set_statistics(norms: list[_BatchNorm], values: torch.Tensor) -> None:
    buffers = _buffers(norms)
    for buffer, piece in zip(
        buffers, torch.split(values, [len(buffer) for buffer in buffers]), strict=True
    ):
        buffer.copy_(piece)
