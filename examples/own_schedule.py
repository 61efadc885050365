"""A schedule of your own: the learning rate of each step, as a factor of optimizer.lr.

python train.py --config configs/digits.yaml --output_dir runs/own_schedule \
    --schedule.name examples/own_schedule.py:stay_then_fall
"""

from __future__ import annotations

import math

from trainer.api import register_schedule


@register_schedule("stay_then_fall")
def stay_then_fall(step: int, total_steps: int, steps_per_epoch: int) -> float:
    """Stay at the top, then fall to zero along one minus a root in the last fifth.

    Haegele et al.: Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations, 2024.
    `step` is counted from 0 after the warm-up of schedule.warmup_epochs, up to `total_steps` - 1.
    The factor must depend on these arguments alone.
    """
    stay = int(0.8 * total_steps)
    if step < stay:
        return 1.0
    return 1.0 - math.sqrt((step - stay) / (total_steps - stay))
