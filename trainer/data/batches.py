"""Make the batches of the training: from the order of the samples to images on the device."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from trainer.base import out_of_memory, profiler_ranges
from trainer.config.schema import RunConfig
from trainer.data.augment import mixup
from trainer.data.augment.policy import Augmentation
from trainer.data.augment.user_augmentations import TRIED
from trainer.data.dataset import Dataset, ImageSet
from trainer.data.sampling import EpochSampler


@dataclass(frozen=True)
class Batch:
    """This rank's samples of an optimiser step, on the device."""

    images: torch.Tensor
    """augmented and scaled: float32, (n, channels, height, width)"""
    targets: torch.Tensor
    """their classes: int64, (n,); mixed: the weights of the classes, float32, (n, classes)"""
    microbatch_sizes: list[int]
    """samples in each micro-batch of the step, over all processes"""


def fetch_augmented(
    train: ImageSet,
    augmentation: Augmentation,
    samples: torch.Tensor,
    epoch: int,
    device: torch.device,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return samples as an epoch trains on them, before they are scaled.

    Args:
        train: the training split.
        samples: indices in it, int64 (n,), on the CPU.
        epoch: from 1.
        device: where they go.

    Returns:
        Images, uint8 (n, channels, height, width), and their classes, int64 (n,).
    """
    pixels, targets = train.fetch(samples.to(train.images.device, non_blocking=True))
    pixels = pixels.to(device, non_blocking=True)
    with profiler_ranges.label("augmentation"):
        images = augmentation(pixels, samples, epoch)
    return images, targets.to(device, non_blocking=True)


class Batches:
    """Make the batches of any step.

    Args:
        dataset: where its training images fit, they are on the device already.
        config: with `train.microbatches` filled in.
        device: where the batches go.
    """

    def __init__(
        self,
        dataset: Dataset,
        config: RunConfig,
        device: torch.device,
        num_replicas: int,
        rank: int,
    ) -> None:
        assert config.train.microbatches is not None
        self.data = dataset
        self.device = device
        self.seed = config.seed
        self.mixup = config.data.mixup
        self.cutmix = config.data.cutmix
        self.augmentation = Augmentation(config.data.augment, config.seed)
        first = torch.arange(min(TRIED, len(dataset.train)), device=dataset.train.images.device)
        self.augmentation.user_defined.check(self._to_device(dataset.train.fetch(first)[0]))
        self.sampler = EpochSampler(
            dataset.train,
            batch_size=config.train.batch_size,
            microbatches=config.train.microbatches,
            seed=config.seed,
            num_replicas=num_replicas,
            rank=rank,
        )

    @property
    def steps(self) -> int:
        """The number of optimiser steps of an epoch."""
        return len(self.sampler)

    def iter_epoch(self, epoch: int, first_step: int) -> Iterator[Batch]:
        """Yield the batches of an epoch (from 1) from one of its steps (from 0) on."""
        self.sampler.set_epoch(epoch)
        steps = itertools.islice(self.sampler, first_step, None)
        for step, samples in enumerate(steps, start=first_step):
            with profiler_ranges.label("data"), self._explain_lack_of_memory(len(samples)):
                images, targets = self._fetch(samples, epoch)
                if self.mixup or self.cutmix:
                    images, targets = self._mix(images, targets, epoch, step)
            yield Batch(images, targets, self.sampler.microbatch_sizes(step))

    def _explain_lack_of_memory(self, count: int) -> contextlib.AbstractContextManager[None]:
        """Raise a RankError if the images of a step do not fit into the memory."""
        what = f"train.batch_size: a step's batch of {count} images of this process"
        return out_of_memory.explain(what, "make it smaller, or start more processes", self.device)

    def _fetch(self, samples: torch.Tensor, epoch: int) -> tuple[torch.Tensor, torch.Tensor]:
        images, targets = fetch_augmented(
            self.data.train, self.augmentation, samples, epoch, self.device
        )
        return self.data.scaling.apply(images), targets

    def _to_device(self, tensor: torch.Tensor) -> torch.Tensor:
        """Send a tensor without waiting for the device's queue; it is copied at once."""
        return tensor.to(self.device, non_blocking=True)

    def _mix(
        self, images: torch.Tensor, targets: torch.Tensor, epoch: int, step: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        samples, own = self.sampler.global_batch(step)
        number = (epoch - 1) * self.steps + step + 1
        pairs = mixup.draw_pairs(self.seed, number, len(samples), self.mixup, self.cutmix)
        others, other_targets = self._fetch(samples[pairs.partners[own]], epoch)
        weights = self._to_device(pairs.weights[own])
        if pairs.centres is None:
            mixed = mixup.mix(images, others, weights)
        else:
            centres = self._to_device(pairs.centres[own])
            replaced = mixup.cutmix_masks(weights, centres, images.shape)
            mixed = torch.where(replaced, others, images)
            weights = mixup.remaining_fraction(replaced)
        classes = len(self.data.class_names)
        return mixed, mixup.mix_targets(targets, other_targets, weights, classes)
