"""Photographs from their files for the other trainers, as torchvision reads and crops them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from finetune_loops.parts import load_body
from photo_loaders.others import IMAGENET_DEVIATION, IMAGENET_MEAN
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision_operators import define_missing_operators

from contenders.task import AREA, LEARNING_RATE, Parts, Task, build_model


class Photos:
    """What `Parts` is, for photographs; torchvision's transforms do what ours do.

    Attributes:
        transform: as the photographs have one, the trainers take data sets and not arrays.
        model: with its first weights.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        assert task.image_size and task.root
        self.library = define_missing_operators()  # which would go with its last reference
        self.transform = self._compose(scaled=True)
        self.folder = str(Path(task.root) / "train")
        self.scaling = _Scaling()
        classes = len([path for path in Path(self.folder).iterdir() if path.is_dir()])
        self.model: nn.Module = build_model(task, classes, 3, (task.image_size, task.image_size))
        if task.weights:
            load_body(self.model)

    def dataset(self, *, scaled: bool = True) -> Dataset[Any]:
        """Return the photographs, cropped and mirrored."""
        from torchvision import datasets

        found = datasets.ImageFolder(self.folder, self._compose(scaled=scaled))
        chosen = range(0, len(found), len(found) // self.task.images)
        return Subset(found, chosen[: self.task.images])

    def named(self, image: str, target: str, *, scaled: bool = True) -> Dataset[Any]:
        """Return the same as dictionaries."""
        return _Named(self.dataset(scaled=scaled), image, target)

    def loader(self, dataset: Dataset[Any] | None = None) -> DataLoader[Any]:
        """Return batches in a random order, read by workers that stay from epoch to epoch."""
        workers = self.task.workers
        return DataLoader(
            dataset or self.dataset(),
            batch_size=self.task.batch_size,
            shuffle=True,
            num_workers=workers,
            persistent_workers=workers > 0,
        )

    def timm_loader(self) -> Any:
        """Return batches as timm's train.py makes them, with this crop and mirroring only.

        Its prefetcher needs a GPU: without it the workers scale the images, as in torchvision's.
        """
        from timm.data import create_dataset, create_loader

        found = create_dataset("", root=self.folder, split="train")
        chosen = range(0, len(found), len(found) // self.task.images)
        found.reader.samples = [found.reader.samples[one] for one in chosen[: self.task.images]]
        side = self.task.image_size
        return create_loader(
            found,
            input_size=(3, side, side),
            batch_size=self.task.batch_size,
            is_training=True,
            use_prefetcher=False,
            scale=AREA,
            color_jitter=None,
            interpolation="bilinear",
            num_workers=self.task.workers,
            persistent_workers=self.task.workers > 0,
        )

    def first_batch(self, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return some scaled images, float32 (size, 3, side, side), and their targets."""
        images, targets = next(iter(DataLoader(self.dataset(), batch_size=size)))
        return images, targets

    def adam(self) -> torch.optim.Adam:
        """Return the optimiser without further arguments."""
        return torch.optim.Adam(self.model.parameters(), lr=LEARNING_RATE)

    def _compose(self, *, scaled: bool) -> Callable[[Any], torch.Tensor]:
        from torchvision import transforms

        steps = [
            transforms.RandomResizedCrop(self.task.image_size, AREA),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
        ]
        if scaled:
            steps.append(transforms.Normalize(IMAGENET_MEAN, IMAGENET_DEVIATION))
        composed: Callable[[Any], torch.Tensor] = transforms.Compose(steps)
        return composed


class _Scaling:
    """Of pixels from 0 to 1: float32 (3, 1, 1)."""

    mean = torch.tensor(IMAGENET_MEAN).view(3, 1, 1)
    deviation = torch.tensor(IMAGENET_DEVIATION).view(3, 1, 1)


class _Named(Dataset[Any]):
    """Samples as dictionaries."""

    def __init__(self, samples: Any, *names: str) -> None:
        self.samples = samples
        self.names = names

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return dict(zip(self.names, self.samples[index], strict=True))


def make_parts(task: Task) -> Parts | Photos:
    """Return what the task's contenders share."""
    return Photos(task) if task.image_size else Parts(task)
