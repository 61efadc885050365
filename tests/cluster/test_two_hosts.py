"""Pull the cable between two machines (network namespaces) while they train together."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.slurm import wait_until
from tests.distributed.launch import environment
from tests.faults.running import steps_logged
from tests.runs import command

CABLE = "cable"
"""the network interface of each host"""

TIMEOUT_SECONDS = 4
ANSWER_SECONDS = 15
"""for the other hosts to answer, after that"""


class Host:
    """A host with its own name and network."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.name = f"host-{number}"
        self.namespace = f"lockstep-{os.getpid()}-{number}"
        self.address = f"10.0.0.{1 + number}"

    def plug_in(self) -> None:
        ip("-n", self.namespace, "address", "add", f"{self.address}/24", "dev", CABLE)
        for device in (CABLE, "lo"):
            ip("-n", self.namespace, "link", "set", device, "up")

    def pull_the_cable(self) -> None:
        ip("-n", self.namespace, "link", "set", CABLE, "down")

    def start(self, words: list[str]) -> subprocess.Popen[str]:
        named = ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', self.name]
        return subprocess.Popen(
            ["ip", "netns", "exec", self.namespace, *named, *words],
            env=environment(GLOO_SOCKET_IFNAME=CABLE),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@pytest.fixture
def hosts() -> Iterator[list[Host]]:
    """Make two hosts with a cable between them; skip where that is not permitted."""
    if shutil.which("ip") is None or shutil.which("unshare") is None:
        pytest.skip("no ip, unshare: apt-get install iproute2 util-linux")
    hosts = [Host(number) for number in range(2)]
    with contextlib.ExitStack() as stack:
        try:
            for host in hosts:
                ip("netns", "add", host.namespace)
                stack.callback(ip, "netns", "delete", host.namespace)
            ends = [["name", CABLE, "netns", host.namespace] for host in hosts]
            ip("link", "add", *ends[0], "type", "veth", "peer", *ends[1])
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespaces: {error.stderr.strip()}")
        for host in hosts:
            host.plug_in()
        yield hosts


def test_a_cut_network_ends_the_run_on_both_sides_and_each_says_why(
    hosts: list[Host], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2"]
    torchrun += ["--master-addr", hosts[0].address, "--master-port", "29500"]
    endless = ["--train.epochs", "10000", "--timeout_seconds", str(TIMEOUT_SECONDS)]
    launched = [
        host.start(command(folder, *endless, launcher=[*torchrun, "--node-rank", str(number)]))
        for number, host in enumerate(hosts)
    ]
    try:
        wait_until(
            lambda: steps_logged(folder) > 20 or any(each.poll() is not None for each in launched),
            120,
        )
        assert [each.poll() for each in launched] == [None, None]
        hosts[0].pull_the_cable()
        cut_s = time.monotonic()
        outputs = [each.communicate(timeout=60)[0] for each in launched]
        assert time.monotonic() - cut_s < TIMEOUT_SECONDS + ANSWER_SECONDS + 10
    finally:
        for each in launched:
            each.kill()
    assert [each.returncode for each in launched] == [1, 1]
    lost = f"rank 0 on {hosts[0].name}: rank 1 on {hosts[1].name} died, or has not answered in time"
    assert lost in outputs[0]
    unreachable = (
        f"rank 1 on {hosts[1].name}: the machine of rank 0, or the network to it, does not answer"
    )
    assert unreachable in outputs[1]
