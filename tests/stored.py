"""Write files of trained models without training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from trainer.base.tensor_files import write_tensors
from trainer.network import creation


def write_model(
    path: Path,
    name: str = "lab_cnn",
    arguments: dict[str, Any] | None = None,
    *,
    channels: int = 1,
    image_size: tuple[int, int] = (12, 12),
    change: Callable[[dict[str, Any]], object] = lambda metadata: None,
) -> Path:
    """Write a model.safetensors of a network with its initial weights, for three classes.

    Args:
        change: changes the metadata after the weights are made.
    """
    torch.manual_seed(0)
    module = creation.create(
        name, arguments or {}, num_classes=3, in_channels=channels, image_size=image_size
    )
    metadata = {
        "name": name,
        "args": arguments or {},
        "num_classes": 3,
        "in_channels": channels,
        "image_size": list(image_size),
        "class_names": ["ant", "bee, or wasp", "Käfer"],
        "mean": [[[73.0]]],
        "deviation": [[[90.0]]],
        "test_augment": "none",
    }
    change(metadata)
    write_tensors(path, module.state_dict(), {"model": json.dumps(metadata)})
    return path
