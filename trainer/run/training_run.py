"""Do a run from its configuration to its results."""

from __future__ import annotations

from trainer.config.schema import RunConfig
from trainer.run.engine_builder import build_engine
from trainer.run.recorder import Hooks
from trainer.run.session import Session
from trainer.training.engine import Engine


def run_training(config: RunConfig, hooks: Hooks | None = None) -> RunConfig | None:
    """Do the run, or what is left of it.

    Returns:
        The configuration with what the start has filled in; None if nothing was left to do.
    """
    with Session(config, hooks) as session:
        if not session.open():
            return None
        engine = start(session)
        engine.fit()
        session.finish(engine)
        return session.config


def start(session: Session) -> Engine:
    """Return the engine of an opened session, at the place from which the run goes on."""
    engine = build_engine(
        session.accelerator,
        session.config,
        session.checkpoints,
        session.stop,
        resumes=session.saved is not None,
        may_divide=session.may_divide,
    )
    session.start(engine)
    return engine
