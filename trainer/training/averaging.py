"""Average the weights over the training; the averages are validated and chosen in their place."""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import nn

from trainer.base.flat_tensors import group_by_type
from trainer.base.tensor_files import Tensors
from trainer.config.schema import TrainConfig, averaged_epochs
from trainer.network import model_state


class WeightAverage(abc.ABC):
    """An average of a model's weights over the training."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.tensors = model_state.copy_tensors(module)

    @abc.abstractmethod
    def step_done(self, step: int) -> None:
        """Take in the module's weights after optimiser step `step`, counted from 1."""

    @abc.abstractmethod
    def _load_average(self, epoch: int) -> None:
        """Load the average at the end of an epoch, counted from 1, into the module."""

    @contextlib.contextmanager
    def swap_in(self, epoch: int) -> Iterator[None]:
        """Give the module the averaged weights inside, at the end of an epoch, then its own again.

        If it is interrupted nothing changes, so that the end of the epoch can come again.
        """
        own = model_state.copy_tensors(self.module)
        try:
            self._load_average(epoch)
            yield
            self.tensors = model_state.copy_tensors(self.module)
        finally:
            model_state.load(self.module, own)

    def load(self, tensors: Tensors) -> None:
        """Continue from a saved average."""
        for name, tensor in tensors.items():
            own = self.tensors.get(name)
            if own is not None and own.shape == tensor.shape:
                own.copy_(tensor)
            else:  # a buffer that got its shape during the training
                device = next(iter(self.tensors.values())).device
                self.tensors[name] = tensor.to(device)


class MovingAverage(WeightAverage):
    """Follows the weights and floating-point buffers; integers are copied from the model.

    After step t each value moves by 1 - d towards the model's, d = min(decay, (1 + t) / (10 + t)):
    without that warm-up the first weights would stay in the average for long (the rule of
    TensorFlow's ExponentialMovingAverage with num_updates).

    Args:
        decay: for each step, between 0 and 1.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        super().__init__(module)
        self.decay = decay
        # Masks that contain infinity, for example, have no mean.
        self.nonfinite = {
            name for name, tensor in self.tensors.items() if not bool(tensor.isfinite().all())
        }

    @torch.no_grad()
    def step_done(self, step: int) -> None:
        """Move the average towards the weights after a step."""
        weight = 1.0 - min(self.decay, (1 + step) / (10 + step))
        current = model_state.tensors(self.module)
        moving = [
            name
            for name, tensor in current.items()
            if tensor.is_floating_point() and name not in self.nonfinite
            if name in self.tensors and self.tensors[name].shape == tensor.shape
        ]
        averages, values = ([of[name] for name in moving] for of in (self.tensors, current))
        for ours, theirs in group_by_type(averages, values):
            torch._foreach_lerp_(ours, theirs, weight)
        for name in current.keys() - set(moving):
            self.tensors[name] = current[name].detach().clone()

    def _load_average(self, epoch: int) -> None:
        model_state.load(self.module, self.tensors)


class EpochAverage(WeightAverage):
    """Takes the mean of the weights at the ends of the last epochs; until then, the model's own.

    Izmailov et al.: Averaging Weights Leads to Wider Optima and Better Generalization, 2018,
    arXiv 1803.05407. Statistics of batch normalisation belong to the weights they were computed
    with, so those of the mean are computed again.

    Args:
        epochs: at whose ends the mean is taken, all or the last ones of the run.
        recompute_statistics: of the module's batch norms; a collective.
        validates: whether the mean is used before the last of them.
    """

    def __init__(
        self,
        module: nn.Module,
        epochs: range,
        recompute_statistics: Callable[[], None],
        *,
        validates: bool,
    ) -> None:
        super().__init__(module)
        self.epochs = epochs
        self.recompute_statistics = recompute_statistics
        self.validates = validates

    def step_done(self, step: int) -> None:
        """Do nothing: only the ends of epochs count."""

    @torch.no_grad()
    def _load_average(self, epoch: int) -> None:
        before = epoch - self.epochs[0]  # epochs that are in the mean already
        if before <= 0:
            return
        for name, parameter in self.module.named_parameters():
            parameter.copy_(self.tensors[name].lerp(parameter, 1.0 / (before + 1)))
        if self.validates or epoch == self.epochs[-1]:
            self.recompute_statistics()


def build(
    config: TrainConfig,
    module: nn.Module,
    recompute_statistics: Callable[[], None],
    *,
    validates: bool,
) -> WeightAverage | None:
    """Build the average that the configuration asks for.

    Args:
        config: if the run has fewer epochs than `average_epochs`, all of them are averaged.
        recompute_statistics: as for `EpochAverage`.
        validates: whether there are validation images.
    """
    if config.ema_decay is not None:
        return MovingAverage(module, config.ema_decay)
    if (count := averaged_epochs(config)) is not None:
        first = max(1, config.epochs - count + 1)
        epochs = range(first, config.epochs + 1)
        return EpochAverage(module, epochs, recompute_statistics, validates=validates)
    return None


def chooses_final_mean(config: TrainConfig, epoch: int) -> bool:
    """Tell whether a run that ends before this epoch chooses the mean of its last epochs.

    It is chosen without regard to validation: it is better than the means that end earlier, and a
    thousand validation images cannot tell them apart. A run that `train.patience` ends early has no
    such mean.
    """
    return config.average_epochs is not None and epoch > config.epochs
