"""Run one contender: python -m contenders NAME TASK DESCRIPTOR.

TASK is a JSON object, DESCRIPTOR the number of an open socket to throughput.py.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import sys

import torch
from torchvision_operators import define_missing_operators
from turns import Turns

from contenders import BOUNDS, CONTENDERS
from contenders.task import Task


def main() -> None:
    """Train, an epoch each turn."""
    name, task_text, descriptor = sys.argv[1:]
    task = Task(**json.loads(task_text))
    version = importlib.metadata.version(CONTENDERS[name].package)
    torch.set_num_threads(task.threads)
    # Before libraries look whether torchvision can be imported; it would go with its reference.
    library = define_missing_operators() if task.image_size and name not in BOUNDS else None
    contender = importlib.import_module(f"contenders.{name}")
    contender.train(task, Turns(int(descriptor), version))
    del library


if __name__ == "__main__":
    main()
