"""What finetune.py compares, each training in a process of its own.

`python -m finetune_loops NAME TASK` runs one and prints a JSON object; finetune.py starts them. All
begin with the same ImageNet weights of EfficientNet-Lite0, see the same photographs at the same
size in bfloat16 on the same two cores, and are tested on the same pictures.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """What a training is given, as JSON."""

    root: str
    """folder with train/CLASS/*.jpg, and validation/ and test/ like it"""
    image_size: int
    batch_size: int
    epochs: int
    seed: int
    workers: int


@dataclass(frozen=True)
class Loop:
    """A training as the page names it."""

    title: str
    package: str
    """what has to be importable"""


OURS = "lockstep"
LOOPS = {
    OURS: Loop("**Lockstep, `configs/finetune.yaml`**", "trainer"),
    "plain": Loop("a plain loop, AdamW, a fifth of the rate for the body", "torchvision"),
    "fastai": Loop("fastai, `vision_learner(...).fine_tune`", "fastai"),
    "lightning": Loop(
        "PyTorch Lightning, `BackboneFinetuning` from the second epoch on", "pytorch_lightning"
    ),
    "timm": Loop("timm, `train.py`'s loader, AdamW, mixing and schedule", "timm"),
    "transformers": Loop("HF Trainer, as `run_image_classification`", "transformers"),
}
