"""Lockstep by the parts of train.py: the whole engine with its log, its screen and its digests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from turns import Turns

from contenders.task import LEARNING_RATE, Task
from trainer.config import rules, schema
from trainer.run.engine_builder import build_engine
from trainer.run.session import Session
from trainer.training.observer import Observer, Record


def train(task: Task, turns: Turns) -> None:
    """Fit for as many epochs as there are turns."""
    with Session(configuration(task, microbatches=1)) as session:
        assert session.open()
        parts = (session.accelerator, session.config, session.checkpoints, session.stop)
        engine = build_engine(*parts)
        session.start(engine)
        assert engine.observer
        engine.observer = InTurns(engine.observer, turns)
        engine.fit()


def configuration(
    task: Task, *, microbatches: int, save_every: int | None = None
) -> schema.RunConfig:
    """Return the run of a task, in the task's folder.

    Args:
        save_every: steps between checkpoints; None: none but the last.
    """
    run = schema.RunConfig(
        seed=task.seed,
        output_dir=task.folder,
        threads=task.threads,
        data=task.data_config(),
        model=task.model_config(),
        train=schema.TrainConfig(
            epochs=task.epochs, batch_size=task.batch_size, microbatches=microbatches
        ),
        optimizer=schema.OptimizerConfig(name="adam", lr=LEARNING_RATE),
        checkpoint=schema.CheckpointConfig(every_epochs=None, every_steps=save_every),
        tracking=schema.TrackingConfig(wandb="disabled"),
    )
    rules.validate(run)
    return run


class InTurns:
    """The run's observer, which waits for a turn before an epoch and ends it after."""

    def __init__(self, inner: Observer, turns: Turns) -> None:
        self.inner = inner
        self.turns = turns

    def epoch_started(self, epoch: int, steps: int, done: int) -> None:
        """Wait first."""
        self.turns.wait()
        self.inner.epoch_started(epoch, steps, done)

    def epoch_done(self, record: Record) -> None:
        """Report last."""
        self.inner.epoch_done(record)
        self.turns.report()

    def steps_done(self, records: Sequence[Record], progress: Record) -> None:
        """Pass on."""
        self.inner.steps_done(records, progress)

    def position(self) -> dict[str, Any]:
        """Pass on."""
        return self.inner.position()

    def sync(self) -> None:
        """Pass on."""
        self.inner.sync()

    def go_back(self, position: Record) -> None:
        """Pass on."""
        self.inner.go_back(position)
