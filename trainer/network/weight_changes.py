"""Change the weights of one layer so that they suit a network that they were not made for."""

from __future__ import annotations

import math

import torch

_LARGEST_OF_NEW_HEAD = 2.0
"""times one over the root of its inputs, torch's own bound for a linear layer"""


def quieten(weight: torch.Tensor) -> torch.Tensor:
    """Halve the weights of a new head until none is larger than twice the bound of torch's own.

    On features that ImageNet has taught large ones give loud answers, all wrong, and the first
    epoch is spent on unlearning them: timm's EfficientNets and MobileNets draw up to one over the
    root of the classes. A power of two has no rounding, so all processors have the same bits.

    Args:
        weight: (classes, inputs, ...), as the network was built.
    """
    limit = _LARGEST_OF_NEW_HEAD / math.sqrt(weight[0].numel())
    largest = weight.abs().max().item()
    if not limit < largest < math.inf:
        return weight
    return weight * 0.5 ** math.frexp(largest / limit)[1]


def adapt_channels(weight: torch.Tensor, channels: int) -> torch.Tensor:
    """Make the filters of a first convolution for images of other channels.

    They are summed for one channel, and for more they are repeated and scaled, so that the answer
    to a grey image stays what it was: `adapt_input_conv` of timm (Wightman).

    Args:
        weight: (outputs, channels, height, width).

    Returns:
        float32, for this many channels.
    """
    theirs, weight = weight.shape[1], weight.float()
    if channels == 1:
        return weight.sum(1, keepdim=True)
    repeated = weight.repeat(1, -(-channels // theirs), 1, 1)[:, :channels]
    return repeated * (theirs / channels)
