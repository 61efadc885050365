"""The networks: a registry of families, timm's, and any other class or function that makes one.

Every network takes float images of shape (n, channels, height, width) and returns one logit for
each class: (n, num_classes). Nothing here knows of the trainer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

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
from models.construct import check_arguments, construct
from models.output import check_output, kind_of_output
from models.registry import find, names

__all__ = ["WithoutDraws", "check", "check_output", "create", "kind_of_output", "names"]


_INIT = nn.init.__name__
_LIKELY_DATA = {"num_classes": 10, "in_channels": 3, "image_size": (1024, 1024)}
"""which any network of the registry can be built for"""


def check(
    name: str, arguments: Mapping[str, Any], *, network: Callable[..., Any] | None = None
) -> None:
    """Find out what is wrong with a name or with arguments, as far as it shows without the data.

    Arguments as those of `create`. The values of arguments are looked at only of networks in the
    registry; what a user's code does with them shows when it is called.

    Raises:
        ValueError: as `create`.
    """
    if network is None and _is_of_timm(name):
        timm_models.check(name, arguments)
    elif network is not None:
        check_arguments(name, network, arguments, _LIKELY_DATA)
    else:
        with WithoutDraws():
            construct(name, find(name), arguments, _LIKELY_DATA)


class WithoutDraws(TorchFunctionMode):
    """Leaves out random numbers, which take most of the time of a construction.

    On the device `meta` torch would import its compiler for them, which takes seconds.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = kwargs or {}
        if (
            func in (torch.Tensor.uniform_, torch.Tensor.normal_)
            or getattr(func, "__module__", "") == _INIT
        ):
            return named.get("tensor", *args[:1])
        return func(*args, **named)


def _is_of_timm(name: str) -> bool:
    return name.startswith(timm_models.PREFIX)


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
    if network is None and _is_of_timm(name):
        model = timm_models.create(name, arguments, num_classes, in_channels)
    else:
        data = {"num_classes": num_classes, "in_channels": in_channels, "image_size": image_size}
        model = construct(name, network or find(name), arguments, data)
    for module in model.modules():
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
            module.sparse = False
    return model
