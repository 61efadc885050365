"""Hold the images that a list of transforms works on.

Affine transforms that follow each other become one: an image is resampled when its pixels are
needed, as each time blurs. Whether that is so depends on what the image itself has been through,
and on no other image, so that its bits are the same in any batch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from trainer.data.augment import transforms

_FEW = 16
"""images in a piece are so large that each is mirrored by itself"""


class Canvas:
    """Images, and how each is still to be moved.

    What is chosen, and with which parameters, is on the CPU: a device is given its work without
    being waited for.

    Args:
        images: uint8 (n, channels, height, width); they are not changed.
    """

    def __init__(self, images: torch.Tensor) -> None:
        self.images = images.clone()
        self._matrices = torch.eye(2, 3).repeat(len(images), 1, 1)
        self._is_moved = torch.zeros(len(images), dtype=torch.bool)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.images.shape[2], self.images.shape[3]

    def move(self, chosen: torch.Tensor, matrices: torch.Tensor) -> None:
        """Move the chosen images, int64 (k,), by matrices as `resample` takes them, (k, 2, 3)."""
        self._matrices[chosen] = transforms.compose(self._matrices[chosen], matrices)
        self._is_moved[chosen] = True

    def mirror(self, chosen: torch.Tensor, axis: int) -> None:
        """Mirror the chosen images, int64 (k,), left to right (axis 3) or upside down (2)."""
        moved = chosen[self._is_moved[chosen]]
        signs = torch.tensor([-1.0, 1.0] if axis == 3 else [1.0, -1.0])
        self.move(moved, torch.eye(2, 3).repeat(len(moved), 1, 1) * signs[:, None])
        unmoved = chosen[~self._is_moved[chosen]]
        step = transforms.piece_size(self.images)
        if self.images.device.type != "cpu" or step > _FEW:
            self.edit(unmoved, lambda images: images.flip(axis))
            return
        for place in unmoved.tolist():  # each is copied twice, not three times
            image = self.images[place]
            image.copy_(image.flip(axis - 1))

    def edit(
        self,
        chosen: torch.Tensor,
        change: Callable[..., torch.Tensor],
        *parameters: torch.Tensor,
    ) -> None:
        """Change the pixels of the chosen images, int64 (k,).

        Args:
            change: of some of the images and of their parameters; returns the changed images.
            parameters: a row for each chosen image, (k, ...).
        """
        if not len(chosen):
            return
        self._resample(chosen[self._is_moved[chosen]])
        step = transforms.piece_size(self.images)
        columns = [torch.split(one, step) for one in (chosen, *parameters)]
        for piece, *values in zip(*columns, strict=True):
            index = self.send(piece)
            changed = change(self.images.index_select(0, index), *map(self.send, values))
            self.images.index_copy_(0, index, changed)

    def finish(self) -> torch.Tensor:
        """Return the images as they are now."""
        self._resample(self._is_moved.nonzero()[:, 0])
        return self.images

    def send(self, tensor: torch.Tensor) -> torch.Tensor:
        """Send a tensor to the images without waiting for the device's queue."""
        return tensor.to(self.images.device, non_blocking=True)

    def _resample(self, chosen: torch.Tensor) -> None:
        if not len(chosen):
            return
        index, matrices = self.send(chosen), self.send(self._matrices[chosen])
        moved = transforms.resample(self.images.index_select(0, index), matrices)
        self.images.index_copy_(0, index, moved)
        self._matrices[chosen] = torch.eye(2, 3)
        self._is_moved[chosen] = False
