"""Processes agree on what connects them before they are connected; their GPUs are made up."""

from __future__ import annotations

import os
import socket
import sys
import time
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist

from tests.conftest import REPOSITORY
from tests.distributed.launch import fork_ranks, run_python
from trainer.base.errors import UserError
from trainer.ranks import backends

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="nothing can be forked there")


def be_rank(local_count: str, port: str, *gpus: str) -> None:
    """Agree with the others and form a group, by a store of rank 0 if a port is given.

    Args:
        local_count: of processes on a machine.
        gpus: the one that each rank sees, or CPU.
    """
    own = gpus[int(os.environ["RANK"])]
    os.environ["LOCAL_WORLD_SIZE"] = local_count
    if port:
        del os.environ["TORCHELASTIC_USE_AGENT_STORE"]
        os.environ["MASTER_PORT"] = port
    torch.cuda.device_count = lambda: 1
    # Slices of a GPU have its address, and each a UUID of its own.
    found = {"pci_domain_id": 0, "pci_bus_id": ord(own[0]), "pci_device_id": 0, "uuid": own}
    torch.cuda.get_device_properties = lambda index: SimpleNamespace(**found)
    for _ in range(2):  # as a second run in the process does
        try:
            backend = backends.agree(cpu=own == "CPU", timeout=timedelta(seconds=60))
        except UserError as error:
            say(str(error).partition(",")[0])
            return
        if not dist.is_initialized():
            dist.init_process_group("gloo")
        dist.barrier()
    say(str(backend))


def say(text: str) -> None:
    os.write(sys.stdout.fileno(), f"{text}\n".encode())  # in one piece, as the other writes too


@pytest.mark.parametrize(
    ("local_count", "gpus", "of_rank_0", "expected"),
    [
        ("1", ("A", "A"), True, "gloo"),
        ("1", ("A", "B"), False, "None"),
        ("1", ("A", "CPU"), False, "ACCELERATE_USE_CPU: 1 of 2 processes would use the CPU"),
        ("2", ("CPU", "A"), True, "ACCELERATE_USE_CPU: 1 of 2 processes would use the CPU"),
        ("2", ("CPU", "CPU"), True, "None"),
        ("2", ("A", "A"), False, "gloo"),
        ("2", ("A slice 1", "A slice 2"), False, "gloo"),
        ("2", ("A", "B"), True, "None"),  # each process sees one GPU, which has the number 0
    ],
)
def test_all_processes_choose_the_same(
    local_count: str, gpus: tuple[str, ...], of_rank_0: bool, expected: str, tmp_path: Path
) -> None:
    port = ""
    if of_rank_0:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
    output, errors = tmp_path / "output", tmp_path / "errors"
    codes = fork_ranks(2, {}, output, errors, be_rank, local_count, port, *gpus)
    assert codes == [0, 0], errors.read_text()
    assert output.read_text().splitlines() == [expected] * 2


def train_on_one_device(on_gpu: str, *words: str) -> None:
    """Train as a rank that has a GPU, which is made up, or none."""
    if os.environ["RANK"] == on_gpu:
        os.environ["ACCELERATE_USE_CPU"] = "false"
        torch.accelerator.is_available = lambda: True
        torch.cuda.device_count = lambda: 1
        found = {"pci_domain_id": 0, "pci_bus_id": 1, "pci_device_id": 0}
        torch.cuda.get_device_properties = lambda index: SimpleNamespace(**found)
    run_python(str(REPOSITORY / "train.py"), *words)


@pytest.mark.parametrize("on_gpu", ["0", "1"])
def test_ranks_of_one_machine_on_different_devices_end_at_once_with_one_message(
    on_gpu: str, tmp_path: Path
) -> None:
    """Also where the recipe could not be computed on one of these devices."""
    words = ["--config", str(REPOSITORY / "configs" / "digits.yaml")]
    words += ["--output_dir", str(tmp_path / "run"), "--timeout_seconds", "100"]
    words += ["--train.precision", "fp16", "--train.kernels", "native"]
    errors = tmp_path / "errors"
    begin_s = time.monotonic()
    codes = fork_ranks(2, {}, errors, errors, train_on_one_device, on_gpu, *words)
    assert codes == [2, 2], errors.read_text()
    assert time.monotonic() - begin_s < 60
    (message,) = errors.read_text().splitlines()
    assert message.startswith("ACCELERATE_USE_CPU: 1 of 2 processes would use the CPU"), message
    assert f"rank {1 - int(on_gpu)} has no GPU" in message
    assert not (tmp_path / "run").exists()
