"""Lockstep, by the parts of train.py."""

from __future__ import annotations

from contenders.lockstep import configuration
from contenders.task import Parts

from same_weights_trainers.training import PIECES, Seen, Training
from trainer.run.engine_builder import build_engine
from trainer.run.session import Session


def lockstep(training: Training, parts: Parts) -> None:
    """Train by the parts of train.py."""
    run = configuration(
        training, microbatches=PIECES, save_every=training.save_every, kernels=training.kernels
    )
    with Session(run) as session:
        assert session.open()
        engine = build_engine(
            session.accelerator, session.config, session.checkpoints, session.stop
        )
        session.start(engine)
        seen = Seen(training, parts, PIECES // training.processes)
        engine.module.register_forward_pre_hook(seen)
        engine.fit()
        seen.write()
        parts.model.load_state_dict(engine.module.state_dict())
