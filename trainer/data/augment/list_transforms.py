"""The transforms of the list form: each draws parameters for its images and applies them.

A transform takes a canvas, the numbers to draw and its arguments, which
`trainer.config.augmentations` explains. A new one is a function here, its row in `TABLE` and its
arguments there.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch

from trainer.base.portable_math import square_root
from trainer.data.augment import colours, operations, transforms
from trainer.data.augment.canvas import Canvas
from trainer.data.augment.draws import Draw, between, choose, spread_ratios
from trainer.data.augment.operations import AUG_MIX, RAND_AUGMENT, TRIVIAL_AUGMENT_WIDE, apply_each


def _random_resized_crop(canvas: Canvas, draw: Draw, area: list[float], aspect: float) -> None:
    """Enlarge a box of an image that is no picture: one that has its size already.

    The aspect ratio is relative to the image's own.
    """
    shapes = torch.ones(len(canvas), dtype=torch.float64)
    sides, places = draw_parts(draw, area, aspect, shapes)
    canvas.move(_all(canvas), transforms.crop(sides.float(), places.float(), *canvas.size))


def _crop(canvas: Canvas, draw: Draw, area: list[float], aspect: float) -> None:
    _random_resized_crop(canvas, draw, area, aspect)


def draw_parts(
    draw: Draw, area: list[float], aspect: float, shapes: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw parts of pictures: area evenly, aspect ratio evenly in its logarithm.

    A side that would be longer than the picture's is cut to it, so that a part is a function of
    four numbers; elsewhere such parts are drawn again, at most ten times.

    Args:
        shapes: width by height of each picture, relative to that of an undistorted part,
            float64 (n,).

    Returns:
        Width and height of each part, as shares of the picture's: float64 (n, 2); and where it is
        between left (or top), 0, and right (or bottom), 1: float64 (n, 2).
    """
    numbers = draw(4).double()
    areas = between(numbers[:, 0], area)
    ratios = spread_ratios(numbers[:, 1], aspect) / shapes
    sides = square_root(torch.stack([areas * ratios, areas / ratios], 1)).clamp(max=1)
    return sides, numbers[:, 2:]


def _flip(canvas: Canvas, draw: Draw, probability: float) -> None:
    canvas.mirror(choose(draw(1)[:, 0], probability), 3)


def _vertical_flip(canvas: Canvas, draw: Draw, probability: float) -> None:
    canvas.mirror(choose(draw(1)[:, 0], probability), 2)


def _alternating_flip(canvas: Canvas, draw: Draw) -> None:
    """Mirror half of the images in one epoch, and the other half in the next.

    Keller Jordan: 94% on CIFAR-10 in 3.29 Seconds on a Single GPU, 2024.
    """
    numbers = draw.for_all_epochs(1)[:, 0]
    is_first_half = numbers < 0.5
    chosen = is_first_half if draw.epoch % 2 else ~is_first_half
    canvas.mirror(chosen.nonzero()[:, 0], 3)


def _shift(canvas: Canvas, draw: Draw, fraction: float, fill: str) -> None:
    """Shift by whole pixels, the same number at most down and across in a square image."""
    most = [round(fraction * pixels) for pixels in canvas.size]
    numbers = draw(2)
    down, right = (
        (numbers[:, axis] * (2 * pixels + 1)).long() - pixels for axis, pixels in enumerate(most)
    )
    change = functools.partial(transforms.shift, most=max(most), reflect=fill == "reflect")
    canvas.edit(_all(canvas), change, down, right)


def _rotate(canvas: Canvas, draw: Draw, degrees: float) -> None:
    angles = between(draw(1)[:, 0], [-degrees, degrees])
    canvas.move(_all(canvas), operations.rotation(angles, *canvas.size))


def _colour_jitter(
    canvas: Canvas, draw: Draw, brightness: float, contrast: float, saturation: float, hue: float
) -> None:
    """Brightness, contrast, saturation and hue, in this order, as one map that is rounded once."""
    numbers = draw(4)
    brightnesses, contrasts, saturations = (
        between(numbers[:, column], [1 - most, 1 + most])
        for column, most in enumerate((brightness, contrast, saturation))
    )
    turn = operations.cosines_and_sines(between(numbers[:, 3], [-hue, hue]))
    factors = brightnesses * contrasts
    maps = factors[:, None, None] * colours.saturation_and_hue(saturations, *turn)
    of_mean = (1 - contrasts) * brightnesses
    canvas.edit(_all(canvas), colours.map_colours, maps, factors, of_mean)


def _grey(canvas: Canvas, draw: Draw, probability: float) -> None:
    canvas.edit(choose(draw(1)[:, 0], probability), colours.grey)


def _blur(canvas: Canvas, draw: Draw, sigma: list[float], probability: float) -> None:
    numbers = draw(2)
    chosen = choose(numbers[:, 0], probability)
    least, most = (share * min(canvas.size) for share in sigma)
    kernels = colours.gaussian_kernels(least, most)
    steps = (numbers[chosen, 1] * len(kernels)).long()
    canvas.edit(chosen, colours.blur, kernels[steps])


