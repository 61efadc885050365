"""Make the batches of the training: from the order of the samples to images on the device."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass

import torch

from trainer.base import out_of_memory, profiler_ranges
from trainer.config.schema import RunConfig
from trainer.data import class_balance
from trainer.data.augment import mixup
from trainer.data.augment.policy import Augmentation
from trainer.data.augment.user_augmentations import TRIED
from trainer.data.dataset import Dataset, ImageSet
from trainer.data.prefetch import Sent, Transfer, prefetch
from trainer.data.sampling import EpochSampler
from trainer.data.stored.pictures import StoredPictures


@dataclass(frozen=True)
class Batch:
    """This rank's samples of an optimiser step, on the device."""

    images: torch.Tensor
    """augmented and scaled: float32, (n, channels, height, width)"""
    targets: torch.Tensor
    """their classes: int64, (n,); several labels, 0 or 1, or mixed: the weights of the classes,
    float32, (n, classes)"""
    microbatch_sizes: list[int]
    """samples in each micro-batch of the step, over all processes"""
    weights: torch.Tensor | None = None
    """of the samples in the step's mean loss: float32 (n,), which add up to 1 over all processes;
    None: all alike"""


def fetch_pixels(
    train: ImageSet,
    augmentation: Augmentation,
    samples: torch.Tensor,
    epoch: int,
    image_size: tuple[int, int],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the pixels of samples before they are augmented; boxes of pictures are cut already.

    Args:
        train: the training split.
        samples: as `EpochSampler` yields them, int64 (n,), on the CPU.
        epoch: from 1.
        image_size: of what is cut out of pictures: height and width.

    Returns:
        Images, uint8 (n, channels, height, width), and their classes, int64 (n,), where the split
        has them.
    """
    images = train.images
    indices = samples % len(train)  # one that is drawn again has other random numbers
    if not isinstance(images, StoredPictures):
        return train.fetch(indices.to(images.device, non_blocking=True))
    height, width = image_size
    boxes = augmentation.draw_boxes(samples, epoch, images.sizes(indices), width / height)
    pixels = images.fetch_crops(indices, boxes, image_size)
    return pixels, train.fetch_targets(indices)


def fetch_augmented(
    train: ImageSet,
    augmentation: Augmentation,
    samples: torch.Tensor,
    epoch: int,
    device: torch.device,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return samples as an epoch trains on them, before they are scaled; arguments as above.

    Args:
        device: where they go.
    """
    height, width = train.images.shape[2:]
    pixels, targets = fetch_pixels(train, augmentation, samples, epoch, (height, width))
    images = _augment(train, augmentation, pixels.to(device), samples, epoch)
    return images, targets.to(device)


def _augment(
    train: ImageSet,
    augmentation: Augmentation,
    pixels: torch.Tensor,
    samples: torch.Tensor,
    epoch: int,
) -> torch.Tensor:
    are_boxes = isinstance(train.images, StoredPictures)
    with profiler_ranges.label("augmentation"):
        return augmentation(pixels, samples, epoch, are_boxes=are_boxes)


@dataclass(frozen=True)
class _Plan:
    """What a step needs."""

    microbatch_sizes: list[int]
    own: slice
    """this rank's of the samples of all ranks"""
    wanted: torch.Tensor
    """this rank's samples and, where they are mixed, those of their partners that are not among
    them: int64 (k,), on the CPU"""
    pairs: mixup.Pairs | None = None
    partners: torch.Tensor | None = None
    """which of `wanted` each sample is mixed with: int64 (n,), on the CPU"""
    weights: torch.Tensor | None = None
    """of this rank's samples in the step's mean loss: float32 (n,), on the CPU"""


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
        self.transfer = Transfer(device)
        self.ahead = self.transfer.ahead(dataset.train.images, config.data.prefetch)
        self.size_schedule = config.data.image_size_schedule or []
        if self.augmentation.user_defined.plugins:
            first = torch.arange(min(TRIED, len(dataset.train)), device=dataset.train.images.device)
            self.augmentation.user_defined.check(self._to_device(dataset.train.fetch(first)[0]))
        by_class = class_balance.class_weights(config, dataset)
        self.sample_weights = None
        """of each training image, by its class, in the loss: float64 (n,)"""
        classes = dataset.train.targets.cpu().numpy()
        if by_class is not None:
            self.sample_weights = by_class[classes]
        self.sampler = EpochSampler(
            dataset.train,
            batch_size=config.train.batch_size,
            microbatches=config.train.microbatches,
            seed=config.seed,
            num_replicas=num_replicas,
            rank=rank,
            weights=dataset.train_weights,
            classes=classes if config.data.sampling == "balanced" else None,
        )

    @property
    def steps(self) -> int:
        """The number of optimiser steps of an epoch."""
        return len(self.sampler)

    def iter_epoch(self, epoch: int, first_step: int) -> Generator[Batch, None, None]:
        """Yield the batches of an epoch (from 1) from one of its steps (from 0) on.

        Where a thread makes them ahead, it ends with the iterator: close it if it is not exhausted.
        """
        self.sampler.set_epoch(epoch)
        # One for the thread, and one for this loop, which follows.
        to_fetch, plans = itertools.tee(self._iter_plans(epoch, first_step))

        def fetch(plan: _Plan) -> Sent:
            return self._fetch(plan.wanted, epoch)

        with contextlib.closing(prefetch(fetch, to_fetch, self.ahead)) as fetched:
            for plan in plans:
                with profiler_ranges.label("data"), self._explain_lack_of_memory(plan):
                    images, targets = self._augment(plan.wanted, next(fetched), epoch)
                    if plan.pairs:
                        images, targets = self._mix(plan, images, targets)
                weights = None if plan.weights is None else self._to_device(plan.weights)
                yield Batch(images, targets, plan.microbatch_sizes, weights)

    def _iter_plans(self, epoch: int, first_step: int) -> Iterator[_Plan]:
        for step in range(first_step, self.steps):
            yield self._plan(epoch, step)

    def _plan(self, epoch: int, step: int) -> _Plan:
        samples, own = self.sampler.global_batch(step)
        sizes = self.sampler.microbatch_sizes(step)
        if not (self.mixup or self.cutmix):
            return _Plan(sizes, own, samples[own], weights=self._weigh(samples, own))
        number = (epoch - 1) * self.steps + step + 1
        pairs = mixup.draw_pairs(self.seed, number, len(samples), self.mixup, self.cutmix)
        partners = pairs.partners[own]
        is_own = (own.start <= partners) & (partners < own.stop)
        wanted = torch.cat([samples[own], samples[partners[~is_own]]])
        after_own = own.stop - own.start - 1 + (~is_own).cumsum(0)
        places = torch.where(is_own, partners - own.start, after_own)
        shares = mixup.shares_of_samples(pairs, *self.image_size(epoch))
        weights = self._weigh(samples, own, pairs.partners, shares)
        return _Plan(sizes, own, wanted, pairs, places, weights)

    def _weigh(
        self,
        samples: torch.Tensor,
        own: slice,
        partners: torch.Tensor | None = None,
        shares: torch.Tensor | None = None,
    ) -> torch.Tensor | None:
        """Return the weights of this rank's samples in the step's mean loss; None: all alike.

        Every rank knows the classes of all samples of the step, so that all divide by one sum.

        Args:
            samples: of the step, over all processes: int64 (samples,).
            partners: the position of the one that each is mixed with.
            shares: how much of each its own class is.
        """
        if self.sample_weights is None:
            return None
        weights = self.sample_weights[(samples % len(self.sample_weights)).numpy()]
        if partners is not None and shares is not None:
            kept = shares.double().numpy()
            weights = weights * kept + weights[partners.numpy()] * (1.0 - kept)
        # Rounded once, whatever the order. Where all samples have the weight 0, nothing is learnt.
        total = math.fsum(weights.tolist()) or 1.0
        return torch.from_numpy(weights[own] / total).float()

    def _explain_lack_of_memory(self, plan: _Plan) -> contextlib.AbstractContextManager[None]:
        """Raise a RankError if the images of a step do not fit into the memory."""
        count = plan.own.stop - plan.own.start
        what = f"train.batch_size: a step's batch of {count} images of this process"
        return out_of_memory.explain(what, "make it smaller, or start more processes", self.device)

    def _fetch(self, samples: torch.Tensor, epoch: int) -> Sent:
        """Fetch the pixels and targets of samples, and send them to the device."""
        size = self.image_size(epoch)
        return self.transfer.send(
            *fetch_pixels(self.data.train, self.augmentation, samples, epoch, size)
        )

    def image_size(self, epoch: int) -> tuple[int, int]:
        """Return the height and width of the images of an epoch (from 1), by their schedule."""
        height, width = self.data.train.images.shape[2:]
        for first_epoch, *size in self.size_schedule:
            if first_epoch <= epoch:
                height, width = size[0], size[-1]
        return height, width

    def _augment(
        self, samples: torch.Tensor, sent: Sent, epoch: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return images, augmented and scaled, and their targets."""
        pixels, targets = self.transfer.receive(sent)
        images = _augment(self.data.train, self.augmentation, pixels, samples, epoch)
        return self.data.scaling.apply(images), targets

    def _to_device(self, tensor: torch.Tensor) -> torch.Tensor:
        """Send a tensor without waiting for the device's queue; it is copied at once."""
        return tensor.to(self.device, non_blocking=True)

    def _mix(
        self,
        plan: _Plan,
        wanted: torch.Tensor,
        wanted_targets: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        assert plan.pairs is not None and plan.partners is not None
        partners, count = self._to_device(plan.partners), len(plan.partners)
        images, targets = wanted[:count], wanted_targets[:count]
        others = wanted.index_select(0, partners)
        other_targets = wanted_targets.index_select(0, partners)
        weights = self._to_device(plan.pairs.weights[plan.own])
        if plan.pairs.centres is None:
            mixed = mixup.mix(images, others, weights)
        else:
            centres = self._to_device(plan.pairs.centres[plan.own])
            replaced = mixup.cutmix_masks(weights, centres, images.shape)
            mixed = torch.where(replaced, others, images)
            weights = mixup.remaining_fraction(replaced)
        classes = len(self.data.class_names)
        return mixed, mixup.mix_targets(targets, other_targets, weights, classes)
