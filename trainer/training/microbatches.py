"""Divide a rank's samples of a step into its micro-batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch


def divide(
    own: range,
    images: torch.Tensor,
    targets: torch.Tensor,
    sizes: Sequence[int],
    weights: torch.Tensor | None,
) -> Iterator[tuple[int, torch.Tensor, torch.Tensor, torch.Tensor | None]]:
    """Return an iterator over a rank's micro-batches: index, images, targets and weights.

    Args:
        own: the indices of the rank's micro-batches.
        images: the rank's samples: (n, channels, height, width).
        targets: (n,) or (n, classes).
        sizes: samples in each micro-batch of the step, over all processes.
        weights: of the samples, (n,); None: all alike.
    """
    own_sizes = [sizes[index] for index in own]
    by_piece: Sequence[torch.Tensor | None] = [None] * len(own_sizes)
    if weights is not None:
        by_piece = torch.split(weights, own_sizes)
    pieces = torch.split(images, own_sizes), torch.split(targets, own_sizes)
    return zip(own, *pieces, by_piece, strict=True)
