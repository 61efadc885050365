"""Pods of launch/kubernetes.yaml as processes of this machine: their command, their variables."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import psutil
import yaml

from tests.conftest import REPOSITORY
from tests.distributed.forked_runs import Forked, fork_what_torchrun_starts
from tests.distributed.launch import fork_one, run_python
from tests.runs import DIGITS

KUBERNETES = REPOSITORY / "launch" / "kubernetes.yaml"
TRAINJOB = REPOSITORY / "launch" / "trainjob.yaml"


def objects(file: Path) -> dict[str, Any]:
    """The objects of a file by their kind."""
    return {each["kind"]: each for each in yaml.safe_load_all(file.read_text(encoding="utf-8"))}


JOB = objects(KUBERNETES)["Job"]
CONTAINER = JOB["spec"]["template"]["spec"]["containers"][0]


class Pod:
    """A pod, as the kubelet starts and stops it.

    What differs: one process a pod, the loopback network, a folder for the volume, no report,
    another time to wait for more pods, and processes that are forked, with the slow imports behind
    them.

    Args:
        index: among the pods of the job.
        volume: the folder at `/lockstep`.
        port: of the first pod.
        more: arguments of the training.
        last_call_s: how long the first pod waits for another one.
    """

    def __init__(
        self, index: int, volume: Path, port: int, *more: str, last_call_s: int = 1
    ) -> None:
        self.log = volume / f"log-{index}"
        variables = {"JOB_COMPLETION_INDEX": str(index)}
        for each in CONTAINER["env"]:
            source = each.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
            variables[each["name"]] = {"status.podIP": "127.0.0.1"}.get(source) or each["value"]
        assert variables["PET_RDZV_ENDPOINT"] == "lockstep-0.lockstep:29400"
        variables["PET_RDZV_ENDPOINT"] = f"127.0.0.1:{port}"
        variables["PET_NPROC_PER_NODE"] = "1"
        variables["PET_RDZV_CONF"] += f",last_call_timeout={last_call_s}"
        command = [*CONTAINER["command"], *CONTAINER["args"]]
        assert command[:5] == ["python", "/opt/lockstep/launch/pod.py", "-m", "trainer", "train"]
        assert command[5:7] == ["--config", "digits"]
        words = [str(volume), str(REPOSITORY / "launch" / "pod.py")]
        words += [str(REPOSITORY / "tests" / "train_without_report.py"), "--config", str(DIGITS)]
        words += [*command[7:], "--tracking.wandb", "disabled", *more]
        self.log.touch()
        self.process = Forked(fork_one(variables, self.log, self.log, _be_pod, *words), self.log)

    def evict(self, grace_s: float) -> None:
        """Send SIGTERM, and SIGKILL to all processes that are left after the grace period."""
        processes = [psutil.Process(self.process.pid)]
        processes += processes[0].children(recursive=True)
        self.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(grace_s)
        for each in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()

    def action(self) -> str:
        """What the job does now that this pod has ended, by its first rule that fits."""
        code = self.process.wait(timeout=240)
        if code == 0:
            return "Complete"
        for rule in JOB["spec"]["podFailurePolicy"]["rules"]:
            of_codes = rule.get("onExitCodes")
            if of_codes and of_codes["operator"] == "In" and code in of_codes["values"]:
                action: str = rule["action"]
                return action
        return "Count"


def _be_pod(volume: str, *words: str) -> None:
    os.chdir(volume)
    fork_what_torchrun_starts()
    run_python(*words)
