"""The networks: a registry of families, plug-ins from a file, and timm's.

Every network takes float images of shape (n, channels, height, width) and returns one logit for
each class: (n, num_classes). Nothing here knows of the trainer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

# Importing a family registers it.
from models import (  # noqa: F401
    alexnet,
    lab,
    lenet,
    plugin,
    quicknet,
    resnet,
    timm_models,
    user_files,
    vgg,
)
from models.construct import construct, file_of
from models.output import check_output, kind_of_output
from models.plugin import source_sha256
from models.registry import find, is_own, names, register

__all__ = [
    "check_output",
    "create",
    "foreign_names",
    "is_foreign",
    "kind_of_output",
    "names",
    "register",
    "source_sha256",
]

_foreign: dict[str, str | None] = {}
"""networks that were made here of code that is not ours, and the files of registered ones"""


def create(
    name: str,
    arguments: Mapping[str, Any],
    *,
    num_classes: int,
    in_channels: int,
    image_size: tuple[int, int],
) -> nn.Module:
    """Build a network with random weights drawn from torch's generator.

    Its embeddings have dense gradients, whatever they were made for.

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
        _foreign[name] = None
        model = timm_models.create(name, arguments, num_classes, in_channels)
    else:
        constructor = plugin.load(name) if plugin.is_plugin(name) else find(name)
        if is_own(name) or plugin.is_plugin(name):
            _foreign[name] = file_of(constructor)
        data = {"num_classes": num_classes, "in_channels": in_channels, "image_size": image_size}
        model = construct(name, constructor, arguments, data)
    for module in model.modules():
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
            module.sparse = False
    return model


def foreign_names() -> list[str]:
    """The networks that were made in this process of code that is not Lockstep's."""
    return list(_foreign)


def is_foreign(path: str) -> bool:
    """Whether a file, as a traceback names it, holds code of such networks or of other plug-ins."""
    of_timm = any(name.startswith(timm_models.PREFIX) for name in _foreign)
    return (
        user_files.is_of_user(path)
        or path in _foreign.values()
        or (of_timm and timm_models.holds(path))
    )
