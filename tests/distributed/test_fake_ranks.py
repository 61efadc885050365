"""Up to 512 ranks in this process: what each sends is what others expect, and what they add up.

Torch's fake process group says which rank it is, and communicates nothing. What a rank would send
and receive is noted, and afterwards the notes of all ranks are played against each other.
"""

from __future__ import annotations

import contextlib
import itertools
import queue
import threading
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.distributed import worker
from tests.distributed.test_reduce import bits, make_leaves, tree
from trainer.base.flat_buffer import BufferLayout
from trainer.checkpoint.writing import Checkpoints
from trainer.config.schema import CheckpointConfig, RunConfig, replace
from trainer.data.sampling import rank_microbatches
from trainer.ranks import collectives, process_group
from trainer.ranks.caller_settings import preserve_caller_settings
from trainer.training import exchange
from trainer.training.reduction import subtrees
from trainer.training.step_sum import StepSum

MIB = 2**20
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
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=processes)
    yield
    dist.destroy_process_group()


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


def sum_as_rank(rank: int, processes: int, each: int, length: int, *, early: bool = False) -> Notes:
    """Sum leaves of `length` numbers without values, `each` of them on a rank."""
    leaf = [torch.empty(length, device="meta"), torch.empty(3, dtype=torch.int64, device="meta")]
    leaf += [torch.empty(length // 3, device="meta")]
    *others, last = rank_microbatches(rank, processes, processes * each)
    with be_rank(rank, processes), note_messages() as notes:
        sums = StepSum(processes * each)
        for index in others:
            sums.add(index, leaf)
        if early:
            arriving = sums.begin_last(last, leaf)
            for number in ((rank + place) % 3 for place in range(3)):
                arriving.put(number, leaf[number])
        else:
            sums.add(last, leaf)
        sums.finish()
    return notes


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


def least_bytes(processes: int, size_bytes: int) -> float:
    """Return what each rank has to send for a sum over all: 2 (W - 1) / W of the vector."""
    return 2 * (processes - 1) / processes * size_bytes


@pytest.mark.parametrize("processes", [2, 3, 4, 6, 7, 8, 12, 25, 48, 64, 96, 256, 512])
def test_messages_of_all_ranks_fit(processes: int) -> None:
    """Of a vector that is small, a part of a bucket, or longer; of one partial sum and of two.

    A rank sends 2 (W - 1) / W of a long vector, twice as much at most where its micro-batches are
    not a subtree; what it sends and receives at once is hardly more than a bucket of each.
    """
    for each in (1, 2, 3) if processes < 48 else (1,):
        sums = len(subtrees(processes * each, range(each)))
        for length in (100, 300_000, 13 * MIB // 4) if processes < 48 else (12_000, 13 * MIB // 4):
            ranks = [sum_as_rank(rank, processes, each, length) for rank in range(processes)]
            play([notes.groups for notes in ranks])
            assert len({len(notes.groups) for notes in ranks}) == 1, "all wait as often"
            size_bytes = ranks[0].size_bytes
            bucket_bytes = min(size_bytes, exchange.BUCKET_BYTES)
            for notes in ranks:
                at_once_bytes = max(bucket_bytes, exchange.SMALL_BYTES)
                assert notes.most_bytes <= 2 * sums * at_once_bytes
                if size_bytes > exchange.BUCKET_BYTES:
                    least_bytes = 2 * (processes - 1) / processes * size_bytes
                    assert 0.999 * least_bytes < notes.sent_bytes < 1.06 * sums * least_bytes
                else:
                    assert len(notes.groups) <= 2 * len(exchange.groups(0, processes))


@pytest.mark.parametrize("processes", [2, 6, 12])
def test_messages_during_the_backward_pass_are_the_same(processes: int) -> None:
    for rank, each in itertools.product(range(processes), (1, 2, 3)):
        late, early = (
            sum_as_rank(rank, processes, each, 13 * MIB // 4, early=early)
            for early in (False, True)
        )
        assert early.groups == late.groups


def sum_on_threads(processes: int, leaves: list[list[torch.Tensor]]) -> list[list[bytes]]:
    """Return the bits of the sum on each of many ranks, each of which is a thread."""
    own = threading.local()
    messages: dict[tuple[int, int], queue.SimpleQueue[torch.Tensor]] = {}

    def on_the_way(sender: int, receiver: int) -> queue.SimpleQueue[torch.Tensor]:
        return messages.setdefault((sender, receiver), queue.SimpleQueue())

    def exchange_all(operations: Sequence[dist.P2POp]) -> list[dist.Work]:
        for each in operations:
            if each.op is dist.isend:
                on_the_way(own.rank, each.peer).put(each.tensor.clone())
        for each in operations:
            if each.op is dist.irecv:
                each.tensor.copy_(on_the_way(each.peer, own.rank).get(timeout=60))
        return []

    def sum_as(rank: int) -> list[bytes]:
        own.rank = rank
        sums = StepSum(len(leaves))
        for index in rank_microbatches(rank, processes, len(leaves)):
            sums.add(index, leaves[index])
        return bits(sums.finish())

    with (
        be_rank(0, processes),
        pytest.MonkeyPatch.context() as patch,
        ThreadPoolExecutor(processes) as pool,
    ):
        patch.setattr(dist, "get_rank", lambda: own.rank)
        patch.setattr(dist, "batch_isend_irecv", exchange_all)
        patch.setattr(exchange, "BUCKET_BYTES", 4096)
        patch.setattr(exchange, "SMALL_BYTES", 700)
        return list(pool.map(sum_as, range(processes)))


@pytest.mark.parametrize(("processes", "each"), [(48, 1), (50, 3), (64, 2), (128, 1)])
def test_every_one_of_many_ranks_has_the_bits_of_the_tree(processes: int, each: int) -> None:
    leaves = make_leaves(processes * each, 1000, types=3)
    root = bits([tree(list(part)) for part in zip(*leaves, strict=True)])
    assert sum_on_threads(processes, leaves) == [root] * processes


class Calls(TorchDispatchMode):
    """Notes the collectives of a rank, whose results are those that rank 0 had.

    Args:
        of_rank_0: its notes; None on rank 0 itself.
    """

    def __init__(self, of_rank_0: Calls | None) -> None:
        super().__init__()
        self.of_rank_0 = of_rank_0
        self.events: list[str] = []
        self.results: list[list[torch.Tensor]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Do what is called; a collective's results are noted, or come from the notes."""
        result = func(*args, **(kwargs or {}))
        if func.namespace == "c10d":
            tensors = [each for each in tree_leaves(args) if isinstance(each, torch.Tensor)]
            # Objects are sent as bytes, as many as the longest of any rank has.
            kinds = [
                f"{each.dtype}{list(each.shape) if each.dtype is not torch.uint8 else ''}"
                for each in tensors
            ]
            self.events.append(f"{func.__name__} {' '.join(kinds)}")
            if self.of_rank_0 is not None:
                theirs = self.of_rank_0.results[len(self.results)]
                for own, other in zip(tensors, theirs, strict=True):
                    own.copy_(other)
            self.results.append([each.clone() for each in tensors])
        return result


RUN = {
    # Of 91 training images the third step has one: on most ranks it has no images.
    "data.train_size": 101,
    "data.validation_size": 10,
    "train.batch_size": 45,
    "train.microbatches": 8,
    "train.epochs": 2,
    "train.clip_norm": 1.0,
    "train.ema_decay": 0.9,
    "model.name": f"{Path(__file__).with_name('odd_model.py')}:OddModel",
}


def train_as_rank(rank: int, folder: Path, calls: Calls) -> list[list[Message]]:
    """Train, save and load as one of four ranks; return its messages."""
    config = replace(RunConfig(), {"data.name": "digits"} | RUN)
    variables = {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "4",
        "MASTER_ADDR": "none",
    }
    with (
        be_rank(rank, 4),
        preserve_caller_settings(),
        pytest.MonkeyPatch.context() as patch,
        note_messages() as notes,
        calls,
    ):
        for name, value in {**variables, "ACCELERATE_USE_CPU": "true"}.items():
            patch.setenv(name, value)
        accelerator = process_group.create_accelerator(config)
        collectives.check_same_configuration(accelerator, config)
        engine = worker.make_engine(accelerator, RUN, Checkpoints(folder, CheckpointConfig()))
        engine.fit()
        engine.test()
        newest = engine.run_checkpoints.newest()
        assert newest is not None
        engine.load(newest)
    return notes.groups


def test_all_ranks_call_the_same_whatever_images_they_have(tmp_path: Path) -> None:
    """In a run with checkpoints: its start, steps, log points, evaluations, and a load."""
    calls: list[Calls] = []
    ranks = []
    for rank in range(4):
        calls.append(Calls(calls[0] if calls else None))
        ranks.append(train_as_rank(rank, tmp_path / f"{rank}", calls[-1]))
    assert [each.events for each in calls[1:]] == [calls[0].events] * 3
    play(ranks)
