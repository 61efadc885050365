"""Lockstep by the parts of train.py: the engine with its log, its screen and its digests."""

from __future__ import annotations

import gc
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from gpu_cases import Save, Task
from gpu_cases.graphs import watch_graphs
from trainer.base.errors import UserError
from trainer.config import rules, schema
from trainer.run.engine_builder import build_engine
from trainer.run.recorder import Hooks
from trainer.run.session import Session

PLACES = {"images": "npy", "pixels": "npy", "photos": "folder"}
"""data.name of each set of images"""


def run(task: Task, save: Save) -> None:
    """Train with options["keys"] on options["data"]; or with each of options["variants"]."""
    if "variants" not in task.options:
        train(task, task.options["keys"], save)
        return
    found: dict[str, dict[str, Any]] = {}
    for title, keys in task.options["variants"].items():
        figures = found[title] = {}

        def keep(more: dict[str, Any], figures: dict[str, Any] = figures) -> None:
            figures.update(more)
            save({"variants": found})

        try:
            train(task, keys, keep)
        except (RuntimeError, UserError) as error:  # the others may go well
            keep({"status": f"failed: {error}"})
        forget(task)


def train(task: Task, keys: dict[str, Any], save: Save) -> None:
    """Train; test if options["test"] asks for it."""
    start_s = time.perf_counter()
    rates: list[float] = []
    seconds: list[float] = []

    def note_epoch(record: dict[str, Any]) -> None:
        rates.append(record["samples_per_second"])
        seconds.append(record["seconds"])
        save({"images_per_second": rates, "epoch_s": seconds, **memory(task)})

    with (
        watch_graphs(recorded=task.options.get("graphs", False)) as count_graphs,
        Session(configuration(task, keys), Hooks(on_epoch=note_epoch)) as session,
    ):
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
        if session.config.train.compile != "none":
            save(count_graphs())
        if task.options.get("test"):
            save({"accuracy": engine.test().test.accuracy})


def forget(task: Task) -> None:
    """Free what a run has left, and count the memory of the next one from there."""
    gc.collect()
    if task.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def configuration(task: Task, changes: dict[str, Any]) -> schema.RunConfig:
    """Return the run of a task; nothing is held out, and only the last checkpoint is saved."""
    data = task.options["data"]
    keys = {
        "output_dir": tempfile.mkdtemp(prefix="run-", dir=task.work_dir),
        "data.name": PLACES[data],
        "data.root": str(Path(task.work_dir) / data),
        "data.validation_size": 0,
        "train.epochs": task.epochs,
        "train.batch_size": task.batch_size,
        "checkpoint.every_epochs": None,
        "tracking.wandb": "disabled",
        **changes,
    }
    config = schema.replace(schema.RunConfig(), keys)
    rules.validate(config)
    return config


def memory(task: Task) -> dict[str, float]:
    """Return the most memory so far: of tensors on a GPU, or of a process on the CPU."""
    if task.device == "cuda":
        return {"peak_mb": torch.cuda.max_memory_allocated() / 1e6}
    return {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6}
