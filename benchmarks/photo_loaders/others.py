"""Loaders of other libraries, as their documentation shows them for training on ImageNet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torchvision_operators import define_missing_operators

from photo_loaders import Task

IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
AREA, ASPECT = (0.08, 1.0), (3 / 4, 4 / 3)


def torchvision_batches(task: Task) -> Iterable[Any]:
    """Return a loader as in torchvision's references/classification/train.py.

    Its workers stay from epoch to epoch, which is faster than what the reference does.
    """
    library = define_missing_operators()
    from torchvision import datasets, transforms

    steps = transforms.Compose(
        [
            transforms.RandomResizedCrop(task.image_size, AREA, ASPECT),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(IMAGENET_MEAN, IMAGENET_DEVIATION),
        ]
    )
    loader = torch.utils.data.DataLoader(
        datasets.ImageFolder(str(Path(task.root) / "train"), steps),
        batch_size=task.batch_size,
        shuffle=True,
        num_workers=task.workers,
        persistent_workers=True,
    )
    return _Kept(loader, library)


def timm_batches(task: Task) -> Iterable[Any]:
    """Return a loader as timm's train.py makes it, with its crop and its mirroring only.

    Its prefetcher needs a GPU: without it the workers scale the images, as in torchvision's.
    """
    library = define_missing_operators()
    from timm.data import create_dataset, create_loader

    dataset = create_dataset("", root=str(Path(task.root) / "train"), split="train")
    loader = create_loader(
        dataset,
        input_size=(3, task.image_size, task.image_size),
        batch_size=task.batch_size,
        is_training=True,
        use_prefetcher=False,
        scale=AREA,
        ratio=ASPECT,
        color_jitter=None,
        interpolation="bilinear",
        num_workers=task.workers,
        persistent_workers=True,
    )
    return _Kept(loader, library)


class _Kept:
    """A loader and the library of operators, which would go with its last reference."""

    def __init__(self, loader: Iterable[Any], library: object) -> None:
        self.loader = loader
        self.library = library

    def __iter__(self) -> Iterator[Any]:
        return iter(self.loader)
