"""Lockstep as its command runs it: one process of one thread for each core."""

from __future__ import annotations

from turns import Turns

from contenders import lockstep
from contenders.task import Task
from trainer.ranks import local_processes, processes


def train(task: Task, turns: Turns) -> None:
    """Fit in processes that are started here, each with one piece of the batch."""
    config = lockstep.configuration(task, microbatches=processes.usable_cores())
    processes.check_launch(config)
    local_processes.run(
        config,
        lambda: lockstep.fit(config, lambda engine: lockstep.InTurns(engine, turns)),
    )
