"""The trainers that throughput.py compares, a module each, for a process each.

`python -m contenders NAME TASK DESCRIPTOR` runs one; throughput.py starts them. What all share:
the model, the images, the batch size, Adam at a constant 1e-3 and the cores; no evaluation, no
checkpoints, no progress bar, no log files. If a library's documentation leaves a choice, the
faster one is taken.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """A contender as the page names it."""

    title: str
    package: str
    """the distribution whose version counts; of ours, which has the page's commit, torch"""
    module: str
    """what is imported"""


OURS, ONE_PROCESS = "lockstep_ranks", "lockstep"
"""our default form, a process of a thread for each core, and one process of all threads"""
BOUNDS = {OURS: "bound_ranks", ONE_PROCESS: "bound"}
"""what compute costs in each of these forms"""
RANKS = {OURS, BOUNDS[OURS]}
"""those that start a process of a thread for each core"""

CONTENDERS = {
    OURS: Entry("**Lockstep**", "torch", "trainer"),
    ONE_PROCESS: Entry("**Lockstep**, one process", "torch", "trainer"),
    BOUNDS[OURS]: Entry("compute bound", "torch", "torch"),
    BOUNDS[ONE_PROCESS]: Entry("compute bound, one process", "torch", "torch"),
    "lab": Entry("the lab's loop", "torch", "torch"),
    "accelerate_example": Entry("Accelerate, `complete_cv_example`", "accelerate", "accelerate"),
    "lightning": Entry("PyTorch Lightning", "pytorch-lightning", "pytorch_lightning"),
    "hf_trainer": Entry("HF Trainer", "transformers", "transformers"),
    "accelerated": Entry("pytorch-accelerated", "pytorch-accelerated", "pytorch_accelerated"),
    "skorch_net": Entry("skorch", "skorch", "skorch"),
    "timm_loop": Entry("timm, `train.py`", "timm", "timm"),
}
PEERS = [name for name in CONTENDERS if name not in BOUNDS and name not in BOUNDS.values()]
