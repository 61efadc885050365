"""Find the blocks of a network: parts that are computed one after the other, each as a whole."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

_MANY_LAYERS = 4
"""with weights, in a sequence that is worth dividing"""


@dataclass(frozen=True, eq=False)
class Chain:
    """A module whose pass is that of its pieces, one after the other.

    Args:
        module: its `forward` does what the pieces do.
        pieces: the first takes the module's arguments, each other the result of the one before.
        parts: the modules of each piece.
    """

    module: nn.Module
    pieces: tuple[Callable[..., Any], ...]
    parts: tuple[tuple[nn.Module, ...], ...]


def find_blocks(network: nn.Module) -> list[Chain]:
    """Return the blocks of a network, none of them within another; empty: it shows none.

    Blocks are known by how a network is built, not by its code. In an `nn.Sequential` a module that
    has several layers with weights is a block, as of a residual net. Single layers are put
    together: n of them make about the square root of n blocks, which begin with a layer with
    weights. In an `nn.ModuleList` each module of several layers is a block, however the network
    calls it.
    """
    found: list[Chain] = []
    _find(network, found)
    return found


def as_one(network: nn.Module) -> Chain:
    """Return a whole network as its only block."""
    return Chain(network, (own_forward(network),), ((network,),))


def own_forward(module: nn.Module) -> Callable[..., Any]:
    """Return a module's `forward`, without the precision that Accelerate has wrapped around it."""
    found: Callable[..., Any] = vars(module).get("_original_forward", module.forward)
    return found


def _find(module: nn.Module, found: list[Chain]) -> None:
    if isinstance(module, torch.jit.ScriptModule):  # whose `forward` cannot be exchanged
        return
    children = list(dict.fromkeys(module.children()))
    divisible = [child for child in children if _divides(child)]
    if _is_sequential(module) and not divisible:
        if sum(map(_weighted, children)) > 1:
            groups = _group(list(module))  # type: ignore[call-overload]
            found.append(Chain(module, tuple(map(_in_turn, groups)), tuple(map(tuple, groups))))
        return
    is_list = _is_sequential(module) or isinstance(module, nn.ModuleList)
    for child in children:
        if is_list and child not in divisible and _weighted(child) > 1:
            found.append(as_one(child))
        else:
            _find(child, found)


def _is_sequential(module: nn.Module) -> bool:
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def _weighted(module: nn.Module) -> int:
    """Return how many layers of a module have weights: matrices or filters."""
    return sum(
        any(parameter.ndim > 1 for parameter in part.parameters(recurse=False))
        for part in module.modules()
    )


def _divides(module: nn.Module) -> bool:
    """Return whether there is a list of at least two blocks, or of many layers, in a module."""
    for part in module.modules():
        counts = [_weighted(child) for child in part.children()]
        if _is_sequential(part) or isinstance(part, nn.ModuleList):
            if sum(count > 1 for count in counts) > 1:
                return True
            if _is_sequential(part) and sum(counts) >= _MANY_LAYERS:
                return True
    return False


def _group(layers: list[nn.Module]) -> list[list[nn.Module]]:
    """Put the layers of a sequence into blocks."""
    single = sum(_weighted(layer) == 1 for layer in layers)
    most = max(2, round(math.sqrt(single)))
    groups: list[list[nn.Module]] = []
    held = 0
    for layer in layers:
        added = min(_weighted(layer), most)
        if not groups or (added and held and held + added > most):
            groups.append([])
            held = 0
        groups[-1].append(layer)
        held += added
    return groups


def _in_turn(layers: list[nn.Module]) -> Callable[[Any], Any]:
    def run(features: Any) -> Any:
        for layer in layers:
            features = layer(features)
        return features

    return run
