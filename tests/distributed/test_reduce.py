"""The sum between processes has the same bits as the tree evaluated in one."""

from __future__ import annotations

import mmap
import multiprocessing
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from trainer.data.sampling import rank_microbatches
from trainer.ranks import mailboxes, process_ends
from trainer.training import exchange
from trainer.training.arriving_leaf import ArrivingLeaf
from trainer.training.step_sum import StepSum

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="nothing can be forked there")

Case = dict[str, Any]
"""each: micro-batches of a rank; length of the vector; types; bucket_bytes; early; small_bytes;
by_host: as the memory of GPUs between processes that share one; box_bytes: None for sockets"""


def tree(leaves: list[torch.Tensor]) -> torch.Tensor:
    if len(leaves) == 1:
        return leaves[0]
    half = 1 << ((len(leaves) - 1).bit_length() - 1)
    return tree(leaves[:half]) + tree(leaves[half:])


def make_leaves(count: int, length: int, types: int) -> list[list[torch.Tensor]]:
    """Make tensors of up to four types and very different sizes: any other order would show."""
    generator = torch.Generator().manual_seed(count)

    def leaf() -> list[torch.Tensor]:
        scale = 10.0 ** torch.randint(-3, 4, (length,), generator=generator)
        return [
            torch.randn(length, generator=generator) * scale,
            torch.randn(2, 3, 1, 1, generator=generator).to(memory_format=torch.channels_last),
            torch.randint(-9, 9, (3,), generator=generator),
            torch.randn(2, 2, generator=generator, dtype=torch.float64) * scale[0],
            torch.randn(length, generator=generator).to(torch.bfloat16),
        ][: types + 1]

    return [leaf() for _ in range(count)]


def sum_on_a_rank(
    number: int, rank: int, processes: int, case: Case, boxes: mailboxes.Mailboxes | None
) -> list[bytes]:
    """Return the bits of the root on this rank.

    The ranks come to each exchange in a different order, some of them late; some begin it early.
    Some leaves come as a whole, others one tensor after the other.
    """
    count = processes * case["each"]
    leaves = make_leaves(count, case["length"], case["types"])
    exchange.BUCKET_BYTES, exchange.SMALL_BYTES = case["bucket_bytes"], case["small_bytes"]
    exchange._goes_by_host = lambda _: case["by_host"]
    mailboxes._open = [boxes] if case["box_bytes"] and boxes else []
    mailboxes.BOX_BYTES = case["box_bytes"] or mailboxes.BOX_BYTES
    chance = random.Random(f"{number}/{rank}")
    sums = StepSum(count)
    *others, last = rank_microbatches(rank, processes, count)

    def put_all(arriving: ArrivingLeaf, leaf: list[torch.Tensor]) -> None:
        for place in chance.sample(range(len(leaf)), len(leaf)):
            arriving.put(place, leaf[place])

    for index in others:
        if chance.random() < 0.5:
            arriving = sums.begin(index, leaves[index], exchanged=False)
            put_all(arriving, leaves[index])
            arriving.finish()
        else:
            sums.add(index, leaves[index])
    time.sleep(chance.choice([0.0, 0.0, 0.002, 0.005]))
    if processes > 1 and case["early"] and chance.random() < 0.8:
        put_all(sums.begin(last, leaves[last], exchanged=True), leaves[last])
    else:
        sums.add(last, leaves[last])
    root = sums.finish()
    assert [tensor.dtype for tensor in root] == [tensor.dtype for tensor in leaves[0]]
    assert [tensor.shape for tensor in root] == [tensor.shape for tensor in leaves[0]]
    return bits(root)


def bits(tensors: list[torch.Tensor]) -> list[bytes]:
    return [one.flatten().view(torch.uint8).numpy().tobytes() for one in tensors]


def be_rank(
    rank: int, processes: int, store: Path, memory: mmap.mmap | None, connection: Any
) -> None:
    """Do the cases that come, until there are none."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(60)  # a rank has failed or the tests are gone: it would wait for ever
    where = f"file://{store}"
    dist.init_process_group("gloo", where, timedelta(seconds=10), processes, rank)
    names = [""] * processes
    dist.all_gather_object(names, process_ends.own_name())
    boxes = mailboxes.Mailboxes(memory, rank, names, timeout_s=10) if memory else None
    for number, case in enumerate(iter(connection.recv, None)):
        connection.send(sum_on_a_rank(number, rank, processes, case, boxes))
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module", params=[1, 2, 3, 4, 5, 6, 7, 8, 12])
def sum_on_all(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[int, Callable[[Case], list[list[bytes]]]]]:
    """The number of processes, and what gives the bits of the sum on each of them."""
    processes = request.param
    store = tmp_path_factory.mktemp("store") / "store"
    fork = multiprocessing.get_context("fork")
    can_share = processes > 1 and mailboxes.can_wait()
    memory = mmap.mmap(-1, mailboxes.Mailboxes.size_bytes(processes)) if can_share else None
    ends, ranks = [], []
    for rank in range(processes):
        here, there = fork.Pipe()
        ranks.append(fork.Process(target=be_rank, args=(rank, processes, store, memory, there)))
        ends.append(here)
        ranks[-1].start()
        there.close()

    def sum_case(case: Case) -> list[list[bytes]]:
        for end in ends:
            end.send(case)
        return [end.recv() for end in ends]

    yield processes, sum_case
    for end in ends:
        end.send(None)
    for rank in ranks:
        rank.join()
    assert [rank.exitcode for rank in ranks] == [0] * processes


cases = st.fixed_dictionaries(
    {
        "each": st.integers(1, 9),
        "length": st.sampled_from([1, 15, 16, 17, 100, 1000, 2500]),
        "types": st.sampled_from([0, 1, 3, 4]),
        "bucket_bytes": st.sampled_from([64, 1024, 4096, 2**20]),
        "early": st.booleans(),
        "small_bytes": st.sampled_from([0, 300, 2000, 2**20]),
        "by_host": st.booleans(),
        "box_bytes": st.sampled_from([None, 2048, 65536, mailboxes.BOX_BYTES]),
    }
)


@settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(case=cases)
def test_every_rank_has_the_bits_of_the_tree(
    sum_on_all: tuple[int, Callable[[Case], list[list[bytes]]]], case: Case
) -> None:
    """Pieces of any size, cut or whole; blocks that are subtrees or several of them."""
    processes, sum_case = sum_on_all
    leaves = make_leaves(processes * case["each"], case["length"], case["types"])
    root = bits([tree(list(part)) for part in zip(*leaves, strict=True)])
    assert sum_case(case) == [root] * processes
