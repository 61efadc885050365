"""Accelerate's launch files start as many processes as they say, as real processes."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import REPOSITORY
from tests.distributed.launch import start_forked

LAUNCH = REPOSITORY / "launch"
COMMAND = ("-m", "accelerate.commands.accelerate_cli", "launch", "--config_file")

PROBE = """
from trainer.config.schema import RunConfig
from trainer.ranks.process_group import create_accelerator

accelerator = create_accelerator(RunConfig())
line = f"rank {accelerator.process_index} of {accelerator.num_processes}, {accelerator.device.type}"
print(line + "\\n", end="", flush=True)
accelerator.wait_for_everyone()
accelerator.end_training()
"""


# Without torch, so that there can be many.
COUNT = """
import os

rank, count = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
print(f"rank {rank} of {count}, process\\n", end="", flush=True)
"""

PRINTED = re.compile(r"rank \d+ of \d+, \w+")

ASKED_FOR = {"cpu.yaml": 1, "cpu_2.yaml": 2, "gpu.yaml": 1, "gpus.yaml": 2, "nodes.yaml": 16}
FILES = sorted(ASKED_FOR)


@pytest.fixture
def probe(tmp_path: Path) -> Path:
    path = tmp_path / "probe.py"
    path.write_text(PROBE, encoding="utf-8")
    return path


def start(file: str, probe: Path, *, use_cpu: bool) -> subprocess.Popen[str]:
    """Start a launch file as a user does, from a shell without the launchers' own variables."""
    inherited = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in inherited and not name.startswith("ACCELERATE_")
    }
    environment |= {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    if use_cpu:
        environment["ACCELERATE_USE_CPU"] = "true"
    # `accelerate launch`, with everything that this command imports.
    return subprocess.Popen(
        [sys.executable, *COMMAND, str(LAUNCH / file), str(probe)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def lines_of(launch: subprocess.Popen[str]) -> list[str]:
    """What the probes of a launch printed, sorted; fails where it failed."""
    try:
        output, _ = launch.communicate(timeout=120)
    finally:
        launch.kill()
    assert launch.returncode == 0, output
    return sorted(PRINTED.findall(output))


def lines_of_machines(file: str, probe: Path, *machines: list[str]) -> list[str]:
    """What the probes of launches with these options printed, sorted; all of them at once.

    Their launchers are forked from a process that has the slow imports behind it.
    """
    folders = [probe.parent / f"machine-{number}" for number in range(len(machines))]
    for folder in folders:
        folder.mkdir()
    words = [[*COMMAND, str(LAUNCH / file), *options, str(probe)] for options in machines]
    launches = [start_forked(folder, *own) for folder, own in zip(folders, words, strict=True)]
    for launch in launches:
        launch.join(120)
        launch.kill()
    output = "".join((folder / name).read_text() for folder in folders for name in ("out", "err"))
    assert [launch.exitcode for launch in launches] == [0] * len(machines), output
    return sorted(PRINTED.findall(output))


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def test_one_cpu_process(probe: Path) -> None:
    assert lines_of(start("cpu.yaml", probe, use_cpu=False)) == ["rank 0 of 1, cpu"]


def test_two_cpu_processes_are_two(probe: Path) -> None:
    """The variable is needed only where there is a GPU."""
    import torch

    launch = start("cpu_2.yaml", probe, use_cpu=torch.accelerator.is_available())
    assert lines_of(launch) == ["rank 0 of 2, cpu", "rank 1 of 2, cpu"]


def test_the_count_of_a_launch_file_can_be_changed_on_the_command_line(count: Path) -> None:
    found = lines_of_machines("gpus.yaml", count, ["--num_processes", "3"])
    assert found == [f"rank {rank} of 3, process" for rank in range(3)]


def test_two_machines_form_one_group(probe: Path) -> None:
    options = ["--num_processes", "2", "--main_process_ip", "127.0.0.1"]
    options += ["--main_process_port", free_port()]
    machines = [[*options, "--machine_rank", str(number)] for number in (0, 1)]
    assert lines_of_machines("nodes.yaml", probe, *machines) == [
        "rank 0 of 2, cpu",
        "rank 1 of 2, cpu",
    ]


@pytest.fixture
def count(tmp_path: Path) -> Path:
    path = tmp_path / "count.py"
    path.write_text(COUNT, encoding="utf-8")
    return path


@pytest.mark.parametrize("file", [file for file in FILES if not file.startswith("cpu")])
def test_as_many_processes_start_as_the_file_says(file: str, count: Path) -> None:
    """On all its machines, here this one; processes that compute nothing need no GPU each."""
    settings = yaml.safe_load((LAUNCH / file).read_text(encoding="utf-8"))
    machines: list[list[str]] = [[]]
    if settings["num_machines"] > 1:
        meeting = ["--main_process_ip", "127.0.0.1", "--main_process_port", free_port()]
        machines = [
            [*meeting, "--machine_rank", str(machine)]
            for machine in range(settings["num_machines"])
        ]
    started = lines_of_machines(file, count, *machines)
    expected = settings["num_processes"]
    assert expected == ASKED_FOR[file]
    assert started == sorted(f"rank {rank} of {expected}, process" for rank in range(expected))


@pytest.mark.parametrize("file", FILES)
def test_accelerate_reads_a_file_as_it_is_meant(file: str) -> None:
    """As its command does, with this machine's GPUs or none: other versions may fill in others."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    words = ["--config_file", str(LAUNCH / file), "--main_process_ip", "127.0.0.1", "train.py"]
    read, _, _ = _validate_launch_command(launch_command_parser().parse_args(words))
    assert read.num_processes == ASKED_FOR[file]
    assert read.num_machines == (2 if file == "nodes.yaml" else 1)
    assert bool(read.multi_gpu) == (ASKED_FOR[file] > 1), "the launcher that starts several"
    assert bool(read.use_cpu) == file.startswith("cpu")
    assert read.mixed_precision == "no"


@pytest.mark.parametrize("file", FILES)
def test_accelerate_knows_every_key(file: str) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    settings = load_config_from_file(str(LAUNCH / file))
    assert settings.num_processes >= settings.num_machines
    assert settings.mixed_precision == "no"
    # MULTI_CPU starts one process without a word.
    assert settings.distributed_type in ("NO", "MULTI_GPU")
