"""Build a timm network in a separate process and print what happened as JSON.

The wheels of torchvision on the package index are built for CUDA. With a CPU build of torch
their operators are missing, and the import fails; timm uses none of them, so their schemas
are enough. They are defined here and not in the product, which would hide the fault from users.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch

import models
from models.heads import find_head


def define_missing_operators() -> torch.library.Library | None:
    """The schemas of torchvision's operators where its own are missing; keep what it returns."""
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        for operator in ("nms", "qnms"):
            schema = f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            library.define(schema)  # type: ignore[no-untyped-call]
        return library
    return None


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
