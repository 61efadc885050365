"""Choose how many images an evaluation classifies at once: never more than fit in training."""

from __future__ import annotations

import torch
from torch import nn

from trainer.config.schema import TrainConfig
from trainer.data.dataset import ImageSet
from trainer.data.sampling import microbatch_sizes
from trainer.network.buffers_in_passes import preserve_state
from trainer.training.alive_bytes import bytes_per_image, count_alive
from trainer.training.evaluation import BLOCK_SAMPLES

FEW_BYTES = 300_000_000
"""that a block may always take; the program itself takes more"""


def block_samples(config: TrainConfig, model: nn.Module, images: ImageSet) -> int:
    """Return how many images go through the network together in an evaluation.

    Kernels may round differently for another number of images, so this belongs to the run: it is a
    function of the configuration, the network and the data, whatever the process count and the
    machine. If the usual blocks take more than a few bytes, a block is as large as the largest
    micro-batch: without a backward pass it takes less than training on it.

    Args:
        config: with `microbatches` filled in.
        model: on the CPU.
    """
    if config.evaluation_batch_size is not None:
        return config.evaluation_batch_size
    assert config.microbatches is not None
    largest = microbatch_sizes(min(config.batch_size, len(images)), config.microbatches)[0]
    if largest >= BLOCK_SAMPLES or BLOCK_SAMPLES * peak_bytes_per_image(model, images) <= FEW_BYTES:
        return BLOCK_SAMPLES
    return largest


def needed_bytes(samples: int, model: nn.Module, images: ImageSet) -> int:
    """Estimate the memory of evaluating this many images at once, besides data and model."""
    # Kernels need memory too, for example for a copy in another layout.
    return samples * peak_bytes_per_image(model, images) * 3 // 2


def peak_bytes_per_image(model: nn.Module, images: ImageSet) -> int:
    """Measure the most memory that tensors of one image take in the network, itself included.

    Args:
        model: on the CPU; its state is restored.
        images: of the shape that it takes.
    """
    shape = tuple(images.images.shape[1:])
    two, three = (_measure(model, torch.zeros(count, *shape)) for count in (2, 3))
    return bytes_per_image(two, three)


def _measure(model: nn.Module, inputs: torch.Tensor) -> list[int]:
    with preserve_state(model), torch.no_grad(), torch.random.fork_rng(devices=[]):
        model.eval()
        with count_alive(inputs) as alive:
            model(inputs)
    return alive.bytes
