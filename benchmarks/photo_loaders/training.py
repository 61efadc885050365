"""A training of a small net on photographs: python -m photo_loaders.training NAME TASK DESCRIPTOR.

TASK is a JSON object, DESCRIPTOR the number of an open socket to photos.py.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from contenders.lockstep import InTurns
from turns import Turns

from photo_loaders import Place, Task
from trainer.config import rules, schema
from trainer.run.engine_builder import build_engine
from trainer.run.session import Session

IN_MEMORY: Place = "memory"
PLACES: dict[Place, str] = {
    IN_MEMORY: "in memory",
    "disk": "from the cache on the disk",
    "none": "from the originals",
}
"""values of data.cache, and what the page calls them"""


def main() -> None:
    """Train, an epoch each turn."""
    from photo_loaders.lockstep import data_config

    text, descriptor = sys.argv[2:]
    task = Task(**json.loads(text))
    config = schema.RunConfig(
        seed=task.seed,
        output_dir=str(Path(task.folder) / "run"),
        threads=task.threads,
        data=data_config(task),
        model=schema.ModelConfig(name="quicknet"),
        train=schema.TrainConfig(
            epochs=task.epochs, batch_size=task.batch_size, microbatches=1, precision="bf16"
        ),
        checkpoint=schema.CheckpointConfig(every_epochs=None),
        tracking=schema.TrackingConfig(wandb="disabled"),
    )
    rules.validate(config)
    with Session(config) as session:
        assert session.open()
        parts = (session.accelerator, session.config, session.checkpoints, session.stop)
        engine = build_engine(*parts)
        session.start(engine)
        assert engine.observer
        engine.observer = InTurns(engine.observer, Turns(int(descriptor), torch.__version__))
        engine.fit()


if __name__ == "__main__":
    main()
