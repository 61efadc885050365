"""Networks of timm (PyTorch Image Models), an optional package, from `timm:NAME`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from models.registry import suggestion

PREFIX = "timm:"
WEIGHTS_ARGUMENTS = ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path")
"""say where timm takes weights from"""


def create(
    name: str, arguments: Mapping[str, Any], num_classes: int, in_channels: int
) -> nn.Module:
    """Call `timm.create_model`; networks of one image size take it as the argument img_size.

    Raises:
        ValueError: timm cannot be imported, has no such network, or refuses the arguments.
    """
    check(name, arguments)
    data = {"num_classes": num_classes, "in_chans": in_channels}
    try:
        model = _import(name).create_model(name.removeprefix(PREFIX), **data, **arguments)
    except Exception as error:  # whatever the architecture, a download or a weights file raises
        message = f"{type(error).__name__}: {error}"
        raise ValueError(f"{name} cannot be built with {dict(arguments)}: {message}") from error
    assert isinstance(model, nn.Module)
    return model


def check(name: str, arguments: Mapping[str, Any]) -> None:
    """Find out what is wrong without building the network; errors as those of `create`."""
    timm = _import(name)
    timm_name = name.removeprefix(PREFIX)
    # With a colon it is a place where timm looks for weights and configuration, such as hf-hub:.
    if ":" not in timm_name and not timm.is_model(timm_name):
        raise ValueError(
            f"timm {timm.__version__} has no model {timm_name!r}"
            f"{suggestion(timm_name, timm.list_models())} "
            f"timm.list_models() lists all of them."
        )
    for key in ("num_classes", "in_chans"):
        if key in arguments:
            raise ValueError(f"{name} gets {key} from the data: leave it out.")


def pretrained_settings(name: str) -> Mapping[str, Any]:
    """Return what timm knows of the weights that it has for a network: its `pretrained_cfg`.

    Raises:
        ValueError: timm cannot be imported, or has no such network.
    """
    timm = _import(name)
    timm_name = name.removeprefix(PREFIX)
    try:
        settings = timm.get_pretrained_cfg(timm_name, allow_unregistered=False)
    except RuntimeError as error:  # no such network, or no weights by that name after the dot
        raise ValueError(
            f"timm {timm.__version__} knows of no weights for {timm_name!r}"
            f"{suggestion(timm_name, timm.list_pretrained())}"
        ) from error
    found: Mapping[str, Any] = settings.to_dict()
    return found


def folder() -> str:
    """Return the folder of timm's code, once it has been imported."""
    return str(Path(str(sys.modules["timm"].__file__)).parent)


def _import(name: str) -> ModuleType:
    try:
        import timm
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{name} needs a package that is not installed, {error.name}: "
            f"run `pip install timm`, which brings torchvision."
        ) from error
    except Exception as error:  # a torchvision of another build of torch raises a RuntimeError
        raise ValueError(
            f"{name} needs timm, whose import fails: {type(error).__name__}: {error}. timm needs "
            f"a torchvision made for the installed torch {torch.__version__}: install torch and "
            f"torchvision together and of one kind (both for the CPU or both for one version of "
            f"CUDA), then run `pip install timm`."
        ) from error
    module: ModuleType = timm
    return module
