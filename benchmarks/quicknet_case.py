"""The net, the optimiser and the batch of most benchmarks of single steps."""

from __future__ import annotations

from typing import Any

QUICKNET: dict[str, Any] = {
    "model": "quicknet",
    "model_args": {"widths": [32, 64, 64, 128, 128]},
    "optimizer": "muon",
    "batch_size": 200,
    "microbatches": 4,
    "threads": 1,
}
"""a case of step_times.py and scaling_profile.py, but for the number of steps"""
