"""Make torchvision's wheel importable beside a CPU build of torch.

The wheels of torchvision on the package index are built for CUDA. With a CPU build of torch
their operators are missing, and the import fails; timm uses none of them, so their schemas
are enough. They are defined here and not in the product, which would hide the fault from users.
"""

from __future__ import annotations

import sys

import torch


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
