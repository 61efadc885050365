"""Engines on the device of the tests, in this process."""

from __future__ import annotations

import contextlib
import itertools
from typing import Any

import torch

from trainer.base import device_memory
from trainer.checkpoint.writing import NoCheckpoints
from trainer.config.schema import RunConfig, replace
from trainer.data.loading import load
from trainer.network import model_state
from trainer.network.new_model import build_model
from trainer.ranks import process_group
from trainer.ranks.preemption import StopRequest
from trainer.training import memory_trial
from trainer.training.engine import Engine

KEYS: dict[str, Any] = {
    "data.name": "digits",
    "data.augment": "shift",
    "model.name": "quicknet",
    "model.args": {"widths": [16, 32, 32]},
    "data.device_memory_gb": 1.0,
    "train.batch_size": 64,
    "train.microbatches": 2,
    "optimizer.name": "adamw",
    "checkpoint.every_epochs": None,
}


def build(changes: dict[str, Any]) -> Engine:
    """Return the engine of a run on the digits that saves nothing."""
    config = replace(RunConfig(), KEYS | changes)
    accelerator = process_group.create_accelerator(config)
    dataset = load(config.data, config.seed)
    model = build_model(config, dataset)
    engine = Engine(accelerator, config, dataset, model, NoCheckpoints(), StopRequest(), {})
    memory_trial.place_images(engine, device_memory.memory_of(accelerator.device))
    engine.next_log_step = 10**9  # a log point brings figures to the host
    return engine


def do_steps(
    engine: Engine, first: int, last: int, *, quietly: bool = False, epoch: int = 1
) -> None:
    """Do steps of an epoch, counted from 1, up to its end at most.

    Args:
        quietly: no step may wait for the GPU.
    """
    if first == 1:
        engine.start_epoch(epoch)
    count = last - first + 1
    with contextlib.closing(engine.batches.iter_epoch(epoch, first - 1)) as batches:
        one_after_the_other = itertools.islice(batches, count)
        with forbid_waiting() if quietly else contextlib.nullcontext():
            engine._do_steps(one_after_the_other, first - 1)


@contextlib.contextmanager
def forbid_waiting() -> Any:
    """Make whatever lets the host wait for a GPU an error, in this process."""
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        if on_gpu:
            torch.cuda.set_sync_debug_mode("default")


def digests(changes: dict[str, Any], steps: int = 6) -> tuple[str, list[float]]:
    """Return the digest of the weights after some steps of a new run, and their losses."""
    engine = build(changes)
    do_steps(engine, 1, steps)
    losses = [float(result.loss) for *_, result in engine.step_log._waiting]
    return model_state.digest(engine.module), losses
