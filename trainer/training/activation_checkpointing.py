"""Keep only the inputs of a network's blocks for the backward pass, which computes the rest again.

Chen et al.: Training Deep Nets with Sublinear Memory Cost, 2016, arXiv 1604.06174. A block that is
computed again gives the same bits: it draws the same numbers, and its buffers have the values from
before the first time and afterwards those that the first time has left, so that batch norm counts
each batch once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from trainer.base import seeding
from trainer.base.errors import UserError
from trainer.network import blocks, model_state
from trainer.network.blocks import Chain
from trainer.network.model_state import Slot

KEY = "train.activation_checkpointing"

Forwards = dict[nn.Module, Callable[..., Any]]
"""what takes the place of modules' `forward` while a step's forward pass runs"""


def find_blocks(network: nn.Module) -> list[Chain]:
    """Return the blocks of a network that are computed again: all of it where it shows none.

    Raises:
        UserError: it cannot be computed again.
    """
    if isinstance(network, torch.jit.ScriptModule):
        raise UserError(
            f"{KEY}: must be false where the network is TorchScript, which is one piece"
        )
    if names := sorted(model_state.effects_of(network).set_in_training):
        raise UserError(
            f"{KEY}: must be false with this network, whose passes set its parameter {names[0]}: "
            "computed again, they would set it twice"
        )
    return blocks.find_blocks(network) or [blocks.as_one(network)]


def checkpointed(chains: Sequence[Chain]) -> Forwards:
    """Return what computes the same as the modules of chains, and keeps only blocks' inputs."""
    return {chain.module: _chain(chain) for chain in chains}


def _chain(chain: Chain) -> Callable[..., Any]:
    first, *rest = map(_piece, chain.pieces, chain.parts)

    def run(*args: Any, **kwargs: Any) -> Any:
        features = first(*args, **kwargs)
        for piece in rest:
            features = piece(features)
        return features

    return run


def _piece(piece: Callable[..., Any], parts: Sequence[nn.Module]) -> Callable[..., Any]:
    slots: list[Slot] = []
    for part in parts:
        slots += model_state.buffer_slots(part).values()

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _Again(slots)

    return functools.partial(checkpoint, piece, use_reentrant=False, context_fn=contexts)


class _Again:
    """What surrounds each computation of a block in a backward pass; a context manager.

    Made just before the block is computed for the first time. Torch itself puts its own generators
    back to where they stood, and the precision.
    """

    def __init__(self, slots: Sequence[Slot]) -> None:
        self._slots = slots
        self._generators = seeding.OtherGenerators()
        self._before = [_value_before(*slot) for slot in slots]

    def __enter__(self) -> None:
        self._after = [getattr(*slot) for slot in self._slots]
        # Copies: the backward pass may need the originals as the first time has left them.
        for slot, value in zip(self._slots, self._before, strict=True):
            setattr(*slot, None if value is None else value.clone())
        self._outside = seeding.OtherGenerators()
        self._generators.restore()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._outside.restore()
        for slot, value in zip(self._slots, self._after, strict=True):
            setattr(*slot, value)


def _value_before(module: nn.Module, name: str) -> torch.Tensor | None:
    value: torch.Tensor | None = getattr(module, name)
    # In training a batch norm does not look at its statistics, and otherwise leaves them alone.
    if value is None or type(module).forward is _BatchNorm.forward:
        return value
    return value.clone()
