"""The networks: a registry of families, plug-ins from a file, and timm's.

Every network takes float images of shape (n, channels, height, width) and returns one logit for
each class: (n, num_classes). Nothing here knows of the trainer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

# Importing a family registers it.
from models import alexnet, lab, lenet, plugin, quicknet, resnet, timm_models, vgg  # noqa: F401
from models.construct import construct
from models.output import check_output
from models.plugin import source_sha256
from models.registry import find, names, register

__all__ = ["check_output", "create", "names", "register", "source_sha256"]


def create(
    name: str,
    arguments: Mapping[str, Any],
    *,
    num_classes: int,
    in_channels: int,
    image_size: tuple[int, int],
) -> nn.Module:
    """Build a network with random weights drawn from torch's generator.

    Args:
        name: a registered name, `path/to/file.py:name` of a class or a function, or
            `timm:NAME`.
        arguments: keyword arguments of the constructor.
        num_classes: how many logits; passed where the constructor takes it, as the next two are.
        in_channels: of an image.
        image_size: height and width in pixels.

    Raises:
        ValueError: the name or an argument is wrong; the message says what would be right.
    """
    if name.startswith(timm_models.PREFIX):
        return timm_models.create(name, arguments, num_classes, in_channels)
    is_plugin = plugin.is_plugin(name)
    constructor = plugin.load(name) if is_plugin else find(name)
    data = {"num_classes": num_classes, "in_channels": in_channels, "image_size": image_size}
    return construct(name, constructor, arguments, data)
