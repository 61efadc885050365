"""The sum between processes has the same bits as the tree evaluated in one."""

from __future__ import annotations

import multiprocessing
import random
import signal
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist

from trainer.base.flat_tensors import layout, pack, unpack
from trainer.data.sampling import rank_microbatches
from trainer.training.reduction import Accumulator, sum_over_ranks

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="nothing can be forked there")

Outcome = tuple[list[list[float]], int]


def tree(leaves: list[torch.Tensor]) -> torch.Tensor:
    if len(leaves) == 1:
        return leaves[0]
    half = 1 << ((len(leaves) - 1).bit_length() - 1)
    return tree(leaves[:half]) + tree(leaves[half:])


def make_leaves(count: int, types: int) -> list[list[torch.Tensor]]:
    """Make tensors of up to three types and very different sizes: any other order would show."""
    generator = torch.Generator().manual_seed(count)

    def leaf() -> list[torch.Tensor]:
        scale = 10.0 ** torch.randint(-3, 4, (5,), generator=generator)
        return [
            torch.randn(5, generator=generator) * scale,
            torch.randn(2, 3, 1, 1, generator=generator).to(memory_format=torch.channels_last),
            torch.randint(-9, 9, (3,), generator=generator),
            torch.randn(2, 2, generator=generator, dtype=torch.float64) * scale[0],
        ][: types + 1]

    return [leaf() for _ in range(count)]


def sums_of_a_rank(
    rank: int, processes: int, store: Path, counts: list[int], types: int
) -> list[Outcome]:
    """Return the root on this rank for each number of leaves, and how often all had to gather.

    The ranks come to each exchange in a different order, some of them late.
    """
    where = f"file://{store}"
    dist.init_process_group("gloo", where, timedelta(seconds=10), processes, rank)
    outcomes = []
    try:
        for number, count in enumerate(counts):
            leaves = make_leaves(count, types)
            sums = Accumulator(count)
            for index in rank_microbatches(rank, processes, count):
                sums.add(index, pack(leaves[index]))
            time.sleep(random.Random(f"{number}/{rank}").choice([0.0, 0.0, 0.005, 0.02]))
            with patch.object(dist, "all_gather", wraps=dist.all_gather) as gather:
                root = unpack(sum_over_ranks(sums.nodes, count), layout(leaves[0]))
            assert [tensor.dtype for tensor in root] == [tensor.dtype for tensor in leaves[0]]
            outcomes.append(([tensor.flatten().tolist() for tensor in root], gather.call_count))
    finally:
        dist.destroy_process_group()
    return outcomes


def set_alarm() -> None:
    """End this process if a rank has failed or the tests are gone: it would wait for ever."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(30)


@pytest.mark.parametrize(
    ("processes", "types"), [(1, 3), (2, 3), (3, 3), (4, 3), (6, 3), (8, 3), (2, 1), (3, 1), (2, 2)]
)
def test_every_rank_has_the_bits_of_the_tree(processes: int, types: int, tmp_path: Path) -> None:
    """Butterfly if the blocks are subtrees, otherwise their exchange (6 leaves on 2 ranks).

    Rank 0 is this process, the others are forked from it.
    """
    counts = [processes * each for each in range(1, 14)]
    task = (processes, tmp_path / "store", counts, types)
    fork = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(processes, fork, set_alarm) as pool:
        others = [pool.submit(sums_of_a_rank, rank, *task) for rank in range(1, processes)]
        ranks = [sums_of_a_rank(0, *task), *(other.result() for other in others)]
    for count, outcomes in zip(counts, zip(*ranks, strict=True), strict=True):
        parts = zip(*make_leaves(count, types), strict=True)
        root = [tree([tensor.flatten() for tensor in part]).tolist() for part in parts]
        exchanged = processes == 1 or count.bit_count() == processes.bit_count() == 1
        assert outcomes == ((root, 0 if exchanged else types),) * processes
