"""Sum gradients and other parts of a step in one fixed order: the arithmetic of lockstep.

Floating-point addition commutes but does not associate, so a sum has the same bits on any number
of processes only if every process count adds the same operands in the same order. That order is a
binary tree over the index of the micro-batch:

    tree(n) = tree of the first p leaves + tree of the other n - p,  p the largest power of two < n

step_sum.py adds the leaves of a process as they come, and keeps at most log2(n) + 1 partial sums;
exchange.py adds between the processes and gives every one of them the same bits.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

LeafRange = tuple[int, int]
"""of a node: its first leaf, and the one after its last"""
Value = TypeVar("Value")


@functools.lru_cache(maxsize=64)
def tree_splits(leaves: int) -> dict[LeafRange, int]:
    """Return each inner node of the tree with the first leaf of its right half."""
    splits: dict[LeafRange, int] = {}
    open_nodes = [(0, leaves)]
    while open_nodes:
        first, end = open_nodes.pop()
        if end - first > 1:
            middle = first + (1 << ((end - first - 1).bit_length() - 1))
            splits[first, end] = middle
            open_nodes += [(first, middle), (middle, end)]
    return splits


@functools.lru_cache(maxsize=1024)
def subtrees(leaves: int, block: range) -> list[LeafRange]:
    """Return the largest nodes of the tree that lie inside a block of leaves, in order."""
    splits = tree_splits(leaves)

    def inside(first: int, end: int) -> Iterator[LeafRange]:
        if block.start <= first and end <= block.stop:
            yield first, end
        elif first < block.stop and block.start < end:
            middle = splits[first, end]
            yield from inside(first, middle)
            yield from inside(middle, end)

    return list(inside(0, leaves))


class Accumulator(Generic[Value]):
    """Adds nodes in the tree's order as they come, from the left to the right.

    Args:
        leaves: of the whole tree.
        add: returns the sum of two values, the left one first; it may reuse either.

    Attributes:
        nodes: what has been added up to so far: the largest subtrees.
    """

    def __init__(self, leaves: int, add: Callable[[Value, Value], Value]) -> None:
        self._splits = tree_splits(leaves)
        self._add = add
        self.nodes: list[tuple[LeafRange, Value]] = []

    def completes(self, leaves: LeafRange) -> bool:
        """Return whether a node that comes next is the right half of one whose left is there."""
        if not self.nodes:
            return False
        (first, middle), _ = self.nodes[-1]
        return self._splits.get((first, leaves[1])) == middle

    def add_node(self, leaves: LeafRange, value: Value) -> None:
        """Add the finished sum of a subtree; none between it and the one before is left out."""
        while self.completes(leaves):
            (first, _), left = self.nodes.pop()
            leaves, value = (first, leaves[1]), self._add(left, value)
        self.nodes.append((leaves, value))
