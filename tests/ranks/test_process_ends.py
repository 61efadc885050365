"""Which processes have ended: as the kernel tells of real ones."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from tests.conftest import REPOSITORY
from trainer.ranks import process_ends

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")

TELL = """
from trainer.ranks import process_ends
print(process_ends.own_name(), flush=True)
input()
"""


def test_a_process_has_ended_even_if_nobody_has_asked_for_its_exit_code() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", TELL],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        name = process.stdout.readline().strip()
        assert not process_ends.has_ended(name)
        process.kill()
        process.stdout.read()  # to its end, which comes with that of the process
        assert wait_for_end(name)
    assert process_ends.has_ended(name)


def wait_for_end(name: str) -> bool:
    """Ask for up to two seconds: the kernel closes a process's files before it has ended."""
    return any(process_ends.has_ended(name) or time.sleep(0.01) for _ in range(200))


def test_another_process_with_the_same_number_is_not_taken_for_it() -> None:
    system, number, start = process_ends.own_name().split()
    assert not process_ends.has_ended(f"{system} {number} {start}")
    assert process_ends.has_ended(f"{system} {number} {int(start) - 1}")


@pytest.mark.parametrize("name", ["", "another/pid:[1] 1 1"])
def test_nothing_is_known_of_other_machines(name: str) -> None:
    assert not process_ends.has_ended(name)
