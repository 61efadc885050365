"""Read the default recipe for the benchmarks of single steps."""

from __future__ import annotations

from typing import Any

from apart import REPOSITORY

from trainer.config import command_line

_CONFIG = command_line.parse(["--config", str(REPOSITORY / "configs" / "fashion_mnist.yaml")])

DEFAULT_RECIPE: dict[str, Any] = {
    "model": _CONFIG.model.name,
    "model_args": _CONFIG.model.args,
    "optimizer": _CONFIG.optimizer.name,
    "batch_size": _CONFIG.train.batch_size,
    "microbatches": _CONFIG.train.microbatches,
    "threads": 1,
}
"""a case of step_times.py and scaling_profile.py, but for the number of steps"""
