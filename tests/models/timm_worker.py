"""Build a timm network in a separate process and print what happened as JSON."""

from __future__ import annotations

import json
import sys
from typing import Any

import torch

import models
from benchmarks.torchvision_operators import define_missing_operators
from models.heads import find_head


def attempt(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Build, check and run a network: its logits' shape, its size and head, or the message."""
    data: dict[str, Any] = {"num_classes": 7, "in_channels": 1, "image_size": (28, 28)}
    try:
        network = models.create(name, arguments, **data)
        models.check_output(network, **data)
        head = find_head(network, data["num_classes"])
    except ValueError as error:
        return {"message": str(error)}
    logits = network(torch.rand(3, 1, 28, 28))
    return {
        "shape": list(logits.shape),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "head": head,
    }


if __name__ == "__main__":
    library = define_missing_operators()
    print(json.dumps([attempt(name, arguments) for name, arguments in json.loads(sys.argv[1])]))
