"""Start a real Slurm of two nodes on this machine, with its own folder, key, sockets and ports."""

from __future__ import annotations

import contextlib
import os
import platform
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.conftest import REPOSITORY

PROGRAMS = ("munged", "munge", "slurmctld", "slurmd", "sbatch", "srun", "scancel", "scontrol")
NODES = ("n1", "n2")
PERIOD_SECONDS = 0.2

# Not "anything but RUNNING": a job that goes on is PREEMPTED, REQUEUED or SIGNALING for moments.
ENDED = {
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY"),
    "TIMEOUT",
}

# Waits are as short as possible: a requeued job waits for cred_expire, 120 s by default.
CONFIGURATION = """
ClusterName=lockstep
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
SlurmctldPort={controller}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1
SlurmdParameters=config_overrides
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MailProg=/bin/true
ReturnToService=2
KillWait=5
MinJobAge=600
UnkillableStepTimeout=30
{nodes}
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=60
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=2 PreemptMode=OFF
"""
NODE = "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=4 State=UNKNOWN"


def reason_to_skip() -> str:
    """Tell why no Slurm can be started here; empty where it can."""
    lacking = [name for name in PROGRAMS if shutil.which(name, path=_search_path()) is None]
    if sys.platform != "linux":
        return "Slurm runs on Linux"
    if lacking:
        return f"no {', '.join(lacking)}: apt-get install slurm-wlm munge"
    if os.geteuid() != 0:
        return "the daemons need root"
    return ""


class Slurm:
    """The daemons of a cluster; use it as a context.

    Args:
        folder: an empty one with a short path (a socket's may have 107 bytes).
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = _without_launchers(os.environ) | {
            "SLURM_CONF": str(folder / "slurm.conf"),
            "PATH": f"{Path(sys.executable).parent}:{_search_path()}",
            "PYTHONPATH": f"{REPOSITORY}:{Path(__file__).parent / 'without_report'}",
        }
        self._daemons: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Slurm:
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._stop()

    def call(self, *words: str | Path, code: int = 0) -> str:
        """Run a command that must end with `code`; return its output."""
        done = subprocess.run(
            [str(word) for word in words],
            env=self.environment,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == code, done.stdout
        return done.stdout

    def submit(self, *words: str | Path) -> int:
        """Submit a job script with its arguments; return the job's number."""
        return int(self.call("sbatch", "--parsable", *words))

    def job(self, number: int | str) -> dict[str, str]:
        """Return what Slurm knows of a job: `JobState`, `Restarts`, `ExitCode` and more."""
        text = self.call("scontrol", "--oneliner", "show", "job", str(number))
        return dict(word.split("=", 1) for word in text.split() if "=" in word)

    def wait(self, number: int | str, limit_s: float = 240) -> dict[str, str]:
        """Wait until a job has ended (a requeued one has not); return what Slurm knows of it."""
        found: dict[str, str] = {}

        def ended() -> bool:
            found.update(self.job(number))
            return found["JobState"] in ENDED

        wait_until(ended, limit_s)
        return found

    def _start(self) -> None:
        # munged wants its socket in a folder that everybody may enter.
        self.folder.chmod(0o755)
        key = self.folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(64))
        # A free port may be taken before the daemon listens: try again.
        for _ in range(3):
            self._write_configuration()
            self._start_daemons()
            with contextlib.suppress(TimeoutError):
                wait_until(self._ready, 30)
                return
            self._stop()
        logs = "\n".join(path.read_text()[-2000:] for path in self.folder.glob("*.log"))
        raise AssertionError(f"Slurm did not start:\n{logs}")

    def _write_configuration(self) -> None:
        host = platform.node().split(".")[0]
        controller, *ports = free_ports(1 + len(NODES))
        nodes = [
            NODE.format(name=name, host=host, port=port)
            for name, port in zip(NODES, ports, strict=True)
        ]
        text = CONFIGURATION.format(
            folder=self.folder, host=host, controller=controller, nodes="\n".join(nodes)
        )
        (self.folder / "slurm.conf").write_text(text)

    def _start_daemons(self) -> None:
        for name in ("state", *(f"spool-{node}" for node in NODES)):
            (self.folder / name).mkdir(exist_ok=True)
        files = {"socket": "munge.socket", "key-file": "munge.key", "seed-file": "munge.seed"}
        files |= {"pid-file": "munge.pid", "log-file": "munge.log"}
        options = [f"--{option}={self.folder / name}" for option, name in files.items()]
        self._daemon("munged", "--foreground", "--force", *options)
        wait_until((self.folder / "munge.socket").exists, 10)
        self._daemon("slurmctld", "-D")
        for node in NODES:
            self._daemon("slurmd", "-D", "-N", node)

    def _daemon(self, *words: str) -> None:
        with (self.folder / "daemons.log").open("ab") as log:
            process = subprocess.Popen(
                words, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self._daemons.append(process)

    def _ready(self) -> bool:
        if any(daemon.poll() is not None for daemon in self._daemons):
            raise TimeoutError
        words = ["sinfo", "--noheader", "--format=%T", "--Node", "--partition=all"]
        done = subprocess.run(
            words, env=self.environment, capture_output=True, text=True, check=False
        )
        return done.stdout.split() == ["idle"] * len(NODES)

    def _stop(self) -> None:
        """End the jobs, then the daemons, which this object started."""
        if self._daemons:
            with contextlib.suppress(AssertionError, subprocess.TimeoutExpired, TimeoutError):
                self.call("scancel", "--user=root")
                wait_until(lambda: not self.call("squeue", "--noheader").strip(), 30)
        while self._daemons:
            daemon = self._daemons.pop()
            daemon.send_signal(signal.SIGTERM)
            try:
                daemon.wait(timeout=20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


def wait_until(condition: Callable[[], bool], limit_s: float) -> None:
    """Wait for a condition.

    Raises:
        TimeoutError: it is not true in time.
    """
    end_s = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > end_s:
            raise TimeoutError(f"not true within {limit_s} s")
        time.sleep(PERIOD_SECONDS)


def free_ports(count: int) -> list[int]:
    """Find different ports on which nobody listens."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("", 0))
        return [each.getsockname()[1] for each in sockets]


def _search_path() -> str:
    """Return the search path of programs, with the folders of daemons."""
    return f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"


def _without_launchers(variables: os._Environ[str]) -> dict[str, str]:
    """Return the environment without variables of another Slurm, launchers and batch jobs."""
    prefixes = ("SLURM", "SBATCH", "SRUN", "ACCELERATE_", "TORCHELASTIC_")
    ours = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    return {k: v for k, v in variables.items() if not k.startswith(prefixes) and k not in ours}
