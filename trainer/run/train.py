"""A run from its configuration to its results: what `train.py` and the Python API do."""

from __future__ import annotations

from collections.abc import Callable

from trainer.config.schema import RunConfig
from trainer.data.sources.source_data import SourceData
from trainer.run.engine_builder import build_engine
from trainer.run.hooks import Hooks
from trainer.run.session import Session


def run_training(
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
