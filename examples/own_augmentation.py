"""A random transform of your own: brightness and contrast.

python train.py --config configs/digits.yaml --output_dir runs/own_augmentation \
    --data.augment shift+examples/own_augmentation.py:light
"""

from __future__ import annotations

import torch

from trainer.api import register_augmentation


@register_augmentation("light", numbers=2)
def light(images: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """Make each of the uint8 images (n, channels, height, width) a little brighter or darker.

    All randomness comes from `numbers`, (n, 2) in [0, 1): they depend on the sample and the epoch,
    so that a run is the same on any number of processes.
    """
    contrast = 0.75 + 0.5 * numbers[:, 0, None, None, None]
    brightness = 64 * numbers[:, 1, None, None, None] - 32
    return (images * contrast + brightness).round().clamp(0, 255).to(torch.uint8)
