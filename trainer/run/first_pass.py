"""Try what the configuration changes about a step's passes, before anything is written."""

from __future__ import annotations

import contextlib

import torch

from trainer.base import out_of_memory, seeding
from trainer.base.errors import UserError
from trainer.network import model_state
from trainer.network.buffers_in_passes import preserve_state
from trainer.ranks import collectives
from trainer.training import activation_checkpointing
from trainer.training.engine import Engine
from trainer.training.microbatches import divide
from trainer.training.step import TrainStep

_FEW = 4
"""images that are computed with and without checkpoints, as all might not fit without"""


def try_first_pass(engine: Engine) -> None:
    """Compile the run's next pass, or see that blocks can be computed again; a collective.

    The step takes what was compiled, so that takes no time of its own.

    Raises:
        UserError: it cannot be done with this network.
    """
    state, train = engine.state, engine.config.train
    is_usual = train.compile == "none" and not train.activation_checkpointing
    if is_usual or state.epoch > train.epochs:
        return
    engine.start_epoch(state.epoch)
    done = engine.steps_done_in_epoch()
    with contextlib.closing(engine.batches.iter_epoch(state.epoch, done)) as batches:
        batch = next(batches, None)
    if batch is None:  # all of the epoch's steps are done, and only its validation is left
        return
    own, sizes = engine.train_step.own, batch.microbatch_sizes
    _, images, *_ = next(divide(own, batch.images, batch.targets, sizes, batch.weights))
    collectives.run_on_all_ranks(engine.accelerator, lambda: _try(engine.train_step, images))


def _try(step: TrainStep, images: torch.Tensor) -> None:
    if not len(images):
        return
    with preserve_state(step.module), seeding.preserve_generators():
        if step.forward_pass.compiles:
            with step.forward_pass.prepared():
                step.module(images)
        else:
            check_blocks(step, images[:_FEW].clone())


def check_blocks(step: TrainStep, images: torch.Tensor) -> None:
    """See that blocks which are computed again give the bits of those that are not.

    Args:
        step: its network has no gradients afterwards.

    Raises:
        UserError: they do not, or cannot be computed again.
    """
    expected = _gradients(step, images, again=False)
    try:
        found = _gradients(step, images, again=True)
    except Exception as error:  # the network's own code may raise any
        if out_of_memory.is_out_of_memory(error):
            raise
        raise _refused(f"fail: {str(error).partition('. ')[0][:300]}") from error
    names = {id(parameter): name for name, parameter in step.module.named_parameters()}
    for parameter, one, other in zip(step.parameters, expected, found, strict=True):
        if step.config.reduction == "exact" and not model_state.same_bits(one, other):
            raise _refused(f"give another gradient of {names[id(parameter)]}")


def _gradients(step: TrainStep, images: torch.Tensor, *, again: bool) -> list[torch.Tensor]:
    how = step.forward_pass.prepared() if again else contextlib.nullcontext()
    seeding.seed_all(step.seed, "forward", 0, 0)
    with preserve_state(step.module):
        with how:
            logits = step.module(images).float()
        logits.square().sum().backward()
    found = [torch.zeros_like(p) if p.grad is None else p.grad for p in step.parameters]
    for parameter in step.parameters:
        parameter.grad = None
    return found


def _refused(what: str) -> UserError:
    return UserError(
        f"{activation_checkpointing.KEY}: must be false with this network: its blocks, computed "
        f"again (tried before the first step), {what}"
    )
