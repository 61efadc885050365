"""A run from its configuration to its results: what `train.py` and the Python API do."""

from __future__ import annotations

from collections.abc import Callable

from trainer import processes
from trainer.config import RunConfig
from trainer.data.source import SourceData
from trainer.engine import Engine
from trainer.hooks import Hooks
from trainer.parts import build_model
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
        dataset = session.load_dataset(read_source)
        model = processes.together(
            session.accelerator, lambda: build_model(session.config, dataset)
        )
        engine = Engine(
            session.accelerator, session.config, dataset, model, session.checkpoints, session.stop
        )
        session.start(engine)
        engine.fit()
        session.finish(engine)
        return session.config
