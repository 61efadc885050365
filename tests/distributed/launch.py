"""Start real processes: with the launchers that users have, or faster, as if by one."""

from __future__ import annotations

import json
import multiprocessing
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from tests.conftest import REPOSITORY

ACCELERATE = [
    sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--multi_gpu",
    "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no",
    "--dynamo_backend", "no", "--main_process_port", "0",
]  # fmt: skip
"""starts a script in two processes with `accelerate launch`"""


def launcher(processes: int) -> list[str]:
    """Return the words that start a script in this many CPU processes; a free port is chosen."""
    if processes == 1:
        return [sys.executable]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return [*torchrun, "--nproc_per_node", str(processes)]


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a started process: our packages, the CPU, one thread."""
    others = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return os.environ | {
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *filter(None, others)]),
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",
        **more,
    }


def own_words(errors: str) -> str:
    """Return what the processes printed, before torchrun's table of failures repeats it."""
    return errors.partition("ChildFailedError")[0]


def run_worker(processes: int, output: Path, **task: Any) -> Any:
    """Do a task of worker.py in this many processes and return its outcome."""
    errors = output.with_name(f"{output.name}.errors")
    codes = fork_ranks(processes, {}, errors, errors, _do_task, json.dumps(task), str(output))
    assert codes == [0] * processes, errors.read_text()
    return json.loads(output.read_text())


def run_forked(
    processes: int, folder: Path, *words: str, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run in this many processes, as torchrun would: a module after `-m`, a script, or code after
    `-c`, which finds modules in the current folder. Only runs by code write their report.

    Args:
        folder: for their output.
    """
    output, errors = folder / "ranks.out", folder / "ranks.err"
    codes = fork_ranks(processes, env, output, errors, run_python, *words)
    failed = next((code for code in codes if code), 0)
    return subprocess.CompletedProcess(words, failed, output.read_text(), errors.read_text())


def start_forked(folder: Path, *words: str, **env: str) -> BaseProcess:
    """Start what `run_forked` runs in one process, and return that; what it prints is in `folder`.

    It is the caller who ends it.
    """
    return fork_one(env, folder / "out", folder / "err", run_python, *words)


def fork_one(
    env: dict[str, str], output: Path, errors: Path, do: Callable[..., None], *arguments: Any
) -> BaseProcess:
    """Call `do` in a forked process, and return that; the arguments may be open sockets."""
    rank_arguments = (environment(**env), output, errors, do, arguments)
    process = _forkserver().Process(target=_be_rank, args=rank_arguments)
    process.start()
    return process


def _forkserver() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.distributed.preloaded"])
    return context


def fork_ranks(
    processes: int,
    env: dict[str, str],
    output: Path,
    errors: Path,
    do: Callable[..., None],
    *arguments: str,
) -> list[int]:
    """Call `do` in this many processes and return their exit codes.

    They are forked from a process that has the slow imports behind it, and meet as under torchrun,
    in a store of their parent.
    """
    context = _forkserver()
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    for path in (output, errors):
        path.unlink(missing_ok=True)
    ranks = []
    for rank in range(processes):
        variables = environment(**env)
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
        rank_arguments = (variables, output, errors, do, arguments)
        ranks.append(context.Process(target=_be_rank, args=rank_arguments))
    try:
        for process in ranks:
            process.start()
        for process in ranks:
            process.join()
    finally:
        for process in ranks:
            if process.is_alive():
                process.kill()
    return [process.exitcode or 0 for process in ranks]


def _be_rank(
    variables: dict[str, str],
    output: Path,
    errors: Path,
    do: Callable[..., None],
    arguments: list[Any],
) -> None:
    """Be a rank: the whole life of a forked process."""
    for path, stream in ((output, sys.stdout), (errors, sys.stderr)):
        with path.open("a") as file:
            os.dup2(file.fileno(), stream.fileno())
    os.environ.clear()
    os.environ.update(variables)
    torch.distributed.set_debug_level_from_env()  # read when it was imported
    do(*arguments)


def _do_task(task: str, output: str) -> None:
    from tests.distributed import worker

    worker.main(task, output)


def run_python(*words: str) -> None:
    """Be a process of `run_forked`."""
    if words[0] == "-c":
        sys.argv = ["-c", *words[2:]]
        sys.path.insert(0, "")
        exec(words[1], {"__name__": "__main__"})
        return
    from trainer.run import final_report

    # The pictures take longer than a test's training.
    final_report.write_report = lambda *_: None
    if words[0] == "-m":
        sys.argv = list(words[1:])
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = list(words)
        runpy.run_path(words[0], run_name="__main__")
