"""Run one loader: python -m photo_loaders NAME TASK DESCRIPTOR.

TASK is a JSON object, DESCRIPTOR the number of an open socket to photos.py.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
from collections.abc import Iterable
from typing import Any

import torch
from turns import Turns

from photo_loaders import LOADERS, OURS, Task


def make_loader(name: str, task: Task) -> Iterable[Any]:
    """Return what yields the batches of an epoch each time that it is iterated over."""
    if name in OURS:
        from photo_loaders import lockstep

        return lockstep.batches(task)
    from photo_loaders import others

    return {"torchvision": others.torchvision_batches, "timm": others.timm_batches}[name](task)


def main() -> None:
    """Load, an epoch each turn."""
    name, text, descriptor = sys.argv[1:]
    task = Task(**json.loads(text))
    torch.set_num_threads(1)  # as `threads` is by default; each worker has one too
    turns = Turns(int(descriptor), importlib.metadata.version(LOADERS[name].package))
    loader = make_loader(name, task)
    for _ in range(task.epochs):
        with turns.epoch():
            for images, _ in loader:
                assert images.dtype == torch.float32
                assert images.shape[2:] == (task.image_size, task.image_size)


if __name__ == "__main__":
    main()
