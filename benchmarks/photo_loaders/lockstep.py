"""Our batches, as the engine takes them, without the engine."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

import torch

from photo_loaders import Task
from photo_loaders.others import AREA, ASPECT
from trainer.config import rules, schema
from trainer.data import loading
from trainer.data.batches import Batches
from trainer.data.sources import reading
from trainer.ranks import caller_settings


def batches(task: Task) -> Iterable[tuple[torch.Tensor, torch.Tensor]]:
    """Return the batches of one epoch after the other."""
    caller_settings.keep_freed_memory()  # as in a session
    caller_settings.use_huge_pages()
    config = schema.RunConfig(
        seed=task.seed,
        data=data_config(task),
        train=schema.TrainConfig(batch_size=task.batch_size, microbatches=1),
    )
    rules.validate(config)
    reading.prepare(config.data)
    dataset = loading.load(config.data, config.seed)
    return _Epochs(Batches(dataset, config, torch.device("cpu"), num_replicas=1, rank=0))


def data_config(task: Task) -> schema.DataConfig:
    """Return which photographs, and what becomes of them."""
    crop = {"area": list(AREA), "aspect": ASPECT[1]}
    return schema.DataConfig(
        name="folder",
        root=task.root,
        image_size=task.image_size,
        channels=3,
        validation_size=0,
        augment=[{"random_resized_crop": crop}, "flip"],
        scaling="imagenet",
        cache=task.cache,
        cache_dir=task.folder,
    )


class _Epochs:
    """Another epoch each time that it is iterated over."""

    def __init__(self, source: Batches) -> None:
        self.source = source
        self.epochs = itertools.count(1)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for batch in self.source.iter_epoch(next(self.epochs), 0):
            yield batch.images, batch.targets
