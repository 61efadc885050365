"""What is written into a file: the network, and what comes before and after it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import nn

from trainer.data.pictures.resizing import Fit
from trainer.finished.export import pillow_filter
from trainer.finished.trained_model import TrainedModel

_LUMA = (19595.0, 38470.0, 7471.0)
"""of red, green and blue in a grey, as shares of 65,536: Pillow's `Convert.c`"""


BATCH_NAME, CHANNELS_NAME = "batch", "channels"
_MOST_CHANNELS = 4
"""where they may be several: torch tells 5 from them when it records"""
InputType = Literal["float32", "uint8"]


class ExportedModule(nn.Module):
    """What a file has: a module of one input and one output, and their names.

    Args:
        axes: of the input by their numbers, those of any size, by the names that they get.
    """

    input_name: str
    output_name: str
    axes: Mapping[int, str]

    def example(self) -> torch.Tensor:
        """Return an input to record the module with: two images, as one would stay one."""
        raise NotImplementedError

    def dynamic_shapes(self) -> dict[str, dict[int, Any]]:
        """Return which sizes of the input stay open, as `torch.export` wants to know it."""
        dims = {
            axis: torch.export.Dim(name, max=_MOST_CHANNELS if name == CHANNELS_NAME else None)
            for axis, name in self.axes.items()
        }
        return {self.input_name: dims}


class PixelModel(ExportedModule):
    """The network after its scaling.

    Its logits are divided by the temperature, where there is one.

    Args:
        input_type: of the pixels.
    """

    mean: torch.Tensor
    deviation: torch.Tensor
    input_name, output_name = "pixels", "logits"
    axes: Mapping[int, str] = {0: BATCH_NAME}

    def __init__(self, trained: TrainedModel, input_type: InputType = "float32") -> None:
        super().__init__()
        self.input_type = input_type
        self.shape = (trained.channels, *trained.image_size)
        self.module = trained.module
        self.temperature = trained.temperature
        self.register_buffer("mean", trained.scaling.mean)
        self.register_buffer("deviation", trained.scaling.deviation)

    def example(self) -> torch.Tensor:
        """Return two black images."""
        return torch.zeros(2, *self.shape, dtype=getattr(torch, self.input_type))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return logits (n, classes) of pixels from 0 to 255, (n, channels, height, width)."""
        logits: torch.Tensor = self.module((pixels.to(torch.float32) - self.mean) / self.deviation)
        return logits if self.temperature == 1 else logits / self.temperature


class PictureFitting(ExportedModule):
    """What is done to a picture's pixels before the network's scaling."""

    input_name, output_name = "pictures", "images"

    def __init__(self, trained: TrainedModel) -> None:
        super().__init__()
        self.channels = trained.channels
        self.image_size = trained.image_size
        self.store_size = trained.store_size
        self.fit = Fit(trained.resize, trained.crop_share, trained.interpolation)
        self.axes = {0: BATCH_NAME, 1: "height", 2: "width"}
        if self.takes_greys_and_colours:
            self.axes = {**self.axes, 3: CHANNELS_NAME}

    @property
    def takes_greys_and_colours(self) -> bool:
        """Whether pictures may have 1 or 3 channels; otherwise they have those of the network."""
        return self.channels in (1, 3)

    def example(self) -> torch.Tensor:
        """Return two black pictures."""
        channels = 3 if self.takes_greys_and_colours else self.channels
        return torch.zeros(2, 47, 53, channels, dtype=torch.uint8)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Return images of whole numbers from 0 to 255, float32 (n, channels, height, width).

        Args:
            pictures: of any one size, uint8 (n, height, width, channels); for a network of 1 or 3
                channels grey, of 1, or red, green and blue.
        """
        images = _to_grey(pictures) if self.channels == 1 else pictures.permute(0, 3, 1, 2)
        if self.store_size is not None:
            images = _shrink(images, self.store_size)
        images = pillow_filter.resize(images, self.image_size, self.fit).to(torch.float32)
        return _to_colours(images) if self.channels == 3 else images


class PictureModel(ExportedModule):
    """The network with all that is done to a picture's pixels before it, and its probabilities."""

    input_name, output_name = PictureFitting.input_name, "probabilities"

    def __init__(self, trained: TrainedModel) -> None:
        super().__init__()
        self.fitting = PictureFitting(trained)
        self.pixel_model = PixelModel(trained)
        self.has_several_labels = trained.thresholds is not None
        self.axes = self.fitting.axes

    def example(self) -> torch.Tensor:
        """Return two black pictures."""
        return self.fitting.example()

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Return the probability of each class, float32 (n, classes).

        Args:
            pictures: as of `PictureFitting`.
        """
        logits: torch.Tensor = self.pixel_model(self.fitting(pictures))
        return logits.sigmoid() if self.has_several_labels else logits.softmax(1)


def _to_colours(images: torch.Tensor) -> torch.Tensor:
    """Return red, green and blue of images that have them, or are grey; any more are left out.

    As a product: which channel becomes which depends on how many there are.
    """
    count = images.shape[1]
    is_grey = torch.full((), count) == 1
    chosen = (torch.arange(3)[:, None] == torch.arange(count)[None]) | is_grey
    colours = chosen.to(torch.float32) @ images.flatten(2)
    return colours.reshape(images.shape[0], 3, *images.shape[2:])


def _to_grey(pictures: torch.Tensor) -> torch.Tensor:
    """Return the greys of colours as Pillow does: ITU-R 601-2 luma, in whole numbers.

    They are below 2^24, so float32 holds them exactly; a grey stays what it is, and any more than
    three channels are left out.

    Returns:
        (n, 1, height, width) of pictures (n, height, width, channels).
    """
    channel = torch.arange(pictures.shape[3])
    weights = torch.zeros_like(channel, dtype=torch.float32)
    for number, weight in enumerate(_LUMA):
        weights = torch.where(channel == number, weight, weights)
    total = weights.sum()
    sums = pictures.to(torch.float32) @ weights
    return torch.floor((sums + total / 2) / total)[:, None]


def _shrink(images: torch.Tensor, shorter_side: int) -> torch.Tensor:
    """Return images whose shorter side is that long at the most, as `StoredForm` makes them."""
    height, width = images.shape[2:]
    shorter = torch.sym_min(height, width)  # type: ignore[no-untyped-call]
    wanted = torch.sym_min(shorter, shorter_side)  # type: ignore[no-untyped-call]
    size = tuple((2 * side * wanted + shorter) // (2 * shorter) for side in (height, width))
    return pillow_filter.resize(images, (size[0], size[1]), Fit("stretch"))
