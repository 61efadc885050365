"""The sum between processes: the same bits as the tree evaluated in one."""

from __future__ import annotations

import multiprocessing
import random
import signal
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from trainer.microbatch import Accumulator, reduce, share
from trainer.packing import layout, pack, unpack

Outcome = tuple[list[list[float]], int]


def tree(leaves: list[torch.Tensor]) -> torch.Tensor:
    if len(leaves) == 1:
        return leaves[0]
    half = 1 << ((len(leaves) - 1).bit_length() - 1)
    return tree(leaves[:half]) + tree(leaves[half:])


def make_leaves(count: int, types: int) -> list[list[torch.Tensor]]:
    """Tensors of up to three types and widely different sizes: another order of addition shows."""
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
    """The root on this rank for each number of leaves, and how often all had to gather.

    The ranks come to each exchange in another order, some of them late.
    """
    # Where another rank has failed, or the tests are gone, this one must not wait for ever.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(60)
    where = f"file://{store}"
    dist.init_process_group("gloo", where, timedelta(seconds=20), processes, rank)
    gathers, all_gather = [], dist.all_gather
    dist.all_gather = lambda *arguments: gathers.append(all_gather(*arguments))  # type: ignore[assignment]
    outcomes = []
    for number, count in enumerate(counts):
        leaves = make_leaves(count, types)
        sums = Accumulator(count)
        for index in share(rank, processes, count):
            sums.add(index, pack(leaves[index]))
        time.sleep(random.Random(f"{number}/{rank}").choice([0.0, 0.0, 0.005, 0.02]))
        gathers.clear()
        root = unpack(reduce(sums.nodes, count), layout(leaves[0]))
        assert [tensor.dtype for tensor in root] == [tensor.dtype for tensor in leaves[0]]
        outcomes.append(([tensor.flatten().tolist() for tensor in root], len(gathers)))
    dist.destroy_process_group()
    return outcomes


def sums_of_ranks(
    processes: int, store: Path, counts: list[int], types: int
) -> list[tuple[Outcome, ...]]:
    """What each rank, a process of its own, has for each number of leaves."""
    with ProcessPoolExecutor(processes, multiprocessing.get_context("fork")) as pool:
        ranks = [
            pool.submit(sums_of_a_rank, rank, processes, store, counts, types)
            for rank in range(processes)
        ]
        return list(zip(*(rank.result() for rank in ranks), strict=True))


@pytest.mark.parametrize("types", [1, 3])
@pytest.mark.parametrize("processes", [2, 3, 4, 6, 8])
def test_every_rank_has_the_bits_of_the_tree(processes: int, types: int, tmp_path: Path) -> None:
    """Butterfly where the blocks are subtrees, their exchange elsewhere (6 leaves on 2 ranks)."""
    counts = [processes * each for each in range(1, 18)]
    outcomes = sums_of_ranks(processes, tmp_path / "store", counts, types)
    for count, ranks in zip(counts, outcomes, strict=True):
        parts = zip(*make_leaves(count, types), strict=True)
        root = [tree([tensor.flatten() for tensor in part]).tolist() for part in parts]
        powers = count.bit_count() == processes.bit_count() == 1
        assert ranks == ((root, 0 if powers else types),) * processes
