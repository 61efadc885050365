"""A data set of your own: a function that returns arrays.

python train.py --config configs/digits.yaml --output_dir runs/own_data \
    --data.name examples/own_data.py:stripes
"""

from __future__ import annotations

import numpy as np

from trainer.api import OwnImages, register_dataset


@register_dataset("stripes")
def stripes(root: str | None) -> OwnImages:
    """Return noisy stripes: level, upright, or neither. They are generated, so `root` is unused.

    It runs in every process and at every start, and must return the same each time.
    """
    generator = np.random.default_rng(0)
    labels = np.arange(720) % 3
    images = generator.integers(0, 128, (720, 8, 8))
    images[labels == 0, ::2] += 100
    images[labels == 1, :, ::2] += 100
    return OwnImages(images[:600], labels[:600], images[600:], labels[600:],
                     ["level", "upright", "neither"])  # fmt: skip
