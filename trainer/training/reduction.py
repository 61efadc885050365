"""Sum gradients and other parts of a step in one fixed order: the arithmetic of lockstep.

Floating-point addition commutes but does not associate, so a sum has the same bits on any number
of processes only if every process count adds the same operands in the same order. That order is a
binary tree over the index of the micro-batch:

    tree(n) = tree of the first p leaves + tree of the other n - p,  p the largest power of two < n

A process adds its own leaves with an `Accumulator`, which keeps at most log2(n) + 1 partial sums;
`sum_over_ranks` adds between the processes and gives every one of them the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.distributed as dist

from trainer.data.sampling import rank_microbatches

Vectors = list[torch.Tensor]
"""the value of a node: flat tensors, one for each dtype"""
LeafRange = tuple[int, int]
"""of a node: its first leaf, and the one after its last"""


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


class Accumulator:
    """Adds leaves in the tree's order as they come; it adds in place to the vectors it is given."""

    def __init__(self, leaves: int) -> None:
        self._splits = tree_splits(leaves)
        self.nodes: list[tuple[LeafRange, Vectors]] = []

    def add(self, index: int, leaf: Vectors) -> None:
        """Add leaf `index`; the indices come in rising order without a gap."""
        self.add_node((index, index + 1), leaf)

    def add_node(self, leaves: LeafRange, value: Vectors) -> None:
        """Add the finished sum of a subtree."""
        while self.nodes:
            (first, middle), left = self.nodes[-1]
            if self._splits.get((first, leaves[1])) != middle:
                break
            self.nodes.pop()
            for mine, other in zip(left, value, strict=True):
                mine.add_(other)
            leaves, value = (first, leaves[1]), left
        self.nodes.append((leaves, value))


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


def sum_over_ranks(nodes: Sequence[tuple[LeafRange, Vectors]], leaves: int) -> Vectors:
    """Return the tree's root from the nodes of each process; the same bits on all of them.

    A collective: all ranks of the default process group call it, each with the nodes of its own
    block. If both numbers are powers of two, so that every block is one subtree, pairs exchange
    sums of growing subtrees (recursive doubling: log2 W rounds, both partners add the same two
    operands). Otherwise, for example with 6 micro-batches on 2 processes, all gather the blocks'
    largest subtrees and each finishes the tree.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        ((_, root),) = nodes
        return root
    processes = dist.get_world_size()
    if leaves.bit_count() == processes.bit_count() == 1:
        ((_, block),) = nodes
        return _butterfly(block)
    return _gather_and_finish(nodes, leaves, processes)


def _butterfly(total: Vectors) -> Vectors:
    distance = 1
    while distance < dist.get_world_size():
        partner = dist.get_rank() ^ distance
        sent = _as_bytes(total)
        received = torch.empty_like(sent)
        exchange = [
            dist.P2POp(dist.isend, sent, partner),
            dist.P2POp(dist.irecv, received, partner),
        ]
        for request in dist.batch_isend_irecv(exchange):
            request.wait()
        for mine, other in zip(_widest_first(total), _from_bytes(received, total), strict=True):
            mine.add_(other)
        distance *= 2
    return total


def _widest_first(vectors: Vectors) -> Vectors:
    """Sort vectors so that each begins at a multiple of its own width, as a view of bytes must."""
    return sorted(vectors, key=torch.Tensor.element_size, reverse=True)


def _as_bytes(vectors: Vectors) -> torch.Tensor:
    """Join vectors to one message: half the wake-ups of the threads that send and receive."""
    pieces = [vector.view(torch.uint8) for vector in _widest_first(vectors)]
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces)


def _from_bytes(message: torch.Tensor, like: Vectors) -> Vectors:
    vectors = _widest_first(like)
    pieces = torch.split(message, [vector.nbytes for vector in vectors])
    return [piece.view(vector.dtype) for piece, vector in zip(pieces, vectors, strict=True)]


def _gather_and_finish(
    nodes: Sequence[tuple[LeafRange, Vectors]], leaves: int, processes: int
) -> Vectors:
    blocks = [
        subtrees(leaves, rank_microbatches(rank, processes, leaves)) for rank in range(processes)
    ]
    own = [vectors for _, vectors in nodes]
    # Every rank sends as many nodes as the rank with the most.
    own += [[torch.zeros_like(vector) for vector in own[0]]] * (max(map(len, blocks)) - len(own))
    gathered = [_all_gather(torch.stack(same_dtype)) for same_dtype in zip(*own, strict=True)]
    finish = Accumulator(leaves)
    for rank, block in enumerate(blocks):
        for place, node in enumerate(block):
            finish.add_node(node, [vectors[rank][place] for vectors in gathered])
    ((_, total),) = finish.nodes
    return total


def _all_gather(vectors: torch.Tensor) -> list[torch.Tensor]:
    gathered = [torch.empty_like(vectors) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, vectors)
    return gathered
