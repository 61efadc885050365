"""Files of trained models, made without a training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import models
from trainer.base.tensor_files import write_tensors


def write_model(
    path: Path,
    name: str = "lab_cnn",
    arguments: dict[str, Any] | None = None,
    *,
    channels: int = 1,
    image_size: tuple[int, int] = (12, 12),
    change: Callable[[dict[str, Any]], object] = lambda metadata: None,
) -> Path:
    """A model.safetensors of a network with its first weights, for three classes.

    Args:
        change: of the metadata, after the weights are made.
    """
    torch.manual_seed(0)
    module = models.create(
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