def _trivial_augment_wide(canvas: Canvas, draw: Draw, magnitude: float) -> None:
    numbers = draw(3)
    levels = (numbers[:, 1] * 31).floor() / 30 * magnitude
    which, direction = numbers[:, 0], numbers[:, 2]
    apply_each(canvas, _all(canvas), TRIVIAL_AUGMENT_WIDE, which, levels, direction)


def _rand_augment(canvas: Canvas, draw: Draw, operations: int, magnitude: float) -> None:
    numbers = draw(2 * operations)
    levels = torch.full((len(canvas),), magnitude / 30)
    for pair in torch.split(numbers, 2, 1):
        which, direction = pair.unbind(1)
        apply_each(canvas, _all(canvas), RAND_AUGMENT, which, levels, direction)


def _aug_mix(canvas: Canvas, draw: Draw, severity: float, width: int, depth: int) -> None:
    """Mix an image with a mixture of chains of operations.

    The weights of the chains are from Dirichlet(1, ..., 1), lengths between sorted even numbers,
    and that of the mixture is from Beta(1, 1), an even number. The loss of the paper that compares
    an image with its augmentations is not a transform, and not part of this.
    """
    numbers = draw(width * (3 * depth + 1) + width)
    cuts = numbers[:, : width - 1].sort(1).values
    bounds = [torch.zeros(len(canvas), 1), cuts, torch.ones(len(canvas), 1)]
    weights = torch.cat(bounds, 1).diff()
    share = numbers[:, width - 1]
    images = canvas.finish()
    mixture = torch.zeros_like(images, dtype=torch.float32)
    chains = torch.split(numbers[:, width:], 3 * depth + 1, 1)
    for chain, weight in zip(chains, weights.unbind(1), strict=True):
        changed = Canvas(images)
        lengths = 1 + (chain[:, -1] * depth).long()
        for link in range(depth):
            chosen = (lengths > link).nonzero()[:, 0]
            which, level, direction = chain[chosen, 3 * link : 3 * link + 3].unbind(1)
            levels = between(level, [min(0.1, severity), severity]) / 10
            apply_each(changed, chosen, AUG_MIX, which, levels, direction)
        mixture += _of_images(canvas.send(weight)) * changed.finish()
    share = _of_images(canvas.send(share))
    canvas.images = (images * (1 - share) + mixture * share).round_().to(torch.uint8)


def _cutout(canvas: Canvas, draw: Draw, side: float) -> None:
    numbers = draw(2)
    sides = [round(side * pixels) for pixels in canvas.size]
    top, left = (
        (numbers[:, axis] * pixels).long() - sides[axis] // 2
        for axis, pixels in enumerate(canvas.size)
    )

    def blacken(images: torch.Tensor, top: torch.Tensor, left: torch.Tensor) -> torch.Tensor:
        return images * ~transforms.rectangles(images.shape, top, left, *sides)

    canvas.edit(_all(canvas), blacken, top, left)


def _erase(
    canvas: Canvas,
    draw: Draw,
    probability: float,
    area: list[float],
    aspect: float,
    noise: str,
) -> None:
    """Random erasing; Zhong, Kang, Zheng, Li, Yang: Random Erasing Data Augmentation, AAAI 2020.

    A rectangle whose sides would be longer than the image's is cut, in place of drawn again.
    """
    channels, (height, width) = canvas.images.shape[1], canvas.size
    numbers = draw(5 + channels)
    chosen = choose(numbers[:, 0], probability)
    numbers = numbers[chosen]
    pixels = between(numbers[:, 1], area) * (height * width)
    ratios = spread_ratios(numbers[:, 2].double(), aspect).float()
    heights = square_root(pixels * ratios).round().clamp(1, height)
    widths = square_root(pixels / ratios).round().clamp(1, width)
    top = (numbers[:, 3] * (height - heights + 1)).long()
    left = (numbers[:, 4] * (width - widths + 1)).long()
    levels = (numbers[:, 5:] * 256).to(torch.uint8)

    def fill(
        images: torch.Tensor,
        top: torch.Tensor,
        left: torch.Tensor,
        heights: torch.Tensor,
        widths: torch.Tensor,
        *rest: torch.Tensor,
    ) -> torch.Tensor:
        erased = transforms.rectangles(images.shape, top, left, heights, widths)
        return images * ~erased + rest[0] * erased

    if noise == "pixel":
        shape = canvas.images.shape[1:]
        filling = draw.noise(chosen, shape, canvas.images.device)
    else:
        filling = levels[:, :, None, None]
    canvas.edit(chosen, fill, top, left, heights, widths, filling)


def _all(canvas: Canvas) -> torch.Tensor:
    return torch.arange(len(canvas))


def _of_images(values: torch.Tensor) -> torch.Tensor:
    return values[:, None, None, None]


TABLE: dict[str, Callable[..., None]] = {
    "random_resized_crop": _random_resized_crop,
    "crop": _crop,
    "flip": _flip,
    "vertical_flip": _vertical_flip,
    "alternating_flip": _alternating_flip,
    "shift": _shift,
    "rotate": _rotate,
    "colour_jitter": _colour_jitter,
    "grey": _grey,
    "blur": _blur,
    "trivial_augment_wide": _trivial_augment_wide,
    "rand_augment": _rand_augment,
    "aug_mix": _aug_mix,
    "cutout": _cutout,
    "erase": _erase,
}
"""of a canvas, the numbers to draw and the arguments, by name"""
