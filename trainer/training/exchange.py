"""Sum between processes along the tree: each rank adds up a piece, then all gather the pieces.

Ranks meet in groups. First pairs of neighbours: each rank sends one half of what it has and adds
the other half to its own, so that a pair then has the sum of the pair's micro-batches, each rank a
half of it. Then pairs of pairs do the same with their halves, and so on while the number of groups
is even (recursive halving). The last groups, an odd number of them, do it all at once: each of the
m ranks adds up an m-th. Then the pieces are gathered in the opposite order (recursive doubling).
Thakur, Rabenseifner, Gropp: Optimization of Collective Communication Operations in MPICH, 2005.

So a rank sends 2 (W - 1) / W of the vector, where its block of micro-batches is a subtree. Where it
is not, as with 6 micro-batches on 2 processes, the ranks keep and send several nodes of the tree
until they can be added. Whoever adds two nodes, their operands are those of the tree; addition
commutes, so it does not matter which of the two is in the rank's own memory.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist

from trainer.base.flat_buffer import UNIT_BYTES, BufferLayout
from trainer.ranks import mailboxes
from trainer.training.reduction import Accumulator, LeafRange, subtrees

BUCKET_BYTES = 16 * 2**20
"""of the vector that are summed at a time, so that what is received takes little memory"""
SMALL_BYTES = 2**19
"""pieces are not cut where less than this arrives: another round of messages takes longer"""

Nodes = Sequence[tuple[LeafRange, torch.Tensor]]
"""of the tree, each with a buffer"""


@dataclass(frozen=True)
class Group:
    """The ranks that exchange with each other in a round.

    Args:
        members: in the order of their micro-batches.
        place: this rank's among them.
        stride: how many ranks each member stands for: those that have the sum of the same leaves.
    """

    members: tuple[int, ...]
    place: int
    stride: int

    def blocks(self, leaves: int, processes: int) -> list[range]:
        """Return the leaves that each member brings."""
        each = leaves // processes
        firsts = [member - member % self.stride for member in self.members]
        return [range(first * each, (first + self.stride) * each) for first in firsts]


@functools.lru_cache(maxsize=64)
def groups(rank: int, processes: int) -> tuple[Group, ...]:
    """Return the groups of a rank, in the order of the rounds."""
    found = []
    stride = 1
    while stride < processes:
        rest = processes // stride
        size = rest if rest % 2 else 2
        place = rank // stride % size
        members = tuple(rank + (number - place) * stride for number in range(size))
        found.append(Group(members, place, stride))
        stride *= size
    return tuple(found)


def sum_over_ranks(layout: BufferLayout, nodes: Nodes, leaves: int) -> torch.Tensor:
    """Return the tree's root from the nodes of each process; the same bits on all of them.

    A collective: all ranks of the default process group call it, each with the nodes of its own
    block of leaves. It uses their buffers; the root is in the first one.
    """
    buffer = nodes[0][1]
    if dist.is_initialized() and dist.get_world_size() > 1:
        for begin, end in buckets(layout.size_bytes):
            sum_bytes(layout, nodes, leaves, begin, end)
    return buffer


def buckets(size_bytes: int) -> Iterator[tuple[int, int]]:
    """Yield the parts of a vector that are summed one after the other, in bytes: the last first."""
    for end in range(size_bytes, 0, -BUCKET_BYTES):
        yield max(0, end - BUCKET_BYTES), end


@dataclass(frozen=True)
class _Piece:
    """A piece of a node's buffer: of this rank's own buffers, or one that it has received."""

    data: torch.Tensor
    is_own: bool


def sum_bytes(layout: BufferLayout, nodes: Nodes, leaves: int, begin: int, end: int) -> None:
    """Sum the bytes from `begin` to `end` over all ranks, into the buffer of the first node."""
    at_once = end - begin
    if mailboxes.current():
        most_nodes = _most_nodes(leaves, dist.get_world_size())
        at_once = mailboxes.BOX_BYTES // most_nodes // UNIT_BYTES * UNIT_BYTES
    for last in range(end, begin, -at_once):
        _sum_at_once(layout, nodes, leaves, max(begin, last - at_once), last)


@functools.lru_cache(maxsize=64)
def _most_nodes(leaves: int, processes: int) -> int:
    """Return how many nodes a rank sends at most, in any round."""
    rounds = [group for rank in range(processes) for group in groups(rank, processes)]
    blocks = [block for group in rounds for block in group.blocks(leaves, processes)]
    return max(len(subtrees(leaves, block)) for block in blocks)


def _sum_at_once(layout: BufferLayout, nodes: Nodes, leaves: int, begin: int, end: int) -> None:
    root = nodes[0][1]
    pieces = [(node, _Piece(buffer[begin:end], is_own=True)) for node, buffer in nodes]
    gathers: list[tuple[Group, list[tuple[int, int]]]] = []
    rank, processes = dist.get_rank(), dist.get_world_size()
    # Of the smallest piece: all ranks decide alike, though their pieces differ by a unit.
    units = (end - begin) // UNIT_BYTES
    for group in groups(rank, processes):
        size = len(group.members)
        cuts = [(begin, end)] * size
        if units >= size and units * UNIT_BYTES * (size - 1) >= SMALL_BYTES:
            cuts = _cut(begin, end, size)
            gathers.append((group, cuts))
            units //= size
        blocks = [subtrees(leaves, block) for block in group.blocks(leaves, processes)]
        received = _exchange_pieces(group, blocks, pieces, begin, cuts)
        low, high = cuts[group.place]
        finish = Accumulator(leaves, functools.partial(_add, layout, low))
        for place, block in enumerate(blocks):
            if place == group.place:
                for node, piece in pieces:
                    own = piece.data[low - begin : high - begin]
                    finish.add_node(node, _Piece(own, piece.is_own))
            else:
                for node, data in zip(block, received[place].chunk(len(block)), strict=True):
                    finish.add_node(node, _Piece(data, is_own=False))
        pieces = finish.nodes
        begin, end = low, high
    for group, cuts in reversed(gathers):
        _gather(group, root, cuts)


def _cut(begin: int, end: int, size: int) -> list[tuple[int, int]]:
    """Return what each of `size` members is to add up."""
    units = (end - begin) // UNIT_BYTES
    bounds = [begin + number * units // size * UNIT_BYTES for number in range(size)] + [end]
    return list(itertools.pairwise(bounds))


def _exchange_pieces(
    group: Group,
    blocks: Sequence[Sequence[LeafRange]],
    pieces: Sequence[tuple[LeafRange, _Piece]],
    begin: int,
    cuts: Sequence[tuple[int, int]],
) -> dict[int, torch.Tensor]:
    """Send each member its piece of this rank's nodes; return theirs, joined, by their places."""
    low, high = cuts[group.place]
    others = {place: member for place, member in enumerate(group.members) if place != group.place}
    messages = {}
    for place in others:
        its = slice(cuts[place][0] - begin, cuts[place][1] - begin)
        messages[place] = [piece.data[its] for _, piece in pieces]
    sizes = {place: len(blocks[place]) * (high - low) for place in others}
    if not (boxes := mailboxes.current()):
        return _send_and_receive(others, messages, sizes)
    if cuts[0] == cuts[-1]:
        to_all = [(list(others.values()), next(iter(messages.values())))]
    else:
        to_all = [([others[place]], parts) for place, parts in messages.items()]
    found = boxes.exchange(to_all, {others[place]: size for place, size in sizes.items()})
    received = {place: found[member] for place, member in others.items()}
    # What is added at once to this rank's own may stay where it lies.
    is_added = len(others) == len(pieces) == 1 and len(blocks[next(iter(others))]) == 1
    return received if is_added else {place: data.clone() for place, data in received.items()}


