"""Transform a batch of images: pure functions of the images and of parameters for each of them.

Images are uint8 before scaling, (n, channels, height, width), so that pixels from outside are
black. An image gets the same bits in any batch: sines, exponentials and matrix products are
avoided, as vector units may round them differently from the scalars that are left at the end of a
tensor.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812

SHIFT_PIXELS = 2
_PIECE_LEVELS = 2**19
"""levels of colour: measured at 160 pixels, where whole batches of 64 take three times as long"""


def flip(images: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Mirror the chosen images, bool (n,), left to right."""
    # Copying whole images is several times as fast on a CPU as choosing pixel by pixel.
    both = torch.cat([images, images.flip(3)])
    samples = torch.arange(len(images), device=images.device)
    return both.index_select(0, samples + chosen * len(images))


def shift(
    images: torch.Tensor,
    down: torch.Tensor,
    right: torch.Tensor,
    *,
    most: int = SHIFT_PIXELS,
    reflect: bool = False,
) -> torch.Tensor:
    """Move each image by whole pixels.

    Args:
        down, right: pixels that each image moves, at most `most`, int64, (n,); negative: up or
            left.
        reflect: pixels from outside are mirrored at the middle of the outermost ones; or else they
            are zero.
    """
    count, channels, height, width = images.shape
    if not count:
        return images
    # In an image with a border, the rows of a shifted one follow each other at a fixed distance.
    border = (most, most, most, most + 1)
    padded = _reflected(images, border) if reflect else F.pad(images, border)
    plane_pixels, row_pixels = padded[0, 0].numel(), padded.shape[3]
    windows = padded.flatten().unfold(0, height * row_pixels, 1)
    planes = torch.arange(count * channels, device=images.device).view(count, channels)
    starts = planes * plane_pixels + ((most - down) * row_pixels + most - right)[:, None]
    moved = windows.index_select(0, starts.flatten())
    return moved.view(count, channels, height, row_pixels)[..., :width]


def _reflected(images: torch.Tensor, border: tuple[int, int, int, int]) -> torch.Tensor:
    """Pad images, left, right, above and below, by mirroring them as often as it takes."""
    left, right, above, below = border
    for axis, before, after in ((2, above, below), (3, left, right)):
        last = images.shape[axis] - 1
        places = torch.arange(-before, last + 1 + after, device=images.device)
        if last:
            folded = places.remainder(2 * last)
            places = torch.minimum(folded, 2 * last - folded)
        images = images.index_select(axis, places.clamp(0, last))
    return images


def rectangles(
    shape: torch.Size,
    top: torch.Tensor,
    left: torch.Tensor,
    height: torch.Tensor | int,
    width: torch.Tensor | int,
) -> torch.Tensor:
    """Return which pixels are in a rectangle of each image: bool, (n, 1, height, width).

    Args:
        shape: of the images, (n, channels, height, width).
        top, left: first row and column of each rectangle, int64, (n,); it may reach beyond the
            image.
        height, width: its rows and columns; 0: it is empty.
    """
    rows = torch.arange(shape[2], device=top.device)
    columns = torch.arange(shape[3], device=top.device)
    in_rows = (rows >= top[:, None]) & (rows < (top + height)[:, None])
    in_columns = (columns >= left[:, None]) & (columns < (left + width)[:, None])
    # Bytes are several times as fast on a CPU.
    row_bytes, column_bytes = in_rows.view(torch.uint8), in_columns.view(torch.uint8)
    return (row_bytes[:, None, :, None] & column_bytes[:, None, None]).view(torch.bool)


def cutout(images: torch.Tensor, top: torch.Tensor, left: torch.Tensor, size: int) -> torch.Tensor:
    """Blacken a square in each image.

    DeVries, Taylor: Improved Regularization of Convolutional Neural Networks with Cutout, 2017.

    Args:
        top, left: first row and column of the square, int64, (n,); it may reach beyond the image.
    """
    return images * ~rectangles(images.shape, top, left, size, size)


