"""An exponential moving average of the weights, which validates and is chosen in their place."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from trainer.tensor_files import Tensors


class WeightAverage:
    """Follows a model's weights and floating-point buffers; whole numbers are the model's own.

    After step t each value moves by 1 - d towards the model's, d = min(decay, (1 + t) / (10 + t)):
    without that warm-up the first weights would stay in the average for long (the rule of
    TensorFlow's ExponentialMovingAverage with num_updates).

    Args:
        module: with its first weights.
        decay: of one step, between 0 and 1.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module = module
        self.decay = decay
        self.tensors = _copy(module)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Follow the weights that optimiser step `step`, from 1, has left."""
        weight = 1.0 - min(self.decay, (1 + step) / (10 + step))
        current = self.module.state_dict()
        moving = [name for name, tensor in current.items() if tensor.is_floating_point()]
        torch._foreach_lerp_(
            [self.tensors[name] for name in moving], [current[name] for name in moving], weight
        )
        for name in current.keys() - set(moving):
            self.tensors[name].copy_(current[name])

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """The model has the averaged weights inside, and its own again afterwards."""
        own = _copy(self.module)
        self.module.load_state_dict(self.tensors)
        try:
            yield
        finally:
            self.module.load_state_dict(own)

    def load(self, tensors: Tensors) -> None:
        """Go on from a saved average."""
        for name, tensor in self.tensors.items():
            tensor.copy_(tensors[name])


def _copy(module: nn.Module) -> Tensors:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
