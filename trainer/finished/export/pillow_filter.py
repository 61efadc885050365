"""Resize images to Pillow's pixels by operators of torch, which exporters put into a graph.

Pillow filters along one side, rounds to bytes, and then along the other; its weights are whole
numbers of 22 bits (`src/libImaging/Resample.c`; `nearest` is in `Geometry.c`). Each of the two
passes is a matrix product here, in float64, which holds all these whole numbers exactly. The
matrices are computed in the graph from the size of the images, which may be any.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import PIL
import torch

from trainer.config.schema import Interpolation
from trainer.data.pictures.resizing import Fit

_ONE = 2.0**22
"""a weight of 1 as a whole number"""

_SHORTENS_FIRST = int(PIL.__version__.partition(".")[0]) >= 13
"""whether Pillow filters along columns first where the height loses more than twice the width"""

Filter = Callable[[torch.Tensor], torch.Tensor]


def resize(images: torch.Tensor, image_size: tuple[int, int], fit: Fit) -> torch.Tensor:
    """Make images of any one size fit, as `data.pictures.resizing.resize` does.

    Args:
        images: whole numbers from 0 to 255 of any type, (n, channels, height, width).
        image_size: height and width of the result.

    Returns:
        float64 of whole numbers, (n, channels, *image_size).
    """
    height, width = images.shape[2:]
    (top, bottom), (left, right), (inner_height, inner_width) = _ends(
        height, width, image_size, fit
    )
    rows = _weights(height, top, bottom, image_size[0], inner_height, fit.interpolation)
    columns = _weights(width, left, right, image_size[1], inner_width, fit.interpolation)
    lost_height, lost_width = _number(height) - inner_height, _number(width) - inner_width
    rows_first = (lost_height > 0) & (lost_height > 2 * lost_width) & _SHORTENS_FIRST
    operands = (images.double(), rows, columns.T)
    channels = images.shape[1]
    is_grey = isinstance(channels, int) and channels == 1
    # `cond` takes no such sizes, and OpenVINO computes its branches wrongly for one channel.
    if isinstance(image_size[0], torch.SymInt) or is_grey:
        return torch.where(rows_first, _filter_rows_first(*operands), _filter(*operands))
    if torch.compiler.is_exporting():
        found: torch.Tensor = torch.cond(rows_first, _filter_rows_first, _filter, operands)
        return found
    return (_filter_rows_first if rows_first else _filter)(*operands)


def _filter(images: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    return _round(rows @ _round(images @ columns))


def _filter_rows_first(
    images: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor
) -> torch.Tensor:
    return _round(_round(rows @ images) @ columns)


def _ends(
    height: int, width: int, image_size: tuple[int, int], fit: Fit
) -> tuple[tuple[torch.Tensor, torch.Tensor], ...]:
    """Return what is cut out, and the height and width that it gets, each float64 without a shape.

    Returns:
        Top and bottom; left and right; height and width, which `pad` makes smaller than the image.
    """
    high, wide = _number(height), _number(width)
    wanted_high, wanted_wide = (float(side) for side in image_size)
    nothing, inner = torch.zeros_like(high), (_number(image_size[0]), _number(image_size[1]))
    if fit.rule == "stretch":
        return (nothing, high), (nothing, wide), inner
    if fit.rule == "crop":
        is_wide = wide * wanted_high > high * wanted_wide
        inner_high = torch.where(is_wide, high, wide * wanted_high / wanted_wide)
        inner_wide = torch.where(is_wide, high * wanted_wide / wanted_high, wide)
        top, left = (
            (side - fit.crop_share * kept) / 2
            for side, kept in ((high, inner_high), (wide, inner_wide))
        )
        return (top, high - top), (left, wide - left), inner
    is_wide = wide * wanted_high >= high * wanted_wide
    fitted_high = torch.floor((2 * high * wanted_wide + wide) / (2 * wide)).clamp(min=1)
    fitted_wide = torch.floor((2 * wide * wanted_high + high) / (2 * high)).clamp(min=1)
    inner = (
        torch.where(is_wide, fitted_high, inner[0]),
        torch.where(is_wide, inner[1], fitted_wide),
    )
    return (nothing, high), (nothing, wide), inner


def _number(side: int) -> torch.Tensor:
    """Return a number as a tensor, also where it stands for the size of an image that will come."""
    return torch.full((), side, dtype=torch.float64)


def _weights(
    side: int,
    begin: torch.Tensor,
    end: torch.Tensor,
    size: int,
    inner: torch.Tensor,
    interpolation: Interpolation,
) -> torch.Tensor:
    """Return the weight of each pixel of a side in each of the result, float64 (size, side).

    Args:
        begin, end: of the part that is cut out of the side.
        size: of the result.
        inner: how many pixels of the result, in its middle, that part becomes; the others have no
            weights.
    """
    begin, end = begin.float(), end.float()  # as Pillow passes them on
    scale = (end - begin).double() / inner
    before = torch.floor((size - inner) / 2)
    results = torch.arange(size, dtype=torch.float64)[:, None] - before
    is_inside = (results >= 0) & (results < inner)
    places = torch.arange(side, dtype=torch.float64)[None]
    if interpolation == "nearest":
        steps = torch.cat([(begin.double() + scale * 0.5)[None], scale.expand(size - 1)])
        # Pillow adds one step after the other, and so does this.
        chosen = steps.cumsum(0).floor()[results[:, 0].clamp(min=0).long()][:, None]
        return (is_inside & (places == chosen)).double() * _ONE
    filter_, radius = _FILTERS[interpolation]
    stretch = scale.clamp(min=1.0)
    support = radius * stretch
    centers = begin.double() + (results + 0.5) * scale
    first = torch.trunc(centers - support + 0.5)
    behind = torch.trunc(centers + support + 0.5)
    weights = filter_((places - centers + 0.5) * (1.0 / stretch))
    weights = torch.where(is_inside & (places >= first) & (places < behind), weights, 0.0)
    total = weights.sum(1, keepdim=True)
    weights = weights / torch.where(total == 0, 1.0, total) * _ONE
    return torch.trunc(torch.where(weights < 0, weights - 0.5, weights + 0.5))


def _round(sums: torch.Tensor) -> torch.Tensor:
    """Return bytes of sums of bytes by weights."""
    return torch.floor((sums + _ONE / 2) / _ONE).clamp(0, 255)


def _box(places: torch.Tensor) -> torch.Tensor:
    return ((places > -0.5) & (places <= 0.5)).double()


def _bilinear(places: torch.Tensor) -> torch.Tensor:
    return (1.0 - places.abs()).clamp(min=0)


def _hamming(places: torch.Tensor) -> torch.Tensor:
    factors = [float(np.float32(factor)) for factor in (0.54, 0.46)]
    angles = places.abs() * math.pi
    found = _sinc(places) * (factors[0] + factors[1] * torch.cos(angles))
    return torch.where(places == 0, 1.0, torch.where(places.abs() >= 1, 0.0, found))


def _bicubic(places: torch.Tensor) -> torch.Tensor:
    x, a = places.abs(), -0.5
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))


def _lanczos(places: torch.Tensor) -> torch.Tensor:
    is_near = (places >= -3.0) & (places < 3.0)
    return torch.where(is_near, _sinc(places) * _sinc(places / 3), 0.0)


def _sinc(places: torch.Tensor) -> torch.Tensor:
    angles = torch.where(places == 0, 1.0, places) * math.pi
    return torch.where(places == 0, 1.0, torch.sin(angles) / angles)


_FILTERS: dict[Interpolation, tuple[Filter, float]] = {
    "box": (_box, 0.5),
    "bilinear": (_bilinear, 1.0),
    "hamming": (_hamming, 1.0),
    "bicubic": (_bicubic, 2.0),
    "lanczos": (_lanczos, 3.0),
}
"""the filter, and how far it reaches"""
