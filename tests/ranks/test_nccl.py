"""The rank that is lost is named where exchanges do not fail, but wait: as NCCL's on GPUs.

What torch's watchdog would report is given here; the ranks and their store are real.
"""

from __future__ import annotations

import atexit
import os
import platform
import re
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.distributed.launch import fork_ranks
from trainer.config.schema import RunConfig
from trainer.ranks import lost_ranks, nccl, process_group

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="nothing can be forked there")

PATIENCE_S = 4.0


def be_rank(lost: str, victim: str, *states: str) -> None:
    """Wait for ever, with a watchdog that reports the state of this rank; the victim otherwise."""
    lost_ranks.PATIENCE_S, nccl.INTERVAL_S, nccl.LAST_S = PATIENCE_S, 0.2, 0.3
    accelerator = process_group.create_accelerator(RunConfig())
    lost_ranks.note_host(accelerator)
    rank = accelerator.process_index
    began_s = time.monotonic()

    def get_state() -> str:
        return states[rank] if time.monotonic() > began_s + 0.5 else "SUCCESS"

    nccl.watch_exchanges(accelerator, get_state, 5.0)
    time.sleep(0.1)  # as the clock of files is coarser
    Path(os.environ[nccl.DUMP_VARIABLES[0]] + str(rank)).touch()
    if rank == int(victim):
        time.sleep(0.3 if lost == "killed" else 9.0)
        os.kill(os.getpid(), signal.SIGKILL)
    if lost == "killed":  # the main threads of the others notice it too, and end before the message
        nccl.LAST_S = 2.0
        while not lost_ranks.default_store().check([lost_ranks.FAILURE_KEY]):
            time.sleep(0.05)
        atexit._run_exitfuncs()
        os._exit(1)
    time.sleep(60.0)


@pytest.mark.parametrize(
    ("lost", "states", "reason"),
    [
        ("hangs", ("TIMEOUT", "SUCCESS", "TIMEOUT"), "an exchange has not ended within 5 s"),
        ("killed", ("COMM_ERROR", "SUCCESS", "SUCCESS"), "NCCL reports COMM_ERROR"),
    ],
)
def test_a_lost_rank_is_named_once(
    lost: str, states: tuple[str, ...], reason: str, tmp_path: Path
) -> None:
    """Also where only one other rank's watchdog notices that a connection has been closed."""
    output, host = tmp_path / "output", platform.node()
    env = {nccl.DUMP_VARIABLES[0]: str(tmp_path / "dump-")}
    codes = fork_ranks(3, env, output, output, be_rank, lost, "1", *states)
    assert codes == [1, -signal.SIGKILL, 1]
    (said,) = re.findall(rf"^rank [02] on {host}: (.*)", output.read_text(), re.MULTILINE)
    died = "died" if lost == "killed" else "died, or has not answered in time"
    assert said == (
        f"rank 1 on {host} {died} ({reason}); what each rank exchanged last is on its machine in "
        f"{tmp_path}/dump-RANK"
    )


def test_the_place_of_the_flight_recorder_is_torchs_own_or_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new, old = nccl.DUMP_VARIABLES
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv(old, "mine-")
    monkeypatch.delenv(new, raising=False)
    nccl.choose_dump_place()
    assert new not in os.environ, "it would count before the user's"
    monkeypatch.delenv(old)
    monkeypatch.setenv(new, "to be put back")
    del os.environ[new]
    nccl.choose_dump_place()
    assert os.environ[new] == f"{tmp_path}/torch/comm_lib_trace_rank_"
    assert (tmp_path / "torch").is_dir()


def be_rank_that_ends() -> None:
    """End in the usual way, while the exchanges are watched."""
    accelerator = process_group.create_accelerator(RunConfig())
    nccl.INTERVAL_S = 0.001
    nccl.watch_exchanges(accelerator, lambda: "SUCCESS", 5.0)
    time.sleep(0.3)
    process_group.leave(accelerator)
    atexit._run_exitfuncs()  # as `local_processes` does


def test_a_run_that_ends_is_not_disturbed(tmp_path: Path) -> None:
    output = tmp_path / "output"
    assert fork_ranks(2, {}, output, output, be_rank_that_ends) == [0, 0], output.read_text()
