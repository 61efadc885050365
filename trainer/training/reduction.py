"""The arithmetic of lockstep: cutting a batch, and summing its pieces in one fixed order.

Floating-point addition commutes but does not associate, so a sum has the same bits on any number
of processes only where every process count adds the same operands in the same order. That order is
one binary tree over the index of the micro-batch:

    tree(n) = tree of the first p leaves + tree of the other n - p,  p the largest power of two < n

A process adds what it computed itself with an `Accumulator`, which keeps at most log2(n) + 1
partial sums; `reduce` adds between the processes and leaves every one of them with the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.distributed as dist

from trainer.data.sampling import rank_microbatches

Leaf = list[torch.Tensor]
Interval = tuple[int, int]


def tree_splits(leaves: int) -> dict[Interval, int]:
    """Every inner node of the tree as (first leaf, end) -> where its right half begins."""
    splits: dict[Interval, int] = {}
    open_nodes = [(0, leaves)]
    while open_nodes:
        first, end = open_nodes.pop()
        if end - first > 1:
            middle = first + (1 << ((end - first - 1).bit_length() - 1))
            splits[first, end] = middle
            open_nodes += [(first, middle), (middle, end)]
    return splits


class Accumulator:
    """Adds leaves, lists of vectors, in the tree's order as they come; it owns what it is given."""

    def __init__(self, leaves: int) -> None:
        self._splits = tree_splits(leaves)
        self.nodes: list[tuple[Interval, Leaf]] = []

    def add(self, index: int, leaf: Leaf) -> None:
        """Take leaf `index`; the indices come in rising order without a gap."""
        self.add_node((index, index + 1), leaf)

    def add_node(self, interval: Interval, value: Leaf) -> None:
        """Take the finished sum of a subtree."""
        while self.nodes:
            (first, middle), left = self.nodes[-1]
            if self._splits.get((first, interval[1])) != middle:
                break
            self.nodes.pop()
            for mine, other in zip(left, value, strict=True):
                mine.add_(other)
            interval, value = (first, interval[1]), left
        self.nodes.append((interval, value))


def subtrees(leaves: int, block: range) -> list[Interval]:
    """The largest nodes of the tree that lie inside a block of leaves, in order."""
    splits = tree_splits(leaves)

    def inside(first: int, end: int) -> Iterator[Interval]:
        if block.start <= first and end <= block.stop:
            yield first, end
        elif first < block.stop and block.start < end:
            middle = splits[first, end]
            yield from inside(first, middle)
            yield from inside(middle, end)

    return list(inside(0, leaves))


def reduce(nodes: Sequence[tuple[Interval, Leaf]], leaves: int) -> Leaf:
    """The tree's root from the nodes that each process holds; the same bits on all of them.

    A collective: all ranks of the default process group call it, each with the nodes of its own
    block. Where both numbers are powers of two, so that every block is one subtree, pairs exchange
    sums of growing subtrees (recursive doubling: log2 W rounds, both partners add the same two
    operands). Elsewhere, for example 6 micro-batches on 2 processes, all gather the blocks'
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


def _butterfly(total: Leaf) -> Leaf:
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


def _widest_first(vectors: Leaf) -> Leaf:
    """In this order each begins at a multiple of its own width, as a view of the bytes must."""
    return sorted(vectors, key=torch.Tensor.element_size, reverse=True)


def _as_bytes(vectors: Leaf) -> torch.Tensor:
    """One message instead of one a type: half the wake-ups of the threads that send and receive."""
    pieces = [vector.view(torch.uint8) for vector in _widest_first(vectors)]
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces)


def _from_bytes(message: torch.Tensor, like: Leaf) -> Leaf:
    vectors = _widest_first(like)
    pieces = torch.split(message, [vector.nbytes for vector in vectors])
    return [piece.view(vector.dtype) for piece, vector in zip(pieces, vectors, strict=True)]


def _gather_and_finish(nodes: Sequence[tuple[Interval, Leaf]], leaves: int, processes: int) -> Leaf:
    blocks = [
        subtrees(leaves, rank_microbatches(rank, processes, leaves)) for rank in range(processes)
    ]
    own = [vectors for _, vectors in nodes]
    # Every rank sends as many nodes as the one that has most.
    own += [[torch.zeros_like(vector) for vector in own[0]]] * (max(map(len, blocks)) - len(own))
    gathered = [_all_gather(torch.stack(same_dtype)) for same_dtype in zip(*own, strict=True)]
    finish = Accumulator(leaves)
    for rank, block in enumerate(blocks):
        for place, interval in enumerate(block):
            finish.add_node(interval, [vectors[rank][place] for vectors in gathered])
    ((_, total),) = finish.nodes
    return total


def _all_gather(vectors: torch.Tensor) -> list[torch.Tensor]:
    gathered = [torch.empty_like(vectors) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, vectors)
    return gathered