def erase(images: torch.Tensor, erased: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """Fill pixels of each image with one level for each channel.

    Args:
        erased: which pixels: bool, (n, 1, height, width).
        levels: uint8, (n, channels).
    """
    # Several times as fast on a CPU as choosing pixel by pixel.
    return images * ~erased + levels[:, :, None, None] * erased


def rotation(tangents: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Return matrices of rotations about the centre: float32, (n, 2, 3), for `resample`.

    Args:
        tangents: of half the angle by which each image turns clockwise, float32, (n,).
        height, width: of the images in pixels, which are square.
    """
    squares = tangents * tangents
    return turn((1 - squares) / (1 + squares), 2 * tangents / (1 + squares), height, width)


def turn(cosines: torch.Tensor, sines: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Return matrices of rotations about the centre: float32, (n, 2, 3), for `resample`.

    Args:
        cosines, sines: of the angle by which each image turns clockwise, float32, (n,).
        height, width: of the images in pixels, which are square.
    """
    zeros = torch.zeros_like(cosines)
    rows = [cosines, sines * (height / width), zeros, -sines * (width / height), cosines, zeros]
    return torch.stack(rows, 1).view(-1, 2, 3)


def crop(sides: torch.Tensor, places: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Return matrices that enlarge parts of the images to the whole: float32, (n, 2, 3).

    Args:
        sides: width and height of each part, as shares of the image's, in (0, 1], float32, (n, 2).
        places: between 0, leftmost or topmost, and 1, float32, (n, 2).
        height, width: of the images in pixels.
    """
    # No pixel is read from beyond the centres of the outermost ones.
    most_x, most_y = (1 - sides).unbind(1)
    most = torch.stack([most_x * (1 - 1 / width), most_y * (1 - 1 / height)], 1)
    return torch.cat([torch.diag_embed(sides), ((2 * places - 1) * most)[:, :, None]], 2)


def compose(outer: torch.Tensor, inner: torch.Tensor) -> torch.Tensor:
    """Return the affine matrices that apply `inner` and then `outer`: (n, 2, 3) each."""
    product = outer[:, :, :1] * inner[:, :1] + outer[:, :, 1:2] * inner[:, 1:]
    return torch.cat([product[:, :, :2], product[:, :, 2:] + outer[:, :, 2:]], 2)


def resample(images: torch.Tensor, matrices: torch.Tensor) -> torch.Tensor:
    """Transform images by affine matrices, with bilinear interpolation; outside is black.

    Args:
        matrices: from a point (x, y, 1) in the result to the point (x, y) in the image that is
            seen there, in units in which the image reaches from -1 to 1: float32, (n, 2, 3).
    """
    height, width = images.shape[2:]
    y = _pixel_centres(height, images.device)[:, None]
    x = _pixel_centres(width, images.device)
    step = piece_size(images)
    pieces = zip(torch.split(images, step), torch.split(matrices, step), strict=True)
    return torch.cat([_resample(piece, some, y, x) for piece, some in pieces])


def _resample(
    images: torch.Tensor, matrices: torch.Tensor, y: torch.Tensor, x: torch.Tensor
) -> torch.Tensor:
    # F.affine_grid takes several times as long for the same numbers.
    factors = matrices[..., None, None]
    points = factors[:, :, 0] * x + (factors[:, :, 1] * y + factors[:, :, 2])
    seen = F.grid_sample(images.float(), points.permute(0, 2, 3, 1), align_corners=False)
    return seen.round_().to(torch.uint8)


def piece_size(images: torch.Tensor) -> int:
    """Return how many images are best transformed at once: on a CPU those that fit its caches."""
    if images.device.type != "cpu":
        return max(1, len(images))
    return max(1, _PIECE_LEVELS // max(1, math.prod(images.shape[1:])))


def _pixel_centres(pixels: int, device: torch.device) -> torch.Tensor:
    """Return the centres of pixels along a side that reaches from -1 to 1: float32, (pixels,)."""
    return (2 * torch.arange(pixels, device=device) + 1) / pixels - 1
