"""Make an image of any size into one of the size that a network takes.

All of it is a filter in whole numbers, so that the pixels are the same on any machine: Pillow's for
whole pictures, antialiased, with weights of 22 bits (`Resample.c`), and for the boxes that training
cuts out torch's where it has the filter (bilinear, bicubic), with weights of 16 bits
(`UpSampleKernel.cpp`), which takes less time; cut out first, the two differ by one level at the
most.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from trainer.config.schema import DataConfig, Interpolation, ResizeRule

Box = tuple[float, float, float, float]
"""left, top, right and bottom, in pixels of the image that is cut"""


@dataclass(frozen=True)
class Fit:
    """How a whole picture of another size or shape is made to fit.

    Args:
        rule: crop: resized until its shorter side fits, and the middle of it is taken; pad: until
            its longer side fits, with black on both sides of it; stretch: each side by itself.
        crop_share: of crop: the share of the shorter side that is taken.
        interpolation: the filter, of boxes too.
    """

    rule: ResizeRule = "crop"
    crop_share: float = 1.0
    interpolation: Interpolation = "bilinear"

    def __str__(self) -> str:
        """Return it in words, which name caches and fingerprints too."""
        share = "" if self.crop_share == 1 else f" of {self.crop_share!r}"
        return f"{self.rule}{share}" + f", {self.interpolation}" * (
            self.interpolation != "bilinear"
        )

    def __repr__(self) -> str:
        """Return the words, as where it was a word."""
        return repr(str(self))


MIDDLE = Fit()
"""as pictures are made to fit unless a configuration says otherwise"""


def fit_of(config: DataConfig) -> Fit:
    """Return how a configuration makes whole pictures fit."""
    return Fit(config.resize, config.crop_share or 1.0, config.interpolation or "bilinear")


def middle_box(height: int, width: int, image_size: tuple[int, int], share: float = 1.0) -> Box:
    """Return the largest box in the middle of an image that has the aspect of another size.

    Args:
        image_size: the height and width whose aspect it has.
        share: of the sides of that box, by which it is made smaller.
    """
    wanted_height, wanted_width = image_size
    if width * wanted_height > height * wanted_width:
        inner_height, inner_width = float(height), height * wanted_width / wanted_height
    else:
        inner_height, inner_width = width * wanted_height / wanted_width, float(width)
    left, top = (width - share * inner_width) / 2, (height - share * inner_height) / 2
    return left, top, width - left, height - top


def crop_image(
    image: Image.Image,
    box: Box,
    image_size: tuple[int, int],
    interpolation: Interpolation = "bilinear",
) -> Image.Image:
    """Cut a box out of an image and resize it to a height and width.

    Args:
        image: of mode L or RGB.
        box: inside of the image, of any fractions of a pixel.
    """
    from PIL import Image

    height, width = image_size
    if image.size == (width, height) and box == (0, 0, width, height):
        return image
    resampling = Image.Resampling[interpolation.upper()]
    return image.resize((width, height), resampling, box=box)


def resize_image(image: Image.Image, image_size: tuple[int, int], fit: Fit) -> Image.Image:
    """Make an image of mode L or RGB into one of this height and width."""
    from PIL import Image

    (width, height), by = image.size, fit.interpolation
    if fit.rule == "crop":
        box = middle_box(height, width, image_size, fit.crop_share)
        return crop_image(image, box, image_size, by)
    whole = (0.0, 0.0, float(width), float(height))
    if fit.rule == "stretch":
        return crop_image(image, whole, image_size, by)
    inner_height, inner_width = fitted_size(height, width, image_size)
    inner = crop_image(image, whole, (inner_height, inner_width), by)
    if (inner_height, inner_width) == image_size:
        return inner
    padded = Image.new(image.mode, (image_size[1], image_size[0]))
    padded.paste(inner, ((image_size[1] - inner_width) // 2, (image_size[0] - inner_height) // 2))
    return padded


def fitted_size(height: int, width: int, image_size: tuple[int, int]) -> tuple[int, int]:
    """Return the largest height and width with an image's aspect that fit into another size."""
    most_height, most_width = image_size
    if width * most_height >= height * most_width:
        return max(1, (2 * height * most_width + width) // (2 * width)), most_width
    return most_height, max(1, (2 * width * most_height + height) // (2 * height))


def resize(
    pixels: npt.NDArray[np.uint8], image_size: tuple[int, int], fit: Fit
) -> npt.NDArray[np.uint8]:
    """Make an image of any number of channels into one of another size.

    Args:
        pixels: uint8, (height, width, channels).
        image_size: height and width of the result.

    Returns:
        uint8, (*image_size, channels); that may be written to; if nothing changes, the same array.
    """
    if pixels.shape[:2] == image_size and (fit.rule != "crop" or fit.crop_share == 1):
        return pixels if pixels.flags.writeable else pixels.copy()
    from PIL import Image

    channels = pixels.shape[2]
    if channels == 3:
        return np.array(resize_image(Image.fromarray(pixels), image_size, fit))
    bands = (Image.fromarray(pixels[:, :, channel]) for channel in range(channels))
    return np.stack([np.array(resize_image(band, image_size, fit)) for band in bands], 2)


def whole_pixels(
    boxes: npt.NDArray[np.float64], sizes: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Round boxes to whole pixels, at least one of them on each side.

    Args:
        boxes: left, top, right and bottom, inside of the images, (n, 4).
        sizes: height and width of the images, (n, 2).
    """
    rounded = np.floor(boxes + 0.5).astype(np.int64)
    ends = np.minimum(np.maximum(rounded[:, 2:], rounded[:, :2] + 1), sizes[:, ::-1])
    begins = np.clip(rounded[:, :2], 0, ends - 1)
    return np.concatenate([begins, ends], 1)


def resize_into(
    result: torch.Tensor,
    pixels: npt.NDArray[np.uint8],
    interpolation: Interpolation = "bilinear",
) -> None:
    """Resize an image of any number of channels into a tensor, each side by itself.

    Args:
        result: uint8, (channels, height, width), contiguous.
        pixels: uint8, (height, width, channels); may be a part of a larger array.
    """
    import torch

    if interpolation not in ("bilinear", "bicubic"):
        height, width = result.shape[1:]
        stretch = Fit("stretch", interpolation=interpolation)
        resized = resize(np.ascontiguousarray(pixels), (height, width), stretch)
        result.numpy()[:] = resized.transpose(2, 0, 1)
        return
    # Torch would copy a part itself, on all of its threads; this is one of several already.
    whole = torch.from_numpy(np.ascontiguousarray(pixels))
    # Its function in torch.nn.functional would make a tensor of its own for the result.
    getattr(torch.ops.aten, f"_upsample_{interpolation}2d_aa").out(
        whole.permute(2, 0, 1)[None],
        [*result.shape[1:]],
        False,
        None,
        None,
        out=result[None],
    )
