"""The task that every contender is given, and the parts that all of them share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

import models
from trainer.base import seeding
from trainer.config.data_names import DataName
from trainer.config.schema import DataConfig, ModelConfig
from trainer.data import loading
from trainer.data.sources import reading

LEARNING_RATE = 1e-3
CROP_PADDING = 2
AREA = (0.08, 1.0)
"""of a photograph that a random crop has"""

Transform = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Task:
    """A training, as JSON."""

    model: str
    model_args: dict[str, Any]
    batch_size: int
    images: int
    """the first of the training images, as many as an epoch has: a multiple of the batch size"""
    epochs: int
    threads: int
    folder: str
    """for files that a contender cannot do without"""
    augment: Literal["none", "flip_shift"] = "none"
    image_size: int | None = None
    """of photographs in `root`/train/CLASS, which are read from their files and cropped at random
    to this many pixels; None: `data` are images in memory"""
    weights: Literal["pretrained"] | None = None
    """model.weights: ImageNet's, of EfficientNet-Lite0"""
    workers: int = 0
    """worker processes of the others' loaders"""
    data: DataName = "fashion_mnist"
    root: str | None = None
    seed: int = 0

    def data_config(self) -> DataConfig:
        """Return which images; none are held out."""
        if self.image_size:
            return DataConfig(
                name="folder",
                root=self.root,
                train_size=self.images,
                validation_size=0,
                image_size=self.image_size,
                channels=3,
                augment=[{"random_resized_crop": {"area": list(AREA)}}, "flip"],
                scaling="imagenet",
                cache="none",
            )
        return DataConfig(
            name=self.data,
            root=self.root,
            train_size=self.images,
            validation_size=0,
            augment=self.augment,
        )

    def model_config(self) -> ModelConfig:
        """Return the network."""
        return ModelConfig(name=self.model, args=self.model_args, weights=self.weights)


class Parts:
    """Images in memory and a model, for every contender but Lockstep, which makes its own.

    Attributes:
        pixels: uint8, (n, channels, height, width).
        images: the same, scaled: float32.
        targets: int64, (n,).
        test: the test set.
        scaling: what was done to them.
        transform: of a single scaled image, if the task has augmentation.
        model: with its first weights.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        config = task.data_config()
        reading.prepare(config)
        dataset = loading.load(config, task.seed)
        self.scaling = dataset.scaling
        self.pixels = dataset.train.images[:]
        self.images = dataset.scaling.apply(self.pixels)
        self.targets = dataset.train.targets
        self.test = dataset.test
        self.transform: Transform | None = None
        if task.augment != "none":
            self.transform = Augmentation(float(dataset.scaling.apply(torch.zeros(1, 1, 1, 1))))
        channels, height, width = self.images.shape[1:]
        self.model = build_model(task, len(dataset.class_names), channels, (height, width))

    def loader(self, dataset: Dataset[Any] | None = None) -> DataLoader[Any]:
        """Return batches in a random order, read in this process: workers would take the cores."""
        return DataLoader(dataset or self.dataset(), batch_size=self.task.batch_size, shuffle=True)

    def dataset(self) -> Dataset[Any]:
        """Return the images and targets, augmented one by one."""
        return ImageDataset(self.images, self.targets, self.transform)

    def named(self, image: str, target: str, *, scaled: bool = True) -> Dataset[Any]:
        """Return the same as dictionaries.

        Args:
            scaled: or with the numbers of their pixels, as float32.
        """
        if scaled:
            return NamedDataset(image, target, self.images, self.targets, self.transform)
        transform = Augmentation(black=0.0) if self.transform else None
        return NamedDataset(image, target, self.pixels.float(), self.targets, transform)

    def first_batch(self, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return some scaled images, float32 (size, channels, height, width), and their targets."""
        return self.images[:size], self.targets[:size]

    def adam(self) -> torch.optim.Adam:
        """Return the optimiser without further arguments."""
        return torch.optim.Adam(self.model.parameters(), lr=LEARNING_RATE)


def build_model(task: Task, classes: int, channels: int, image_size: tuple[int, int]) -> nn.Module:
    """Return the model with its first weights."""
    seeding.seed_torch(task.seed, "initialisation")
    return models.create(
        task.model,
        task.model_args,
        num_classes=classes,
        in_channels=channels,
        image_size=image_size,
    )


class ImageDataset(Dataset[Any]):
    """Samples as torchvision's MNIST gives them, but scaled beforehand."""

    def __init__(
        self, images: torch.Tensor, targets: torch.Tensor, transform: Transform | None
    ) -> None:
        self.images = images
        self.targets = targets.tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image = self.images[index]
        return (self.transform(image) if self.transform else image), self.targets[index]


class NamedDataset(ImageDataset):
    """The same samples as dictionaries."""

    def __init__(
        self,
        image: str,
        target: str,
        images: torch.Tensor,
        targets: torch.Tensor,
        transform: Transform | None,
    ) -> None:
        super().__init__(images, targets, transform)
        self.names = (image, target)

    def __getitem__(self, index: int) -> Any:
        return dict(zip(self.names, super().__getitem__(index), strict=True))


class Augmentation:
    """A horizontal flip of half of the images, then a crop out of the padded image.

    It does to one image what torchvision's RandomHorizontalFlip and RandomCrop(padding=2) do, as
    torchvision cannot be imported next to a CPU build of torch.
    """

    def __init__(self, black: float) -> None:
        self.black = black

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Return another image of the same shape: (channels, height, width)."""
        if torch.rand(1) < 0.5:
            image = image.flip(-1)
        height, width = image.shape[1:]
        padded = nn.functional.pad(image, [CROP_PADDING] * 4, value=self.black)
        top, left = (int(torch.randint(2 * CROP_PADDING + 1, (1,))) for _ in range(2))
        return padded[:, top : top + height, left : left + width]
