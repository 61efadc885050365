"""Divide the trained parameters into groups with a rate and a decay of their own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from models.heads import find_head
from trainer.base import portable_math
from trainer.base.errors import UserError
from trainer.base.terminal import format_table
from trainer.config import plugins
from trainer.config.schema import OptimizerConfig
from trainer.network.parameter_names import matcher

GROUPS = "optimizer.groups"
LAYER_DECAY = "optimizer.layer_decay"


def parameter_groups(
    config: OptimizerConfig, model: nn.Module, num_classes: int
) -> list[dict[str, Any]]:
    """Return the groups of an optimiser over the parameters that require a gradient.

    Each has `params` and `weight_decay`, `lr_factor` where the rate is multiplied by another number
    than 1, and `muon` where Muon updates it. Parameters of fewer than two dimensions (biases,
    norms) are not decayed. Equal groups are one, as each is a call of the kernels.

    Args:
        num_classes: by which the head is known.

    Raises:
        UserError: a pattern of `optimizer.groups` means no parameter, or two mean the same one; or
            the network has no head for `optimizer.layer_decay`.
    """
    named = {name: one for name, one in model.named_parameters() if one.requires_grad}
    factors = _layer_factors(config.layer_decay, model, num_classes)
    own = _own_settings(config, model, num_classes)
    matrices = [name for name, parameter in named.items() if parameter.ndim >= 2]
    settings: dict[str, dict[str, Any]] = {}
    for name, parameter in named.items():
        chosen = own.get(name, {})
        decay = chosen.get("weight_decay", config.weight_decay) if parameter.ndim >= 2 else 0.0
        settings[name] = {"weight_decay": decay}
        factor = factors.get(name, 1.0) * chosen.get("lr_factor", 1.0)
        if factor != 1.0:
            settings[name]["lr_factor"] = factor
        # The last matrix is the classifier, which Muon's author leaves to another optimiser.
        if config.name == "muon" and name in matrices[:-1]:
            settings[name]["muon"] = True
    # Where nothing is decayed all stay in the network's order; a checkpoint counts them in it.
    users = plugins.is_user_defined("optimizer", config.name)
    apart = users or config.name == "muon" or any(one["weight_decay"] for one in settings.values())
    names = [*matrices, *(name for name in named if name not in matrices)] if apart else list(named)
    groups: dict[tuple[object, ...], dict[str, Any]] = {}
    for name in names:
        key = (users and named[name].ndim >= 2, *sorted(settings[name].items()))
        groups.setdefault(key, {"params": [], **settings[name]})["params"].append(named[name])
    return list(groups.values())


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group its rate where that of factor 1 is `lr`."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_factor", 1.0)


def describe(optimizer: torch.optim.Optimizer, model: nn.Module) -> list[str]:
    """Return the groups as lines of a table."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    rows = [("rate", "decay", "tensors", "parameters", "from", "to")]
    for group in optimizer.param_groups:
        own: Sequence[nn.Parameter] = group["params"]
        rows.append(
            (
                f"x {group.get('lr_factor', 1.0):.3g}",
                f"{group['weight_decay']:g}",
                f"{len(own):,}",
                f"{sum(parameter.numel() for parameter in own):,}",
                names[id(own[0])],
                names[id(own[-1])],
            )
        )
    return list(format_table(rows, left=(4, 5)))


def _own_settings(
    config: OptimizerConfig, model: nn.Module, num_classes: int
) -> dict[str, dict[str, float]]:
    """Return what `optimizer.groups` says of each parameter that it means, by its name."""
    meant: dict[str, str] = {}
    for pattern in config.groups:
        matches = matcher(model, pattern, num_classes, GROUPS)
        for name, _ in model.named_parameters():
            if not matches(name):
                continue
            if name in meant:
                raise UserError(
                    f"{GROUPS}: {meant[name]!r} and {pattern!r} both mean {name}; a parameter may "
                    f"be in one group only"
                )
            meant[name] = pattern
    return {name: config.groups[pattern] for name, pattern in meant.items()}


# ---------------------------------------------------------------------- layers


def _layer_factors(
    layer_decay: float | None, model: nn.Module, num_classes: int
) -> dict[str, float]:
    """Return the factor of each parameter's rate: 1 for the head, less for each layer before."""
    if layer_decay is None:
        return {}
    layers = layers_of(model, num_classes)
    last = max(layers.values())
    return {name: portable_math.power(layer_decay, last - layer) for name, layer in layers.items()}


def layers_of(model: nn.Module, num_classes: int) -> dict[str, int]:
    """Return the layer of each parameter by its name, counted from 0; the head is the last.

    A network of timm's knows its layers. Of any other, stages (Sequential and ModuleList) are taken
    apart into their blocks, and a part with vectors only, such as a norm, belongs to the layer
    before it.

    Raises:
        UserError: the head cannot be told from the rest.
    """
    group_matcher: Any = getattr(model, "group_matcher", None)
    if group_matcher is not None:
        from timm.models import group_parameters

        found: dict[str, int] = group_parameters(model, group_matcher(coarse=False), reverse=True)
        return found
    try:
        head = find_head(model, num_classes)
    except ValueError as error:
        raise UserError(
            f"{LAYER_DECAY}: the network's layers have no order that is known: {error}; give the "
            f"rates by {GROUPS} instead"
        ) from error
    layers: dict[str, int] = {}
    last = -1
    for block in _blocks(model, ""):
        body = {name: one for name, one in block if not name.startswith(f"{head}.")}
        if body and (last < 0 or any(parameter.ndim >= 2 for parameter in body.values())):
            last += 1
        layers |= {name: last if name in body else -1 for name, _ in block}
    return {name: last + 1 if layer < 0 else layer for name, layer in layers.items()}


def _blocks(module: nn.Module, path: str) -> Iterator[list[tuple[str, nn.Parameter]]]:
    """Yield the parameters of each block in their order; stages are taken apart."""
    if own := list(module.named_parameters(path, recurse=False)):
        yield own
    parts = [(name, part) for name, part in module.named_children() if list(part.parameters())]
    for name, part in parts:
        inner = f"{path}.{name}" if path else name
        is_wrapped = not path and not own and len(parts) == 1
        if isinstance(part, (nn.Sequential, nn.ModuleList)) or is_wrapped:
            yield from _blocks(part, inner)
        else:
            yield list(part.named_parameters(inner))
