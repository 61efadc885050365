"""Processes of several machines agree on what connects them before they are connected.

Each process is a machine of its own, whose GPUs are made up.
"""

from __future__ import annotations

import os
import socket
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import torch.distributed as dist

from tests.distributed.launch import fork_ranks
from trainer.base.errors import UserError
from trainer.ranks import backends

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="nothing can be forked there")


def be_machine(port: str, *kinds: str) -> None:
    """Agree with the others and form a group, by a store of rank 0 if a port is given."""
    rank = int(os.environ["RANK"])
    os.environ["LOCAL_WORLD_SIZE"] = "1"
    if port:
        del os.environ["TORCHELASTIC_USE_AGENT_STORE"]
        os.environ["MASTER_PORT"] = port
    backends._shares_gpu = lambda: kinds[rank] == "shared"
    try:
        backend = backends.agree(cpu=kinds[rank] == "CPU", timeout=timedelta(seconds=60))
    except UserError as error:
        say(str(error).partition(",")[0])
        return
    dist.init_process_group("gloo")
    dist.barrier()
    say(str(backend))


def say(text: str) -> None:
    os.write(sys.stdout.fileno(), f"{text}\n".encode())  # in one piece, as the other writes too


@pytest.mark.parametrize(
    ("kinds", "of_rank_0", "expected"),
    [
        (("own", "shared"), True, "gloo"),
        (("own", "own"), False, "None"),
        (("own", "CPU"), False, "ACCELERATE_USE_CPU: 1 of 2 processes would use the CPU"),
    ],
)
def test_all_machines_choose_the_same(
    kinds: tuple[str, ...], of_rank_0: bool, expected: str, tmp_path: Path
) -> None:
    port = ""
    if of_rank_0:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
    output, errors = tmp_path / "output", tmp_path / "errors"
    assert fork_ranks(2, {}, output, errors, be_machine, port, *kinds) == [0, 0], errors.read_text()
    assert output.read_text().splitlines() == [expected] * 2
