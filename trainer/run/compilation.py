"""Compile the network for a run's first images before anything is written."""

from __future__ import annotations

import contextlib

import torch

from trainer.base import seeding
from trainer.network.buffers_in_passes import preserve_state
from trainer.ranks import collectives
from trainer.training.engine import Engine


def try_first_pass(engine: Engine) -> None:
    """Compile what the run's next step computes first, and forget the result; a collective.

    The step takes what was compiled, so this takes no time of its own.

    Raises:
        UserError: it cannot be compiled.
    """
    state, train = engine.state, engine.config.train
    if train.compile == "none" or state.epoch > train.epochs:
        return
    engine.start_epoch(state.epoch)
    done = state.step - (state.epoch - 1) * engine.batches.steps
    with contextlib.closing(engine.batches.iter_epoch(state.epoch, done)) as batches:
        batch = next(batches, None)
    if batch is None:  # all of the epoch's steps are done, and only its validation is left
        return
    sizes = [batch.microbatch_sizes[index] for index in engine.train_step.own]
    images = torch.split(batch.images, sizes)[0]
    collectives.run_on_all_ranks(engine.accelerator, lambda: _compile(engine, images))


def _compile(engine: Engine, images: torch.Tensor) -> None:
    step = engine.train_step
    if not len(images):
        return
    with preserve_state(step.module), seeding.preserve_generators(), step.forward_pass.prepared():
        step.module(images)
