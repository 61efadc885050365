"""Mixup: training on weighted means of two samples and of their targets.

Zhang, Cisse, Dauphin, Lopez-Paz: mixup: Beyond Empirical Risk Minimization, 2018. There a batch has
one weight; here each sample has its own, and its partner is any sample of the step, whichever
process computes that one. Both come from the stream `mixup`, keyed by the step.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812

from trainer import seeding


def draw_pairs(seed: int, step: int, samples: int, alpha: float) -> tuple[torch.Tensor, ...]:
    """Who is mixed with whom in a step, and how much of each sample stays.

    Args:
        seed: the run's seed.
        step: counted over the whole run from 1.
        samples: of the step, over all processes.
        alpha: both parameters of the beta distribution of the weights; positive.

    Returns:
        The place of each sample's partner in the step, a permutation: int64, (samples,); and the
        sample's own weight: float32, (samples,).
    """
    generator = seeding.generator(seed, "mixup", step)
    partners = torch.from_numpy(generator.permutation(samples))
    return partners, torch.from_numpy(generator.beta(alpha, alpha, samples)).float()


def mix(values: torch.Tensor, partners: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Weighted means of pairs.

    Args:
        values: floating-point, (n, ...).
        partners: the same shape.
        weights: of `values`, between 0 and 1, (n,).
    """
    weights = weights.view(-1, *[1] * (values.ndim - 1))
    # Not lerp: vector units may round it otherwise than the scalars that are left at a tensor's
    # end, and where a tensor ends depends on the process count.
    return values * weights + partners * (1.0 - weights)


def mix_targets(
    targets: torch.Tensor, partners: torch.Tensor, weights: torch.Tensor, classes: int
) -> torch.Tensor:
    """Shares of the classes: float32, (n, classes).

    Args:
        targets: the samples' classes, int64, (n,).
        partners: those of their partners.
        weights: of `targets`, (n,).
        classes: how many there are.
    """
    return mix(F.one_hot(targets, classes).float(), F.one_hot(partners, classes).float(), weights)
