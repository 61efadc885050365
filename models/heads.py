"""Find the head of a network: the layer that turns features into logits."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn


def find_head(model: nn.Module, num_classes: int) -> str:
    """Return the dotted name of the module that turns features into logits.

    timm says which it is. In other networks it is the last layer, in the order in which the
    constructor makes them: linear or a 1x1 convolution, with an output for each class.

    Raises:
        ValueError: there is no such layer; the message says what is there instead.
    """
    stated = _stated_by_timm(model)
    if stated is not None:
        return _checked(model, stated, num_classes)
    last = next(reversed([name for name, _ in model.named_parameters(remove_duplicate=False)]), "")
    owners = [
        name
        for name, module in model.named_modules(remove_duplicate=False)
        if last.startswith(f"{name}.") and _outputs(module) is not None
    ]
    if not owners:
        raise ValueError(
            f"its last parameter, {last or 'of which it has none'}, is not of a linear layer or a "
            f"1x1 convolution, so it is not known which part turns features into logits."
        )
    return _checked(model, owners[0], num_classes)


def _checked(model: nn.Module, name: str, num_classes: int) -> str:
    head = model.get_submodule(name)
    outputs = _outputs(head)
    if outputs == num_classes:
        return name
    found = type(head).__name__ + (f" with {outputs:,} outputs" if outputs is not None else "")
    raise ValueError(
        f"its last layer, {name}, is a {found}, where a linear layer or a 1x1 convolution with "
        f"{num_classes:,} outputs, one for each class, is expected."
    )


def _outputs(module: nn.Module) -> int | None:
    """Return the outputs of a layer that may be a head; None for any other module."""
    if isinstance(module, nn.Linear):
        return module.out_features
    if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.groups == 1:
        return module.out_channels
    return None


def _stated_by_timm(model: nn.Module) -> str | None:
    """Return what the configuration of a network of timm names as its classifier, if it has one.

    Raises:
        ValueError: it names several, as that of a network with two heads.
    """
    settings = getattr(model, "pretrained_cfg", None)
    name = settings.get("classifier") if isinstance(settings, Mapping) else None
    if isinstance(name, (tuple, list)):
        raise ValueError(f"it has several layers that give logits, {', '.join(map(str, name))}.")
    return name if isinstance(name, str) and name in dict(model.named_modules()) else None
