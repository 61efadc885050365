"""The trackers that a configuration asks for: those of Accelerate, and your own."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from trainer.base.errors import UserError
from trainer.config import command_line, plugins
from trainer.config.schema import RunConfig, flatten
from trainer.run.tracking import accelerate_trackers, weights_and_biases
from trainer.run.tracking.accelerate_trackers import TensorBoardTracker
from trainer.run.tracking.tracker import GuardedTracker, Tracker


def check(config: RunConfig) -> None:
    """Check that the trackers are there, before anything is written.

    Raises:
        UserError: a package is missing, or the plug-in is.
    """
    for name in config.tracking.trackers:
        if not accelerate_trackers.is_installed(name):
            raise UserError(
                f"tracking.trackers: {name}: its package is not installed (pip install {name})"
            )
    if config.tracking.plugin is not None:
        plugins.find("tracker", config.tracking.plugin)


def start(config: RunConfig, folder: Path, run_id: str, step: int) -> Iterator[GuardedTracker]:
    """Follow a run from its start, or go on, on rank 0; yield each tracker.

    Args:
        run_id: the run's at trackers that accept one, from `weights_and_biases.run_id`.
        step: after which it goes on; 0 at its start.
    """
    flat, keys = flatten(config), config.tracking
    wandb = weights_and_biases.start(flat, folder, keys.wandb, keys.project, run_id, step)
    if wandb is not None:
        yield wandb
    if keys.tensorboard:
        text = command_line.to_yaml(config)
        create = partial(TensorBoardTracker, folder, text, step)
        yield GuardedTracker("TensorBoard", create)
    for name in keys.trackers:
        begin = partial(accelerate_trackers.start, name, flat, keys.project, folder, run_id, step)
        yield GuardedTracker(f"tracking.trackers {name}", begin)
    if keys.plugin is not None:
        create_own = partial(_create_own, keys.plugin, copy.deepcopy(flat), folder, step)
        yield GuardedTracker(f"tracking.plugin {keys.plugin}", create_own)


def _create_own(name: str, config: dict[str, Any], folder: Path, step: int) -> Tracker:
    # Its file may have been edited since `check`, and runs again then.
    found: Tracker = plugins.find("tracker", name).member(config, folder, step)
    return found
