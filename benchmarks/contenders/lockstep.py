"""Ours, by the parts of train.py: the whole engine with its log, its screen and its digests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from turns import Turns

from contenders.task import LEARNING_RATE, Task
from trainer import config, config_rules
from trainer.assembly import build_engine
from trainer.observer import Observer, Record
from trainer.session import Session


def train(task: Task, turns: Turns) -> None:
    """Fit for as many epochs as there are turns."""
    run = _config(task)
    config_rules.validate(run)
    with Session(run) as session:
        assert session.open()
        parts = (session.accelerator, session.config, session.checkpoints, session.stop)
        engine = build_engine(*parts)
        session.start(engine)
        assert engine.observer
        engine.observer = InTurns(engine.observer, turns)
        engine.fit()


def _config(task: Task) -> config.RunConfig:
    return config.RunConfig(
        output_dir=task.folder,
        threads=task.threads,
        data=task.data_config(),
        model=task.model_config(),
        train=config.TrainConfig(epochs=task.epochs, batch_size=task.batch_size, microbatches=1),
        optimizer=config.OptimizerConfig(name="adam", lr=LEARNING_RATE),
        checkpoint=config.CheckpointConfig(every_epochs=None),
        tracking=config.TrackingConfig(wandb="disabled"),
    )


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
        """As it is."""
        self.inner.steps_done(records, progress)

    def position(self) -> dict[str, Any]:
        """As it is."""
        return self.inner.position()

    def sync(self) -> None:
        """As it is."""
        self.inner.sync()

    def go_back(self, position: Record) -> None:
        """As it is."""
        self.inner.go_back(position)
