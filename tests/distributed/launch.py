"""Starting real processes under the launchers that users have."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from pathlib import Path
from typing import Any

from tests.conftest import REPOSITORY


def launcher(processes: int) -> list[str]:
    """The words that start a script in so many CPU processes; a free port is chosen."""
    if processes == 1:
        return [sys.executable]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return [*torchrun, "--nproc_per_node", str(processes)]


def environment(**more: str) -> dict[str, str]:
    """The environment of a started process: our packages, the CPU, one thread."""
    return os.environ | {
        "PYTHONPATH": str(REPOSITORY),
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",
        **more,
    }


def own_words(errors: str) -> str:
    """What the processes have said, before torchrun's table of failures says it again."""
    return errors.partition("ChildFailedError")[0]


def run_worker(processes: int, output: Path, **task: Any) -> Any:
    """Do a task of worker.py in so many processes; its outcome.

    The processes are forked from one that has imported torch, and meet as under torchrun, in a
    store of their parent's.
    """
    from torch.distributed import TCPStore

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.distributed.worker"])
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    errors = output.with_name(f"{output.name}.errors")
    ranks = []
    for rank in range(processes):
        variables = {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
        if processes > 1:
            variables |= {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(processes),
                "LOCAL_WORLD_SIZE": str(processes),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(store.port),
                "TORCHELASTIC_USE_AGENT_STORE": "True",
                "TORCHELASTIC_RESTART_COUNT": "0",
            }
        arguments = (variables, errors, [json.dumps(task), str(output)])
        ranks.append(context.Process(target=_be_worker, args=arguments, daemon=True))
    for process in ranks:
        process.start()
    for process in ranks:
        process.join()
    assert {process.exitcode for process in ranks} == {0}, errors.read_text()
    return json.loads(output.read_text())


def _be_worker(variables: dict[str, str], errors: Path, arguments: list[str]) -> None:
    """Do the task in this process, which was forked for it."""
    from tests.distributed import worker

    with errors.open("a") as file:
        os.dup2(file.fileno(), sys.stderr.fileno())
    os.environ.update(variables)
    worker.main(arguments)
