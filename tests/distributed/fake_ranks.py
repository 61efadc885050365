"""Be one of many ranks in this process and note what it sends and receives; or be all of them.

Torch's fake process group says which rank it is, and communicates nothing.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest
import torch
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore

from tests.distributed.test_reduce import bits
from trainer.base.flat_buffer import BufferLayout
from trainer.data.sampling import rank_microbatches
from trainer.training import exchange
from trainer.training.step_sum import StepSum

Message = tuple[bool, int, int]
"""whether it is sent, the other rank, and bytes"""


@dataclass
class Notes:
    """What a rank would send and receive, in the groups of messages that it waits for together."""

    size_bytes: int = 0
    """of the rank's vector"""
    groups: list[list[Message]] = field(default_factory=list)
    most_bytes: int = 0
    """of messages that are in memory at once, beside the rank's own vectors"""

    @property
    def sent_bytes(self) -> int:
        """Bytes that it sends in all."""
        return sum(size for group in self.groups for sent, _, size in group if sent)


@contextlib.contextmanager
def be_rank(rank: int, processes: int) -> Iterator[None]:
    """Be one of several ranks, without the others."""
    level = dist.get_debug_level()
    dist.set_debug_level(dist.DebugLevel.OFF)  # or it would ask the others
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=processes)
    try:
        yield
    finally:
        dist.destroy_process_group()
        dist.set_debug_level(level)


@contextlib.contextmanager
def note_messages() -> Iterator[Notes]:
    """Note what is sent and received inside."""
    notes, own, alive = Notes(), set[int](), dict[int, int]()
    sum_bytes = exchange.sum_bytes

    def note_own(layout: BufferLayout, nodes: exchange.Nodes, *rest: int) -> None:
        own.update(buffer.untyped_storage()._cdata for _, buffer in nodes)
        notes.size_bytes = layout.size_bytes
        sum_bytes(layout, nodes, *rest)

    def note(operations: Sequence[dist.P2POp]) -> list[dist.Work]:
        assert len({operation.tensor.device for operation in operations}) == 1
        for operation in operations:
            storage = operation.tensor.untyped_storage()
            if storage._cdata not in own and storage._cdata not in alive:
                alive[storage._cdata] = storage.nbytes()
                weakref.finalize(storage, alive.pop, storage._cdata)
        notes.groups.append(
            [(each.op is dist.isend, each.peer, each.tensor.nbytes) for each in operations]
        )
        notes.most_bytes = max(notes.most_bytes, sum(alive.values()))
        return []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exchange, "sum_bytes", note_own)
        patch.setattr(BufferLayout, "add", lambda *_: None)  # there are no values
        patch.setattr(dist, "batch_isend_irecv", note)
        yield notes


def play(ranks: Sequence[list[list[Message]]]) -> None:
    """Let ranks send and receive, each its next group when both ends of all messages are there.

    Nothing waits in between: a message needs its receiver. All have to come to their ends.
    """
    waiting: list[dict[tuple[bool, int], int]] = [{} for _ in ranks]
    done = [0] * len(ranks)
    ready = deque(range(len(ranks)))
    while ready:
        rank = ready.popleft()
        if waiting[rank] or done[rank] == len(ranks[rank]):
            continue
        group = ranks[rank][done[rank]]
        waiting[rank] = {(sent, other): size for sent, other, size in group}
        assert len(waiting[rank]) == len(group) > 0, "one message each way between two ranks"
        for (sent, other), size in list(waiting[rank].items()):
            if (not sent, rank) in waiting[other]:
                assert waiting[other].pop((not sent, rank)) == size, (rank, other)
                del waiting[rank][sent, other]
                if not waiting[other]:
                    done[other] += 1
                    ready.append(other)
        if not waiting[rank]:
            done[rank] += 1
            ready.append(rank)
    assert done == [len(groups) for groups in ranks], "some wait for each other"


class _Mail:
    """Messages between ranks, each of which is a thread of this process."""

    def __init__(self) -> None:
        self.own = threading.local()
        """its `rank`"""
        self.failed = threading.Event()
        """a rank has failed, so that nobody need wait for it"""
        self._ways: dict[tuple[int, int], queue.SimpleQueue[torch.Tensor]] = {}

    def exchange(self, operations: Sequence[dist.P2POp]) -> list[dist.Work]:
        """Send and receive, in place of `batch_isend_irecv`."""
        for each in operations:
            if each.op is dist.isend:
                self._way(self.own.rank, each.peer).put(each.tensor.clone())
        for each in operations:
            if each.op is dist.irecv:
                arrived = self._receive(each.peer)
                assert arrived.shape == each.tensor.shape
                each.tensor.copy_(arrived)
        return []

    def _receive(self, sender: int) -> torch.Tensor:
        for _ in range(600):
            with contextlib.suppress(queue.Empty):
                return self._way(sender, self.own.rank).get(timeout=0.1)
            if self.failed.is_set():
                break
        raise TimeoutError(f"rank {self.own.rank} has nothing from rank {sender}")

    def _way(self, sender: int, receiver: int) -> queue.SimpleQueue[torch.Tensor]:
        return self._ways.setdefault((sender, receiver), queue.SimpleQueue())


def sum_on_threads(
    processes: int,
    leaves: list[list[torch.Tensor]],
    *,
    bucket_bytes: int = 4096,
    small_bytes: int = 0,
) -> list[list[bytes]]:
    """Return the bits of the sum on each of many ranks."""
    mail = _Mail()

    def sum_as(rank: int) -> list[bytes]:
        mail.own.rank = rank
        try:
            sums = StepSum(len(leaves))
            for index in rank_microbatches(rank, processes, len(leaves)):
                sums.add(index, leaves[index])
            return bits(sums.finish())
        except BaseException:
            mail.failed.set()
            raise

    with (
        be_rank(0, processes),
        pytest.MonkeyPatch.context() as patch,
        ThreadPoolExecutor(processes) as pool,
    ):
        patch.setattr(dist, "get_rank", lambda: mail.own.rank)
        patch.setattr(dist, "batch_isend_irecv", mail.exchange)
        patch.setattr(exchange, "BUCKET_BYTES", bucket_bytes)
        patch.setattr(exchange, "SMALL_BYTES", small_bytes)
        return list(pool.map(sum_as, range(processes)))
