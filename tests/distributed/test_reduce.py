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


@pytest.mark.parametrize("processes", [2, 3, 4, 6, 8])
def test_every_rank_has_the_bits_of_the_tree(processes: int, tmp_path: Path) -> None:
    """Butterfly where the blocks are subtrees, their exchange elsewhere (6 leaves on 2 ranks)."""
    counts = [processes * each for each in range(1, 18)]
    outcomes = run_worker(processes, tmp_path / "out", name="reduce", cases=counts)
    for count, ranks in zip(counts, outcomes, strict=True):
        parts = zip(*make_leaves(count), strict=True)
        root = [tree([tensor.flatten() for tensor in part]).double() for part in parts]
        assert ranks == [torch.cat(root).tolist()] * processes
