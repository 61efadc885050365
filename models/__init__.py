"""The networks: a registry of families, timm's, and any other class or function that makes one.

Every network takes float images of shape (n, channels, height, width) and returns one logit for
each class: (n, num_classes). Nothing here knows of the trainer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

# Importing a family registers it.
from models import (  # noqa: F401
    airbench,
    alexnet,
    efficientnet_lite,
    lab,
    lenet,
    quicknet,
    resnet,
    resnet_d,
    timm_models,
    vgg,
)
from models.construct import construct
from models.output import check_output, kind_of_output
from models.registry import find, names

__all__ = ["check_output", "create", "kind_of_output", "names"]


def create(
    name: str,
    arguments: Mapping[str, Any],
    *,
    num_classes: int,
    in_channels: int,
    image_size: tuple[int, int],
    network: Callable[..., Any] | None = None,
) -> nn.Module:
    """Build a network with random weights drawn from torch's generator.

    Its embeddings have dense gradients, whatever they were made for.

    Args:
        name: a registered name, `timm:NAME`, or what messages call `network`.
        num_classes: the number of logits; passed if the constructor takes it, as the image's
            channels and size.
        image_size: height and width in pixels.
        network: a class, or a function that returns a network, instead of one known by its name.

    Raises:
        ValueError: the name or an argument is wrong; the message says what would be right.
    """
    if network is None and name.startswith(timm_models.PREFIX):
        model = timm_models.create(name, arguments, num_classes, in_channels)
    else:
        data = {"num_classes": num_classes, "in_channels": in_channels, "image_size": image_size}
        model = construct(name, network or find(name), arguments, data)
    for module in model.modules():
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
            module.sparse = False
    return model
