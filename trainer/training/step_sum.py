"""Sum the leaves of a step in the order of the tree: this rank's as they come, then all ranks'."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch

from trainer.base.flat_buffer import BufferLayout
from trainer.training import exchange
from trainer.training.arriving_leaf import ArrivingLeaf, ExchangedLeaf
from trainer.training.reduction import Accumulator


class StepSum:
    """The sum of a step's leaves: this rank's in the order of the tree, then those of all ranks.

    A leaf that completes a node is added to the other half where it lies, without a copy of it.

    Args:
        leaves: of the whole step, over all ranks.
    """

    def __init__(self, leaves: int) -> None:
        self._leaves = leaves
        self._last: ExchangedLeaf | None = None

    def add(self, index: int, leaf: Sequence[torch.Tensor]) -> None:
        """Add leaf `index` of this rank's block; they come in their order and are alike."""
        self._prepare(leaf)
        if self._sums.completes((index, index + 1)):
            (first, _), left = self._sums.nodes.pop()
            self._layout.add_tensors(left, leaf)
            self._sums.add_node((first, index + 1), left)
        else:
            self._sums.add_node((index, index + 1), self._layout.pack(leaf))

    def begin(self, index: int, like: Sequence[torch.Tensor], *, exchanged: bool) -> ArrivingLeaf:
        """Begin leaf `index`, whose tensors come one by one.

        Args:
            like: tensors of its types and shapes.
            exchanged: whether it is this rank's last one, and is exchanged as it comes: then this
                is a collective, to its end.
        """
        self._prepare(like)
        node, chain = (index, index + 1), []
        while self._sums.completes(node):
            (first, _), left = self._sums.nodes.pop()
            chain.append(left)
            node = (first, node[1])
        is_new = not chain
        if is_new:
            chain.append(self._layout.allocate())
        self._sums.add_node(node, chain[-1])
        if not exchanged:
            return ArrivingLeaf(self._layout, chain, is_new=is_new)
        self._last = ExchangedLeaf(
            self._layout, chain, self._sums.nodes, self._leaves, is_new=is_new
        )
        return self._last

    def finish(self) -> list[torch.Tensor]:
        """Return the sum of all leaves, with the same bits on all ranks; a collective.

        The tensors are views of one buffer.
        """
        if self._last:
            self._last.finish()
            return self._layout.views(self._sums.nodes[0][1])
        root = exchange.sum_over_ranks(self._layout, self._sums.nodes, self._leaves)
        return self._layout.views(root)

    def _prepare(self, like: Sequence[torch.Tensor]) -> None:
        if not hasattr(self, "_layout"):
            self._layout = BufferLayout(like)
            # No method of this object: the circle would keep its buffers until it is found.
            self._sums = Accumulator(self._leaves, functools.partial(_add, self._layout))


def _add(layout: BufferLayout, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    layout.add(0, left, right)
    return left
