"""How a step's forward pass calls the network, whose own code and modules stay as they are."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from trainer.base import compiler
from trainer.base.errors import UserError
from trainer.config.schema import TrainConfig
from trainer.network import blocks
from trainer.training import activation_checkpointing
from trainer.training.activation_checkpointing import Forwards

_ALIGNMENT_BYTES = 16
"""at whose multiples compiled kernels may load vectors: every piece of a batch begins there"""


class ForwardPass:
    """Exchanges `forward` of modules while a step's forward pass runs, and only then.

    So hooks, names, copies and evaluations see the network as it was built.

    Args:
        module: what is trained: the network, or its head on features.

    Raises:
        UserError: the network cannot be computed as the configuration says.
    """

    def __init__(self, accelerator: Accelerator, module: nn.Module, config: TrainConfig) -> None:
        self.accelerator = accelerator
        self.module = module
        self.forwards: Forwards = {}
        self.blocks = 0
        """that are computed again in the backward pass"""
        self.compiles = config.compile != "none"
        if config.activation_checkpointing:
            chains = activation_checkpointing.find_blocks(module)
            self.forwards = activation_checkpointing.checkpointed(chains)
            self.blocks = sum(len(chain.pieces) for chain in chains)
        if self.compiles:
            self.forwards[module] = self._compile(config.compile)

    def _compile(self, mode: compiler.Compile) -> Callable[..., Any]:
        if isinstance(self.module, torch.jit.ScriptModule):
            raise UserError(f"{compiler.KEY}: must be none where the network is TorchScript")
        compiler.prepare(self.accelerator.device)
        forward = blocks.own_forward(self.module)
        options = compiler.options(mode, self.accelerator.device)
        compiled = torch.compile(forward, fullgraph=True, dynamic=False, options=options)

        def run(images: torch.Tensor) -> Any:
            if images.data_ptr() % _ALIGNMENT_BYTES:
                images = images.clone()
            return compiled(images)

        return run

    def describe(self) -> str | None:
        """Return in words what is computed again; None if nothing is."""
        if not self.blocks:
            return None
        if list(self.forwards) == [self.module] and self.blocks == 1:
            return (
                "the network is one block, which is computed again as a whole: a step needs as "
                "much memory as without "
                f"{activation_checkpointing.KEY}"
            )
        return f"{self.blocks} blocks are computed again in the backward pass"

    @contextlib.contextmanager
    def prepared(self) -> Iterator[None]:
        """Let the module compute inside as a step has it.

        Raises:
            UserError: it cannot be compiled.
        """
        before = {part: vars(part).get("forward") for part in self.forwards}
        # Accelerate's autocast may be in a `forward` that is exchanged.
        precision = self.accelerator.autocast() if before else contextlib.nullcontext()
        try:
            for part, forward in self.forwards.items():
                part.forward = forward
            with precision, self._explained():
                yield
        finally:
            for part, own in before.items():
                if own is None:
                    vars(part).pop("forward", None)
                else:
                    part.forward = own

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        if not self.compiles:
            yield
            return
        try:
            yield
        except compiler.errors() as error:
            raise compiler.refused(f"the network {type(self.module).__name__}", error) from error
