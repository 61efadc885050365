"""Change the colours of images: pure functions of the images and of parameters for each of them.

Images are uint8 (n, channels, height, width). What needs three colours leaves images of other
channels as they are. An image gets the same bits in any batch: sums are of integers, and the rest
is arithmetic that rounds each number by itself.
"""

from __future__ import annotations

import functools
import math

import torch
import torch.nn.functional as F  # noqa: N812

LUMA = (19595, 38470, 7471)
"""of red, green and blue in 65,536 parts: ITU-R 601-2, with the integers of Pillow"""


def brightness(images: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """Multiply all levels by a factor, float32 (n,)."""
    return linear(images, factors[:, None], torch.zeros_like(factors)[:, None])


def contrast(images: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """Move all levels away from the image's mean luma, by a factor, float32 (n,)."""
    offsets = (1 - factors) * mean_luma(images)
    return linear(images, factors[:, None], offsets[:, None])


def saturation(images: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """Move the colours of each pixel away from its luma, by a factor, float32 (n,)."""
    return _blend(luma(images), images, factors) if images.shape[1] == 3 else images


def sharpness(images: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """Move each level away from the mean of its surroundings, by a factor, float32 (n,).

    In this mean the pixel itself counts five of thirteen times; the outermost pixels stay.
    """
    if min(images.shape[2:]) < 3:
        return images
    levels = images.to(torch.int16)
    rows = levels[:, :, :-2] + levels[:, :, 1:-1] + levels[:, :, 2:]
    total = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * levels[:, :, 1:-1, 1:-1]
    smooth = images.clone()
    smooth[:, :, 1:-1, 1:-1] = ((2 * total + 13).float() / 26).floor_().to(torch.uint8)
    return _blend(smooth, images, factors)


def auto_contrast(images: torch.Tensor) -> torch.Tensor:
    """Stretch the levels of each channel to the whole range from black to white."""
    lowest = images.amin((2, 3)).float()
    span = images.amax((2, 3)).float() - lowest
    factors = torch.where(span > 0, 255 / span, 1.0)
    return linear(images, factors, torch.where(span > 0, -lowest * factors, 0.0))


def equalize(images: torch.Tensor) -> torch.Tensor:
    """Spread the levels of each channel so that all are about equally frequent.

    As Pillow's ImageOps.equalize, level for level.
    """
    count, channels = images.shape[:2]
    planes = torch.arange(count * channels, device=images.device, dtype=torch.int32) * 256
    levels = (images.flatten(2).flatten(0, 1) + planes[:, None]).flatten()
    # Unlike bincount's, its size is known: a GPU is not waited for.
    counts = torch.zeros(count * channels * 256, dtype=torch.int64, device=images.device)
    counts.index_add_(0, levels, torch.ones_like(counts[:1]).expand(len(levels)))
    histograms = counts.view(-1, 256)
    sums = histograms.cumsum(1)
    highest = images.flatten(2).flatten(0, 1).amax(1).long()
    of_highest = histograms.gather(1, highest[:, None])
    step = (sums[:, -1:] - of_highest) // 255
    spread = (step // 2 + sums - histograms) // step.clamp(min=1)
    same = torch.arange(256, device=images.device).expand_as(spread)
    table = torch.where(step > 0, spread, same).clamp(max=255).to(torch.uint8)
    return table.flatten().index_select(0, levels).view_as(images)


def posterize(images: torch.Tensor, bits: torch.Tensor) -> torch.Tensor:
    """Keep only the highest bits of each level: int64 (n,), from 0 to 8."""
    masks = (256 - 2 ** (8 - bits)).to(torch.uint8)
    return images & masks[:, None, None, None]


def solarize(images: torch.Tensor, thresholds: torch.Tensor) -> torch.Tensor:
    """Turn levels from a threshold on, int64 (n,), into their negatives; 256: none."""
    beyond = images >= thresholds[:, None, None, None]
    return images ^ beyond.view(torch.uint8).mul(255)


def grey(images: torch.Tensor) -> torch.Tensor:
    """Replace all three colours by the luma."""
    return luma(images).expand_as(images) if images.shape[1] == 3 else images


def map_colours(
    images: torch.Tensor, maps: torch.Tensor, factors: torch.Tensor, of_mean: torch.Tensor
) -> torch.Tensor:
    """Change colours by a linear map; only the result is rounded and cut off at black and white.

    Args:
        maps: from red, green and blue to the same, float32 (n, 3, 3).
        factors: of images that have not three colours, in place of the maps, float32 (n,).
        of_mean: how many times the image's mean luma is added, float32 (n,).
    """
    offsets = of_mean * mean_luma(images)
    if images.shape[1] != 3:
        return linear(images, factors[:, None], offsets[:, None])
    red, green, blue = images.float().unbind(1)
    result = torch.empty_like(images)
    for channel in range(3):
        of_red, of_green, of_blue = maps[:, channel, :, None, None].unbind(1)
        # Each product and sum is rounded by itself, as a fused one is not the same everywhere.
        level = (of_red * red).add_(of_green * green).add_(of_blue * blue)
        level.add_(offsets[:, None, None])
        result[:, channel] = level.clamp_(0, 255).round_()
    return result


def saturation_and_hue(
    saturations: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor
) -> torch.Tensor:
    """Return maps for `map_colours`, float32 (n, 3, 3), which keep the luma of each pixel.

    The types saturate and hueRotate of feColorMatrix in W3C's Filter Effects Module Level 1, with
    its luma, one after the other.

    Args:
        saturations: factors, float32 (n,).
        cosines, sines: of the angle by which the hue turns, float32 (n,).
    """
    to_grey = torch.tensor([[0.213, 0.715, 0.072]]).expand(3, 3)
    colour = torch.eye(3) - to_grey
    quarter_turn = torch.tensor(_QUARTER_TURN)
    turned = cosines[:, None, None] * colour + sines[:, None, None] * quarter_turn
    return to_grey + saturations[:, None, None] * turned


_QUARTER_TURN = [[-0.213, -0.715, 0.928], [0.143, 0.140, -0.283], [-0.787, 0.715, 0.072]]


def blur(images: torch.Tensor, kernels: torch.Tensor) -> torch.Tensor:
    """Blur by symmetric kernels, down and across; beyond the border the outermost pixels go on.

    Args:
        kernels: the half of each from its middle on, float32 (n, radius + 1).
    """
    levels = images.float()
    radius = kernels.shape[1] - 1
    for axis, border in ((2, (0, 0, radius, radius)), (3, (radius, radius, 0, 0))):
        padded = F.pad(levels, border, mode="replicate")
        pixels = levels.shape[axis]
        levels = levels * kernels[:, :1, None, None]
        for distance in range(1, radius + 1):
            before = padded.narrow(axis, radius - distance, pixels)
            after = padded.narrow(axis, radius + distance, pixels)
            levels += (before + after).mul_(kernels[:, distance, None, None, None])
    return levels.clamp_(0, 255).round_().to(torch.uint8)


BLUR_STEPS = 64
"""how many kernels there are between the least and the most"""


@functools.lru_cache(maxsize=64)
def gaussian_kernels(least: float, most: float) -> torch.Tensor:
    """Return halves of Gaussian kernels, float32 (BLUR_STEPS, radius + 1).

    From Python's numbers, as the exponentials of a vector unit may round differently.

    Args:
        least, most: standard deviations in pixels, of the first and of the last kernel.
    """
    radius = max(1, math.ceil(3 * most))
    rows = []
    for step in range(BLUR_STEPS):
        sigma = max(1e-3, least + (most - least) * step / (BLUR_STEPS - 1))
        half = [math.exp(-0.5 * (distance / sigma) ** 2) for distance in range(radius + 1)]
        total = half[0] + 2 * sum(half[1:])
        rows.append([value / total for value in half])
    return torch.tensor(rows)


# ---------------------------------------------------------------------- means and blends


def linear(images: torch.Tensor, factors: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """Return levels times factors plus offsets, float32 (n, channels) or (n, 1) each."""
    levels = images.float().mul_(factors[:, :, None, None]).add_(offsets[:, :, None, None])
    return levels.clamp_(0, 255).round_().to(torch.uint8)


def luma(images: torch.Tensor) -> torch.Tensor:
    """Return the luma of images of three colours: uint8 (n, 1, height, width)."""
    red, green, blue = torch.split(images.to(torch.int32), 1, 1)
    total = (red * LUMA[0]).add_(green * LUMA[1]).add_(blue * LUMA[2]).add_(32768)
    shifted: torch.Tensor = total >> 16
    return shifted.to(torch.uint8)


def mean_luma(images: torch.Tensor) -> torch.Tensor:
    """Return the mean luma of each image, a whole level: float32 (n,).

    Of images that have not three colours, the mean of all channels.
    """
    sums = images.sum(3, dtype=torch.int32).sum(2, dtype=torch.int64)
    channels, pixels = images.shape[1], math.prod(images.shape[2:])
    weights = LUMA if channels == 3 else (1,) * channels
    total = torch.zeros_like(sums[:, 0])
    for channel, weight in enumerate(weights):
        total += sums[:, channel] * weight
    divisor = pixels * sum(weights)
    return ((total + divisor // 2) // divisor).float()


def _blend(others: torch.Tensor, images: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """Return the others for a factor of 0, the images for 1, and more of them beyond."""
    base = others.float()
    levels = (images.float() - base).mul_(factors[:, None, None, None]).add_(base)
    return levels.clamp_(0, 255).round_().to(torch.uint8)
