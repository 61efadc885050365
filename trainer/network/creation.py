"""Create a network by its name: Lockstep's, timm's, or one of the user's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

import models
from models import timm_models
from trainer.base import user_code_errors
from trainer.base.errors import UserError
from trainer.config import plugins
from trainer.config.schema import ModelConfig


def create(name: str, arguments: Mapping[str, Any], **data: Any) -> nn.Module:
    """Build a network with random weights drawn from torch's generator.

    Args:
        data: num_classes, in_channels and image_size, as `models.create` takes them.

    Raises:
        ValueError: the name or an argument is wrong; the message says what would be right.
        UserError: the file that the name gives is missing, fails, or does not have such a network.
    """
    network = None
    if plugins.is_user_defined("model", name):
        network = _check(name, plugins.find("model", name).member)
        user_code_errors.note_network(name)
    model = models.create(name, arguments, **data, network=network)
    if name.startswith(timm_models.PREFIX):
        user_code_errors.note_file(timm_models.folder())
        user_code_errors.note_network(name)
    return model


def check(model: ModelConfig) -> None:
    """Find out what is wrong with a network's name and arguments before there are any data.

    Raises:
        UserError: names the keys, and says what would be right.
    """
    name, network = model.name, None
    try:
        if plugins.is_user_defined("model", name):
            network = _check(name, plugins.find("model", name).member)
        models.check(name, model.args, network=network)
    except ValueError as error:
        raise refused(model, error) from error


def refused(model: ModelConfig, error: ValueError, hint: str = "") -> UserError:
    """Return the message that a network cannot be created; `hint`: what else to try."""
    clear = " (--model.args '{}' clears those of the recipe)" if model.args else ""
    return UserError(f"model.name, model.args: {error}{clear}{hint}")


def _check(name: str, network: Callable[..., Any]) -> Callable[..., Any]:
    if isinstance(network, nn.Module):
        raise ValueError(
            f"{name} is a network already, whose weights no seed has decided; name its class, or a "
            f"function that makes and returns it."
        )
    if isinstance(network, type) and not issubclass(network, nn.Module):
        raise ValueError(f"{name}: {network.__name__} is not a subclass of torch.nn.Module.")
    return network
