"""Scale pixels by a mean and a deviation, of the training split or those of pretrained weights.

In a model.safetensors one mean and deviation for all pixels, or for each channel, go into the
metadata. One for each pixel may be too long for a header, so those become tensors, of int32 with
the bits of the float32 numbers: the digest of the weights covers the file's floating-point tensors,
and must cover nothing but weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from trainer.base import portable_math
from trainer.base.errors import UserError
from trainer.base.tensor_files import Tensors, TensorSpec, read_specs, read_tensors
from trainer.config.schema import ScalingKind
from trainer.data.reused_memory import ReusedMemory

TENSORS = {"mean": "lockstep/pixel_mean", "deviation": "lockstep/pixel_deviation"}
"""their names in a model.safetensors"""

# The squares of this many bytes add up to less than 2^24: float32 represents them exactly.
_EXACT_IMAGES = 256
# The sum of the squares of this many pixels fits into int64.
_MOST_PIXELS = (2**63 - 1) // 255**2

# Of red, green and blue in ImageNet's training images, with pixels from 0 to 1: torchvision's
# documentation, "Models and pre-trained weights". Most published weights were trained with them.
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_DEVIATION = (0.229, 0.224, 0.225)

_PIECE_LEVELS = 2**18
"""scaled at once on a CPU, so that they stay in its cache from step to step"""
_memory = ReusedMemory()

T = TypeVar("T")


def choose_scaling(asked: ScalingKind | None, channels: int) -> ScalingKind:
    """Return which scaling images of this many channels get; `asked` is data.scaling.

    Raises:
        UserError: they are not what it is for.
    """
    if asked == "imagenet" and channels != 3:
        raise UserError(
            f"data.scaling: imagenet is for images of 3 channels, red, green and blue; these have "
            f"{channels}; choose per_channel"
        )
    return asked or ("global" if channels == 1 else "per_channel")


@dataclass(frozen=True, eq=False)
class Scaling:
    """What is subtracted from a pixel, and what it is then divided by, in units of pixel values.

    Args:
        mean: float32, (1, 1, 1) for all pixels, (channels, 1, 1) for those of each channel, or
            (channels, height, width) for each pixel.
        deviation: float32, the same shape; nowhere zero.
    """

    mean: torch.Tensor
    deviation: torch.Tensor

    def apply(self, images: torch.Tensor) -> torch.Tensor:
        """Scale images: float32, the shape of `images`, which are on the same device."""
        if images.device.type != "cpu":
            scaled = images.to(torch.float32, copy=True)
            return scaled.sub_(self.mean).div_(self.deviation)
        scaled = _memory.empty_like(images)
        step = max(1, _PIECE_LEVELS // max(1, math.prod(images.shape[1:])))
        for some, piece in zip(torch.split(scaled, step), torch.split(images, step), strict=True):
            some.copy_(piece).sub_(self.mean).div_(self.deviation)
        return scaled

    def undo(self, images: torch.Tensor) -> torch.Tensor:
        """Return the pixels of scaled images: float32, from 0 to 255 but for rounding."""
        return images * self.deviation + self.mean

    def to(self, device: torch.device | str) -> Scaling:
        """Return the same scaling on `device`."""
        return Scaling(self.mean.to(device), self.deviation.to(device))


def fixed_scaling(
    kind: ScalingKind,
    mean: Sequence[float] | None,
    deviation: Sequence[float] | None,
    channels: int,
) -> Scaling | None:
    """Return the scaling that no images decide on; None where the training split does.

    Grey images get the means of the numbers for colours, as the filters of a first layer are summed
    up for them.

    Args:
        mean, deviation: of `pretrained`: of each channel, of pixels from 0 to 1.

    Raises:
        UserError: the numbers are missing, or are of other channels than the images.
    """
    if kind == "imagenet":
        mean, deviation = _IMAGENET_MEAN, _IMAGENET_DEVIATION
    elif kind != "pretrained":
        return None
    if mean is None or deviation is None:
        raise UserError(
            "data.scaling: pretrained needs data.mean and data.deviation, or model.weights that "
            "bring them"
        )
    if channels not in (1, len(mean)):
        raise UserError(
            f"data.mean, data.deviation: have {len(mean)} numbers, and the images {channels} "
            f"channels; give {channels}, or choose data.scaling: per_channel"
        )
    values = [torch.tensor(numbers, dtype=torch.float64).mul(255) for numbers in (mean, deviation)]
    if channels == 1:
        values = [numbers.mean(0, keepdim=True) for numbers in values]
    means, deviations = (numbers.float().view(-1, 1, 1) for numbers in values)
    return Scaling(means, deviations)


class PixelSums:
    """Sum over images that come in pieces, in whole numbers: exact in any order and pieces."""

    def __init__(self) -> None:
        self.count = 0
        self.total = torch.zeros((), dtype=torch.int64)
        self.squares = torch.zeros((), dtype=torch.int64)

    def add(self, images: torch.Tensor) -> None:
        """Add some images: uint8 (n, channels, height, width)."""
        for block in torch.split(images, _EXACT_IMAGES):
            values = block.float()
            self.total = self.total + values.sum(0).long()
            self.squares = self.squares + values.square_().sum(0).long()
        self.count += len(images)
        assert self.count * self.total.numel() <= _MOST_PIXELS, "the sums would overflow"

    def scaling(self, kind: ScalingKind) -> Scaling:
        """Compute the mean and deviation of all pixels together, of each channel or of each pixel.

        The deviation is that of the population, and 1 if it would be 0, as in scikit-learn's
        StandardScaler.

        Args:
            kind: one of those that the images decide on.
        """
        count, total, squares = self.count, self.total, self.squares
        if kind != "per_pixel":
            together = (0, 1, 2) if kind == "global" else (1, 2)
            count *= total.numel() // (1 if kind == "global" else len(total))
            total, squares = (sums.sum(together, keepdim=True) for sums in (total, squares))
        total, squares = total.double(), squares.double()
        mean = total / count
        deviation = (
            portable_math.square_root((count * squares - total.square()).clamp(min=0)) / count
        )
        deviation[deviation == 0] = 1
        return Scaling(mean.float(), deviation.float())


def encode_scaling(scaling: Scaling) -> tuple[dict[str, Any], Tensors]:
    """Return the metadata, with null for numbers that are in tensors, and these tensors."""
    values = {"mean": scaling.mean, "deviation": scaling.deviation}
    if scaling.mean.shape[1:] == (1, 1):
        return {key: value.tolist() for key, value in values.items()}, {}
    bits = {TENSORS[key]: value.cpu().view(torch.int32) for key, value in values.items()}
    return dict.fromkeys(values), bits


def network_tensors(tensors: Mapping[str, T]) -> dict[str, T]:
    """Leave out the tensors of the scaling from those of a file, by name."""
    return {name: one for name, one in tensors.items() if name not in TENSORS.values()}


def decode_scaling(
    found: Mapping[str, Any], file: Path, pixel_shape: tuple[int, int, int]
) -> Scaling:
    """Read the scaling of a model.

    Args:
        found: the metadata; mean and deviation are nested lists, in older files also of each pixel.
        pixel_shape: channels, height and width.

    Raises:
        UserError: it is missing, of a wrong shape, or has numbers that are not finite or
            deviations that are not positive.
    """
    values = {key: _decode_one(key, found[key], file, pixel_shape) for key in TENSORS}
    if not bool(values["mean"].isfinite().all()):
        raise UserError(f"{file}: model.mean: must be finite")
    if not bool((values["deviation"] > 0).all() and values["deviation"].isfinite().all()):
        raise UserError(f"{file}: model.deviation: must be positive and finite")
    return Scaling(**values)


def _decode_one(
    key: str, numbers: list[Any] | None, file: Path, pixel_shape: tuple[int, int, int]
) -> torch.Tensor:
    if numbers is None:
        name, wanted = TENSORS[key], TensorSpec("I32", pixel_shape)
        if read_specs(file).get(name) != wanted:
            raise UserError(
                f"{file}: model.{key}: is neither in the metadata nor, as {wanted.dtype} of "
                f"{pixel_shape}, in the tensor {name}"
            )
        return read_tensors(file, [name])[name].view(torch.float32)
    try:
        value = torch.tensor(numbers, dtype=torch.float32)
    except (ValueError, TypeError, RuntimeError) as error:
        raise UserError(f"{file}: model.{key}: must be numbers ({error})") from error
    channels = (pixel_shape[0], 1, 1)
    if tuple(value.shape) not in ((1, 1, 1), channels, pixel_shape):
        raise UserError(
            f"{file}: model.{key}: must be of shape (1, 1, 1), {channels} or {pixel_shape}, found "
            f"{tuple(value.shape)}"
        )
    return value
