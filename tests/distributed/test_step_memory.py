"""What a step of several processes takes: memory, and how much of its exchange nobody waits for."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.distributed.launch import run_worker

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="nothing can be forked there")


def measure(
    processes: int, each: list[int], bucket_bytes: int | None, folder: Path, **sizes: int
) -> Any:
    more = {"each": each, "bucket_bytes": bucket_bytes, **sizes}
    return run_worker(processes, folder / "out", name="measure steps", **more)


@pytest.mark.parametrize(("processes", "each"), [(1, [4]), (2, [1, 2, 3, 4]), (3, [1])])
def test_a_step_takes_at_most_three_gradients_beside_the_parameters(
    processes: int, each: list[int], tmp_path: Path
) -> None:
    """Of up to four micro-batches a process; in buckets of an eighth of the vector.

    A vector and the gradients that come, where the process has one or two; one more where it has a
    sum that waits for its other half. Most of it is exchanged early: when the first of eight layers
    is to get its gradient, those of the others are on their way.
    """
    most = {1: 2.0, 2: 2.0, 3: 3.0, 4: 3.0}
    for count, found in zip(each, measure(processes, each, 2**18, tmp_path), strict=True):
        assert 1.0 <= found["gradients"] <= most[count] + 0.25, count
        assert (found["begun"] >= 0.5) is (processes > 1), count


def test_a_network_of_one_bucket_sends_nothing_early(tmp_path: Path) -> None:
    (found,) = measure(2, [1], 2**23, tmp_path)
    assert found["begun"] == 0.0
    assert found["gradients"] <= 2.25


def test_gradients_that_are_summed_as_they_come_take_less(tmp_path: Path) -> None:
    """The vector and the gradient of a layer; one vector more for a sum that waits."""
    most = [1.25, 1.25, 2.25]
    all_found = measure(1, [2, 3, 4], None, tmp_path, cached_bytes=0)
    for limit, found in zip(most, all_found, strict=True):
        assert 1.0 <= found["gradients"] <= limit
