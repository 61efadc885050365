"""Mix pairs of samples and their targets: mixup and cutmix.

Zhang, Cisse, Dauphin, Lopez-Paz: mixup: Beyond Empirical Risk Minimization, 2018: weighted means of
the images. Yun, Han, Oh, Chun, Choe, Yoo: CutMix: Regularization Strategy to Train Strong
Classifiers with Localizable Features, ICCV 2019: a box out of the other image. There a batch has
one weight; here each sample has its own, and its partner is any sample of the step, whichever
process computes that one. All of it comes from the stream `mixup`, keyed by the step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812

from trainer.base import portable_math, seeding
from trainer.data.augment.transforms import rectangles


@dataclass(frozen=True)
class Pairs:
    """The pairs of samples that are mixed in a step."""

    partners: torch.Tensor
    """the position of each sample's partner in the step, a permutation: int64, (samples,)"""
    weights: torch.Tensor
    """of the sample itself: float32, (samples,)"""
    centres: torch.Tensor | None
    """of the boxes of cutmix, down and to the right, as fractions of the image's sides in [0, 1):
    float32, (samples, 2); None: mixup"""


def draw_pairs(seed: int, step: int, samples: int, mixup: float, cutmix: float) -> Pairs:
    """Draw the pairs of a step; if both are on, it is mixup or cutmix with equal probability.

    Args:
        step: counted over the whole run from 1.
        samples: of the step, over all processes.
        mixup: alpha, both parameters of the beta distribution of the weights; 0: no mixup.
        cutmix: likewise; one of the two is above 0.
    """
    generator = seeding.generator(seed, "mixup", step)
    partners = torch.from_numpy(generator.permutation(samples))
    cut = generator.random() < 0.5 if mixup and cutmix else bool(cutmix)
    alpha = cutmix if cut else mixup
    weights = torch.from_numpy(generator.beta(alpha, alpha, samples)).float()
    centres = torch.from_numpy(generator.random((samples, 2))).float() if cut else None
    return Pairs(partners, weights, centres)


def cutmix_masks(weights: torch.Tensor, centres: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """Return which pixels cutmix takes from the partner: bool, (n, 1, height, width).

    A box has the image's shape and whole pixels, and is cut off at the image's border: the fraction
    of the pixels that stay is only roughly the weight, see `remaining_fraction`.

    Args:
        weights: fraction of the image that would stay if nothing were cut off, float32, (n,).
        centres: as in `Pairs`, (n, 2).
        shape: of the images, (n, channels, height, width).
    """
    height, width = shape[2:]
    return rectangles(shape, *_boxes(weights, centres, height, width))


def _boxes(
    weights: torch.Tensor, centres: torch.Tensor, height: int, width: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the first row and column, and the rows and columns, of the boxes of cutmix."""
    side, (down, right) = portable_math.square_root(1 - weights), centres.unbind(1)
    rows, columns = ((side * pixels).round().long() for pixels in (height, width))
    top = (down * height).long() - rows // 2
    left = (right * width).long() - columns // 2
    return top, left, rows, columns


def remaining_fraction(replaced: torch.Tensor) -> torch.Tensor:
    """Return the fraction of each image's pixels that are not `replaced`: float32, (n,)."""
    pixels = math.prod(replaced.shape[1:])
    return (pixels - replaced.sum((1, 2, 3))) / pixels


def shares_of_samples(pairs: Pairs, height: int, width: int) -> torch.Tensor:
    """Return the share of each sample itself in its mixed target: float32 (samples,).

    Args:
        height, width: of the images, in pixels.
    """
    if pairs.centres is None:
        return pairs.weights
    top, left, rows, columns = _boxes(pairs.weights, pairs.centres, height, width)
    inside_rows = (top + rows).clamp(0, height) - top.clamp(0, height)
    inside_columns = (left + columns).clamp(0, width) - left.clamp(0, width)
    pixels = height * width
    return (pixels - inside_rows * inside_columns) / pixels


def mix(values: torch.Tensor, partners: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return the weighted means of pairs.

    Args:
        values, partners: floating-point, (n, ...).
        weights: of `values`, between 0 and 1, (n,).
    """
    weights = weights.view(-1, *[1] * (values.ndim - 1))
    # Not lerp: vector units may round it differently from the scalars that are left at the end of a
    # tensor, and where a tensor ends depends on the process count.
    return values * weights + partners * (1.0 - weights)


def mix_targets(
    targets: torch.Tensor, partners: torch.Tensor, weights: torch.Tensor, classes: int
) -> torch.Tensor:
    """Return the fractions of the classes: float32, (n, classes).

    Args:
        targets, partners: the classes of the samples and of their partners, int64, (n,); of those
            that may have several labels float32, (n, classes), 0 or 1.
        weights: of `targets`, (n,).
    """
    if targets.ndim == 2:
        return mix(targets, partners, weights)
    return mix(F.one_hot(targets, classes).float(), F.one_hot(partners, classes).float(), weights)
