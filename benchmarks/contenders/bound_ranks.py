"""The compute bound of one process of one thread for each core, each with its part of the batch.

They exchange nothing. `python -m contenders.bound_ranks TASK` is one that follows the first: for
each line on standard input it does an epoch and answers with a line.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import subprocess
import sys

import torch
from turns import Turns

from contenders import bound
from contenders.task import Task
from trainer.ranks import processes


def train(task: Task, turns: Turns) -> None:
    """Do the steps of an epoch in all processes at once."""
    words = [sys.executable, "-m", "contenders.bound_ranks", json.dumps(dataclasses.asdict(task))]
    with contextlib.ExitStack() as stack:
        others = [
            stack.enter_context(
                subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            for _ in range(processes.usable_cores() - 1)
        ]
        train_epoch = bound.prepare(task, part(task))
        for other in others:
            hear(other)
        for _ in range(task.epochs):
            with turns.epoch():
                for other in others:
                    assert other.stdin
                    other.stdin.write("go\n")
                    other.stdin.flush()
                train_epoch()
                for other in others:
                    hear(other)


def part(task: Task) -> int:
    """Return the samples of a batch that a process has."""
    return task.batch_size // processes.usable_cores()


def hear(other: subprocess.Popen[str]) -> None:
    """Wait until a process is ready.

    Raises:
        RuntimeError: it has ended.
    """
    assert other.stdout
    if not other.stdout.readline():
        raise RuntimeError("one of the processes has ended")


def follow() -> None:
    """Do an epoch for each line, until the first process has gone."""
    task = Task(**json.loads(sys.argv[1]))
    torch.set_num_threads(task.threads)
    train_epoch = bound.prepare(task, part(task))
    print("ready", flush=True)
    for _ in sys.stdin:
        train_epoch()
        print("done", flush=True)


if __name__ == "__main__":
    follow()
