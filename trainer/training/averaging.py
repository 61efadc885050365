"""Averages of the weights, which validate and are chosen in their place."""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import nn

from trainer.base.tensor_files import Tensors
from trainer.config.schema import TrainConfig, averaged_epochs
from trainer.network import model_state


class WeightAverage(abc.ABC):
    """An average of a model's weights over the training.

    Args:
        module: with its first weights.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.tensors = model_state.copy_tensors(module)

    @abc.abstractmethod
    def step_done(self, step: int) -> None:
        """Optimiser step `step`, from 1, has left the module's weights."""

    @abc.abstractmethod
    def _take_over(self, epoch: int) -> None:
        """Load the average at the end of an epoch, from 1, into the module."""

    @contextlib.contextmanager
    def in_place(self, epoch: int) -> Iterator[None]:
        """At the end of an epoch: the module has the averaged weights inside, then its own again.

        An end that is interrupted and comes again has left nothing behind.
        """
        own = model_state.copy_tensors(self.module)
        try:
            self._take_over(epoch)
            yield
            self.tensors = model_state.copy_tensors(self.module)
        finally:
            model_state.load(self.module, own)

    def load(self, tensors: Tensors) -> None:
        """Go on from a saved average."""
        for name, tensor in tensors.items():
            own = self.tensors.get(name)
            if own is not None and own.shape == tensor.shape:
                own.copy_(tensor)
            else:  # a buffer that has got its shape in the training
                device = next(iter(self.tensors.values())).device
                self.tensors[name] = tensor.to(device)


class MovingAverage(WeightAverage):
    """Follows the weights and floating-point buffers; whole numbers are the model's own.

    After step t each value moves by 1 - d towards the model's, d = min(decay, (1 + t) / (10 + t)):
    without that warm-up the first weights would stay in the average for long (the rule of
    TensorFlow's ExponentialMovingAverage with num_updates).

    Args:
        module: with its first weights.
        decay: of one step, between 0 and 1.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        super().__init__(module)
        self.decay = decay
        # Of masks with infinity in them, for one, no mean could be taken.
        self.endless = {
            name for name, tensor in self.tensors.items() if not bool(tensor.isfinite().all())
        }

    @torch.no_grad()
    def step_done(self, step: int) -> None:
        """Follow the weights that a step has left."""
        weight = 1.0 - min(self.decay, (1 + step) / (10 + step))
        current = model_state.tensors(self.module)
        moving = [
            name
            for name, tensor in current.items()
            if tensor.is_floating_point() and name not in self.endless
            if name in self.tensors and self.tensors[name].shape == tensor.shape
        ]
        torch._foreach_lerp_(
            [self.tensors[name] for name in moving], [current[name] for name in moving], weight
        )
        for name in current.keys() - set(moving):
            self.tensors[name] = current[name].detach().clone()

    def _take_over(self, epoch: int) -> None:
        model_state.load(self.module, self.tensors)


class EpochAverage(WeightAverage):
    """The mean of the weights at the ends of the last epochs; before them, the model's own.

    Izmailov et al.: Averaging Weights Leads to Wider Optima and Better Generalization, 2018,
    arXiv 1803.05407. Statistics of batch normalisation belong to the weights that they were taken
    with, so those of the mean are taken anew.

    Args:
        module: with its first weights.
        epochs: whose ends make the mean, all or the last ones of the run.
        take_statistics: sets the statistics of the module as it stands; a collective.
        validates: whether the mean is used before the last of them.
    """

    def __init__(
        self,
        module: nn.Module,
        epochs: range,
        take_statistics: Callable[[], None],
        *,
        validates: bool,
    ) -> None:
        super().__init__(module)
        self.epochs = epochs
        self.take_statistics = take_statistics
        self.validates = validates

    def step_done(self, step: int) -> None:
        """Only the ends of epochs count."""

    @torch.no_grad()
    def _take_over(self, epoch: int) -> None:
        before = epoch - self.epochs[0]  # epochs that are in the mean
        if before <= 0:
            return
        for name, parameter in self.module.named_parameters():
            parameter.copy_(self.tensors[name].lerp(parameter, 1.0 / (before + 1)))
        if self.validates or epoch == self.epochs[-1]:
            self.take_statistics()


def build(
    config: TrainConfig, module: nn.Module, take_statistics: Callable[[], None], *, validates: bool
) -> WeightAverage | None:
    """The average that the configuration asks for.

    Args:
        config: of a run that an older version let be shorter than the mean asks for, all epochs.
        module: with its first weights.
        take_statistics: as for `EpochAverage`.
        validates: whether there are validation images.
    """
    if config.ema_decay is not None:
        return MovingAverage(module, config.ema_decay)
    if (count := averaged_epochs(config)) is not None:
        first = max(1, config.epochs - count + 1)
        epochs = range(first, config.epochs + 1)
        return EpochAverage(module, epochs, take_statistics, validates=validates)
    return None


def ends_with_mean(config: TrainConfig, epoch: int) -> bool:
    """Whether the mean of the last epochs is chosen where a run ends before this epoch.

    It is chosen without regard to validation: it is better than the means that end before it, and
    a thousand validation images cannot tell them apart. A run that `train.patience` ends earlier
    has no such mean.
    """
    return config.average_epochs is not None and epoch > config.epochs
