"""How many images an evaluation classifies at once: never more than fit where the training fits."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from trainer.buffers import left_alone
from trainer.config import TrainConfig
from trainer.data.sets import ImageSet
from trainer.evaluation import BLOCK_SAMPLES
from trainer.microbatch import cut

FEW_VALUES = 2**25
"""in the largest tensor of a block: 134 MB of float32, less than the program itself takes"""

TENSORS_AT_ONCE = 3
"""of the largest size: what a layer is given, what it gives, and a branch that waits beside it"""


def block_samples(config: TrainConfig, model: nn.Module, images: ImageSet) -> int:
    """How many images go through the network together in an evaluation.

    Kernels may round differently for another number of images, so this belongs to the run: it is a
    function of the configuration, the network and the data, whatever the process count and the
    machine. Where the usual blocks are more than a few values, a block is as large as the largest
    micro-batch: without a backward pass it takes less than the training of so many.

    Args:
        config: with `microbatches` filled in.
        model: on the CPU.
        images: the training images.
    """
    if config.evaluation_batch_size is not None:
        return config.evaluation_batch_size
    assert config.microbatches is not None
    largest = cut(min(config.batch_size, len(images)), config.microbatches)[0]
    if largest >= BLOCK_SAMPLES or BLOCK_SAMPLES * widest(model, images) <= FEW_VALUES:
        return BLOCK_SAMPLES
    return largest


def needed_bytes(samples: int, model: nn.Module, images: ImageSet) -> int:
    """About what an evaluation of so many images at once takes, besides data and model."""
    return TENSORS_AT_ONCE * 4 * samples * widest(model, images)


def widest(model: nn.Module, images: ImageSet) -> int:
    """Values in the largest tensor that one image brings about on its way through the network.

    Args:
        model: on the CPU; comes back as it was.
        images: of the shape that it takes.
    """
    shape = tuple(images.images.shape[1:])
    two, three = (_largest_results(model, torch.zeros(count, *shape)) for count in (2, 3))
    # What does not grow with the images comes from the weights.
    return max((more - fewer for fewer, more in zip(two, three, strict=False)), default=0)


class _Results(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the largest tensor that each operator returns, functions and compiled code included."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.values: list[int] = []

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: to skip its compiler, torch would import it, which takes seconds."""
        return False

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        self.values.append(max(sizes, default=0))
        return result


def _largest_results(model: nn.Module, inputs: torch.Tensor) -> list[int]:
    with left_alone(model), torch.no_grad(), torch.random.fork_rng(devices=[]):
        model.eval()
        results = _Results()
        with results:
            model(inputs)
    return results.values
