"""Divide a graph for torch's compiler so that the backward pass computes no activation again.

Apart, and imported only where something is compiled: the compiler takes seconds to import, and its
cache wants a class that it can import by its name.
"""

from __future__ import annotations

from typing import Any

from torch._functorch.partitioners import default_partition
from torch._inductor.custom_graph_pass import CustomPartitionerFn


class KeepActivations(CustomPartitionerFn):
    """Keeps for the backward pass what it needs of the forward pass."""

    def __call__(self, gm: Any, joint_inputs: Any, **named: Any) -> Any:
        """Return the graphs of the forward and of the backward pass."""
        named.pop("compiler", None)
        return default_partition(gm, joint_inputs, **named)

    def uuid(self) -> str:
        """Return what the compiler's cache knows it by."""
        return "keep activations"


KEEP_ACTIVATIONS = KeepActivations()
"""one for all, as torch compiles again for settings that are not equal"""
