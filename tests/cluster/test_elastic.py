"""The bits stay the same when torchrun replaces a dead worker, and when nodes come and go."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import psutil
import pytest

from tests.cluster.slurm import free_ports, wait_until
from tests.distributed import forked_runs
from tests.faults.running import LONG, ranks_of, start, steps_logged
from tests.runs import Run, check_same, command, train_here

# Without it torch 2.13 gives new workers the store of the old ones, with addresses of dead ones.
OWN_STORE = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}

# Wait less than the default 30 s for more nodes, and count a silent one as gone before 15 s, though
# not so soon that one on a busy machine does.
QUICK = "last_call_timeout=2,keep_alive_interval=1,keep_alive_max_attempt=8"

SLOW_BY_A_FILE = """
import os, pathlib, time
from models.quicknet import QuickNet

class Slow(QuickNet):
    def forward(self, images):
        file = pathlib.Path(os.environ.get("SLOW_FILE", "no such file"))
        if self.training and file.exists():
            time.sleep(float(file.read_text() or 0))
        return super().forward(images)
"""
# Seconds of a step: while a node comes or goes the run must not come to its end, however long that
# takes on a busy machine; while steps are waited for it may go on.
WAITING, GOING_ON = "0.5", "0.03"


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Of a run with a network that can be slow."""
    plugin = tmp_path_factory.mktemp("plugin") / "slow.py"
    plugin.write_text(SLOW_BY_A_FILE)
    return [*LONG, "--model.name", f"{plugin}:Slow"]


@pytest.fixture(scope="module")
def undisturbed(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    assert train_here(folder, *words) == 0
    return Run(folder, 0)


def test_a_worker_that_is_killed_is_replaced(
    words: list[str], undisturbed: Run, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    process = start(folder, *words, ranks=2, restarts=2, steps=30, **OWN_STORE)
    ranks_of(process)[1].kill()
    output, _ = process.communicate(timeout=120)
    assert "going on after step" in output
    check_same(Run(folder, process.returncode, output, output), undisturbed)


class Node:
    """A node of a run of one or two nodes: a torchrun of one process.

    Args:
        log: of the output of all nodes; rank 0, which prints, may be on any of them.
        port: of the meeting point on the first node.
    """

    def __init__(self, log: Path, port: int, folder: Path, slow: Path, *more: str) -> None:
        torchrun = ["--nnodes", "1:2", "--nproc_per_node", "1", "--max-restarts", "3"]
        torchrun += ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}"]
        torchrun += ["--rdzv-id", "run", "--rdzv-conf", QUICK, "--local-addr", "127.0.0.1"]
        script = command(folder, *more)[1:]
        log.touch()
        env = OWN_STORE | {"SLOW_FILE": str(slow)}
        self.agent = forked_runs.start_torchrun(log, *torchrun, *script, **env)

    def die(self) -> None:
        """Kill torchrun and its worker at once, as a power failure does."""
        agent = psutil.Process(self.agent.pid)
        for process in [*agent.children(recursive=True), agent]:
            process.kill()
        self.agent.wait()


def processes_in_turn(log: Path) -> list[str]:
    """Return how many processes the run had, as its headers say, each change once.

    On a busy machine torchrun may start again with the same nodes before it hears of a new one.
    """
    starts = re.findall(r"^processes +(\d+),", log.read_text(), re.MULTILINE)
    return [processes for processes, _ in itertools.groupby(starts)]


def test_a_node_is_lost_and_another_joins_later(
    words: list[str], undisturbed: Run, tmp_path: Path
) -> None:
    folder, slow, log = tmp_path / "run", tmp_path / "file", tmp_path / "log"
    (port,) = free_ports(1)
    nodes: list[Node] = []

    def add_node() -> None:
        nodes.append(Node(log, port, folder, slow, *words))

    def trains_on(*processes: str) -> None:
        """Wait until the run has had these numbers of processes, and has trained since."""
        first = nodes[0].agent
        slow.write_text(WAITING)
        wait_until(
            lambda: processes_in_turn(log) == list(processes) or first.poll() is not None, 120
        )
        assert processes_in_turn(log) == list(processes), log.read_text()
        steps = steps_logged(folder)
        slow.write_text(GOING_ON)
        wait_until(lambda: steps_logged(folder) > steps + 11, 60)
        slow.write_text(WAITING)

    try:
        add_node()
        trains_on("1")
        add_node()
        trains_on("1", "2")
        nodes[1].die()
        trains_on("1", "2", "1")
        add_node()
        trains_on("1", "2", "1", "2")
        slow.unlink()
        codes = [nodes[0].agent.wait(timeout=120), nodes[2].agent.wait(timeout=120)]
    finally:
        for node in nodes:
            node.agent.kill()
    output = log.read_text()
    assert codes == [0, 0], output
    assert output.count("going on after step") >= 3
    check_same(Run(folder, 0, output, output), undisturbed)
