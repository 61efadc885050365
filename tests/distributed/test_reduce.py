"""The sum between processes: the same bits as the tree evaluated in one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.distributed.launch import run_worker
from tests.distributed.worker import make_leaves


def tree(leaves: list[torch.Tensor]) -> torch.Tensor:
    if len(leaves) == 1:
        return leaves[0]
    half = 1 << ((len(leaves) - 1).bit_length() - 1)
    return tree(leaves[:half]) + tree(leaves[half:])


@pytest.mark.parametrize("processes", [2, 3, 4])
def test_every_rank_has_the_bits_of_the_tree(processes: int, tmp_path: Path) -> None:
    """Butterfly where the blocks are subtrees, their exchange elsewhere (6 leaves on 2 ranks)."""
    counts = [processes * each for each in (1, 2, 3, 4, 5)]
    outcomes = run_worker(processes, tmp_path / "out", name="reduce", cases=counts)
    for count, ranks in zip(counts, outcomes, strict=True):
        leaves = [torch.cat([part.flatten() for part in leaf]) for leaf in make_leaves(count)]
        expected = tree(leaves).tolist()
        assert ranks == [expected] * processes
