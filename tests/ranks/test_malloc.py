"""The allocator's settings, by the page faults that they save and the pages that tensors get."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.distributed.launch import environment

STEPS = """
import resource, sys
import torch
from trainer.ranks.caller_settings import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

keep_freed_memory()
for step in range(15):
    if step == 10:  # by then the heap has grown to what a step needs, gaps included
        before = faults()
    blocks = [torch.ones(2_000_000) for _ in range(8)]
    del blocks
print(faults() - before)
"""
PAGES_OF_A_STEP = 8 * 2_000_000 * 4 // 4096


def page_faults(**more: str) -> int:
    """Of five steps, in a process of its own."""
    words = [sys.executable, "-c", STEPS]
    finished = subprocess.run(
        words, env=environment(**more), capture_output=True, text=True, check=True
    )
    return int(finished.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="page faults are counted on Linux")
def test_a_step_finds_its_memory_mapped_unless_the_user_wants_it_otherwise() -> None:
    assert page_faults() < PAGES_OF_A_STEP / 8  # one block of eight, once
    assert page_faults(MALLOC_TRIM_THRESHOLD_="131072") > PAGES_OF_A_STEP


HUGE = """
from pathlib import Path
import torch
from trainer.ranks.caller_settings import keep_freed_memory, use_huge_pages

keep_freed_memory()
use_huge_pages()
blocks = [torch.ones(2_000_000) for _ in range(8)]
print(Path("/proc/self/smaps_rollup").read_text())
"""
SWITCH = Path("/sys/kernel/mm/transparent_hugepage/enabled")
of_who_asks = pytest.mark.skipif(
    not SWITCH.exists() or "[madvise]" not in SWITCH.read_text(),
    reason="this kernel has no huge pages for who asks",
)


def huge_kb(before: str = "", **more: str) -> int:
    """Of a process's memory that lies in huge pages.

    Args:
        before: code that the process begins with.
    """
    words = [sys.executable, "-c", before + HUGE]
    finished = subprocess.run(
        words, env=environment(**more), capture_output=True, text=True, check=True
    )
    found = re.search(r"AnonHugePages: +(\d+) kB", finished.stdout)
    assert found
    return int(found[1])


@of_who_asks
def test_tensors_lie_in_huge_pages_unless_the_user_wants_it_otherwise() -> None:
    assert huge_kb() > 8 * 8_000 / 2  # where other processes leave the kernel some
    assert huge_kb(MALLOC_TRIM_THRESHOLD_="131072") == 0


@of_who_asks
@pytest.mark.parametrize("limit", ["RLIMIT_AS", "RLIMIT_DATA"])
def test_nothing_is_reserved_where_a_limit_counts_it(limit: str) -> None:
    assert huge_kb(f"import resource; resource.setrlimit(resource.{limit}, (2**40, 2**40))") == 0
