"""What the machine is, and which packages it has."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from importlib.util import find_spec

import torch

from gpu_cases import Save, Task

PACKAGES = {
    "accelerate": "accelerate",
    "docstring-parser": "docstring_parser",
    "hypothesis": "hypothesis",
    "jsonargparse": "jsonargparse",
    "numpy": "numpy",
    "pooch": "pooch",
    "pytest": "pytest",
    "pytest-timeout": "pytest_timeout",
    "pytorch-lightning": "pytorch_lightning",
    "scikit-learn": "sklearn",
    "timm": "timm",
    "torchvision": "torchvision",
    "triton": "triton",
}
"""the distributions that programs here import, by their modules"""


def run(task: Task, save: Save) -> None:
    """Describe it."""
    there = [name for name, module in PACKAGES.items() if find_spec(module)]
    save(
        {
            "device": task.device,
            "small": task.small,
            "gpu": None,
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "packages": {name: importlib.metadata.version(name) for name in there},
            "absent": [name for name in PACKAGES if name not in there],
        }
    )
    if task.device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        save(
            {
                "gpu": properties.name,
                "gpus": torch.cuda.device_count(),
                "memory_gb": properties.total_memory / 1e9,
                "cuda": torch.version.cuda,
                "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
            }
        )
