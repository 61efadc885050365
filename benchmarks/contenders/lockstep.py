"""Lockstep by the parts of train.py: the whole engine with its log, its screen and its digests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from turns import Turns

from contenders.task import LEARNING_RATE, Task
from trainer.base.kernels import Kernels
from trainer.config import rules, schema
from trainer.run.engine_builder import build_engine
from trainer.run.session import Session
from trainer.training.engine import Engine
from trainer.training.observer import Observer, Record


def train(task: Task, turns: Turns) -> None:
    """Fit in this process for as many epochs as there are turns."""
    fit(configuration(task, microbatches=1), lambda engine: InTurns(engine, turns))


def fit(config: schema.RunConfig, observe: Callable[[Engine], Observer]) -> None:
    """Fit with an observer in the place of the run's own, on each rank."""
    with Session(config) as session:
        assert session.open()
        parts = (session.accelerator, session.config, session.checkpoints, session.stop)
        engine = build_engine(*parts)
        session.start(engine)
        engine.observer = observe(engine)
        engine.fit()


def configuration(
    task: Task, *, microbatches: int, save_every: int | None = None, kernels: Kernels = "native"
) -> schema.RunConfig:
    """Return the run of a task, in the task's folder.

    Args:
        save_every: steps between checkpoints; None: none but the last.
        kernels: which the process has chosen before it imported torch.
    """
    run = schema.RunConfig(
        seed=task.seed,
        output_dir=task.folder,
        threads=task.threads,
        data=task.data_config(),
        model=task.model_config(),
        train=schema.TrainConfig(
            epochs=task.epochs,
            batch_size=task.batch_size,
            microbatches=microbatches,
            kernels=kernels,
        ),
        optimizer=schema.OptimizerConfig(name="adam", lr=LEARNING_RATE),
        checkpoint=schema.CheckpointConfig(every_epochs=None, every_steps=save_every),
        tracking=schema.TrackingConfig(wandb="disabled"),
    )
    rules.validate(run)
    return run


class InTurns:
    """Each rank's observer: the first waits for the turn, and the others for the first."""

    def __init__(self, engine: Engine, turns: Turns) -> None:
        self.engine = engine
        self.inner: Observer | None = engine.observer
        self.turns = turns

    def epoch_started(self, epoch: int, steps: int, done: int) -> None:
        """Wait first."""
        if self.inner:
            self.turns.wait()
            self.inner.epoch_started(epoch, steps, done)
        self.engine.accelerator.wait_for_everyone()
        self.engine.step_log.start_clock()

    def epoch_done(self, record: Record) -> None:
        """Report last."""
        if self.inner:
            self.inner.epoch_done(record)
            self.turns.report()

    def steps_done(self, records: Sequence[Record], progress: Record) -> None:
        """Pass on."""
        if self.inner:
            self.inner.steps_done(records, progress)

    def position(self) -> dict[str, Any]:
        """Pass on."""
        return self.inner.position() if self.inner else {}

    def sync(self) -> None:
        """Pass on."""
        if self.inner:
            self.inner.sync()

    def go_back(self, position: Record) -> None:
        """Pass on."""
        if self.inner:
            self.inner.go_back(position)
