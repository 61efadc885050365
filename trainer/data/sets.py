"""A data set in memory: what the rest of the trainer sees of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images and their classes, fetched a whole batch at a time.

    Args:
        images: uint8 (n, channels, height, width), contiguous.
        targets: int64 (n,), the class of each image.
    """

    images: torch.Tensor
    targets: torch.Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def __getitems__(self, indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Images and targets of a batch, in the order of `indices`, int64 (batch,)."""
        return self.images[indices], self.targets[indices]

    def to(self, device: torch.device | str) -> ImageSet:
        """The same set on `device`."""
        return ImageSet(self.images.to(device), self.targets.to(device))


@dataclass(frozen=True, eq=False)
class Scaling:
    """What is taken from a pixel and what it is then divided by, in units of pixel values.

    Args:
        mean: float32, (1, 1, 1) for all pixels or (channels, height, width) for each.
        deviation: float32, the same shape; nowhere zero.
    """

    mean: torch.Tensor
    deviation: torch.Tensor

    def apply(self, images: torch.Tensor) -> torch.Tensor:
        """Scaled images: float32, the shape of `images`, which are on the same device."""
        return (images.float() - self.mean) / self.deviation

    def to(self, device: torch.device | str) -> Scaling:
        """The same scaling on `device`."""
        return Scaling(self.mean.to(device), self.deviation.to(device))


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set as a run uses it: divided, and with the scaling of its training split.

    Args:
        name: data.name of the configuration.
        class_names: one for each class.
        train: the training split, without what was held out for validation, in file order.
        validation: held out of the training images, in file order; may be empty.
        test: the test images, in file order.
        scaling: fitted on `train` alone.
        fingerprint: SHA-256, hexadecimal, of the three sets' shapes and bytes, whatever the name.
        source: where the files came from, for people.
    """

    name: str
    class_names: tuple[str, ...]
    train: ImageSet
    validation: ImageSet
    test: ImageSet
    scaling: Scaling
    fingerprint: str
    source: str

    def to(self, device: torch.device | str) -> Dataset:
        """The same data set, all of it on `device`."""
        return replace(
            self,
            train=self.train.to(device),
            validation=self.validation.to(device),
            test=self.test.to(device),
            scaling=self.scaling.to(device),
        )

    def where_it_fits(self, device: torch.device) -> Dataset:
        """On the device; without the images where they would take half of its free memory."""
        if device.type == "cuda":
            free_bytes, _ = torch.cuda.mem_get_info(device)
            sets = (self.train, self.validation, self.test)
            if sum(images.images.nbytes for images in sets) > free_bytes / 2:
                return replace(self, scaling=self.scaling.to(device))
        return self.to(device)
