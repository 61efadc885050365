"""Warn where a fine-tuning has few steps to learn by, as of very few images."""

from __future__ import annotations

from trainer.config.schema import RunConfig

FEWEST_STEPS = 40
"""of a whole run"""


def find_warnings(config: RunConfig, images: int) -> tuple[str, ...]:
    """Return a warning if a run that starts from weights has few steps in all.

    Args:
        images: to train on.
    """
    train = config.train
    steps_per_epoch = -(-images // train.batch_size)
    steps = train.epochs * steps_per_epoch
    if config.model.weights is None or steps >= FEWEST_STEPS:
        return ()
    epochs = -(-FEWEST_STEPS // steps_per_epoch)
    return (
        f"train.epochs: {train.epochs} of {images:,} images in batches of {train.batch_size} are "
        f"{steps} steps, few to learn by; --train.epochs {epochs} makes "
        f"{epochs * steps_per_epoch}",
    )
