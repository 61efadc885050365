"""Lockstep by the parts of train.py: the engine with its log, its screen and its digests."""

from __future__ import annotations

import resource
import time
from pathlib import Path
from typing import Any

import torch

from gpu_cases import Save, Task
from trainer.config import rules, schema
from trainer.run.engine_builder import build_engine
from trainer.run.recorder import Hooks
from trainer.run.session import Session

PLACES = {"images": "npy", "pixels": "npy", "photos": "folder"}
"""data.name of each set of images"""


def run(task: Task, save: Save) -> None:
    """Train with options["keys"] on options["data"]; test if options["test"] asks for it."""
    start_s = time.perf_counter()
    rates: list[float] = []
    seconds: list[float] = []

    def note_epoch(record: dict[str, Any]) -> None:
        rates.append(record["samples_per_second"])
        seconds.append(record["seconds"])
        save({"images_per_second": rates, "epoch_s": seconds, **memory(task)})

    with Session(configuration(task), Hooks(on_epoch=note_epoch)) as session:
        assert session.open()
        parts = (session.accelerator, session.config, session.checkpoints, session.stop)
        engine = build_engine(*parts)
        session.start(engine)
        save({"start_s": time.perf_counter() - start_s})
        engine.fit()
        save(
            {
                "train_s": engine.state.train_seconds,
                "not_deterministic": sorted(engine.inexact_kernels),
            }
        )
        if task.options.get("test"):
            save({"accuracy": engine.test().test.accuracy})


def configuration(task: Task) -> schema.RunConfig:
    """Return the run of a task; nothing is held out, and only the last checkpoint is saved."""
    data = task.options["data"]
    keys = {
        "output_dir": str(Path(task.work_dir) / task.options["name"]),
        "data.name": PLACES[data],
        "data.root": str(Path(task.work_dir) / data),
        "data.validation_size": 0,
        "train.epochs": task.epochs,
        "train.batch_size": task.batch_size,
        "checkpoint.every_epochs": None,
        "tracking.wandb": "disabled",
        **task.options["keys"],
    }
    config = schema.replace(schema.RunConfig(), keys)
    rules.validate(config)
    return config


def memory(task: Task) -> dict[str, float]:
    """Return the most memory so far: of tensors on a GPU, or of a process on the CPU."""
    if task.device == "cuda":
        return {"peak_mb": torch.cuda.max_memory_allocated() / 1e6}
    return {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6}