def _gather(group: Group, root: torch.Tensor, cuts: Sequence[tuple[int, int]]) -> None:
    """Send this rank's piece of the root to the other members, and receive theirs."""
    pieces = [root[low:high] for low, high in cuts]
    own = pieces[group.place]
    others = {place: member for place, member in enumerate(group.members) if place != group.place}
    if boxes := mailboxes.current():
        sizes = {member: pieces[place].numel() for place, member in others.items()}
        found = boxes.exchange([(list(sizes), [own])], sizes)
        for place, member in others.items():
            pieces[place].copy_(found[member])
        return
    operations = []
    for place, member in others.items():
        operations += [
            dist.P2POp(dist.isend, own, member),
            dist.P2POp(dist.irecv, pieces[place], member),
        ]
    _wait(operations)


def _send_and_receive(
    others: Mapping[int, int],
    messages: Mapping[int, Sequence[torch.Tensor]],
    sizes: Mapping[int, int],
) -> dict[int, torch.Tensor]:
    """Send each other member a message, by its place; return theirs, of these sizes in bytes."""
    received = {}
    operations = []
    for place, member in others.items():
        parts = messages[place]
        message = parts[0] if len(parts) == 1 else torch.cat(list(parts))
        received[place] = torch.empty(sizes[place], dtype=torch.uint8, device=message.device)
        operations += [
            dist.P2POp(dist.isend, message, member),
            dist.P2POp(dist.irecv, received[place], member),
        ]
    _wait(operations)
    return received


def _wait(operations: list[dist.P2POp]) -> None:
    arriving = []
    for operation in operations:
        tensor = operation.tensor
        if not _goes_by_host(tensor):
            continue
        if operation.op is dist.isend:
            operation.tensor = tensor.cpu()
        else:
            operation.tensor = torch.empty_like(tensor, device="cpu")
            arriving.append((tensor, operation.tensor))
    for request in dist.batch_isend_irecv(operations):
        request.wait()
    for tensor, on_host in arriving:
        tensor.copy_(on_host)


def _goes_by_host(tensor: torch.Tensor) -> bool:
    """Tell whether a message is copied to the host first: gloo's socket reads no GPU's memory."""
    return tensor.device.type != "cpu" and dist.get_backend() == "gloo"


def _add(layout: BufferLayout, begin: int, left: _Piece, right: _Piece) -> _Piece:
    """Add two pieces of nodes, into this rank's own buffer if one is there."""
    if right.is_own and not left.is_own:
        left, right = right, left
    layout.add(begin, left.data, right.data)
    return left
