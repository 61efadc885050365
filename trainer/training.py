"""A run from its configuration to its results: what `train.py` and the Python API do."""

from __future__ import annotations

from collections.abc import Callable

from trainer.assembly import build_engine
from trainer.config import RunConfig
from trainer.data.source import SourceData
from trainer.hooks import Hooks
from trainer.session import Session


def train(
    config: RunConfig,
    read_source: Callable[[], SourceData] | None = None,
    hooks: Hooks | None = None,
) -> RunConfig | None:
    """Do the run, or what is left of it.

    Args:
        config: with its `output_dir`.
        read_source: from `reading.read_ahead`, where that has begun.
        hooks: functions that see what is measured.

    Returns:
        The configuration with what the start has filled in; None where nothing was left to do.
    """
    with Session(config, hooks) as session:
        if not session.open():
            return None
        parts = (session.accelerator, session.config, session.checkpoints, session.stop)
        engine = build_engine(*parts, read_source)
        session.start(engine)
        engine.fit()
        session.finish(engine)
        return session.config
